"""Fairness in a real daemon: anyone who drops one slide does not wait for another one's batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import builders
from tests.lab.root import Root
from tests.lab.told import json_lines

BATCH = 150


def test_a_batch_delays_another_users_slide_by_one_stage_of_one_file(
    root: Root, tmp_path: Path
) -> None:
    """Neither its claim nor its treatment waits for more, with one worker for both users."""
    root.configure(engine="workers = 1")
    picture = builders.png(tmp_path / "a.png", width=600)
    for number in range(BATCH):
        root.drop(picture, f"{number:03}.png")
    root.start()
    root.wait(lambda: [one for one in root.manifests().values() if one["status"] == "CONVERTED"])
    folder = root.path / "inbox" / "bob"
    folder.mkdir()
    shutil.copyfile(picture, folder / "single.png")
    root.wait(lambda: root.by_name().get("single.png", {}).get("status") == "CONVERTED")
    assert root.stop() == 0
    [single] = [one for one in root.manifests().values() if one["user"] == "bob"]
    batch = [one for one in root.manifests().values() if one["user"] == "ann"]
    still_waiting = [one for one in batch if one["status"] in ("UPLOADED", "DETECTING_FORMAT")]
    assert len(still_waiting) > BATCH // 3, "the batch was over before the single slide came"
    # The log is in the order in which it happened.
    lines = [one for one in json_lines(root.log) if one["event"] in ("claimed", "stage")]
    of_single = [number for number, one in enumerate(lines) if one["id"] == single["id"]]
    claimed, begun = of_single[:2]
    assert lines[claimed]["event"] == "claimed"
    assert lines[begun]["to"] == "DETECTING_FORMAT"
    between = [one for one in lines[claimed:begun] if one["event"] == "stage"]
    # The claim is reported a moment before it is handed on: what was under way may end in it, and the next
    # file begin, of which one stage is waited for then.
    assert len(between) <= 3, between


def test_a_claim_does_not_wait_for_another_users_backlog(root: Root, tmp_path: Path) -> None:
    """It is claimed while more than 500 of another one's 1,500 drops still wait for theirs."""
    inbox = root.path / "inbox"
    for user in ("ann", "bob"):
        (inbox / user).mkdir()
    aside = root.path / "aside"
    aside.mkdir()
    for number in range(1500):
        (aside / f"{number}.txt").write_text(f"{number}")
    builders.png(aside / "single.png")
    root.configure(engine="workers = 1")
    root.start()
    for path in aside.glob("*.txt"):
        path.rename(inbox / "ann" / path.name)
    root.wait(lambda: len(list((inbox / "ann").iterdir())) < 1450)
    (aside / "single.png").rename(inbox / "bob" / "single.png")
    root.wait(lambda: [one for one in root.manifests().values() if one["user"] == "bob"])
    assert len(list((inbox / "ann").iterdir())) > 500, "the backlog was over too soon"
    assert root.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_one_user_who_holds_all_workers_does_not_hold_up_another(
    root: Root, tmp_path: Path, workers: int
) -> None:
    """Neither by decoders that hang nor by as many more as wait: one more is there for everyone else."""
    root.configure(engine=f"workers = {workers}\nno_progress_s = 600.0")
    root.environment["CYTOWATCH_TEST_STAGES"] = "tests.lab.stages"
    picture = builders.png(tmp_path / "a.png")
    root.start()
    for number in range(workers + 2):
        root.drop(picture, f"hang-CONVERTING.{number}.png")
    root.wait(lambda: len(begun(root)) == workers)
    for user in ("bob", "zoe"):
        for number in range(3):
            root.drop(picture, f"{user}-{number}.png", user=user)
    names = [f"{user}-{number}.png" for user in ("bob", "zoe") for number in range(3)]
    root.wait(lambda: all(status(root, name) == "CONVERTED" for name in names))
    assert len(begun(root)) == workers, "one user was given the one that is spare"
    assert root.stop() == 0


def begun(root: Root) -> list[str]:
    """The files whose decoders hang."""
    found = root.by_name().items()
    return [name for name, one in found if name.startswith("hang") and one["status"] != "UPLOADED"]


def status(root: Root, name: str) -> str | None:
    return root.by_name().get(name, {}).get("status")
