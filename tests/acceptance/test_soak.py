"""One minute of the soak; ten are `make soak`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance.soak import soak
from tests.lab import samba
from tests.needs import unless


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@unless(samba.missing())
def test_a_minute_under_fire(tmp_path: Path) -> None:
    """Nothing lost, nothing doubled, nothing left half-done."""
    tmp_path.chmod(0o755)
    seconds = 60.0 if os.environ.get("CI") else 15.0
    figures = soak(tmp_path, seconds)
    assert figures["wrong"] == [], figures
    assert figures["slides"] > seconds / 2
    assert figures["kills"] > seconds / 10
