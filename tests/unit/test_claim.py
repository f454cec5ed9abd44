"""A claim: taken whole, or left where it was; after a crash finished or undone, never lost."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.inbox import claim, scan
from cytowatch.inbox.claim import hold
from cytowatch.record import names
from cytowatch.record.drop import Drop, Waiting
from cytowatch.record.names import UploadedFileId
from cytowatch.tree.spool import Spool
from tests import builders


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    claim.prepare_process()
    made = Spool.create(tmp_path / "root")
    (made.inbox / "ann").mkdir()
    yield made


@pytest.fixture
def dropped(spool: Spool) -> Path:
    return builders.jpeg(spool.inbox / "ann" / "a.jpg")


def seen(spool: Spool) -> Drop:
    device = os.stat(spool.root).st_dev
    [(drop, waiting)] = scan.scan(spool.inbox, "ann", [], device=device)
    assert waiting is None
    return drop


def single(drop: Drop) -> claim.Parcel:
    """The parcel of a drop that is one file only."""
    name = names.decode(os.fsencode(drop.name))[0]
    member = claim.Member(drop=drop, to=f"source/{names.slug(name)}")
    return claim.Parcel(members=(member,))


def claiming(
    spool: Spool, id_: UploadedFileId | None = None, *, now: datetime | None = None
) -> claim.Claiming:
    """What a claim in `spool` needs; its ids are counted, or all are `id_`."""
    numbers = itertools.count(1000)
    return claim.Claiming(
        spool=spool, config=Config(), now=lambda: now or datetime.now(UTC), software={},
        make_id=lambda *_: id_ or UploadedFileId(f"20261123-141502-{next(numbers)}-a"),
    )  # fmt: skip


def take(spool: Spool, drop: Drop, *, quiet_for_s: float = 10) -> UploadedFileId | Waiting:
    return claim.claim(claiming(spool), single(drop), overdue=False, quiet_for_s=quiet_for_s)


def test_the_inode_that_was_dropped_is_the_one_that_is_claimed(spool: Spool, dropped: Path) -> None:
    """Renamed, never copied; nothing is left behind."""
    inode = dropped.stat().st_ino
    id_ = take(spool, seen(spool))
    assert isinstance(id_, str)
    [source] = (spool.stages / "uploaded" / id_ / "source").iterdir()
    assert source.stat().st_ino == inode
    assert not dropped.exists()
    assert list(spool.tmp.iterdir()) == []
    assert not (spool.stages / "uploaded" / id_ / claim.JOURNAL).exists()


def test_an_open_writer_is_seen_by_the_lease(spool: Spool, dropped: Path) -> None:
    """However quiet it is."""
    drop = seen(spool)
    with dropped.open("r+b"):
        found = take(spool, drop)
    assert isinstance(found, Waiting)
    assert found.why == "open_for_writing"
    assert dropped.exists()


def test_a_change_since_the_last_look_is_no_claim(spool: Spool, dropped: Path) -> None:
    """Not even one of the same size."""
    drop = seen(spool)
    data = dropped.read_bytes()
    dropped.write_bytes(data[:-1] + b"\xd8")
    found = take(spool, drop)
    assert isinstance(found, Waiting)
    assert found.why == "settling"


def test_a_link_that_took_its_place_is_not_followed(
    spool: Spool, dropped: Path, tmp_path: Path
) -> None:
    """Between two looks a file may become anything."""
    drop = seen(spool)
    dropped.rename(tmp_path / "elsewhere")
    dropped.symlink_to(tmp_path / "elsewhere")
    found = take(spool, drop)
    assert isinstance(found, Waiting)
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("taken", [False, True])
def test_a_writer_that_comes_between_lease_and_rename_gets_its_file_back(
    spool: Spool, dropped: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """Under its own name, or beside anything that has that name by then: nothing is lost either way."""
    data = dropped.read_bytes()
    writers = []
    real = durable.rename

    def late(source: str, target: str | Path, **options: int) -> None:
        real(source, target, **options)
        if Path(target).parent.name == "source" and not writers:
            # A client opens it on the way: without blocking, or the open would wait for us.
            try:
                writers.append(os.open(target, os.O_RDWR | os.O_NONBLOCK))
            except BlockingIOError:
                writers.append(-1)
            if taken:
                dropped.write_bytes(b"a new one")

    monkeypatch.setattr(durable, "rename", late)
    found = take(spool, seen(spool))
    assert isinstance(found, Waiting)
    assert found.why in ("open_for_writing", "settling")
    kept = {path.name: path.read_bytes() for path in (spool.inbox / "ann").iterdir()}
    assert data in kept.values()
    assert not taken or kept["a.jpg"] == b"a new one"
    assert list(spool.tmp.iterdir()) == []
    assert list((spool.stages / "uploaded").iterdir()) == []


class PowerCutError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("name", ["rename", "fsync_tree", "fsync_directory"])
@pytest.mark.parametrize("nth", range(5))
@pytest.mark.parametrize("before", [True, False])
def test_cut_at_any_step_it_is_finished_or_undone(
    spool: Spool, dropped: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, before: bool
) -> None:
    """After the restart the one file is in the inbox or in ``uploaded``: once, and whole."""
    data = dropped.read_bytes()
    drop = seen(spool)
    real, count = getattr(durable, name), itertools.count()

    def cut(*arguments: object, **options: object) -> None:
        hit = next(count) == nth
        if hit and before:
            raise PowerCutError
        real(*arguments, **options)
        if hit:
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(durable, name, cut)
        with contextlib.suppress(PowerCutError):
            take(spool, drop)
    for _ in range(2):
        outcomes = claim.recover(spool)
        assert not any(outcome.startswith("kept") for outcome in outcomes.values())
    uploaded = list((spool.stages / "uploaded").glob("*/source/*"))
    inbox = list((spool.inbox / "ann").iterdir())
    assert [path.read_bytes() for path in [*uploaded, *inbox]] == [data]
    assert list(spool.tmp.iterdir()) == []


def test_without_leases_it_must_be_quiet_for_longer(
    spool: Spool, dropped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fallback_quiet_s` stands in for what the filesystem cannot say."""
    monkeypatch.setattr(hold, "lease", lambda _descriptor: "none")
    found = take(spool, seen(spool), quiet_for_s=10)
    assert isinstance(found, Waiting)
    assert found.why == "no_lease"
    assert isinstance(take(spool, seen(spool), quiet_for_s=61), str)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_writer_of_one_file_of_a_set_gets_the_whole_set_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """It opens one of them while the others move: all lie where they lay, with their bytes."""
    folder = spool.inbox / "ann" / "M"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.dat").write_bytes(bytes([65 + number]) * 100)
    device = os.stat(spool.root).st_dev
    drops = sorted(
        (drop for drop, _ in scan.scan(spool.inbox, "ann", [], device=device)),
        key=lambda drop: drop.path,
    )
    parcel = claim.Parcel(
        members=tuple(claim.Member(drop=drop, to=f"source/M/{drop.name}") for drop in drops),
        folder="ann/M",
    )
    writers: list[int] = []
    real = durable.rename

    def late(source: str, target: str | Path, **options: int) -> None:
        real(source, target, **options)
        if Path(target).name == "1.dat" and not writers:
            there = folder / f"{which}.dat"
            moved = Path(target).parent / f"{which}.dat"
            with contextlib.suppress(BlockingIOError):
                # The lease makes it wait, so it does not get it; the break itself is what counts.
                os.open(there if there.exists() else moved, os.O_RDWR | os.O_NONBLOCK)
            writers.append(which)

    monkeypatch.setattr(durable, "rename", late)
    found = claim.claim(
        claiming(spool, UploadedFileId("20261123-141502-1000-M")),
        parcel,
        overdue=False,
        quiet_for_s=10,
    )
    assert isinstance(found, Waiting)
    assert found.why == "open_for_writing"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert kept == {f"{number}.dat": bytes([65 + number]) * 100 for number in range(3)}
    assert list(spool.tmp.iterdir()) == []


