"""After an error: retried, handed back, exported, removed; beside a daemon and without one."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import unicodedata
import zipfile
from pathlib import Path

import pytest

from cytowatch.admin import projects
from cytowatch.record.errors import RootError
from cytowatch.tree.spool import Spool
from tests import builders
from tests.builders import vendors
from tests.lab.root import Root, command


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


def test_what_failed_in_a_folder_is_retried_by_its_folder(root: Root, tmp_path: Path) -> None:
    """Named by the folder, all in it that failed is; an incomplete set must be sent again, and says so.

    By now another slide of the same names may lie in the inbox, so no part of a drop goes there by itself.
    """
    root.configure(inbox="incomplete_after_s = 0.5\nfolder_quiet_s = 0.3")
    case = root.path / "inbox" / "ann" / "case"
    vendors.mirax_mrxs(case, "M")
    (case / "M" / "Data0001.dat").unlink()
    builders.aperio_svs(case / "good.svs")
    builders.jpeg(case / "bad.jpg").write_bytes(damaged(tmp_path))
    bad = (case / "bad.jpg").read_bytes()
    assert root.run_until_idle() == 1
    assert not case.exists()
    done = command(root, "retry", "case")
    assert done.returncode == 2
    assert "bad.jpg goes back to CONVERTING" in done.stdout
    assert "-M is incomplete and was part of another drop" in done.stderr
    assert "send that again, whole" in done.stderr
    assert not case.exists()
    assert root.run_until_idle() == 1
    assert root.by_name()["bad.jpg"]["status"] == "ERROR_CONVERSION"
    first = next(one for one in root.manifests().values() if len(one["children"]) == 3)
    assert command(root, "return", first["id"]).returncode == 0
    returned = root.path / "inbox" / "ann" / "_returned"
    assert (returned / "bad.jpg").read_bytes() == bad
    assert sorted(str(path.relative_to(returned)) for path in returned.rglob("*.*")) == [
        "M.mrxs", "M.mrxs.why.txt", "M/Data0000.dat", "M/Index.dat", "M/Slidedat.ini", "bad.jpg",
        "bad.jpg.why.txt",
    ]  # fmt: skip
    again = command(root, "return", first["id"])
    assert (again.returncode, "is in error" in again.stderr) == (2, True)
    root.assert_clean()


def broken(folder: Path, *, without: str, colour: str) -> Path:
    """An MRXS called 1 that lacks one file; each file says whose it is."""
    made = vendors.mirax_mrxs(folder, "1")
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".ini":
            path.write_bytes(path.read_bytes() + colour.encode())
    (folder / "1" / without).unlink()
    return made


def whose(path: Path) -> set[bytes]:
    """Whose files lie in one set."""
    return {file.read_bytes()[-1:] for file in path.rglob("*") if file.suffix in (".dat", ".mrxs")}


def test_two_broken_sets_of_one_name_stay_two(root: Root, tmp_path: Path) -> None:
    """Out of two zips: neither goes back into the inbox; handed back, each is under a stem of its own."""
    root.configure(inbox="incomplete_after_s = 0.5")
    for name, without in (("A", "Data0001.dat"), ("B", "Data0000.dat")):
        broken(tmp_path / name, without=without, colour=name)
        shutil.make_archive(str(tmp_path / f"case {name}"), "zip", root_dir=tmp_path / name)
        root.drop(tmp_path / f"case {name}.zip")
    assert root.run_until_idle() == 1
    refused = command(root, "retry", "--reason", "incomplete")
    assert (refused.returncode, refused.stderr.count("send that again")) == (2, 2)
    assert list((root.path / "inbox" / "ann").iterdir()) == []
    for document in root.manifests().values():
        if document["status"] == "ERROR_FORMAT":
            assert command(root, "return", document["id"]).returncode == 0
    returned = root.path / "inbox" / "ann" / "_returned"
    assert sorted(path.name for path in returned.iterdir()) == [
        "1",
        "1 (1)",
        "1 (1).mrxs",
        "1 (1).mrxs.why.txt",
        "1.mrxs",
        "1.mrxs.why.txt",
    ]
    for stem in ("1", "1 (1)"):
        [one] = whose(returned / stem)
        assert (returned / f"{stem}.mrxs").read_bytes().endswith(one)
    assert root.run_until_idle() == 0


def test_a_set_goes_back_beside_another_of_its_name(root: Root, tmp_path: Path) -> None:
    """As one unit: its head and its folder have one other stem, and nothing is put into the other's folder."""
    root.configure(inbox="incomplete_after_s = 0.5")
    inbox = root.path / "inbox" / "ann"
    broken(inbox, without="Data0001.dat", colour="A")
    assert root.run_until_idle() == 1
    [document] = root.manifests().values()
    broken(inbox, without="Data0000.dat", colour="B")
    assert command(root, "retry", document["id"]).returncode == 0
    assert sorted(path.name for path in inbox.iterdir()) == ["1", "1 (1)", "1 (1).mrxs", "1.mrxs"]
    assert (whose(inbox / "1"), whose(inbox / "1 (1)")) == ({b"B"}, {b"A"})


