"""Power that is cut anywhere in a claim: in every state that a disk may be in then, nothing is lost.

What a disk holds is modelled as POSIX allows it: the bytes of a file are there from its fsync on, what
happened in a directory from that directory's fsync on, in its own order, and before that perhaps. Each
such state is made in a tree of its own and started from. Then each fsync is left out in turn: some
state must be a loss, or it would be needless.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cytowatch import manifest
from cytowatch.config import Config
from cytowatch.inbox import claim
from cytowatch.inbox import scan as inboxes
from cytowatch.names import UploadedFileId
from cytowatch.spool import Spool

ID = UploadedFileId("20261123-141502-1000-a")
#: What is dropped, of each kind of parcel: where, and where it goes.
DROPS = {
    "a file": {"ann/a.jpg": "source/a.jpg"},
    "a set": {"ann/a.mrxs": "source/a.mrxs", "ann/a/Index.dat": "source/a/Index.dat"},
}


@dataclass(frozen=True)
class Step:
    """A name that came (`inode`) or went (None) in a directory; `pair` is shared by the halves of a rename."""

    folder: int
    name: str
    inode: int | None
    pair: int


@dataclass
class Disk:
    """What was done, in order, and the tree that it was done to."""

    top: int
    folders: dict[int, dict[str, int]]
    files: dict[int, tuple[bytes, int]]
    steps: list[Step] = field(default_factory=list)
    #: (how many steps there were, the inode that was synced, the bytes of a file).
    syncs: list[tuple[int, int, bytes | None]] = field(default_factory=list)

    @property
    def steps_of_folders(self) -> set[int | None]:
        """What was named and is a directory."""
        return {step.inode for step in self.steps if step.inode not in self.files} - {None}


def scan(root: Path) -> tuple[dict[int, dict[str, int]], dict[int, tuple[bytes, int]]]:
    folders: dict[int, dict[str, int]] = {}
    files: dict[int, tuple[bytes, int]] = {}
    for path, names, others in os.walk(root):
        here = os.stat(path).st_ino
        folders[here] = {name: os.lstat(f"{path}/{name}").st_ino for name in (*names, *others)}
        for name in others:
            found = os.stat(f"{path}/{name}")
            files[found.st_ino] = (Path(path, name).read_bytes(), found.st_mtime_ns)
    return folders, files


def content(name: str) -> bytes:
    return f"\xff\xd8 {name} \xff\xd9".encode("latin-1") * 40


def recorded(spool: Spool, names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Claim what is dropped, looking at the tree after every line of ours."""
    begin, files = scan(spool.root)
    disk = Disk(os.stat(spool.root).st_ino, begin, files)
    now = begin
    device = os.stat(spool.root).st_dev
    drops = {drop.path: drop for drop, _ in inboxes.scan(spool.inbox, "ann", [], device=device)}
    members = tuple(claim.Member(drop=drops[name], to=to) for name, to in names.items())
    real = os.fsync

    def look() -> None:
        nonlocal now
        after, found = scan(spool.root)
        disk.files.update(found)
        changes = [
            (folder, name, after.get(folder, {}).get(name), now.get(folder, {}).get(name))
            for folder in {*after, *now}
            for name in {*after.get(folder, {}), *now.get(folder, {})}
        ]
        changes = [one for one in changes if one[2] != one[3]]
        for folder, name, new, old in changes:
            pair = new if new is not None else old
            assert pair is not None
            disk.steps.append(Step(folder, name, new, pair * 1_000_000 + len(disk.syncs)))
        now = after

    def fsync(descriptor: int) -> None:
        look()
        inode = os.fstat(descriptor).st_ino
        disk.syncs.append((len(disk.steps), inode, disk.files.get(inode, (None, 0))[0]))
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
        claim.claim(
            spool, claim.Parcel(members=members), config=Config(), now=datetime.now(UTC), software={},
            overdue=False, make_id=lambda _now, _name: ID, quiet_for_s=10,
        )  # fmt: skip
    finally:
        sys.settrace(None)
        monkeypatch.setattr(os, "fsync", real)
    look()
    return disk


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


