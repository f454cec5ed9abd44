"""A claim: taken whole, or left where it was; after a crash finished or undone, never lost."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.inbox import claim, scan
from cytowatch.inbox.claim import hold
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


def take(spool: Spool, drop: Drop, *, quiet_for_s: float = 10) -> UploadedFileId | Waiting:
    numbers = itertools.count(1000)
    return claim.claim(
        spool, claim.single(drop), config=Config(), now=datetime.now(UTC), software={}, overdue=False,
        make_id=lambda _now, _name: UploadedFileId(f"20261123-141502-{next(numbers)}-a"),
        quiet_for_s=quiet_for_s,
    )  # fmt: skip


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
        spool, parcel, config=Config(), now=datetime.now(UTC), software={}, overdue=False,
        make_id=lambda _now, _name: UploadedFileId("20261123-141502-1000-M"), quiet_for_s=10,
    )  # fmt: skip
    assert isinstance(found, Waiting)
    assert found.why == "open_for_writing"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert kept == {f"{number}.dat": bytes([65 + number]) * 100 for number in range(3)}
    assert list(spool.tmp.iterdir()) == []
