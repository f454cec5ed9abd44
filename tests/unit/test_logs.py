"""The log: one line per event, with priorities for the journal, and nothing of a patient."""

from __future__ import annotations

import fcntl
import io
import json
import logging
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


def test_a_reader_that_stops_holds_up_nothing_and_the_loss_is_counted() -> None:
    """A full pipe takes no line, and none waits for it; once it is read again, the log says how many were lost."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16384)
    with os.fdopen(reading, "rb", 0) as reader, os.fdopen(writing, "w") as out:
        logs.configure("info", "json", out)
        for number in range(300):
            logs.get().info("x", number=number, text="y" * 100)
        logs.get().info("x", text="z" * 100_000)
        first = reader.read(1 << 20).splitlines()
        seen = len([one for one in first if one.startswith(b"{") and one.endswith(b"}")])
        assert 1 < seen < 300
        logs.get().info("x", number=300)
        lost, next_one = [json.loads(one) for one in reader.read(1 << 20).splitlines() if one]
    assert (lost["event"], lost["level"], lost["lines"]) == ("log_lost", "warning", 301 - seen)
    assert next_one["number"] == 300


def test_a_line_after_a_torn_one_is_whole_and_letters_do_not_end_it() -> None:
    """Half of a long line is in the pipe when it is full; the next is a line of its own, in any encoding."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reading, "rb", 0) as reader, os.fdopen(writing, "w", encoding="ascii") as out:
        logs.configure("info", "json", out)
        logs.get().info("x", text="y" * 10_000)
        torn = reader.read(1 << 20)
        assert not torn.endswith(b"\n")
        logging.getLogger("a library").warning("K\u00e4se \udcff")
        lines = reader.read(1 << 20).splitlines()
    assert [json.loads(one)["event"] for one in lines if one] == ["log_lost", "K\u00e4se \udcff"]


def test_a_reader_that_has_gone_ends_nothing() -> None:
    """As when the program behind the pipe was ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        logs.configure("info", "json", out)
        logs.get().info("x")
