"""The way back into an inbox while each part of the way is swapped, before every step, for a link, a pipe and a folder.

Others may exchange two names of an inbox at any moment by one system call (``renameat2`` with
``RENAME_EXCHANGE``). Here that is done before the n-th system call of each operation, for every n: so no
moment between two steps is left out, as a loop beside it would leave some out.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cytowatch import aside, durable
from cytowatch.admin import give_back, retry
from cytowatch.durable import calls
from cytowatch.inbox import claim, markers, scan
from cytowatch.inbox.claim import take
from cytowatch.inbox.scan import Drop
from cytowatch.observe.feedback import Note, Notes
from cytowatch.record import manifest
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool
from tests.unit.test_claim import claiming, single

ID = UploadedFileId("20261123-141502-k3f9-a")
NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)
SLIDE = b"the bytes of a slide" * 100
SECRET = b"what nobody else may see"
KINDS = ("link", "pipe", "folder")
_RENAME_EXCHANGE = 2
_PATIENCE_S = 10
_libc = ctypes.CDLL(None, use_errno=True)
#: IN_ACCESS, MODIFY, ATTRIB, OPEN, MOVED_FROM, MOVED_TO, CREATE, DELETE; IN_NONBLOCK.
_SEEN, _NONBLOCK = 0x1 | 0x2 | 0x4 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200, 0o4000


class Watched:
    """The folder outside of the tree that the link leads to: anything that is done to it is seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("a.jpg", "a.jpg.done", "old - DEPLOYED.txt", ".note-1"):
            (folder / name).write_bytes(SECRET)
        self._descriptor = _libc.inotify_init1(_NONBLOCK)
        assert _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _SEEN) > 0

    def events(self) -> list[tuple[int, str]]:
        found = []
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, 1 << 16)
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                found.append((mask, data[16 : 16 + length].rstrip(b"\0").decode()))
                data = data[16 + length :]
        return found

    def close(self) -> None:
        os.close(self._descriptor)


class Swapper:
    """Exchanges `one` and `other` before the system call with the number `at`; counts all of them."""

    def __init__(self, one: Path, other: Path, at: int) -> None:
        self._names = (os.fsencode(one), os.fsencode(other))
        self._at = at
        self.steps = 0

    def step(self) -> None:
        if self.steps == self._at:
            _libc.renameat2(-100, self._names[0], -100, self._names[1], _RENAME_EXCHANGE)
        self.steps += 1


#: What the operations do to the filesystem; the swap is made before each.
_CALLS = ("open", "mkdir", "rename", "unlink", "rmdir", "stat", "lstat", "listdir", "scandir")


