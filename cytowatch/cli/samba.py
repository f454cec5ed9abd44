"""What ``check`` says of Samba: whether the shares that lead into the tree are set as they should be.

It reads what Samba itself makes of its configuration (``testparm``), so includes, synonyms and defaults count.

Source: docs/smb.md, which gives the reason for each setting
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Advice", "advise", "parsed"]

_TIMEOUT_S = 20.0
_GLOBAL = "global"


class Advice(NamedTuple):
    """One sentence on Samba; `good` is None for advice."""

    good: bool | None
    detail: str


class _Rule(NamedTuple):
    name: str
    wanted: str
    why: str


#: For a share that may be written to.
_INBOX = (
    _Rule("follow symlinks", "no", "a link in an inbox could lead anywhere"),
    _Rule("wide links", "no", "a link in an inbox could lead anywhere"),
    _Rule("durable handles", "no", "a client that is cut off keeps its file open for minutes"),
    _Rule("kernel share modes", "no", "on current kernels smbd refuses every open for writing"),
    _Rule("kernel oplocks", "no", "a client's cache counts as a writer, so its drops wait"),
    _Rule("strict allocate", "no", "an announced size fills the disk with zeros"),
    _Rule("strict sync", "yes", "a flush that a client asks for is not done"),
)
#: For the whole server.
_SERVER = (
    _Rule("smb1 unix extensions", "no", "clients can make links that lead out of a share"),
    _Rule("allow insecure wide links", "no", "links may lead out of a share"),
)
_OLD_PROTOCOLS = ("CORE", "COREPLUS", "LANMAN1", "LANMAN2", "NT1")
_YES = ("yes", "true", "1")


def advise(root: Path, owner: str) -> Iterator[Advice]:
    """What Samba's own configuration on this machine means for the tree at `root`, which is `owner`'s."""
    if shutil.which("testparm") is None:
        yield Advice(None, "not installed here (no testparm), so its shares cannot be checked")
        return
    try:
        done = subprocess.run(
            ["testparm", "-s", "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_TIMEOUT_S, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        yield Advice(None, f"testparm does not answer ({type(error).__name__})")
        return
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        yield Advice(None, f"testparm refuses Samba's configuration: {last}")
        return
    for line in done.stderr.splitlines():
        if "found in service section" in line:
            name = line.removeprefix("Global parameter ").partition(" found in")[0]
            yield Advice(None, f"`{name}` stands in a share's section, where smbd ignores it: "
                               "move it to [global]")  # fmt: skip
    yield from _of_shares(parsed(done.stdout), root, owner)


def parsed(text: str) -> dict[str, dict[str, str]]:
    """The sections of what testparm prints, by name.

    >>> parsed("# x\\n[global]\\n\\tread only = No\\n[a b]\\n\\tpath = /x\\n")
    {'global': {'read only': 'No'}, 'a b': {'path': '/x'}}
    """
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("[") and bare.endswith("]"):
            section = found.setdefault(bare[1:-1], {})
        elif "=" in bare and not bare.startswith(("#", ";")):
            name, _, value = bare.partition("=")
            section[name.strip().lower()] = value.strip()
    return found


def _of_shares(shares: Mapping[str, dict[str, str]], root: Path, owner: str) -> Iterator[Advice]:
    server = shares.get(_GLOBAL, {})
    leading = {name: own for name, own in shares.items()
               if name != _GLOBAL and _leads(own, root)}  # fmt: skip
    if not leading:
        yield Advice(None, f"no share leads to {root}: config/samba/cytowatch.conf has the shares")
        return
    said = 0
    for name, own in leading.items():
        share = {**server, **own}
        if not _means(share.get("read only", "yes"), "yes"):
            for advice in _of_writable(name, share, root, owner):
                said += 1
                yield advice
    for rule in _SERVER:
        if not _means(server.get(rule.name, rule.wanted), rule.wanted):
            said += 1
            yield Advice(None, f"[global]: set `{rule.name.removeprefix('smb1 ')} = {rule.wanted}`, "
                               f"or {rule.why}")  # fmt: skip
    if server.get("server min protocol", "SMB2_10").upper() in _OLD_PROTOCOLS:
        said += 1
        yield Advice(None, "[global]: set `server min protocol = SMB2_10`: SMB1 is allowed")
    if not said:
        yield Advice(True, f"{', '.join(leading)}: set as docs/smb.md advises")


def _of_writable(name: str, share: Mapping[str, str], root: Path, owner: str) -> Iterator[Advice]:
    path, inbox = _real(share["path"]), os.path.realpath(root / "inbox")
    if not _below(path, inbox):
        yield Advice(False, f"[{name}] may be written to and shows {path}: of the tree only "
                            "inbox/ may be, or anyone can change what is stored")  # fmt: skip
        return
    forced = share.get("force user", "")
    if owner not in ("root", forced):
        yield Advice(None, f"[{name}]: set `force user = {owner}`, or the daemon may be unable to "
                           "move what others own")  # fmt: skip
    for rule in _INBOX:
        if not _means(share.get(rule.name, rule.wanted), rule.wanted):
            yield Advice(None, f"[{name}]: set `{rule.name} = {rule.wanted}`, or {rule.why}")


def _leads(own: Mapping[str, str], root: Path) -> bool:
    """Whether a share shows something of the tree, or the tree itself."""
    if not own.get("path"):
        return False
    path, whole = _real(own["path"]), os.path.realpath(root)
    return _below(path, whole) or _below(whole, path)


def _real(path: str) -> str:
    """The folder of a share up to the first part that depends on who is logged on (``%U``)."""
    fixed = path.split("%", 1)[0] if "%" in path else path
    if fixed != path:
        fixed = fixed.rpartition("/")[0]
    return os.path.realpath(fixed or "/")


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _means(value: str, wanted: str) -> bool:
    return (value.lower() in _YES) == (wanted in _YES)
