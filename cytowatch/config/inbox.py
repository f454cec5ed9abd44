"""When a drop is taken: the keys of [inbox], and the keys that can differ for one user."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields

from cytowatch.config.rules import key, name_list, number, one_of, text
from cytowatch.record import names

__all__ = ["Inbox", "UserInbox"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInbox:
    """Differences for one user or scanner. A key that is not set is as in [inbox]."""

    quiet_s: float | None = key(None, "as inbox.quiet_s", number(0.05))
    fallback_quiet_s: float | None = key(None, "as inbox.fallback_quiet_s", number(0.05))
    folder_quiet_s: float | None = key(None, "as inbox.folder_quiet_s", number(0.05))
    incomplete_after_s: float | None = key(None, "as inbox.incomplete_after_s", number(0.05))
    done_marker: str | None = key(
        None,
        'as inbox.done_marker; "": claim when quiet, even if [inbox] has a marker',
        text(r"(\.[A-Za-z0-9_-]+)?", 'an ending such as ".done", or ""'),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """When a drop is taken."""

    quiet_s: float = key(
        10.0,
        "s without any change, by our own clock, before a drop may be claimed",
        number(0.05),
        reloadable=True,
    )
    fallback_quiet_s: float = key(
        60.0, "s to wait instead, if the filesystem grants no leases", number(0.05), reloadable=True
    )
    folder_quiet_s: float = key(
        60.0,
        "s without any change until a dropped folder counts as finished",
        number(0.05),
        reloadable=True,
    )
    rescan_s: float = key(
        30.0,
        "s between full scans; events only make a scan come sooner",
        number(0.05),
        reloadable=True,
    )
    incomplete_after_s: float = key(
        86400.0, "s that a drop may wait for a missing part", number(0.05), reloadable=True
    )
    done_marker: str = key(
        "",
        '".done": claim NAME only once NAME.done exists; "": claim when quiet',
        text(r"(\.[A-Za-z0-9_-]+)?", 'an ending such as ".done", or ""'),
        reloadable=True,
    )
    watch: str = key("auto", '"auto", "inotify", "polling"', one_of("auto", "inotify", "polling"))
    ignore: tuple[str, ...] = key(
        ("*.part", "~$*"), "name patterns, added to the built-in list", name_list, reloadable=True
    )
    users: dict[str, UserInbox] = field(
        default_factory=dict, metadata={"named": UserInbox, "reloadable": True}
    )

    def of(self, user: str) -> Inbox:
        """The settings for `user`, whose name is compared casefolded and in NFC.

        >>> Inbox(users={"Scanner2": UserInbox(quiet_s=120.0)}).of("scanner2").quiet_s
        120.0
        """
        own = next((self.users[name] for name in names.alike(self.users, user)), None)
        if own is None:
            return self
        stated = {one.name: getattr(own, one.name) for one in fields(own)}
        return dataclasses.replace(self, **{k: v for k, v in stated.items() if v is not None})
