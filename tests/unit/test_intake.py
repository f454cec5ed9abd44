"""What only the scan finds, without a single event."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch.config import from_mapping
from cytowatch.inbox import intake, sweep
from cytowatch.record.names import UploadedFileId
from cytowatch.tree.spool import Spool


class NoFolders:
    open: tuple[str, ...] = ()

    def is_open(self, _folder: str) -> bool:
        return False

    def note(self) -> None:
        pass


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    # A folder that was just made would be looked into for three more seconds in any case.
    monkeypatch.setattr(sweep, "_CLOCK_TICK_NS", 0)
    made = Spool.create(tmp_path / "root")
    (made.inbox / "ann").mkdir()
    return made


def scanning(spool: Spool) -> intake.Intake:
    return intake.Intake(
        spool, from_mapping({}), now=lambda: datetime.now(UTC),
        make_id=lambda _now, name: UploadedFileId(name), software={},
        folders=cast("Any", NoFolders()), wake=lambda: None,
    )  # fmt: skip


def paths(looking: intake.Intake) -> list[str]:
    looking.scan_all(time.monotonic(), events_lost=True, whole=True)
    return sorted(one["path"] for one in looking.waiting(time.monotonic()))


def test_an_inbox_that_was_empty_is_looked_into_when_something_came(spool: Spool) -> None:
    """Only by its time it is passed over, until that time changes; no matter what a copier sets."""
    looking = scanning(spool)
    inbox = spool.inbox / "ann"
    for _ in range(3):
        assert paths(looking) == []
    before = os.stat(inbox)
    (inbox / "a.svs").write_bytes(b"x")
    # As rsync -a does: the folder gets the time back that it had.
    os.utime(inbox, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert paths(looking) == ["ann/a.svs"]
    (inbox / "a.svs").unlink()
    assert paths(looking) == []
    assert paths(looking) == []
    (inbox / "case").mkdir()
    assert paths(looking) == []
    # What comes into a folder below does not change the time of the inbox itself.
    (inbox / "case" / "b.svs").write_bytes(b"x")
    assert paths(looking) == ["ann/case/b.svs"]


def test_an_inbox_that_is_another_one_now_is_looked_into(spool: Spool) -> None:
    """Removed and made again, with something in it, between two scans."""
    looking = scanning(spool)
    assert paths(looking) == []
    other = spool.inbox.parent / "other"
    other.mkdir()
    (other / "a.svs").write_bytes(b"x")
    (spool.inbox / "ann").rmdir()
    other.rename(spool.inbox / "ann")
    assert paths(looking) == ["ann/a.svs"]
