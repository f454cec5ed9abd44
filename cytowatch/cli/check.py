"""What ``check`` looks at: each answer is tried, never assumed."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cytowatch import durable
from cytowatch.admin import invariants
from cytowatch.cli import port, python, samba
from cytowatch.cli.page import aside_text, bytes_text
from cytowatch.config import Config
from cytowatch.decoder import sandbox, walls
from cytowatch.durable import denied, owner
from cytowatch.inbox import scan
from cytowatch.inbox.claim import lease, prepare_process
from cytowatch.record import manifest, names
from cytowatch.record.errors import RootError
from cytowatch.record.status import STAGE_STATUSES
from cytowatch.transitions import notes
from cytowatch.tree import room
from cytowatch.tree.find import daemon_pid, live
from cytowatch.tree.spool import Spool

__all__ = ["Result", "run"]


#: Reasons for waiting in an inbox that do not pass by themselves.
_TO_MEND = frozenset(
    {"unreadable", "too_deep", "set_aside", "no_user", "not_permitted", "other_filesystem"}
)
_MOST_LISTED = 50
#: What has waited for less may have been looked at too early; so often it is asked for again, in seconds.
_FRESH_S = 3.0
_LOOK_AGAIN_S = 0.3
#: Files that the daemon opens by itself, below the root.
_OWN_FILES = ("FORMAT", "state/lock", "state/live.json", "state/index.sqlite3")


@dataclass(frozen=True, slots=True)
class Result:
    """One answer; `good` is None where nothing can be right or wrong."""

    name: str
    good: bool | None
    detail: str


def run(config: Config, *, deep: bool = False) -> list[Result]:
    """Every check, in the order in which one would look; `deep` looks through the whole tree."""
    results = [Result("configuration", True, f"root = {config.root}")]
    said = port.answer(config.metrics.listen)
    looks: dict[str, Callable[[], Iterator[Result]]] = {
        "root": lambda: _root(config, said),
        "sandbox": lambda: _sandbox(config),
        "metrics": lambda: _metrics(config, said),
        "samba": lambda: _samba(config),
        "versions": lambda: _versions(config),
    }
    for name, look in looks.items():
        # One that meets a fault costs none of the others.
        try:
            results.extend(look())
        except PermissionError as error:
            results.append(Result(name, False, denied.words(error)))
        except OSError as error:
            results.append(Result(name, False, f"{error.filename}: {error.strerror}"))
    if deep and all(result.good is not False for result in results if result.name == "root"):
        results.extend(_tree(config))
    return results


def _tree(config: Config) -> Iterator[Result]:
    spool = Spool.open(Path(config.root))
    running = daemon_pid(spool) is not None
    working = (status for status in STAGE_STATUSES if not status.is_final)
    begun = sum(len(spool.in_status(status)) for status in working)
    if begun and not running:
        yield Result("tree", None, f"{begun:,} in work, which the next start goes on with")
    found = list(invariants.broken(spool, at_rest=not running and not begun))
    for problem in found[:100]:
        yield Result("tree", False, problem)
    if len(found) > 100:
        yield Result("tree", False, f"and {len(found) - 100:,} more")
    if not found:
        yield Result(
            "tree", True, "everything is where its manifest says, with the bytes that it says"
        )


def _root(config: Config, said: port.Answer | None) -> Iterator[Result]:
    try:
        spool = Spool.open(Path(config.root))
        spool.check_filesystem()
    except RootError as error:
        yield Result("root", False, str(error))
        yield from _daemon(config, None, said)
        return
    except PermissionError as error:
        yield Result("root", False, denied.words(error))
        yield from _daemon(config, None, said)
        return
    except OSError as error:
        yield Result("root", False, f"{error.filename}: {error.strerror}")
        yield from _daemon(config, None, said)
        return
    yield Result("root", True, f"{spool.root}, one filesystem")
    yield from _rights(spool)
    yield _disk(config, spool)
    pid = daemon_pid(spool)
    yield from _daemon(config, pid, said)
    yield from _inboxes(spool, config, running=pid is not None)
    yield _power(spool)
    yield _lease(spool)
    yield _ownership(pid)
    yield from _held_up(spool)
    yield from _set_aside(spool)


def _rights(spool: Spool) -> Iterator[Result]:
    """What the owner of the tree may not use in it, as after a restore by root."""
    parts = [*spool.directories(), *(spool.root / name for name in _OWN_FILES)]
    wrong = [said for path in parts if (said := denied.barred(path))]
    for said in wrong:
        yield Result(
            "rights", False, f"{said}: give the whole tree to the user of the daemon (chown -R)"
        )
    if not wrong:
        yield Result(
            "rights", True, f"{denied.account(os.geteuid())} may use every directory of the tree"
        )


def _daemon(config: Config, pid: int | None, said: port.Answer | None) -> Iterator[Result]:
    """Whether a daemon runs, or waits to start, and what it reports."""
    found = said if said is not None and said.is_of(config.root) else None
    if pid is None and found is not None:
        # Until it has started it holds no lock.
        yield Result("daemon", None, f"process {found.pid} waits")
    else:
        yield Result(
            "daemon", None, f"running, process {pid}" if pid is not None else "not running"
        )
    for word, why in (found.reasons if found else {}).items():
        yield Result("daemon", False, f"{word}: {names.printable(why)}")


def _held_up(spool: Spool) -> Iterator[Result]:
    """What the slides in work wait for, as a running daemon reports it; for one another they may."""
    told = live(spool) if daemon_pid(spool) is not None else None
    waiting: dict[str, list[str]] = {}
    for id_, one in (told or {}).get("held_up", {}).items():
        if one["why"] != "duplicate":
            waiting.setdefault(f"{one['why']}: {one['detail']}", []).append(id_)
    for why, ids in itertools.islice(waiting.items(), _MOST_LISTED):
        more = f" and {len(ids) - 1:,} more wait" if len(ids) > 1 else " waits"
        yield Result("held up", False, names.printable(f"{ids[0]}{more} for {why}"))


def _set_aside(spool: Spool) -> Iterator[Result]:
    """What a running daemon has set aside, and what it refused."""
    told = live(spool) if daemon_pid(spool) is not None else None
    for one in (told or {}).get("set_aside", []):
        said = aside_text(one["where"], one["which"], one["why"], one["tries"])
        yield Result("set aside", False, said)
    if count := notes.refused(spool):
        said = (
            f"{count:,} could not be used and lie in {spool.requests / notes.REFUSED}: delete them"
        )
        yield Result("requests", False, said)


def _disk(config: Config, spool: Spool) -> Result:
    there = room.free(spool.root)
    kept = room.spare(config.storage, there)
    said = f"{bytes_text(there.bytes)} free, {bytes_text(kept.bytes)} reserved"
    if there.inodes is not None:
        said += f"; {there.inodes:,} inodes free, {kept.inodes:,} reserved"
    return Result("disk", room.too_little(there, room.Amount(), kept) is None, said)


def _inboxes(spool: Spool, config: Config, *, running: bool) -> Iterator[Result]:
    """What somebody has to mend in the inboxes: as the daemon sees it, or as the one who asks does."""
    found = _told_of(_waiting(spool)) if running else _refused(spool, config)
    listed = list(itertools.islice(found, _MOST_LISTED + 1))
    for path, why, detail in listed[:_MOST_LISTED]:
        # A file that belongs to no user may lie there on purpose.
        good = None if why == "no_user" else False
        yield Result("inbox", good, f"{names.shortened(path)} waits: {names.printable(detail)}")
    if len(listed) > _MOST_LISTED:
        yield Result("inbox", False, "and more; `cytowatch status` lists them")
    if all(why == "no_user" for _, why, _ in listed):
        yield Result(
            "inbox",
            True,
            "every folder in the inboxes can be read, and every drop moved",
        )


def _waiting(spool: Spool) -> list[dict[str, Any]]:
    """What waits, as the daemon reports it once it has had a moment for what has just come.

    A folder that is being made may be seen before it has its owner.
    """
    end = time.monotonic() + _FRESH_S
    while True:
        waiting: list[dict[str, Any]] = (live(spool) or {}).get("waiting", [])
        since = manifest.utc(datetime.now(UTC) - timedelta(seconds=_FRESH_S))
        is_fresh = any(one["why"] in _TO_MEND and one["since"] > since for one in waiting)
        if not is_fresh or time.monotonic() >= end:
            return waiting
        time.sleep(_LOOK_AGAIN_S)


def _told_of(waiting: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for one in waiting:
        if one["why"] in _TO_MEND:
            yield one["path"], one["why"], one["detail"]


def _refused(spool: Spool, config: Config) -> Iterator[tuple[str, str, str]]:
    device = os.stat(spool.root).st_dev
    for drop, waiting in scan.stray(spool.inbox, config.inbox.ignore):
        yield drop.path, waiting.why, waiting.detail
    for user in scan.users(spool.inbox):
        with suppress(FileNotFoundError):
            for one in scan.scan(spool.inbox, user, config.inbox.ignore, device=device):
                if one[1] is not None and one[1].why in _TO_MEND:
                    yield one[0].path, one[1].why, one[1].detail


def _power(spool: Spool) -> Result:
    kept = durable.keeps_renames(spool.root)
    said = {
        True: "a rename survives a power cut whole, or not at all",
        False: "this filesystem has no journal, so a power cut in the middle of a rename may lose "
        "a slide in work; use ext4 with its journal, XFS, btrfs or ZFS",
        None: "it is unknown whether a rename on this filesystem survives a power cut whole",
    }
    return Result("power cut", kept or None, said[kept])


def _lease(spool: Spool) -> Result:
    prepare_process()
    probe = spool.state / f".lease-{os.getpid()}"
    try:
        probe.write_bytes(b"x")
        descriptor = os.open(probe, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answer = lease(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    except OSError as error:
        return Result("leases", False, f"{spool.state} cannot be written: {error.strerror}")
    said = (
        "granted: a drop that is still being written is detected reliably"
        if answer == "granted"
        else "not granted here: drops must be quiet for inbox.fallback_quiet_s instead"
    )
    return Result("leases", answer == "granted" or None, said)


def _ownership(pid: int | None) -> Result:
    """Whether who dropped a slide can still write to it: as the running daemon may, or who asks."""
    try:
        taken = owner.may_take(pid)
    except (OSError, ValueError) as error:
        return Result("ownership", None, f"the daemon's capabilities cannot be read: {error}")
    who = "the daemon" if pid is not None else "a daemon with the rights of this command"
    said = (
        f"{who} takes each slide at the claim: nobody else can write to it from then on"
        if taken
        else f"{who} may not take the files of other users (CAP_CHOWN, CAP_FOWNER): such a slide is hashed "
        "twice and compared when it is published, and a later change is found only by `cytowatch verify`"
    )
    return Result("ownership", True if taken else None, said)


def _sandbox(config: Config) -> Iterator[Result]:
    found = sandbox.enforced()
    needed = False if config.sandbox.require else None
    version = found["landlock_abi"] if found["files"] else 0
    walls_there = f"Landlock ABI {version}" if version else "no Landlock"
    walls_there += ", filter of system calls" if found["calls"] else ", no filter of system calls"
    left = walls.open_deeds(found)
    said = "; a decoder can still " + ", ".join(deed.says for deed in left) if left else ""
    yield Result("sandbox", True if found["holds"] else needed, walls_there + said)


def _metrics(config: Config, said: port.Answer | None) -> Iterator[Result]:
    if not config.metrics.listen:
        yield Result("metrics", None, "none (metrics.listen is empty)")
        return
    try:
        pid = daemon_pid(Spool.open(Path(config.root)))
    except (RootError, OSError):
        pid = None
    if pid is None and said is not None and said.is_of(config.root):
        pid = said.pid
    yield Result("metrics", *port.look(config.metrics.listen, pid, said))


def _samba(config: Config) -> Iterator[Result]:
    try:
        uid = os.stat(config.root).st_uid
        owner = pwd.getpwuid(uid).pw_name
    except (OSError, KeyError):
        return
    for good, detail in samba.advise(Path(config.root), owner):
        yield Result("samba", good, detail)


#: Versions of libraries that show wrong pixels without an error; the package does not ask for them.
#: Source: github.com/libvips/libvips/issues/4649, github.com/openslide/openslide-bin/issues/433
_FAULTY = {
    **{("pyvips-binary", one): "shows some compressed TIFFs black" for one in ("8.17.0", "8.17.1")},
    **{
        ("openslide-bin", f"4.0.0.{one}"): "shows wrong pixels in the last rows of some TIFFs"
        for one in (9, 10, 11)
    },
}


def _versions(_config: Config) -> Iterator[Result]:
    packages = ("pyvips-binary", "openslide-bin", "tifffile", "watchdog")
    installed = {name: importlib.metadata.version(name) for name in packages}
    told = ", ".join(f"{name} {version}" for name, version in installed.items())
    yield Result("versions", None, told)
    for (name, version), what in _FAULTY.items():
        if installed[name] == version:
            yield Result("versions", False, f"{name} {version} {what}: install another version")
    if path := python.is_at_home(python.parts()):
        real = os.path.realpath(path)
        link = "" if real == path else f", a link to {real},"
        said = f"{path}{link} lies in a home directory, which the systemd unit hides (ProtectHome=yes): "
        said += "for the service install cytowatch elsewhere, with /usr/bin/python3"
        yield Result("python", None, said)
