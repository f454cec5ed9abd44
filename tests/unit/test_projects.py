"""The folders of projects: those who show and take back at the same time do not meet in the middle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cytowatch.admin import ended, invariants, projects
from cytowatch.admin import remove as removing
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.tree.spool import Spool
from tests.unit.test_index import deployed, spool

__all__ = ["spool"]


def test_one_shown_while_the_last_other_is_taken_back(tmp_path: Path) -> None:
    """The project goes with its last link, at any moment, and the next link makes it again."""
    spool = Spool.create(tmp_path / "root")

    def show_and_take_back(number: int) -> None:
        id_ = UploadedFileId(f"20261123-141502-100{number}-a")
        for _ in range(500):
            spool.link("P", "a.svs", "ann", id_)
            assert (spool.projects / "P" / f"a.svs~100{number}").is_symlink()
            spool.unlink("P", "a.svs", id_)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(show_and_take_back, range(4)))
    assert not (spool.projects / "P").exists()


@pytest.mark.parametrize("anyway", [True, False])
def test_one_linked_while_it_is_about_to_be_removed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, *, anyway: bool
) -> None:
    """A command links it after the removal looked where it is: the link goes too, or nothing does."""
    index = deployed(spool, 1)
    [path] = spool.storage.glob("*/*")
    found = ended.place

    def find_then_link(spool: Spool, id_: UploadedFileId) -> Place:
        place = found(spool, id_)
        projects.link(spool, path, "P")
        return place

    monkeypatch.setattr(ended, "place", find_then_link)
    if anyway:
        removing.remove(spool, UploadedFileId(path.name), index, even_linked=True)
        assert not (spool.projects / "P").exists()
    else:
        with pytest.raises(RootError, match="unlink it first"):
            removing.remove(spool, UploadedFileId(path.name), index)
        assert [link.is_dir() for link in spool.projects.glob("P/*")] == [True]
    index.close()
    wrong = invariants.broken(spool, at_rest=True, hashes=False)
    assert not [one for one in wrong if str(spool.projects) in one]
