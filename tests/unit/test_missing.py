"""What vanishes from storage is remembered until it is back, or until somebody knows."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from cytowatch.admin import invariants
from cytowatch.admin.remove import remove
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.unit.test_index import START, anew, deployed, go, put, spool, uploaded

__all__ = ["spool"]


def missing(index: Index) -> list[str]:
    return [one.id for one in index.missing()]


def vanish(spool: Spool, user: str = "ann") -> Path:
    """Somebody moves one away."""
    path = sorted((spool.storage / user).iterdir())[0]
    path.rename(spool.root / path.name)
    return path


def test_what_is_moved_away_is_missing_until_it_is_back(spool: Spool) -> None:
    """Whenever one looks, and no matter what became of the index in between."""
    index = deployed(spool, 6)
    gone = vanish(spool)
    index.look_for_vanished(thoroughly=False)
    assert missing(index) == [gone.name]
    assert (index.missing()[0].user, index.missing()[0].status) == ("ann", "DEPLOYED")
    assert list(index.every()) == anew(spool)
    index.reconcile()
    index.reconcile(from_scratch=True)
    index.close()
    index = Index(spool)
    index.reconcile()
    assert missing(index) == [gone.name]
    (spool.root / gone.name).rename(gone)
    index.look_for_vanished(thoroughly=False)
    assert missing(index) == []
    index.close()


@pytest.mark.parametrize("how", ["start", "reindex", "older", "damaged"])
def test_it_is_noticed_where_no_daemon_ran(spool: Spool, how: str) -> None:
    """At the next start, and by an index that is made again, as far as the old one can be read."""
    index = deployed(spool, 6)
    index.close()
    gone = vanish(spool)
    path = spool.state / "index.sqlite3"
    if how == "older":
        import sqlite3

        old = sqlite3.connect(path)
        old.executescript(
            "DROP TRIGGER vanished; DROP TABLE missing; DROP TABLE going; PRAGMA user_version = 2"
        )
        old.close()
    if how == "damaged":
        path.write_bytes(b"this is not a database at all" * 100)
    index = Index(spool)
    index.reconcile(from_scratch=how == "reindex")
    # One of before this was known has no table to take over, but its rows; a damaged one has nothing.
    assert missing(index) == ([] if how == "damaged" else [gone.name])
    assert [one.name for one in spool.state.glob("index.*") if "before" in one.name] == []
    index.close()


def test_a_whole_folder_that_is_gone_is_every_slide_in_it(spool: Spool) -> None:
    """Of a user who had three."""
    index = deployed(spool, 6)
    (spool.storage / "ann").rename(spool.root / "ann")
    index.look_for_vanished(thoroughly=False)
    assert len(missing(index)) == 3
    (spool.root / "ann").rename(spool.storage / "ann")
    index.reconcile()
    assert missing(index) == []
    index.close()


def test_a_tree_that_is_offline_misses_nothing(spool: Spool) -> None:
    """What is not mounted is not deleted."""
    index = deployed(spool, 6)
    spool.root.rename(spool.root.with_name("away"))
    index.look_for_vanished(thoroughly=True)
    spool.root.with_name("away").rename(spool.root)
    assert missing(index) == []
    index.close()


def test_a_publication_hides_nothing_for_long(spool: Spool) -> None:
    """It changes the folder's time as well; a thorough look reads the names."""
    index = deployed(spool, 6)
    gone = vanish(spool)
    place = put(spool, uploaded(7))
    place = go(spool, place, Status.DEPLOYED, now=START + timedelta(seconds=9))
    index.put(place.manifest, place.status)
    index.look_for_vanished(thoroughly=False)
    assert missing(index) == []
    index.look_for_vanished(thoroughly=True)
    assert missing(index) == [gone.name]
    index.close()


def test_what_a_command_removes_is_not_missing(spool: Spool) -> None:
    """Nor if it was cut off between the two; what was missing is forgotten by the same command."""
    index = deployed(spool, 6)
    first, second, third, *_ = sorted((spool.storage / "ann").iterdir())
    remove(spool, UploadedFileId(first.name), index)
    index.look_for_vanished(thoroughly=True)
    assert missing(index) == []
    index.expect_removal(second.name)
    shutil.rmtree(second)
    index.close()
    index = Index(spool)
    index.reconcile()
    assert missing(index) == []
    shutil.rmtree(third)
    index.reconcile()
    link = spool.projects / "p" / f"x~{third.name.split('-')[2]}"
    link.parent.mkdir()
    link.symlink_to(f"../../storage/ann/{third.name}")
    assert missing(index) == [third.name]
    remove(spool, UploadedFileId(third.name), index)
    assert missing(index) == []
    assert not link.is_symlink()
    with pytest.raises(RootError):
        remove(spool, UploadedFileId(third.name), index)
    index.close()


@pytest.mark.parametrize("at_rest", [True, False])
def test_a_deep_check_names_it(spool: Spool, at_rest: bool) -> None:
    """Whether the index knows already or still believes that it is there."""
    index = deployed(spool, 2)
    gone = vanish(spool)
    for _ in range(2):
        told = [
            one
            for one in invariants.broken(spool, at_rest=at_rest, hashes=False)
            if "vanished" in one
        ]
        assert told == [
            f"{gone.name} (slide 1.svs of ann) vanished from storage: restore it from a backup, or "
            "forget it with `cytowatch remove`"
        ]
        index.reconcile()
    index.close()