def stepping(patched: pytest.MonkeyPatch, swapper: Swapper) -> None:
    """Let every system call be the real one, after the swapper had its turn."""

    def after_a_step(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            swapper.step()
            return real(*arguments, **options)

        return call

    for name in _CALLS:
        patched.setattr(os, name, after_a_step(getattr(os, name)))
    # It changes no name, and takes most of the time.
    patched.setattr(os, "fsync", lambda _descriptor: None)
    patched.setattr(calls, "_renameat2", after_a_step(calls._renameat2))


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Nothing hangs, no matter what is in its way."""

    def late(_number: int, _frame: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_error(spool: Spool, reason: str) -> None:
    """A slide that ended in an error, and may go back."""
    path = spool.stage(Status.ERROR_FORMAT) / ID
    (path / "source").mkdir(parents=True)
    (path / "source" / "a.jpg").write_bytes(SLIDE)
    row = manifest.received(role="source", path="source/a.jpg", size_bytes=len(SLIDE))
    new = manifest.new(
        id=ID, user="ann", name="a.jpg", drop_path="ann/case/a.jpg", files=[row], now=NOW, software={}
    )  # fmt: skip
    error: Any = {"reason": reason, "detail": "x", "stage": "DETECTING_FORMAT", "retryable": True}
    begun = manifest.at_status(new, Status.DETECTING_FORMAT, now=NOW, attempts=1)
    manifest.write(path, manifest.at_status(begun, Status.ERROR_FORMAT, now=NOW, error=error))


def dropped(spool: Spool) -> None:
    (spool.inbox / "ann" / "case" / "a.jpg").write_bytes(SLIDE)


def marked(spool: Spool) -> None:
    dropped(spool)
    (spool.inbox / "ann" / "case" / "a.jpg.done").touch()


def drops(spool: Spool) -> dict[str, Drop]:
    device = os.stat(spool.root).st_dev
    found = scan.scan(spool.inbox, "ann", [], device=device)
    return {drop.name: drop for drop, waiting in found if waiting is None}


def claimed(spool: Spool, *, durably: bool, seen: dict[str, Drop]) -> None:
    """A claim that the disk does not let finish, so that it is undone."""
    parcel = single(seen["a.jpg"])
    if "a.jpg.done" in seen:
        parcel = claim.Parcel(members=parcel.members, marker=seen["a.jpg.done"])

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        if not durably:
            patched.setattr(take, "_make_durable", full)
        claim.claim(
            claiming(spool, now=NOW),
            parcel,
            overdue=True,
            quiet_for_s=1e6,
        )


def begun(spool: Spool) -> None:
    """A claim that was cut off when its file had moved, and was written to since: it goes back at the start."""
    place = spool.tmp / ID
    (place / "source").mkdir(parents=True)
    path = place / "source" / "a.jpg"
    path.write_bytes(SLIDE)
    found = path.stat()
    member = {
        "from": "ann/case/a.jpg", "to": "source/a.jpg", "device": found.st_dev, "inode": found.st_ino,
        "size_bytes": 1, "mtime_ns": 1, "uid": found.st_uid, "gid": found.st_gid,
        "mode": stat.S_IMODE(found.st_mode),
    }  # fmt: skip
    journal = {"user": "ann", "members": [member], "folder": None, "marker": None}
    (place / claim.JOURNAL).write_text(json.dumps(journal))


def noted(spool: Spool, where: str) -> None:
    folder = spool.inbox / "ann" / "_status" if where == "inbox" else spool.status_dir / "ann"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "old - DEPLOYED.txt").write_text("an old note")


def show(spool: Spool, where: str) -> None:
    note = Note(user="ann", about="a.jpg", says="CONVERTING", text="it is on its way\n")
    Notes(spool.root, where).show({"one": note})


Prepare, Do = Callable[[Spool], Any], Callable[[Spool, Any], object]
#: Each operation: what is there before, what is done, and the parts of its way, of which each is swapped.
OPERATIONS: dict[str, tuple[Prepare, Do, tuple[str, ...]]] = {
    "retry": (
        lambda spool: in_error(spool, "incomplete"),
        lambda spool, _: retry.retry(spool, ID, now=NOW),
        ("inbox/ann", "inbox/ann/case"),
    ),
    "return": (
        lambda spool: in_error(spool, "damaged"),
        lambda spool, _: give_back.hand_back(spool, ID),
        ("inbox/ann", "inbox/ann/_returned"),
    ),
    "undone": (
        lambda spool: (dropped(spool), drops(spool))[1],
        lambda spool, seen: claimed(spool, durably=False, seen=seen),
        ("inbox/ann", "inbox/ann/case"),
    ),
    "undone with its marker": (
        lambda spool: (marked(spool), drops(spool))[1],
        lambda spool, seen: claimed(spool, durably=False, seen=seen),
        ("inbox/ann", "inbox/ann/case", "inbox/ann/case/a.jpg.done"),
    ),
    "claimed with its marker": (
        lambda spool: (marked(spool), drops(spool))[1],
        lambda spool, seen: claimed(spool, durably=True, seen=seen),
        ("inbox/ann", "inbox/ann/case", "inbox/ann/case/a.jpg", "inbox/ann/case/a.jpg.done"),
    ),
    "recovered": (
        begun,
        lambda spool, _: claim.recover(spool),
        ("inbox/ann", "inbox/ann/case"),
    ),
    "a marker removed": (
        lambda spool: (marked(spool), drops(spool)["a.jpg.done"])[1],
        lambda spool, marker: markers.withdraw(spool.inbox, marker, spool.trash / "m"),
        ("inbox/ann", "inbox/ann/case", "inbox/ann/case/a.jpg.done"),
    ),
    "notes in the inbox": (
        lambda spool: noted(spool, "inbox"),
        lambda spool, _: show(spool, "inbox"),
        ("inbox/ann", "inbox/ann/_status", "inbox/ann/_status/old - DEPLOYED.txt"),
    ),
    "notes beside it": (
        lambda spool: noted(spool, "status"),
        lambda spool, _: show(spool, "status"),
        ("status/ann", "status/ann/old - DEPLOYED.txt"),
    ),
    "a folder removed": (
        lambda spool: (spool.inbox / "ann" / "case" / "inner").mkdir(),
        lambda spool, _: durable.remove_empty(spool.inbox, "ann/case"),
        ("inbox/ann", "inbox/ann/case", "inbox/ann/case/inner"),
    ),
}


def put_in_place(kind: str, other: Path, outside: Path) -> None:
    match kind:
        case "link":
            other.symlink_to(outside)
        case "pipe":
            os.mkfifo(other)
        case _:
            other.mkdir()
            (other / "theirs.txt").write_bytes(SECRET)


def emptied(spool: Spool, other: Path) -> None:
    """The tree as it was made; a new one would take most of the time."""
    folders = (spool.inbox, spool.status_dir, spool.tmp, spool.trash, *spool.stages.iterdir())
    for left in (other, *(path for folder in folders for path in folder.iterdir())):
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def slides_in(top: Path) -> int:
    found = (top, *top.rglob("*")) if top.is_dir() and not top.is_symlink() else (top,)
    files = (path for path in found if path.is_file() and not path.is_symlink())
    return sum(path.read_bytes() == SLIDE for path in files)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_outside_is_touched_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No matter what is swapped when: nothing is written, deleted, read or waited for outside, no slide is lost or doubled."""
    claim.prepare_process()
    prepare, do, parts = OPERATIONS[name]
    outside = tmp_path / "outside"
    outside.mkdir()
    watched = Watched(outside)
    spool = Spool.create(tmp_path / "root")
    runs = 0
    for part, kind in itertools.product(parts, KINDS):
        for at in itertools.count():
            (spool.inbox / "ann" / "case").mkdir(parents=True)
            seen = prepare(spool)
            (spool.root / part).mkdir(exist_ok=True) if "." not in part else None
            other = tmp_path / "other"
            put_in_place(kind, other, outside)
            slides = slides_in(spool.root)
            watched.events()
            swapper = Swapper(spool.root / part, other, at)
            with monkeypatch.context() as patched, in_time():
                stepping(patched, swapper)
                # It may be refused, in words or by the system; what it leaves is what counts.
                with contextlib.suppress(OSError, RootError):
                    do(spool, seen)
            which = f"{name}: {part} is a {kind} from step {at} on"
            assert watched.events() == [], which
            assert {path.read_bytes() for path in outside.iterdir()} == {SECRET}, which
            # What was swapped away is there still, with what came into it before.
            assert slides_in(spool.root) + slides_in(other) == slides, which
            if kind == "folder":
                theirs = [*spool.root.rglob("theirs.txt"), *other.rglob("theirs.txt")]
                assert [path.read_bytes() for path in theirs] == [SECRET], which
            runs += 1
            aside.reset()
            emptied(spool, other)
            if at > swapper.steps:
                break
    watched.close()
    assert runs > 3 * len(parts) * len(KINDS)
