"""kill -9, crashes, hangs: nothing lost, nothing doubled, one error for one bad file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from cytowatch.record import manifest
from tests import builders
from tests.lab import stages
from tests.lab.root import HANGS_S, STAGES, Root
from tests.lab.told import json_lines

MISBEHAVING = dict(STAGES)


def batch(path: Path, members: int) -> Path:
    made = builders.jpeg(path.parent / "member.jpg").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(members):
            archive.writestr(f"m{number:02}.jpg", made)
    return path


def assert_no_orphans(root: Root) -> None:
    end = time.monotonic() + HANGS_S
    while left := root.orphans():
        assert time.monotonic() < end, f"processes {left} outlived their daemon"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["DETECTING_FORMAT", "CONVERTING", "DEPLOYING"])
def test_killed_in_a_stage_it_goes_on_after_the_restart(
    root: Root, tmp_path: Path, stage: str
) -> None:
    """Deployed exactly once, bytes equal, no process left, nothing half-done left."""
    image = builders.planar_tiff(tmp_path / "flat.tif", width=900, height=700)
    native = builders.aperio_svs(tmp_path / "native.svs")
    dropped = {f"pause-{stage}.tif": image}
    if stage != "CONVERTING":
        dropped[f"pause-{stage}-native.svs"] = native
    for name, source in dropped.items():
        root.drop(source, name)
    root.environment = MISBEHAVING
    root.start()
    live = root.path / "state" / "live.json"

    def all_paused() -> bool:
        stages = [document["_stage"] for document in root.manifests().values()]
        directory = stage.lower().replace("_", "-")
        return stages == [directory] * len(dropped) and live.read_text().count(
            '"share": 0.5'
        ) == len(dropped)

    root.wait(all_paused)
    root.kill()
    assert_no_orphans(root)
    root.environment = {}
    assert root.run_until_idle() == 0
    found = root.by_name()
    assert len(root.manifests()) == len(dropped)
    for name, source in dropped.items():
        assert found[name]["status"] == ("CONVERTED" if name.endswith(".tif") else "DEPLOYED")
        [row] = [row for row in found[name]["files"] if row["role"] == "source"]
        assert (found[name]["_path"] / row["path"]).read_bytes() == source.read_bytes()
        assert stage in [entry["status"] for entry in found[name]["history"]]
    root.check_hashes()
    root.assert_clean()


def test_killed_while_it_extracts_each_member_is_made_once(root: Root, tmp_path: Path) -> None:
    """Children in out.<n> were never published; the restart makes them again, and once."""
    root.drop(batch(tmp_path / "b.zip", 5), "pause-EXTRACTING_DATA.zip")
    root.environment = MISBEHAVING
    root.start()
    root.wait(lambda: len(list(root.path.glob("stages/extracting-data/*/out.*/children/*"))) == 5)
    root.kill()
    assert_no_orphans(root)
    root.environment = {}
    assert root.run_until_idle() == 0
    assert_batch(root, 5)


def assert_batch(root: Root, members: int) -> None:
    assert len(root.manifests()) == 1 + members
    assert_batch_in(root, members)


def assert_batch_in(root: Root, members: int) -> None:
    documents = list(root.manifests().values())
    children = [document for document in documents if document["parent_id"] is not None]
    [parent] = [document for document in documents if document["children"]]
    assert parent["status"] == "EXTRACTED"
    assert sorted(document["name"] for document in children) == [
        f"m{number:02}.jpg" for number in range(members)
    ]
    assert sorted(parent["children"]) == sorted(document["id"] for document in children)
    assert {document["status"] for document in children} == {"CONVERTED"}
    root.check_hashes()
    root.assert_clean()


def test_killed_while_it_publishes_it_hands_out_the_rest(root: Root, tmp_path: Path) -> None:
    """In `publishing` nothing is unpacked again: what is still in out.<n> was not handed out."""
    root.drop(batch(tmp_path / "b.zip", 4), "pause-EXTRACTING_DATA.zip")
    root.environment = MISBEHAVING
    root.start()
    root.wait(
        lambda: len(list(root.path.glob("stages/extracting-data/*/out.*/children/*/m*"))) == 4
    )
    root.kill()
    # By hand to where a kill between two of its renames leaves it: two out, two still in.
    [place] = root.path.glob("stages/extracting-data/*")
    children = sorted(place.glob("out.*/children/*"))
    manifest.write(
        place,
        {
            **manifest.read(place),
            "children": [child.name for child in children],
            "phase": "publishing",
        },
    )
    for child in children[:2]:
        child.rename(root.path / "stages" / "uploaded" / child.name)
    inodes = sorted(
        next((child / "source").iterdir()).stat().st_ino
        for child in root.path.glob("stages/uploaded/*")
    )
    root.environment = {}
    assert root.run_until_idle() == 0
    assert_batch(root, 4)
    kept = {
        os.stat(document["_path"] / document["files"][0]["path"]).st_ino
        for document in root.manifests().values()
    }
    assert set(inodes) <= kept


def test_killed_between_the_manifest_and_the_last_rename_nothing_is_done_twice(
    root: Root, tmp_path: Path
) -> None:
    """The directory is the truth: a manifest that says DEPLOYED too early is taken back."""
    root.drop(batch(tmp_path / "b.zip", 3), "b.zip")
    root.drop(builders.aperio_svs(tmp_path / "n.svs"))
    root.drop(builders.png(tmp_path / "f.png"))
    assert root.run_until_idle() == 0
    before = root.manifests()
    back = {"b.zip": "extracting-data", "n.svs": "deploying", "f.png": "deploying"}
    for name, stage in back.items():
        path = root.by_name()[name]["_path"]
        path.rename(root.path / "stages" / stage / path.name)
    assert root.run_until_idle() == 0
    after = root.manifests()
    assert {id_: one["status"] for id_, one in after.items()} == {
        id_: one["status"] for id_, one in before.items()
    }
    for id_, one in after.items():
        assert {row["path"] for row in one["files"]} == {
            row["path"] for row in before[id_]["files"]
        }
    assert_batch_in(root, 3)
    root.check_hashes()
    root.assert_clean()


def test_a_damaged_manifest_ends_one_uploaded_file_and_keeps_its_source(
    root: Root, tmp_path: Path
) -> None:
    """Nobody tears one by itself, but a disk may; the original is where it was."""
    slide = builders.png(tmp_path / "f.png")
    root.environment = MISBEHAVING
    root.drop(slide, "pause-CONVERTING.png")
    root.start()
    root.wait(lambda: list(root.path.glob("stages/converting/*")))
    root.kill()
    [place] = root.path.glob("stages/converting/*")
    (place / "manifest.json").write_text('{"schema_version": 1, "id"')
    root.environment = {}
    root.drop(slide, "good.png")
    assert root.run_until_idle() == 1
    found = root.manifests()
    assert found[place.name]["status"] == "ERROR_CONVERSION"
    assert found[place.name]["error"]["reason"] == "manifest_damaged"
    [source] = [row for row in found[place.name]["files"] if row["role"] == "source"]
    assert (found[place.name]["_path"] / source["path"]).read_bytes() == slide.read_bytes()
    assert root.by_name()["good.png"]["status"] == "CONVERTED"


def test_what_takes_the_daemon_down_again_and_again_is_shelved(root: Root, tmp_path: Path) -> None:
    """Attempts are on disk before they begin, so even a file that stops the machine ends."""
    slide = builders.png(tmp_path / "a.png")
    root.drop(slide, "pause-CONVERTING.png")
    root.environment = MISBEHAVING
    root.start()
    root.wait(lambda: list(root.path.glob("stages/converting/*/out.*/thumbnail.jpg")))
    root.kill()
    [place] = root.path.glob("stages/converting/*")
    counted = manifest.read(place)
    assert counted["attempts"] == 1
    manifest.write(place, {**counted, "attempts": 30})
    assert root.run_until_idle() == 1
    [document] = root.manifests().values()
    assert document["status"] == "ERROR_CONVERSION"
    assert document["error"]["reason"] == "crashed_repeatedly"
    [source] = document["files"]
    assert (document["_path"] / source["path"]).read_bytes() == slide.read_bytes()
    root.assert_clean()


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(root: Root, tmp_path: Path) -> None:
    """A batch and loose files under a kill -9 every fraction of a second."""
    root.drop(batch(tmp_path / "b.zip", 8), "b.zip")
    loose = {}
    for number in range(6):
        image = builders.planar_tiff(tmp_path / f"f{number}.tif", width=600 + number, height=500)
        loose[image.name] = image.read_bytes()
        root.drop(image)
    for step in range(12):
        root.start()
        time.sleep(0.15 + 0.08 * step)
        root.kill()
        assert_no_orphans(root)
    assert root.run_until_idle() == 0
    found = root.manifests()
    assert len(found) == 1 + 8 + len(loose)
    for name, data in loose.items():
        document = root.by_name()[name]
        assert document["status"] == "CONVERTED"
        assert (document["_path"] / document["files"][0]["path"]).read_bytes() == data
    root.check_hashes()
    root.assert_clean()


@pytest.mark.parametrize(
    ("deed", "reason", "word"),
    [
        ("segfault", "crashed_repeatedly", "SIGSEGV"),
        ("page", "faults_repeatedly", "cannot be read from the disk"),
        ("hang", "timed_out", "2 s"),
        ("stall", "no_progress", "1.5 s"),
        ("eat", "out_of_memory", "memory"),
    ],
)
def test_a_misbehaving_decoder_costs_one_error(
    root: Root, tmp_path: Path, deed: str, reason: str, word: str
) -> None:
    """ERROR_CONVERSION that says so; the daemon is the same process, the next slide is fine."""
    limits = {
        "hang": "stage_timeout_s = 2.0", "stall": "no_progress_s = 1.5", "page": "max_attempts = 1",
    }  # fmt: skip
    root.configure(engine=limits.get(deed, ""), more="[sandbox]\nmemory_bytes = 2_000_000_000")
    root.environment = MISBEHAVING
    bad = root.drop(builders.png(tmp_path / "a.png"), f"{deed}-CONVERTING.png")
    data = (tmp_path / "a.png").read_bytes()
    root.start()
    assert root.process
    pid = root.process.pid
    root.wait(lambda: root.by_name().get(bad.name, {}).get("status") == "ERROR_CONVERSION")
    document = root.by_name()[bad.name]
    assert document["error"]["reason"] == reason
    assert word in document["error"]["detail"]
    [source] = document["files"]
    assert (document["_path"] / source["path"]).read_bytes() == data
    root.drop(tmp_path / "a.png", "good.png")
    root.wait(lambda: root.by_name().get("good.png", {}).get("status") == "CONVERTED")
    assert root.process.pid == pid
    assert root.process.poll() is None
    root.wait(lambda: root.children_of_processes() == [])
    root.assert_clean()


def test_what_is_slow_but_moves_is_left_to_go_on(root: Root, tmp_path: Path) -> None:
    """Twice as long as a stage may be silent, with a word of progress in between."""
    root.configure(engine="no_progress_s = 1.5")
    root.environment = MISBEHAVING
    root.drop(builders.png(tmp_path / "a.png"), "slow-CONVERTING.png")
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    seconds = {row["status"]: row["seconds"] for row in document["history"]}
    assert seconds["CONVERTING"] > 3


def test_a_child_can_read_its_source_and_write_its_output_and_nothing_else(
    root: Root, tmp_path: Path
) -> None:
    """Reading and writing elsewhere, connecting and signalling are denied by the kernel."""
    root.environment = MISBEHAVING
    root.drop(builders.png(tmp_path / "a.png"), "escape-DETECTING_FORMAT.png")
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    assert document["status"] == "CONVERTED"


def test_a_zygote_that_dies_is_replaced(root: Root, tmp_path: Path) -> None:
    """It is nobody's outage: the next slide is treated by another one."""
    root.start()
    assert root.process
    children = Path(f"/proc/{root.process.pid}/task/{root.process.pid}/children")
    [zygote] = [int(pid) for pid in children.read_text().split()]
    os.kill(zygote, 9)
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    root.wait(lambda: root.by_name().get("a.jpg", {}).get("status") == "CONVERTED")


