"""Where `make test` keeps its temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import scratch

HOUSE = Path(__file__).parents[2]
SAYS = "import sys, tempfile; print(tempfile.gettempdir()); sys.exit(3)"


def said(**environment: str) -> tuple[str, int]:
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.scratch", sys.executable, "-c", SAYS],
        env={**kept, **environment}, cwd=HOUSE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip(), done.returncode


def test_they_are_in_memory_and_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit status of the command."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    if not scratch.in_memory():
        pytest.skip("/dev/shm has no room for the tests here")
    folder, status = said()
    assert Path(folder).parent == Path("/dev/shm")
    assert not Path(folder).exists()
    assert status == 3


def test_a_place_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    """And continuous integration runs on the disk."""
    assert said(TMPDIR=str(tmp_path)) == (str(tmp_path), 3)
    folder, status = said(CI="true")
    assert Path("/dev/shm") not in Path(folder).parents
    assert status == 3