_FIRST, _SECOND = b"of the first drop", b"of the second drop"
_SET = ("1.mrxs", "1/Slidedat.ini", "1/Index.dat", "1/Data0000.dat", "1/Data0001.dat")


def _set(spool: Spool, content: bytes, *, user: str = "ann", lacks: str = "") -> claim.Parcel:
    """The files of an MRXS, dropped loose and found."""
    (spool.inbox / user / "1").mkdir(parents=True, exist_ok=True)
    for path in _SET:
        if path != lacks and not (spool.inbox / user / path).exists():
            (spool.inbox / user / path).write_bytes(content + path.encode())
    device = os.stat(spool.root).st_dev
    drops = {drop.path: drop for drop, _ in scan.scan(spool.inbox, user, [], device=device)}
    return claim.Parcel(
        members=tuple(
            claim.Member(drop=drops[f"{user}/{path}"], to=f"source/{path}")
            for path in _SET
            if f"{user}/{path}" in drops
        ),
        folder=f"{user}/1",
    )


def _killed(
    spool: Spool, parcel: claim.Parcel, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A claim that ends once so many files have moved."""
    real, count = durable.rename, itertools.count(1)

    def cut(*arguments: Any, **options: Any) -> None:
        if next(count) > after:
            raise PowerCutError
        real(*arguments, **options)

    def removed(inbox: Path, folder: str) -> None:
        (inbox / folder).rmdir()
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(durable, "rename", cut)
        # With all of them moved, its folder is gone when it ends.
        patched.setattr("cytowatch.inbox.claim.take.remove_empty", removed)
        with contextlib.suppress(PowerCutError):
            claim.claim(
                claiming(spool),
                parcel,
                overdue=True,
                quiet_for_s=10,
            )


def _recovered(spool: Spool, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """Recovery that is killed at its n-th rename, before it or behind it, and then a whole one."""
    for before in (True, False):
        real, count = durable.rename, itertools.count()

        def cut(*arguments: Any, **options: Any) -> None:
            hit = next(count) == nth  # noqa: B023
            if hit and before:  # noqa: B023
                raise PowerCutError
            real(*arguments, **options)  # noqa: B023
            if hit:
                raise PowerCutError

        with monkeypatch.context() as patched:
            patched.setattr(durable, "rename", cut)
            with contextlib.suppress(PowerCutError):
                claim.recover(spool)
    outcomes = claim.recover(spool)
    assert not [said for said in outcomes.values() if said.startswith("kept")]
    assert list(spool.tmp.iterdir()) == []


def _units(spool: Spool) -> list[dict[str, bytes]]:
    """What could become one slide: each folder of an inbox with the head beside it, and each uploaded file."""
    found = []
    for head in sorted(spool.root.rglob("*.mrxs")):
        inside = head.with_suffix("")
        files = [head, *(path for path in inside.rglob("*") if path.is_file())]
        found.append({path.name: path.read_bytes() for path in files})
    return found


@pytest.mark.parametrize("nth", range(7))
@pytest.mark.parametrize("after", [1, 3, 5])
@pytest.mark.parametrize("change", ["", "written", "gone"])
def test_an_interrupted_claim_is_not_mixed_with_a_new_drop_of_the_same_names(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, after: int, nth: int, change: str
) -> None:
    """The daemon is killed in a claim, the user drops another slide of that name, which lacks a file; then it starts.

    What was claimed may have been written to meanwhile, or a file of it may be gone. Recovery is killed as well, at any step.
    """
    _killed(spool, _set(spool, _FIRST), monkeypatch, after)
    moved = sorted(spool.tmp.glob("*/source/1/*")) or sorted(spool.tmp.glob("*/source/*.mrxs"))
    if change == "written":
        moved[-1].write_bytes(b"written " + moved[-1].read_bytes())
    left = spool.inbox / "ann" / _SET[after] if after < 5 else None
    if change == "gone" and left:
        left.unlink()
    _set(spool, _SECOND, lacks=(left and _SET[after]) or _SET[4])
    _recovered(spool, monkeypatch, nth)
    files = [
        path.read_bytes()
        for path in spool.root.rglob("*")
        if path.is_file() and (_FIRST in path.read_bytes() or _SECOND in path.read_bytes())
    ]
    lost = 1 if change == "gone" and left else 0
    assert sum(_FIRST in data for data in files) == 5 - lost
    assert len(set(files)) == len(files)
    for unit in _units(spool):
        assert len({_FIRST in data for data in unit.values()}) == 1, unit


@pytest.mark.parametrize("nth", range(7))
def test_interrupted_claims_of_two_users_go_each_to_its_own(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Under the same names."""
    for user, content in (("ann", _FIRST), ("bob", _SECOND)):
        _killed(spool, _set(spool, content, user=user), monkeypatch, 2)
        [place] = [one for one in spool.tmp.iterdir() if one.is_dir()]
        place.rename(place.with_name(f"20261123-141502-{user}-a"))
        (spool.root / user).mkdir()
        place.with_name(f"20261123-141502-{user}-a").rename(spool.root / user / "held")
    for user in ("ann", "bob"):
        (spool.root / user / "held").rename(spool.tmp / f"20261123-141502-{user}-a")
        (spool.root / user).rmdir()
    _recovered(spool, monkeypatch, nth)
    for user, content in (("ann", _FIRST), ("bob", _SECOND)):
        there = {
            str(path.relative_to(spool.inbox / user)): path.read_bytes()
            for path in (spool.inbox / user).rglob("*")
            if path.is_file()
        }
        assert there == {path: content + path.encode() for path in _SET}
