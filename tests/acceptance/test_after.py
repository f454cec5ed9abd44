"""After an error: retried, handed back, exported, removed; beside a daemon and without one."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import unicodedata
import zipfile
from pathlib import Path

import pytest

from cytowatch import projects
from cytowatch.errors import RootError
from cytowatch.spool import Spool
from tests import builders
from tests.acceptance.conftest import Root, root
from tests.builders import vendors

__all__ = ["root"]


def command(root: Root, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*root.command(*words), "--root", str(root.path), "--config", str(root.config)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip


def failed(root: Root, tmp_path: Path) -> dict:
    """A slide that failed because its reader may use too little memory."""
    root.configure(more="[sandbox]\nmemory_bytes = 268435456\n[limits]\nmax_pixels = 1000000")
    builders.jpeg(tmp_path / "Größe 1.jpg", width=1200, height=900)
    root.drop(tmp_path / "Größe 1.jpg")
    assert root.run_until_idle() == 1
    [document] = root.manifests().values()
    assert document["error"]["reason"] == "too_many_pixels"
    root.configure()
    return document


@pytest.mark.parametrize("running", [False, True])
def test_retry(root: Root, tmp_path: Path, running: bool) -> None:
    """It goes back to the stage that failed, with its attempts at zero, and on from there."""
    document = failed(root, tmp_path)
    if running:
        root.start()
    done = command(root, "retry", "--reason", "too_many_pixels")
    assert done.returncode == 0, done.stderr
    if running:
        root.wait(
            lambda: [one for one in root.manifests().values() if one["status"] == "CONVERTED"]
        )
        assert root.stop() == 0
    else:
        assert root.run_until_idle() == 0
    again = root.manifests()[document["id"]]
    assert again["status"] == "CONVERTED"
    assert again["error"] is None
    told = [entry["status"] for entry in again["history"]]
    assert told == [
        "UPLOADED", "DETECTING_FORMAT", "CONVERTING", "ERROR_CONVERSION", "CONVERTING",
        "DEPLOYING", "CONVERTED",
    ]  # fmt: skip
    root.assert_clean()


def test_an_incomplete_set_meets_its_late_part(root: Root, tmp_path: Path) -> None:
    """Retried, it lies in its inbox again under its own names."""
    root.configure(inbox="incomplete_after_s = 0.5")
    inbox = root.path / "inbox" / "ann"
    vendors.mirax_mrxs(inbox, "Fälle 3")
    late = (inbox / "Fälle 3" / "Data0001.dat").read_bytes()
    (inbox / "Fälle 3" / "Data0001.dat").unlink()
    assert root.run_until_idle() == 1
    assert list(inbox.iterdir()) == []
    assert command(root, "retry", "Fälle 3.mrxs").returncode == 0
    assert root.manifests() == {}
    assert sorted(path.name for path in inbox.rglob("*")) == [
        "Data0000.dat", "Fälle 3", "Fälle 3.mrxs", "Index.dat", "Slidedat.ini",
    ]  # fmt: skip
    (inbox / "Fälle 3" / "Data0001.dat").write_bytes(late)
    assert root.run_until_idle() == 0
    assert root.by_name()["Fälle 3.mrxs"]["status"] == "DEPLOYED"
    root.assert_clean()


@pytest.mark.parametrize("running", [False, True])
def test_return(root: Root, tmp_path: Path, running: bool) -> None:
    """The original is the user's again, byte for byte, and is not claimed once more."""
    document = failed(root, tmp_path)
    if running:
        root.start()
    data = (tmp_path / "Größe 1.jpg").read_bytes()
    done = command(root, "return", document["id"])
    assert done.returncode == 0, done.stderr
    if running:
        assert root.stop() == 0
    assert (root.path / "inbox" / "ann" / "_returned" / "Größe 1.jpg").read_bytes() == data
    assert root.run_until_idle() == 0
    assert root.manifests() == {}
    root.assert_clean()


def test_what_failed_in_a_folder_is_sent_back_by_its_folder(root: Root, tmp_path: Path) -> None:
    """Named by the folder, all in it that failed goes; an incomplete set lies in the folder again."""
    root.configure(inbox="incomplete_after_s = 0.5\nfolder_quiet_s = 0.3")
    case = root.path / "inbox" / "ann" / "case"
    vendors.mirax_mrxs(case, "M")
    late = (case / "M" / "Data0001.dat").read_bytes()
    (case / "M" / "Data0001.dat").unlink()
    builders.aperio_svs(case / "good.svs")
    builders.jpeg(case / "bad.jpg").write_bytes(damaged(tmp_path))
    bad = (case / "bad.jpg").read_bytes()
    assert root.run_until_idle() == 1
    assert not case.exists()
    done = command(root, "retry", "case")
    assert done.returncode == 0, done.stderr
    assert "M.mrxs goes back to inbox" in done.stdout
    assert "bad.jpg goes back to CONVERTING" in done.stdout
    assert sorted(path.name for path in case.rglob("*.*")) == [
        "Data0000.dat", "Index.dat", "M.mrxs", "Slidedat.ini",
    ]  # fmt: skip
    (case / "M" / "Data0001.dat").write_bytes(late)
    assert root.run_until_idle() == 1
    assert root.by_name()["M.mrxs"]["status"] == "DEPLOYED"
    assert root.by_name()["bad.jpg"]["status"] == "ERROR_CONVERSION"
    first = next(one for one in root.manifests().values() if len(one["children"]) == 3)
    assert command(root, "return", first["id"]).returncode == 0
    assert (root.path / "inbox" / "ann" / "_returned" / "bad.jpg").read_bytes() == bad
    again = command(root, "return", first["id"])
    assert (again.returncode, "is in error" in again.stderr) == (2, True)
    root.assert_clean()


