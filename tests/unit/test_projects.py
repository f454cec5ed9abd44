"""The folders of projects: those who show and take back at the same time do not meet in the middle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cytowatch.record.names import UploadedFileId
from cytowatch.tree.spool import Spool


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
