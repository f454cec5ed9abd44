"""The log: one line per event, with priorities for the journal, and nothing of a patient."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from cytowatch.observe import logs
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry, FormatEntry, Manifest
from cytowatch.record.status import Status


def ended(log_to: io.StringIO) -> dict:
    logs.configure("info", "json", log_to)
    made = manifest.new(
        id="20261123-141502-iesh-CMU-1", user="ann", name="CMU\x1b[31m\n1.svs", drop_path="ann/CMU 1.svs",
        now=datetime(2026, 11, 23, tzinfo=UTC), software={},
        files=[FileEntry(role="source", path="source/a.svs", size_bytes=7, sha256=None, status="UPLOADED")],
    )  # fmt: skip
    image = {
        "width": 100,
        "height": 50,
        "properties": {"aperio.Patient": "Jane Doe"},
        "vendor": "aperio",
    }
    changed = {**made, "images": [image], "warnings": ["label says Jane Doe"]}
    form = FormatEntry(id="aperio-svs", name="SVS", native=True, evidence="Aperio|Patient = Jane Doe",
                       openslide_vendor="aperio")  # fmt: skip
    found = manifest.at_status(
        cast("Manifest", {**changed, "format": form}), Status.DEPLOYED, now=datetime.now(UTC)
    )
    logs.ended_line(logs.get(), found)
    return json.loads(log_to.getvalue())


def test_an_upload_ends_in_one_line_without_a_patient() -> None:
    """All that support needs, no header's value and no control character."""
    out = io.StringIO()
    line = ended(out)
    assert out.getvalue().count("\n") == 1
    assert "Jane" not in out.getvalue()
    assert "\x1b" not in line["name"]
    assert (line["event"], line["status"], line["format"]) == ("ended", "DEPLOYED", "aperio-svs")
    assert line["pixels"] == [[100, 50]]
    assert line["bytes"] == 7


@pytest.mark.parametrize(("level", "priority"), [("info", 6), ("warning", 4), ("error", 3)])
def test_the_journal_is_given_priorities(tmp_path: Path, level: str, priority: int) -> None:
    """Where standard output is the journal, as systemd says by its device and inode; nowhere else."""
    words = f"from cytowatch.observe import logs; logs.configure('info', 'auto'); logs.get().{level}('x')"
    out = tmp_path / "out"
    for journal in (True, False):
        with out.open("wb") as file:
            found = os.fstat(file.fileno())
            inode = found.st_ino if journal else found.st_ino + 1
            subprocess.run(
                [sys.executable, "-c", words], stdout=file, check=True,
                env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{inode}"},
            )  # fmt: skip
        text = out.read_text()
        assert text.startswith(f"<{priority}>{{" if journal else "{")
        assert json.loads(text[text.index("{") :])["event"] == "x"
