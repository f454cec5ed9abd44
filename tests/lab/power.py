"""What a disk may hold when the power goes: a model of a few steps in a tree, and every state of it.

It is as POSIX allows it: the bytes of a file are there from its fsync on, what happened in a directory
from that directory's fsync on, in its own order, and before that perhaps.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from watchdog.observers import inotify_c

from cytowatch import aside

__all__ = ["Disk", "losses", "recorded"]


@dataclass(frozen=True)
class Step:
    """A name that came (`inode`) or went (None) in a directory; `pair` is shared by the halves of a rename."""

    folder: int
    name: str
    inode: int | None
    pair: tuple[int, int]


@dataclass
class Disk:
    """What was done, in order, and the tree that it was done to."""

    top: int
    folders: dict[int, dict[str, int]]
    files: dict[int, tuple[bytes, int]]
    #: Where each symbolic link leads to, which is there with its name.
    links: dict[int, str]
    steps: list[Step] = field(default_factory=list)
    #: (how many steps there were, the inode that was synced, the bytes of a file).
    syncs: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    #: Whose line in `cytowatch` made each fsync: "module.function".
    makers: list[str] = field(default_factory=list)

    @property
    def born(self) -> set[int]:
        """The files that were written meanwhile: their bytes are not there before they are synced."""
        named = {step.inode for step in self.steps if step.inode is not None}
        before = {inode for names in self.folders.values() for inode in names.values()}
        return (named - before) & self.files.keys()

    @property
    def steps_of_folders(self) -> set[int | None]:
        """What was named and is a directory."""
        named = {step.inode for step in self.steps if step.inode not in self.files} - {None}
        return named - self.links.keys()


def scan(root: Path) -> Disk:
    """The tree at `root` as it is now, nothing done to it yet."""
    now = Disk(os.stat(root).st_ino, {}, {}, {})
    for path, names, others in os.walk(root):
        here = now.folders[os.stat(path).st_ino] = {}
        for name in (*names, *others):
            found = os.lstat(f"{path}/{name}")
            here[name] = found.st_ino
            if stat.S_ISLNK(found.st_mode):
                now.links[found.st_ino] = os.readlink(f"{path}/{name}")
            elif stat.S_ISREG(found.st_mode):
                now.files[found.st_ino] = (Path(path, name).read_bytes(), found.st_mtime_ns)
    return now


_IN = inotify_c.InotifyConstants
#: Everything that changes a directory or a file in it.
_CHANGES = _IN.IN_MODIFY | _IN.IN_ATTRIB | _IN.IN_MOVE | _IN.IN_CREATE | _IN.IN_DELETE
_EVENTS_AT_A_TIME = 1 << 16


class _Changes:
    """Whether anything in a tree has changed: the kernel knows it sooner than all is read again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._queue = inotify_c.inotify_init()
        os.set_blocking(self._queue, False)
        self._watch()

    def _watch(self) -> None:
        for path, _, _ in os.walk(self._root):
            inotify_c.inotify_add_watch(self._queue, os.fsencode(path), _CHANGES)

    def any(self) -> bool:
        """Whether there were some since the last call; what is new is watched from now on."""
        try:
            os.read(self._queue, _EVENTS_AT_A_TIME)
        except BlockingIOError:
            return False
        self._watch()
        return True

    def close(self) -> None:
        os.close(self._queue)