def test_sigterm_in_a_stage_is_a_clean_end(root: Root, tmp_path: Path) -> None:
    """Exit 0 at once; the attempt does not count, and it is taken up again."""
    root.environment = MISBEHAVING
    root.drop(builders.png(tmp_path / "a.png"), "pause-CONVERTING.png")
    root.start()
    root.wait(lambda: [d["_stage"] for d in root.manifests().values()] == ["converting"])
    began = time.monotonic()
    assert root.stop() == 0
    assert time.monotonic() - began < 10
    [document] = root.manifests().values()
    assert document["attempts"] == 0
    root.environment = {}
    assert root.run_until_idle() == 0
    root.assert_clean()


def _zygote(root: Root) -> int:
    assert root.process
    children = Path(f"/proc/{root.process.pid}/task/{root.process.pid}/children")
    [zygote] = [int(pid) for pid in children.read_text().split()]
    return zygote


def test_a_zygote_that_stands_still_is_replaced(root: Root, tmp_path: Path) -> None:
    """Anyone who waits for it goes on, and a SIGTERM is answered in time."""
    root.start()
    os.kill(_zygote(root), signal.SIGSTOP)
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.wait(lambda: [one for one in root.manifests().values() if one["status"] == "DEPLOYED"])
    os.kill(_zygote(root), signal.SIGSTOP)
    root.drop(tmp_path / "a.svs", "b.svs")
    root.wait(lambda: len(root.manifests()) == 2)
    began = time.monotonic()
    assert root.stop() == 0
    assert time.monotonic() - began < 10
    assert root.run_until_idle() == 0
    root.assert_clean()


