"""What a child is given, and what happens on a kernel that cannot hold it in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests import builders
from tests.lab.root import STAGES, Root
from tests.lab.told import free_port, json_lines, metric

#: Becomes its arguments on a kernel that has no Landlock, as far as they can tell.
WITHOUT_LANDLOCK = """
import ctypes, os, sys
import pyseccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
found = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
found.add_rule(pyseccomp.ERRNO(38), "landlock_create_ruleset")
found.load()
os.execv(sys.argv[1], sys.argv[1:])
"""


def without_landlock(root: Root) -> None:
    root.prefix = [sys.executable, "-c", WITHOUT_LANDLOCK]


def test_a_kernel_without_landlock_is_said(root: Root, tmp_path: Path) -> None:
    """A line at the start, the gauge at 0; slides are deployed all the same."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    without_landlock(root)
    root.start()
    assert [one for one in json_lines(root.log) if one["event"] == "sandbox_off"]
    assert metric(port, "cytowatch_sandbox_enabled") == 0
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.wait(lambda: root.by_name().get("a.svs", {}).get("status") == "DEPLOYED")
    assert root.stop() == 0
    root.prefix = []
    root.start()
    assert metric(port, "cytowatch_sandbox_enabled") == 1
    assert root.stop() == 0


def test_who_demands_it_does_not_run_without(root: Root) -> None:
    """Exit code 2, and a sentence that says what is missing and which key demands it."""
    root.configure(more="[sandbox]\nrequire = true")
    without_landlock(root)
    assert root.run_until_idle() == 2
    said = root.log.read_text()
    assert "no Landlock" in said
    assert "sandbox.require" in said
    assert "Traceback" not in said


def test_decoders_stand_back_for_everything_else(root: Root, tmp_path: Path) -> None:
    """The daemon as it was started, a child ten steps behind it."""
    root.environment = dict(STAGES)
    root.start()
    assert root.process
    root.drop(builders.png(tmp_path / "a.png"), "pause-CONVERTING.png")
    root.wait(lambda: list(root.path.glob("stages/converting/*/worker")))
    [record] = root.path.glob("stages/converting/*/worker")
    child, own = json.loads(record.read_text())["pid"], os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, root.process.pid) == own
    assert os.getpriority(os.PRIO_PROCESS, child) == min(19, own + 10)
    assert root.stop() == 0


def test_a_child_has_an_environment_and_descriptors_of_its_own(root: Root, tmp_path: Path) -> None:
    """Nothing of the daemon's: no variable, no open file; and no loader that libvips distrusts."""
    root.environment = {
        "CYTOWATCH_TEST_STAGES": "tests.lab.stages", "AWS_SECRET": "hunter2",
    }  # fmt: skip
    root.drop(builders.png(tmp_path / "a.png"), "bare-DETECTING_FORMAT.png")
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    [document] = root.manifests().values()
    assert document["status"] == "CONVERTED", document["error"]