def recorded(root: Path, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Do it to the tree at `root`, looking at it after every line of our own."""
    aside.reset()
    disk = scan(root)
    now = disk.folders
    real = os.fsync
    looks = 0
    kernel = _Changes(root)

    def look() -> None:
        nonlocal now, looks
        looks += 1
        if not kernel.any():
            return
        found = scan(root)
        after = found.folders
        disk.files.update(found.files)
        disk.links.update(found.links)
        changes = [
            (folder, name, after.get(folder, {}).get(name), now.get(folder, {}).get(name))
            for folder in {*after, *now}
            for name in {*after.get(folder, {}), *now.get(folder, {})}
        ]
        changes = [one for one in changes if one[2] != one[3]]
        for folder, name, new, old in changes:
            pair = new if new is not None else old
            assert pair is not None
            disk.steps.append(Step(folder, name, new, (pair, looks)))
        now = after

    def fsync(descriptor: int) -> None:
        look()
        inode = os.fstat(descriptor).st_ino
        disk.syncs.append((len(disk.steps), inode, disk.files.get(inode, (None, 0))[0]))
        disk.makers.append(_maker())
        real(descriptor)

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if "/cytowatch/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            look()
        return trace

    monkeypatch.setattr(os, "fsync", fsync)
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(None)
        monkeypatch.setattr(os, "fsync", real)
    look()
    kernel.close()
    return disk


def _maker() -> str:
    """Which function of our own asks for an fsync."""
    frame = sys._getframe(2)
    while Path(frame.f_code.co_filename).parent.name == "durable":
        assert frame.f_back is not None
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


Tree = tuple[dict[int, dict[str, int]], frozenset[int]]


def cuts(disk: Disk) -> Iterator[tuple[int, int]]:
    """(steps, fsyncs) that were done when the power goes: between any two of both."""
    ends = [at for at, _, _ in disk.syncs]
    for synced, (begin, end) in enumerate(pairwise([0, *ends, len(disk.steps)])):
        for until in range(begin, end + 1):
            # A rename is begun or done.
            before, after = disk.steps[:until], disk.steps[until:]
            if not {one.pair for one in before} & {one.pair for one in after}:
                yield until, synced


def states(
    disk: Disk, *, until: int, synced: int, left_out: int | None, atomic: bool
) -> Iterator[Tree]:
    """(the names in each directory, the files whose bytes are there) for one cut."""
    syncs = [one for n, one in enumerate(disk.syncs[:synced]) if n != left_out]
    written = frozenset(inode for _, inode, data in syncs if data is not None)
    of_folder: dict[int, list[int]] = {}
    for number, step in enumerate(disk.steps[:until]):
        of_folder.setdefault(step.folder, []).append(number)
    ways = []
    for folder, numbers in of_folder.items():
        last = max((at for at, inode, _ in syncs if inode == folder), default=0)
        sure = sum(number < last for number in numbers)
        ways.append([numbers[:count] for count in range(sure, len(numbers) + 1)])
    for way in product(*ways):
        done = {number for numbers in way for number in numbers}
        if not _paired(disk, done, until, atomic=atomic):
            continue
        folders = {inode: dict(names) for inode, names in disk.folders.items()}
        for number in sorted(done):
            step = disk.steps[number]
            names = folders.setdefault(step.folder, {})
            if step.inode is None:
                names.pop(step.name, None)
            else:
                names[step.name] = step.inode
        yield folders, written
        yield folders, frozenset(disk.files)


def _paired(disk: Disk, done: set[int], until: int, *, atomic: bool) -> bool:
    """Whether the halves of each rename are there together, or as far apart as they may be."""
    for number, step in enumerate(disk.steps[:until]):
        for earlier, other in enumerate(disk.steps[:number]):
            if other.pair == step.pair and (number in done) != (earlier in done):
                # A directory with two names is for fsck to mend.
                folder = {step.inode, other.inode} & disk.steps_of_folders
                gone = number if step.inode is None else earlier
                if atomic or folder or gone in done:
                    return False
    return True


def losses(
    disk: Disk,
    place: Path,
    check: Callable[[Path, dict[int, Path], bool], str | None],
    *,
    unsure: Callable[[bool], set[int]],
    left_out: int | None,
    atomic: bool,
    first: bool,
) -> list[str]:
    """What `check` says of all states: of the tree at `place`, where each inode is in it, whether all was done.

    Parameters
    ----------
    unsure
        The files whose bytes are lost unless they were synced, at the end (True) and before it.
    left_out
        The number of an fsync that is not made.
    atomic
        Whether a rename is one step, or may leave a file both its names.
    first
        The first loss is enough.
    """
    tried: set[str] = set()
    found: list[str] = []
    # The last ones first, because there most losses are.
    for until, synced in reversed(list(cuts(disk))):
        end = (until, synced) == (len(disk.steps), len(disk.syncs))
        dirty = unsure(end)
        for tree in states(disk, until=until, synced=synced, left_out=left_out, atomic=atomic):
            key = json.dumps([sorted(map(str, tree[0].items())), sorted(tree[1]), len(dirty), end])
            if key in tried:
                continue
            tried.add(key)
            shutil.rmtree(place, ignore_errors=True)
            # The daemon that comes after the cut knows nothing of the one before.
            aside.reset()
            try:
                # What the recovery makes durable is of no matter here: its tree is thrown away.
                with mock.patch.object(os, "fsync", os.fstat):
                    said = check(place, made(disk, tree, place, dirty), end)
            except Exception as error:  # noqa: BLE001 - a start that fails is a loss as well
                said = repr(error)
            if said is not None:
                found.append(f"after step {until}: {said}")
                if first:
                    return found
    assert len(tried) > 1
    return found


def made(disk: Disk, tree: Tree, place: Path, dirty: set[int]) -> dict[int, Path]:
    """Make the state at `place`; tells where each inode is."""
    folders, written = tree
    found: dict[int, Path] = {}

    def make(inode: int, at: Path) -> None:
        at.mkdir()
        for name, other in folders.get(inode, {}).items():
            if other in disk.links:
                (at / name).symlink_to(disk.links[other])
            elif other not in disk.files:
                make(other, at / name)
            elif other in found:
                os.link(found[other], at / name)
            else:
                data, mtime_ns = disk.files[other]
                whole = other in written or other not in dirty
                (at / name).write_bytes(data if whole else b"")
                os.utime(at / name, ns=(mtime_ns, mtime_ns))
                found[other] = at / name

    make(disk.top, place)
    return found