def test_nothing_is_imported_from_where_the_daemon_stands(root: Root, tmp_path: Path) -> None:
    """A module in its working directory would be run without a sandbox."""
    trap, marker = tmp_path / "trap", tmp_path / "trapped"
    trap.mkdir()
    for name in ("tifffile", "openslide", "imagecodecs"):
        (trap / f"{name}.py").write_text(f"open({str(marker)!r}, 'w'); raise SystemExit(3)")
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cytowatch", "run", "--until-idle", "--root", root.path,
         "--config", root.config],
        cwd=trap, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        check=False, timeout=60, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0
    assert not marker.exists()
    assert root.by_name()["a.jpg"]["status"] == "CONVERTED"


def test_a_defect_is_one_line_and_a_file_to_send(root: Root, tmp_path: Path) -> None:
    """ERROR_CONVERSION `unexpected`; the traceback is in the file that the line names, not in the log."""
    root.environment = MISBEHAVING
    bad = root.drop(builders.png(tmp_path / "a.png"), "raise-CONVERTING.png")
    assert root.run_until_idle() == 1
    document = root.by_name()[bad.name]
    assert (document["status"], document["error"]["reason"]) == ("ERROR_CONVERSION", "unexpected")
    [line] = [one for one in json_lines(root.log) if one["event"] == "unexpected"]
    assert line["id"] == document["id"]
    assert "Traceback" not in root.log.read_text()
    report = Path(line["report"]).read_text()
    assert Path(line["report"]).parent == root.path / "state" / "reports"
    assert "LookupError: a defect of our own" in report
    assert "Traceback" in report
    root.assert_clean()