def damaged(tmp_path: Path) -> bytes:
    """A JPEG whole by its markers, half of whose pixels are gone."""
    data = bytearray(builders.jpeg(tmp_path / "whole.jpg", width=900, height=700).read_bytes())
    del data[len(data) // 3 : -2]
    return bytes(data)


def test_export(root: Root, tmp_path: Path) -> None:
    """Of a success and of an error, a set under its own names."""
    data = (failed(root, tmp_path), (tmp_path / "Größe 1.jpg").read_bytes())[1]
    vendors.mirax_mrxs(root.path / "inbox" / "ann", "Fälle 3")
    made = vendors.mirax_mrxs(tmp_path / "same", "Fälle 3")
    assert root.run_until_idle() == 0
    for name in ("Größe 1.jpg", "Fälle 3.mrxs"):
        assert command(root, "export", name, str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out" / "Größe 1.jpg").read_bytes() == data
    for path in made.parent.rglob("*"):
        if path.is_file():
            copy = tmp_path / "out" / path.relative_to(made.parent)
            assert copy.read_bytes() == path.read_bytes()
    again = command(root, "export", "Größe 1.jpg", str(tmp_path / "out"))
    assert again.returncode == 2, "nothing is ever replaced"
    assert "Traceback" not in again.stderr


def test_remove(root: Root, tmp_path: Path) -> None:
    """Not what a project shows, unless told so; then with its links."""
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    assert root.run_until_idle() == 0
    assert command(root, "link", "a.svs", "--project", "P").returncode == 0
    refused = command(root, "remove", "a.svs")
    assert (refused.returncode, "project P" in refused.stderr) == (2, True)
    assert command(root, "remove", "a.svs", "--anyway").returncode == 0
    assert root.manifests() == {}
    assert list((root.path / "projects").iterdir()) == []
    root.assert_clean()


def test_what_others_are_shown_by_is_not_removed(root: Root, tmp_path: Path) -> None:
    """A duplicate that is a link would lose its bytes."""
    root.config.write_text(
        root.config.read_text().replace("[storage]", '[storage]\nduplicates = "link"')
    )
    slide = builders.aperio_svs(tmp_path / "a.svs")
    for name in ("one.svs", "two.svs"):
        root.drop(slide, name)
        assert root.run_until_idle() == 0
    refused = command(root, "remove", "one.svs")
    assert (refused.returncode, "same content" in refused.stderr) == (2, True)
    for name in ("two.svs", "one.svs"):
        assert command(root, "remove", name).returncode == 0
    root.assert_clean()


def test_errors_are_kept_for_ever_unless_told_otherwise(root: Root, tmp_path: Path) -> None:
    """keep_errors_days counts from the error; nothing else is touched."""
    failed(root, tmp_path)
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.config.write_text(
        root.config.read_text().replace("[storage]", "[storage]\nkeep_errors_days = 2")
    )
    assert root.run_until_idle() == 0
    assert len(root.manifests()) == 2
    [path] = root.path.glob("stages/error-conversion/*/manifest.json")
    document = json.loads(path.read_text())
    document["history"][-1]["at"] = "2020-01-01T00:00:00.000Z"
    path.write_text(json.dumps(document))
    assert root.run_until_idle() == 0
    [left] = root.manifests().values()
    assert left["status"] == "DEPLOYED"
    root.assert_clean()


def test_check_deep(root: Root, tmp_path: Path) -> None:
    """It finds what is damaged, names it, and exits 1."""
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    assert root.run_until_idle() == 0
    assert command(root, "check", "--deep").returncode == 0
    [document] = root.manifests().values()
    path = document["_path"] / document["files"][0]["path"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    (root.path / "state" / "tmp" / "left").mkdir()
    found = command(root, "check", "--deep", "--json")
    assert found.returncode == 1
    wrong = [one["detail"] for one in json.loads(found.stdout) if one["good"] is False]
    assert any("other bytes" in one for one in wrong)
    assert any("a claim was not finished" in one for one in wrong)


def test_commands_that_race_leave_a_right_tree(root: Root, tmp_path: Path) -> None:
    """Links come and go from four sides while half of the slides are removed beside a daemon."""
    root.start()
    slide = builders.aperio_svs(tmp_path / "a.svs")
    for number in range(6):
        root.drop(slide, f"{number}.svs")
    root.wait(lambda: [one["status"] for one in root.manifests().values()] == ["DEPLOYED"] * 6)
    spool = Spool(root.path)
    paths = {one["name"]: one["_path"] for one in root.manifests().values()}
    refused: list[str] = []

    def link_about(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(60):
            path = paths[f"{dice.randrange(6)}.svs"]
            deed = dice.choice([projects.link, projects.unlink])
            try:
                deed(spool, path, f"p{dice.randrange(3)}")
            except RootError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=link_about, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for number in range(3):
        assert command(root, "remove", "--anyway", f"{number}.svs").returncode == 0
    for thread in threads:
        thread.join()
    assert refused
    assert root.stop() == 0
    left = root.manifests().values()
    assert sorted(one["name"] for one in left) == ["3.svs", "4.svs", "5.svs"]
    root.assert_clean()
    shown = {link.name for link in root.path.glob("projects/*/*")}
    assert not {name for name in shown if name[0] in "012"}


def test_users_and_projects_may_be_spelled_otherwise(root: Root, tmp_path: Path) -> None:
    """They are compared casefolded and in NFC; a project keeps the spelling that came first."""
    other = unicodedata.normalize("NFD", "STUDIE Ü")
    for user, project, name in (("ann", "Studie ü", "a.png"), ("bob", other, "b.png")):
        folder = root.path / "inbox" / user / f"@{project}"
        folder.mkdir(parents=True)
        builders.png(folder / name, width=300 + ord(name[0]))
        assert root.run_until_idle() == 0
    assert [path.name for path in (root.path / "projects").iterdir()] == ["Studie ü"]
    assert {one["projects"][0] for one in root.manifests().values()} == {"Studie ü"}
    for words, found in (
        (("--project", "studie Ü"), ["a.png", "b.png"]),
        (("--user", "ANN"), ["a.png"]),
        (("--user", "Bob", "--project", "STUDIE ü"), ["b.png"]),
        (("--user", "carl"), []),
    ):
        told = command(root, "list", *words, "--json")
        assert sorted(one["name"] for one in json.loads(told.stdout)) == found, words
    assert command(root, "pause", "--user", "Bob").stdout.startswith("paused: Bob")
    assert "there is no inbox of carl" in command(root, "pause", "--user", "carl").stdout
    assert "paused: carl" in command(root, "resume", "--user", "BOB").stdout


def test_exported_under_the_very_name_that_was_dropped(root: Root, tmp_path: Path) -> None:
    """Whatever bytes it has; what has no original of its own says so."""
    root.configure(inbox="folder_quiet_s = 0.2", more="[extract]\nkeep_archive = false")
    odd = [b"lat\xe9in.png", b"two\nlines.png"]
    inbox = os.fsencode(root.path / "inbox" / "ann")
    os.makedirs(inbox, exist_ok=True)
    for number, name in enumerate(odd):
        builders.png(tmp_path / "a.png", width=300 + number)
        shutil.copyfile(tmp_path / "a.png", os.path.join(inbox, name))
    case = root.path / "inbox" / "ann" / "case"
    case.mkdir()
    builders.png(case / "b.png")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(builders.png(tmp_path / "d.png", width=310), "d.png")
    root.drop(tmp_path / "c.zip")
    assert root.run_until_idle() == 0
    found = root.by_name()
    for one in found.values():
        refused = command(root, "export", one["id"], str(tmp_path / "out"))
        assert refused.returncode == (2 if one["name"] in ("case", "c.zip") else 0), one["name"]
        if refused.returncode:
            assert (
                f"has no original of its own: export what came out of it (cytowatch list --parent {one['id']})"
                in " ".join(refused.stderr.split())
            )
    assert set(odd) <= set(os.listdir(os.fsencode(tmp_path / "out")))


def test_a_folder_of_somebody_else_in_a_stage(root: Root, tmp_path: Path) -> None:
    """Nothing is done with what has no id, and `check --deep` names it; work that waits is no fault."""
    stray = root.path / "stages" / "uploaded" / "stray"
    root.configure(inbox="folder_quiet_s = 60")
    case = root.path / "inbox" / "ann" / "case"
    case.mkdir(parents=True)
    builders.png(case / "a.png")
    root.start()
    stray.mkdir()
    root.wait(lambda: root.by_name().get("a.png", {}).get("status") == "CONVERTED")
    assert root.stop() == 0
    told = command(root, "check", "--deep")
    assert (told.returncode, told.stdout.count("1 in work, which the next start goes on with")) == (
        1,
        1,
    )
    assert f"{stray} is no uploaded file" in told.stdout
    stray.rmdir()
    assert command(root, "check", "--deep").returncode == 0
