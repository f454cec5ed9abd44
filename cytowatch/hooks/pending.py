"""Pending deliveries, one small file each: ``state/hooks/<hook>~<id>.<STATUS>.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytowatch import aside, durable, outside
from cytowatch.outside import OutsideError
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import ID_PATTERN, UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree import places
from cytowatch.tree.spool import Spool

if TYPE_CHECKING:
    from cytowatch.config.keys import Hook

__all__ = [
    "Pending",
    "bury",
    "count_dead",
    "dead",
    "drop_untrue",
    "note",
    "pending",
    "place_of",
    "revive",
    "save",
]


_QUEUE = "hooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One delivery; `noted_at` is in ISO 8601, `said` is the result of the last try."""

    hook: str
    id: str
    user: str
    status: str
    noted_at: str
    tries: int = 0
    said: str = ""

    @property
    def key(self) -> str:
        """The id by which both sides know it, the same at every try: ``<id>.<STATUS>``."""
        return f"{self.id}.{self.status}"

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.hook}~{self.key}.json"


def _folder(spool: Spool) -> Path:
    return spool.state / _QUEUE


def _dead(spool: Spool) -> Path:
    return spool.state / "hooks-dead"


def note(
    spool: Spool, hooks: Iterable[Hook], found: Manifest, status: Status, *, now: datetime
) -> None:
    """Note that `found` is finished in `status`, before that becomes true.

    Raises
    ------
    OSError
        The note cannot be written; the step is repeated.
    """
    wanted = [hook for hook in hooks if status.name in hook.on]
    if not wanted:
        return
    folder = _folder(spool)
    durable.make_directory(folder)
    for hook in wanted:
        one = Pending(
            hook=hook.name, id=found["id"], user=found["user"], status=status.name,
            noted_at=manifest.utc(now),
        )  # fmt: skip
        save(spool, one)
    # Before it is published: a power cut must not break the promise "at least once".
    durable.fsync_directory(folder)


def save(spool: Spool, one: Pending) -> None:
    """Write down how far a delivery has got."""
    _write(_folder(spool), one)


def _write(folder: Path, one: Pending) -> None:
    durable.replace_durably(folder / one.file_name, json.dumps(asdict(one)), name=False)


def bury(spool: Spool, one: Pending) -> None:
    """Give it up: it stays as a dead letter until an administrator has seen it."""
    save(spool, one)
    durable.make_directory(_dead(spool))
    durable.move_over(_folder(spool) / one.file_name, _dead(spool) / one.file_name)


def revive(spool: Spool, one: Pending) -> None:
    """Let a dead letter be tried again, from the beginning."""
    _folder(spool).mkdir(exist_ok=True, mode=0o750)
    _write(_dead(spool), replace(one, tries=0))
    # One rename, because a power cut could keep only the second of two steps.
    durable.move_over(_dead(spool) / one.file_name, _folder(spool) / one.file_name)


def _read(folder: Path) -> list[Pending]:
    found = []
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        return []
    for one in aside.all_of("hook"):
        # A delivered one is removed by the name of its file only.
        place, _, name = one.which.rpartition("/")
        if name not in names and (place or _QUEUE) == folder.name:
            aside.clear("hook", one.which)
    for name in names:
        which = f"{folder.name}/{name}"
        # One that was delivered just now is gone; a damaged one is read again after a pause.
        with suppress(FileNotFoundError):
            if aside.may_try("hook", which):
                with aside.fence("hook", which, but=(FileNotFoundError,)):
                    found.append(_checked(outside.read_json(folder / name), name))
    return sorted(found, key=lambda one: one.noted_at)


def _checked(document: dict[str, Any], name: str) -> Pending:
    """The delivery in `document`, if it is the one that the `name` of its file states.

    Raises
    ------
    OutsideError
        It is not.
    """
    texts = ("hook", "id", "user", "status", "noted_at", "said")
    known = {key: document.get(key, "") for key in texts}
    tries = document.get("tries", 0)
    if any(type(value) is not str for value in known.values()) or type(tries) is not int:
        raise OutsideError("not a delivery: a key is missing, or of another type")
    one = Pending(tries=max(0, tries), **known)
    if not ID_PATTERN.fullmatch(one.id) or one.status not in Status.__members__:
        raise OutsideError("not a delivery: its id or its status is not valid")
    if "/" in one.user or one.file_name != name:
        raise OutsideError("not a delivery: the name of its file does not match")
    try:
        if datetime.fromisoformat(one.noted_at).tzinfo is None:
            raise ValueError("no time zone")
    except ValueError as error:
        raise OutsideError(f"not a delivery: its time cannot be used ({error})") from error
    return one


def pending(spool: Spool) -> list[Pending]:
    """All pending deliveries, the oldest first."""
    return _read(_folder(spool))


def dead(spool: Spool) -> list[Pending]:
    """All deliveries that were given up."""
    return _read(_dead(spool))


def count_dead(spool: Spool) -> int:
    """How many deliveries were given up."""
    try:
        return sum(name.endswith(".json") for name in os.listdir(_dead(spool)))
    except FileNotFoundError:
        return 0


def place_of(spool: Spool, one: Pending) -> tuple[Path, Manifest] | None:
    """Where the uploaded file is, if its status is the one that the delivery reports."""
    _, path = places.in_status(spool, UploadedFileId(one.id), one.user, Status[one.status])
    try:
        found = manifest.read(path)
    except (OSError, ManifestError):
        return None
    return (path, found) if found["status"] == one.status else None


def drop_untrue(spool: Spool) -> Iterator[Pending]:
    """At a start, drop every delivery that was noted and did not happen; nothing is in work yet.

    It is noted again when it happens. Deliveries of files that were removed since are dropped as well.
    """
    for one in pending(spool):
        untrue = False
        with aside.fence("hook", one.file_name):
            untrue = place_of(spool, one) is None
            if untrue:
                (_folder(spool) / one.file_name).unlink(missing_ok=True)
        if untrue:
            yield one