def test_what_a_child_sends_is_not_believed(root: Root, tmp_path: Path) -> None:
    """Nonsense, wrong turns, others' names, paths that lead out, links for files: each is one error."""
    root.environment = MISBEHAVING
    builders.png(tmp_path / "a.png")
    names = [f"lie-{word}-x.png" for word in stages.LIES]
    names += ["babble-CONVERTING.png", "wordy-CONVERTING.png"]
    for name in names:
        root.drop(tmp_path / "a.png", name)
    root.drop(tmp_path / "a.png", "good.png")
    assert root.run_until_idle() == 1
    found = root.by_name()
    assert len(found) == len(names) + 1
    for name in names:
        document = found[name]
        assert document["status"] == "ERROR_CONVERSION", (name, document["error"])
        assert document["error"]["reason"] in ("output_refused", "unexpected"), name
        assert document["user"] == "ann"
        [source] = document["files"]
        assert (document["_path"] / source["path"]).is_file()
    assert found["good.png"]["status"] == "CONVERTED"
    assert not (root.path / "storage" / "bob").exists()
    assert not [path for path in root.path.rglob("*") if path.is_symlink() or path.is_fifo()]
    root.assert_clean()


@pytest.mark.parametrize("stage", ["DETECTING_FORMAT", "CONVERTING", "DEPLOYING"])
def test_a_power_cut_takes_back_every_rename_since_the_claim(
    root: Root, tmp_path: Path, stage: str
) -> None:
    """None of them is synced: what is in work lies in state/tmp again, and its manifest is ahead."""
    image = builders.planar_tiff(tmp_path / "flat.tif", width=900, height=700)
    root.drop(image, f"pause-{stage}.tif")
    root.environment = MISBEHAVING
    root.start()
    directory = root.path / "stages" / stage.lower().replace("_", "-")
    live = root.path / "state" / "live.json"
    root.wait(lambda: list(directory.iterdir()) and '"share": 0.5' in live.read_text())
    root.kill()
    assert_no_orphans(root)
    [place] = directory.iterdir()
    place.rename(root.path / "state" / "tmp" / place.name)
    root.environment = {}
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    assert document["status"] == "CONVERTED"
    [source] = [row for row in document["files"] if row["role"] == "source"]
    assert (document["_path"] / source["path"]).read_bytes() == image.read_bytes()
    root.assert_clean()