def test_a_set_without_its_head_comes_back_in_its_folder(root: Root, tmp_path: Path) -> None:
    """It is called by the folder, and is not torn apart."""
    root.configure(inbox="incomplete_after_s = 0.5")
    vendors.mirax_mrxs(root.path / "inbox" / "ann", "lost").unlink()
    assert root.run_until_idle() == 1
    [document] = root.manifests().values()
    assert document["name"] == "lost"
    assert document["drop_path"] == "ann/lost"
    assert command(root, "return", document["id"]).returncode == 0
    returned = root.path / "inbox" / "ann" / "_returned"
    assert sorted(path.name for path in returned.iterdir()) == ["lost", "lost.why.txt"]
    assert sorted(path.name for path in (returned / "lost").iterdir()) == [
        "Data0000.dat", "Data0001.dat", "Index.dat", "Slidedat.ini",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["link", "pipe", "file"])
def test_nothing_leaves_the_tree_on_its_way_back(root: Root, tmp_path: Path, what: str) -> None:
    """Anything that lies where a folder of the inbox is expected is not followed; the original is kept."""
    document = failed(root, tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    place = root.path / "inbox" / "ann" / "_returned"
    match what:
        case "link":
            place.symlink_to(outside)
        case "pipe":
            os.mkfifo(place)
        case _:
            place.touch()
    done = command(root, "return", document["id"])
    assert done.returncode == 2
    assert "_returned in the inboxes is not a folder of its own" in done.stderr
    assert list(outside.iterdir()) == []
    place.unlink()
    assert command(root, "return", document["id"]).returncode == 0
    data = (tmp_path / "Größe 1.jpg").read_bytes()
    assert (place / "Größe 1.jpg").read_bytes() == data


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
    refused = command(root, "remove", "a.svs", "--yes")
    assert (refused.returncode, "project P" in refused.stderr) == (2, True)
    assert command(root, "remove", "a.svs", "--yes", "--anyway").returncode == 0
    assert root.manifests() == {}
    assert list((root.path / "projects").iterdir()) == []
    root.assert_clean()


def test_what_others_are_shown_by_is_not_removed(root: Root, tmp_path: Path) -> None:
    """A duplicate that is a link would lose its bytes."""
    root.configure(storage={"duplicates": "link"})
    slide = builders.aperio_svs(tmp_path / "a.svs")
    for name in ("one.svs", "two.svs"):
        root.drop(slide, name)
        assert root.run_until_idle() == 0
    refused = command(root, "remove", "one.svs", "--yes")
    assert (refused.returncode, "same content" in refused.stderr) == (2, True)
    for name in ("two.svs", "one.svs"):
        assert command(root, "remove", "--yes", name).returncode == 0
    root.assert_clean()


def test_errors_are_kept_for_ever_unless_told_otherwise(root: Root, tmp_path: Path) -> None:
    """keep_errors_days counts from the error; nothing else is touched."""
    failed(root, tmp_path)
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.configure(storage={"keep_errors_days": 2})
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
        assert command(root, "remove", "--yes", "--anyway", f"{number}.svs").returncode == 0
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
    ):
        told = command(root, "list", *words, "--json")
        assert sorted(one["name"] for one in json.loads(told.stdout)) == found, words
    assert command(root, "pause", "--user", "Bob").stdout.startswith("paused: Bob")
    assert command(root, "resume", "--user", "BOB").stdout.startswith("nobody is paused")
    # A word that names nothing is an error that names the nearest, and nothing is done.
    for words, nearest in (
        (("list", "--user", "Anm"), "'Ann'"),
        (("list", "--project", "Studi"), "'Studie ü'"),
        (("list", "--format", "jpge"), "'jpeg'"),
        (("list", "--reason", "unknown_forma"), "'unknown_format'"),
        (("list", "--status", "convertd"), "'converted'"),
        (("list", "--status", "waiting", "--reason", "setling"), "'settling'"),
        (("retry", "--status", "eror"), "'error'"),
        (("retry", "--reason", "incomplet"), "'incomplete'"),
        (("pause", "--user", "bop"), "'bob'"),
        (("resume", "--user", "bop"), "'bob'"),
        (("verify", "--user", "Anm"), "'Ann'"),
        (("verify", "--project", "Studi"), "'Studie ü'"),
    ):
        told = command(root, *words)
        assert told.returncode == 2, words
        assert nearest.casefold() in told.stderr.casefold(), (words, told.stderr)
        assert not (root.path / "state" / "paused.json").exists()


def test_exported_under_the_very_name_that_was_dropped(root: Root, tmp_path: Path) -> None:
    """With any bytes; what has no original of its own says so."""
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
    """Nothing is done with what has no id, and `check --deep` names it; work that waits is not a fault."""
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
    assert f"{stray} is not an uploaded file" in told.stdout
    stray.rmdir()
    assert command(root, "check", "--deep").returncode == 0
