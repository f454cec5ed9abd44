"""docs/explanation/crash-and-recovery.md is specification and test in one."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime
from pathlib import Path

from cytowatch.record.entries import FileEntry
from cytowatch.record.names import UploadedFileId

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "crash-and-recovery.md"


def row(name: str, size_bytes: int) -> FileEntry:
    return FileEntry(
        role="source",
        path=f"source/{name}",
        size_bytes=size_bytes,
        sha256=None,
        status="UPLOADED",
    )


def test_every_line_of_the_page_holds(tmp_path: Path) -> None:
    """What the page says of a crash is what a start does."""
    known = {
        "root": tmp_path / "root",
        "row": row,
        "ID": UploadedFileId("20261123-141502-k3f9-a"),
        "OTHER": UploadedFileId("20261123-141503-k3f9-b"),
        "THIRD": UploadedFileId("20261123-141504-k3f9-c"),
        "NOW": datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC),
    }
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, globs=known)
    assert tried > 25
    assert failed == 0
