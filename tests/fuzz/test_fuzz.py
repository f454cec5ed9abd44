"""A short run of every fuzzer, with its corpus; `make fuzz` runs them for long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import daemon
from tests.fuzz.targets import TARGETS
from tests.lab.root import Root

HOUSE = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
SECONDS = 4
#: Branches that even the smallest of our parsers has. A target whose corpus is refused at once sees fewer.
LEAST_BRANCHES = 12


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_taken_or_refused(target: str) -> None:
    """What once was a defect, and what reaches the furthest, without a fuzzer."""
    files = sorted((CORPUS / target).iterdir())
    assert files
    for path in files:
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_new_is_found_in_a_short_run(target: str, tmp_path: Path) -> None:
    """By coverage, from the corpus on. The seed is always the same, so that a change is not refused for an older defect.

    `make fuzz` takes another seed each time, and finds those.
    """
    if not os.environ.get("CI"):
        pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, f"-max_total_time={SECONDS}", "-seed=1", "-timeout=10",
         "-max_len=8192", f"-artifact_prefix={tmp_path}/", str(tmp_path), str(CORPUS / target)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=HOUSE, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
    assert max(int(seen) for seen in re.findall(r" cov: (\d+)", done.stderr)) >= LEAST_BRANCHES


@pytest.mark.skipif(not daemon.SAMPLES.exists(), reason="the samples are not beside this checkout")
def test_the_daemon_outlives_a_share_of_the_storm(root: Root) -> None:
    """A minute of bad and odd files, cut and with bits turned, always the same ones."""
    told = daemon.storm(root, daemon._all(daemon.SAMPLES, 1), 60)
    assert told.total() > 500
    assert sum(count for what, count in told.items() if what.startswith("ERROR")) > 100
    assert told["CONVERTED"] > 20
    assert not [what for what in told if what.endswith(" unexpected")], told
