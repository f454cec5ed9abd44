"""A backup that was taken while slides moved on, restored: nothing is lost, nothing counts twice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests import builders
from tests.lab.root import STAGES, Root, command
from tests.lab.told import json_lines


def test_what_a_backup_holds_twice_counts_once(root: Root, tmp_path: Path) -> None:
    """Copied in the order of the documents between every two steps of a slide; then restored."""
    slide = builders.png(tmp_path / "a.png")
    root.environment = dict(STAGES)
    root.start()
    root.drop(slide, "slow-CONVERTING.png")
    copy = tmp_path / "copy"
    copy.mkdir()
    converting = root.path / "stages" / "converting"
    root.wait(lambda: list(converting.iterdir()))
    with root.standing_still():
        for part in ("FORMAT", "inbox", "stages"):
            subprocess.run(["cp", "-a", str(root.path / part), str(copy)], check=True)
    # It moves on meanwhile.
    root.wait(lambda: list((root.path / "storage").glob("ann/*")))
    for part in ("storage", "projects", "state"):
        subprocess.run(["cp", "-a", str(root.path / part), str(copy)], check=True)
    assert root.stop() == 0
    [document] = root.manifests().values()
    shutil.rmtree(root.path)
    copy.rename(root.path)
    assert list(converting.iterdir())
    assert root.run_until_idle() == 0
    [line] = [one for one in json_lines(root.log) if one["event"] == "second_copy"]
    aside = Path(line["path"])
    assert (line["id"], line["status"]) == (document["id"], "CONVERTING")
    assert aside.parent == root.path / "state" / "aside"
    [kept] = (aside / "source").iterdir()
    assert kept.read_bytes() == slide.read_bytes()
    [again] = root.manifests().values()
    assert (again["id"], again["status"]) == (document["id"], "CONVERTED")
    told = command(root, "check", "--deep")
    assert told.returncode == 1
    assert "a second copy was set aside" in told.stdout
    shutil.rmtree(aside)
    root.assert_clean()
    assert command(root, "check", "--deep").returncode == 0


def test_of_two_that_are_in_work_the_one_further_on_counts(root: Root, tmp_path: Path) -> None:
    """One in CONVERTING and one in DETECTING FORMAT, as only a copy of `stages/` can hold them."""
    root.environment = dict(STAGES)
    root.start()
    root.drop(builders.png(tmp_path / "a.png"), "pause-CONVERTING.png")
    converting = root.path / "stages" / "converting"
    root.wait(lambda: list(converting.iterdir()))
    root.kill()
    root.environment = {}
    [directory] = converting.iterdir()
    earlier = root.path / "stages" / "detecting-format" / directory.name
    shutil.copytree(directory, earlier)
    assert root.run_until_idle() == 0
    [line] = [one for one in json_lines(root.log) if one["event"] == "second_copy"]
    assert line["status"] == "DETECTING_FORMAT"
    [document] = root.manifests().values()
    assert document["status"] == "CONVERTED"
