"""The keys of the storage panel."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from cytowatch.config.rules import flag, key, name_list, one_of, text, whole

__all__ = ["Panel"]

_LISTEN = r"(unix:/.+|.*:[0-9]{1,5})"


#: The addresses of a proxy on this machine; "unix" means any process that can open the socket.
_LOOPBACK = ("127.0.0.1", "::1", "unix")


def _peers(value: Any) -> str | None:
    wanted = 'a list of addresses or networks, such as "10.0.0.7" or "10.0.0.0/24", and "unix"'
    if not isinstance(value, tuple):
        return wanted
    for one in value:
        try:
            if one != "unix":
                ipaddress.ip_network(one)
        except ValueError:
            return wanted
    return None


def _members(value: Any) -> str | None:
    good = isinstance(value, dict) and all(
        name and isinstance(users, list | tuple) and name_list(tuple(users)) is None
        for name, users in value.items()
    )
    return None if good else 'for each project a list of users, such as "Trial 7" = ["ann"]'


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The storage panel in a browser, `cytowatch panel`: a process of its own."""

    listen: str = key(
        "127.0.0.1:9780",
        "address and port, or unix:/path/of/a/socket",
        text(_LISTEN, 'ADDRESS:PORT, or "unix:/PATH"'),
    )
    auth: str = key(
        "none",
        '"none" (this machine only, everyone reads everything), "proxy", "share"',
        one_of("none", "proxy", "share"),
    )
    admins: tuple[str, ...] = key(
        (), "users who see everything and may act on it", name_list, reloadable=True
    )
    trusted_proxies: tuple[str, ...] = key(
        _LOOPBACK, 'with "proxy": addresses that may state the user', _peers, reloadable=True
    )
    user_header: str = key(
        "X-Forwarded-User",
        'with "proxy": the header in which the proxy names the user',
        text(r"[A-Za-z0-9-]{1,64}", "the name of a header"),
        reloadable=True,
    )
    hosts: tuple[str, ...] = key(
        (),
        "host names that the panel answers to; without any: see docs/how-to/panel.md",
        name_list,
        reloadable=True,
    )
    smb_server: str = key(
        "127.0.0.1",
        'with "share": the SMB server that checks names and passwords: HOST, HOST:PORT or HOST:PORT/SHARE',
        text(r"[^\s/]+(/[^\s/]+)?", "HOST, HOST:PORT or HOST:PORT/SHARE"),
        reloadable=True,
    )
    labels: bool = key(
        False,
        "show labels and macros of slides; they can carry a patient's name",
        flag,
        reloadable=True,
    )
    uploads: bool = key(True, "let users add files in the browser", flag, reloadable=True)
    max_upload_bytes: int = key(
        1_099_511_627_776, "bytes per added file", whole(1), reloadable=True
    )
    max_unfinished: int = key(
        200, "unfinished uploads per user", whole(1, 100_000), reloadable=True
    )
    upload_bytes_per_s: int = key(
        0, "bytes per second that one user may add; 0: no limit", whole(0), reloadable=True
    )
    base_path: str = key(
        "",
        'the path below which a proxy shows the panel, such as "/slides"',
        text(r"(/[A-Za-z0-9._~-]+)*", 'a path such as "/slides", or ""'),
    )
    title: str = key(
        "Slides",
        "the title of the panel",
        text(r".{1,80}", "1 to 80 characters"),
        reloadable=True,
    )
    projects: dict[str, list[str]] = field(
        default_factory=dict,
        metadata={
            "doc": 'users who see everything that is linked to a project: { "Trial 7" = ["ann", "bob"] }',
            "rule": _members,
            "reloadable": True,
        },
    )