def lost(
    disk: Disk, tree: Tree, place: Path, born: set[int], wanted: set[bytes], *, atomic: bool
) -> str | None:
    """Start from a state: None if the slide is whole in its inbox, or claimed and whole; once, where that can be."""
    folders, written = tree
    made: dict[int, Path] = {}

    def make(inode: int, at: Path) -> None:
        at.mkdir()
        for name, other in folders.get(inode, {}).items():
            if other not in disk.files:
                make(other, at / name)
            elif other in made:
                os.link(made[other], at / name)
            else:
                data, mtime_ns = disk.files[other]
                whole = other in written or other not in born
                (at / name).write_bytes(data if whole else b"")
                os.utime(at / name, ns=(mtime_ns, mtime_ns))
                made[other] = at / name

    make(disk.top, place)
    for journal in place.glob("state/tmp/*/claim.json"):
        if data := journal.read_bytes():
            known = json.loads(data)
            for member in known["members"]:
                new = made.get(member["inode"])
                member["inode"] = new.stat().st_ino if new else 0
            journal.write_text(json.dumps(known))
    spool = Spool.open(place)
    told = claim.recover(spool)
    found = [path for path in spool.inbox.rglob("*") if path.is_file()]
    for path in (spool.stages / "uploaded").iterdir():
        # One that claims to have a slide and has none would be an error of a slide that is elsewhere.
        found += [path / row["path"] for row in manifest.read(path)["files"]]
    there = Counter(path.read_bytes() for path in found)
    if there.keys() != wanted or (atomic and max(there.values()) > 1):
        return f"{told}, {[str(path.relative_to(place)) for path in found]}"
    if any(said.startswith("kept") for said in told.values()):
        return f"nobody ends it: {told}"
    return None


@pytest.fixture(params=DROPS)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Disk:
    claim.prepare_process()
    # Inodes are never used twice there.
    folder = Path("/dev/shm") / f"power-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        spool = Spool.create(folder / "root")
        names = DROPS[request.param]
        for name in names:
            (spool.inbox / name).parent.mkdir(exist_ok=True)
            (spool.inbox / name).write_bytes(content(name))
        return recorded(spool, names, monkeypatch)
    finally:
        shutil.rmtree(folder)


def losses(
    disk: Disk, tmp_path: Path, *, left_out: int | None, atomic: bool, first: bool
) -> list[str]:
    born = {step.inode for step in disk.steps if step.inode is not None}
    born -= {inode for names in disk.folders.values() for inode in names.values()}
    all_of_them = {content(name) for names in DROPS.values() for name in names}
    slides = {inode for inode, (data, _) in disk.files.items() if data in all_of_them}
    wanted = {disk.files[inode][0] for inode in slides}
    tried: set[str] = set()
    found: list[str] = []
    for until, synced in cuts(disk):
        # What a scanner wrote and did not sync is our promise only once we say that it is uploaded.
        end = (until, synced) == (len(disk.steps), len(disk.syncs))
        new = born | slides if end else born
        for tree in states(disk, until=until, synced=synced, left_out=left_out, atomic=atomic):
            key = json.dumps([sorted(map(str, tree[0].items())), sorted(tree[1]), len(new)])
            if key in tried:
                continue
            tried.add(key)
            place = tmp_path / "at"
            shutil.rmtree(place, ignore_errors=True)
            try:
                said = lost(disk, tree, place, new, wanted, atomic=atomic)
            except Exception as error:  # noqa: BLE001 - a start that fails is a loss as well
                said = repr(error)
            if said is not None:
                found.append(f"after step {until}: {said}")
                if first:
                    return found
    assert len(tried) > 10
    return found


@pytest.mark.parametrize("atomic", [True, False])
def test_nothing_is_lost(disk: Disk, tmp_path: Path, atomic: bool) -> None:
    """Where a rename is one step, as with a journal; and where a cut may leave a file both its names."""
    assert losses(disk, tmp_path, left_out=None, atomic=atomic, first=False) == []


def test_every_fsync_is_needed(disk: Disk, tmp_path: Path) -> None:
    """Without it some state is a loss."""
    needless = [
        number
        for number in range(len(disk.syncs))
        if not any(
            losses(disk, tmp_path, left_out=number, atomic=atomic, first=True)
            for atomic in (True, False)
        )
    ]
    assert needless == [], [disk.syncs[number] for number in needless]
