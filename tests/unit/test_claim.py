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
from cytowatch.inbox.scan import Drop, Waiting
from cytowatch.model import UploadedFileId
from cytowatch.spool import Spool
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
    """Under its own name, or beside whatever has that name by then: nothing is lost either way."""
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
    monkeypatch.setattr(claim, "lease", lambda _descriptor: "none")
    found = take(spool, seen(spool), quiet_for_s=10)
    assert isinstance(found, Waiting)
    assert found.why == "no_lease"
    assert isinstance(take(spool, seen(spool), quiet_for_s=61), str)
