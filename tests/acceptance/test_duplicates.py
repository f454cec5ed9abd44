"""The same content twice: kept, linked or rejected, and always said; projects, before and after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import openslide
import pytest

from cytowatch.record.originals import originals
from tests import builders
from tests.builders import vendors
from tests.lab.root import STAGES, Root


def policy(root: Root, name: str) -> None:
    root.configure_also(storage={"duplicates": name})


def twice(root: Root, tmp_path: Path) -> None:
    """A native slide, a flat image and a set, dropped by ann twice and once by bob."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    flat = builders.jpeg(tmp_path / "b.jpg")
    for user, stem in (("ann", "one"), ("ann", "two"), ("bob", "one")):
        root.drop(slide, f"{stem}.svs", user)
        root.drop(flat, f"{stem}.jpg", user)
        vendors.mirax_mrxs(root.path / "inbox" / user, stem)
        root.run_until_idle()


def test_keep(root: Root, tmp_path: Path) -> None:
    """Both are deployed in full, and the second names the first, of the same user only."""
    twice(root, tmp_path)
    found = root.manifests().values()
    assert {one["status"] for one in found} == {"DEPLOYED", "CONVERTED"}
    first = {one["name"]: one["id"] for one in found if one["user"] == "ann"}
    for one in found:
        second = one["user"] == "ann" and one["name"].startswith("two")
        wanted = first[one["name"].replace("two", "one")] if second else None
        assert one["duplicate_of"] == wanted, one["name"]
        assert not (one["_path"] / "source").is_symlink()


def test_link(root: Root, tmp_path: Path) -> None:
    """The second has no bytes of its own, and opens all the same; no pyramid is derived twice."""
    policy(root, "link")
    twice(root, tmp_path)
    found = root.manifests().values()
    assert len(found) == 9
    for one in found:
        second = one["user"] == "ann" and one["name"].startswith("two")
        source = one["_path"] / "source"
        assert source.is_symlink() == second
        if second:
            assert os.readlink(source) == f"../{one['duplicate_of']}/source"
            assert [entry["status"] for entry in one["history"]][-2] == "DEPLOYING"
        with openslide.OpenSlide(one["_path"] / one["images"][0]["file"]) as slide:
            slide.read_region((0, 0), 0, (10, 10))
    root.check_hashes()
    root.assert_clean()


def test_a_kill_while_linking(root: Root, tmp_path: Path) -> None:
    """Its own copy is gone already, the link is not there yet: a start goes on with it."""
    policy(root, "link")
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.drop(slide, "one.svs")
    assert root.run_until_idle() == 0
    root.drop(slide, "two.svs")
    assert root.run_until_idle() == 0
    second = root.by_name()["two.svs"]
    path = second["_path"]
    back = root.path / "stages" / "deploying" / path.name
    path.rename(back)
    for name in ("source", "derived"):
        (back / name).unlink()
    text = (back / "manifest.json").read_text().replace('"DEPLOYED"', '"DEPLOYING"')
    (back / "manifest.json").write_text(text)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    again = root.by_name()["two.svs"]
    assert again["status"] == "DEPLOYED"
    assert (again["_path"] / "source").is_symlink()
    root.check_hashes()


def test_reject(root: Root, tmp_path: Path) -> None:
    """The second is an error that names the first; its original stays."""
    policy(root, "reject")
    twice(root, tmp_path)
    found = root.manifests().values()
    for one in found:
        second = one["user"] == "ann" and one["name"].startswith("two")
        if second:
            assert (one["status"], one["error"]["reason"]) == ("ERROR_FORMAT", "duplicate")
            assert (one["_path"] / "source").is_dir()
        else:
            assert one["status"] in ("DEPLOYED", "CONVERTED")
    root.check_hashes()


def test_projects_later(root: Root, tmp_path: Path) -> None:
    """link and unlink associate what is deployed; nothing is copied."""
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*root.command(*words), "--root", str(root.path)],
            check=False,
            capture_output=True,
            text=True,
        )

    assert command("link", document["id"], "--project", "Nerves").returncode == 0
    assert command("link", "a.svs", "--project", "nerves").returncode == 0
    [shown] = (root.path / "projects" / "Nerves").iterdir()
    assert shown.is_symlink()
    assert not os.readlink(shown).startswith("/")
    with openslide.OpenSlide(shown / document["images"][0]["file"]):
        pass
    assert root.by_name()["a.svs"]["projects"] == ["Nerves"]
    wrong = command("link", document["id"], "--project", "../x")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert command("unlink", document["id"], "--project", "Nerves").returncode == 0
    assert root.by_name()["a.svs"]["projects"] == []
    assert list((root.path / "projects").iterdir()) == []
    assert command("unlink", document["id"], "--project", "Nerves").returncode != 0


@pytest.mark.parametrize("kind", ["zip"])
def test_link_of_an_archive_links_what_is_in_it(root: Root, tmp_path: Path, kind: str) -> None:
    """One command for a whole batch."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("x.jpg", "y.jpg"):
            archive.write(builders.jpeg(tmp_path / name), name)
    root.drop(tmp_path / "a.zip")
    assert root.run_until_idle() == 0
    done = subprocess.run(
        [*root.command("link", "a.zip", "--project", "P"), "--root", str(root.path)], check=False
    )
    assert done.returncode == 0
    assert len(list((root.path / "projects" / "P").iterdir())) == 2


@pytest.mark.parametrize("kind", ["a.svs", "b.jpg"])
def test_rejected_though_dropped_together(root: Root, tmp_path: Path, kind: str) -> None:
    """Anyone who is the first to be hashed stays; the others say whose content they have, and what they are."""
    policy(root, "reject")
    make = builders.aperio_svs if kind == "a.svs" else builders.jpeg
    slide = make(tmp_path / kind)
    names = [f"{number}{slide.suffix}" for number in range(4)]
    for name in names:
        root.drop(slide, name)
    root.run_until_idle()
    found = root.by_name()
    [good] = [one for one in found.values() if one["status"] in ("DEPLOYED", "CONVERTED")]
    for one in (one for one in found.values() if one is not good):
        assert (one["status"], one["error"]["reason"]) == ("ERROR_FORMAT", "duplicate")
        assert one["duplicate_of"] == good["id"]
        assert one["sha256"] == good["sha256"]
        assert one["format"]["id"] == good["format"]["id"]
        assert [row["path"] for row in one["files"]] == [
            f"source/{one['id'].split('-')[3]}{slide.suffix}"
        ]
    root.check_hashes()
    root.assert_clean()


@pytest.mark.parametrize("kind", ["a.svs", "b.jpg"])
def test_linked_though_dropped_together(root: Root, tmp_path: Path, kind: str) -> None:
    """The others wait for the first, and nothing is derived but once."""
    policy(root, "link")
    make = builders.aperio_svs if kind == "a.svs" else builders.jpeg
    slide = make(tmp_path / kind)
    for number in range(4):
        root.drop(slide, f"{number}{slide.suffix}")
    assert root.run_until_idle() == 0
    found = root.manifests().values()
    [first] = [one for one in found if one["duplicate_of"] is None]
    for one in found:
        assert one["status"] in ("DEPLOYED", "CONVERTED")
        assert (one["_path"] / "source").is_symlink() == (one is not first)
        assert one["duplicate_of"] in (None, first["id"])
    root.check_hashes()
    root.assert_clean()


def test_a_first_one_that_fails_holds_up_nobody(root: Root, tmp_path: Path) -> None:
    """Copies of an image that is refused end as it does, each by itself."""
    policy(root, "link")
    root.configure_also(limits={"max_pixels": 10_000})
    large = builders.jpeg(tmp_path / "large.jpg")
    for number in range(3):
        root.drop(large, f"{number}.jpg")
    root.run_until_idle()
    found = root.by_name()
    assert {one["status"] for one in found.values()} == {"ERROR_CONVERSION"}
    assert {one["error"]["reason"] for one in found.values()} == {"too_many_pixels"}
    root.assert_clean()


def test_one_that_was_rejected_is_tried_again_when_the_first_is_gone(
    root: Root, tmp_path: Path
) -> None:
    """`retry` looks again: nothing is rejected because of what is not there."""
    policy(root, "reject")
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.drop(slide, "one.svs")
    assert root.run_until_idle() == 0
    root.drop(slide, "two.svs")
    root.run_until_idle()
    found = root.by_name()
    for words in (("remove", "--yes", found["one.svs"]["id"]), ("retry", found["two.svs"]["id"])):
        where = ("--root", str(root.path), "--config", str(root.config))
        subprocess.run([*root.command(*words), *where], check=True, capture_output=True)
    assert root.run_until_idle() == 0
    two = root.by_name()["two.svs"]
    assert (two["status"], two["duplicate_of"]) == ("DEPLOYED", None)


def test_a_restart_knows_who_was_first(root: Root, tmp_path: Path) -> None:
    """Anyone who was being converted then; the copy that comes meanwhile is the second one."""
    policy(root, "reject")
    root.environment = dict(STAGES)
    flat = builders.jpeg(tmp_path / "a.jpg")
    root.drop(flat, "slow-CONVERTING.jpg")
    root.start()
    root.wait(lambda: list(root.path.glob("stages/converting/*")))
    root.kill()
    root.drop(flat, "later.jpg")
    root.run_until_idle()
    found = root.by_name()
    first, second = found["slow-CONVERTING.jpg"], found["later.jpg"]
    assert (first["status"], first["duplicate_of"]) == ("CONVERTED", None)
    assert (second["error"]["reason"], second["duplicate_of"]) == ("duplicate", first["id"])
    root.assert_clean()


def half_linked(root: Root, tmp_path: Path) -> tuple[dict, dict]:  # type: ignore[type-arg]
    """A first one, and a copy of it whose conversion was passed over, as a kill leaves it before it is linked."""
    policy(root, "link")
    flat = builders.jpeg(tmp_path / "a.jpg")
    for name in ("one.jpg", "two.jpg"):
        root.drop(flat, name)
        assert root.run_until_idle() == 0
    one, two = (root.by_name()[name] for name in ("one.jpg", "two.jpg"))
    back = root.path / "stages" / "deploying" / two["id"]
    two["_path"].rename(back)
    for name in ("source", "derived"):
        (back / name).unlink()
    shutil.copytree(one["_path"] / "source", back / "source")
    document = json.loads((back / "manifest.json").read_text())
    document |= {
        "status": "DEPLOYING", "status_code": 40, "images": [], "conversion": None,
        "verification": None, "history": document["history"][:-1],
        "files": [row for row in document["files"] if row["role"] == "source"],
    }  # fmt: skip
    (back / "manifest.json").write_text(json.dumps(document))
    return one, two


def test_a_first_one_is_not_removed_while_it_is_linked_to(root: Root, tmp_path: Path) -> None:
    """Its copy may have given up its own bytes by then."""
    one, _ = half_linked(root, tmp_path)
    words = [*root.command("remove", "--yes", one["id"]), "--root", str(root.path)]
    told = subprocess.run(words, check=False, capture_output=True, text=True)
    assert told.returncode == 2
    assert "has the same content and is in work: try again later" in " ".join(told.stderr.split())
    assert root.run_until_idle() == 0
    assert root.by_name()["two.jpg"]["status"] == "CONVERTED"
    root.check_hashes()
    root.assert_clean()


def test_a_copy_whose_first_one_is_gone(root: Root, tmp_path: Path) -> None:
    """It is not published without a pyramid: it says so, and `retry` derives one."""
    one, two = half_linked(root, tmp_path)
    shutil.rmtree(one["_path"])
    root.run_until_idle()
    found = root.by_name()["two.jpg"]
    assert (found["status"], found["error"]["reason"]) == ("ERROR_DEPLOYMENT", "first_gone")
    words = [*root.command("retry", two["id"]), "--root", str(root.path)]
    subprocess.run(words, check=True, capture_output=True)
    assert root.run_until_idle() == 0
    found = root.by_name()["two.jpg"]
    assert found["status"] == "CONVERTED"
    assert not (found["_path"] / "source").is_symlink()
    root.check_hashes()
    # Nobody may take a slide out of storage by hand without a report of it.
    forgotten = [*root.command("remove", "--yes", one["id"]), "--root", str(root.path)]
    subprocess.run(forgotten, check=True, capture_output=True)
    root.assert_clean()


def test_a_duplicate_with_annotations_of_its_own_is_none(root: Root, tmp_path: Path) -> None:
    """Nothing that was dropped goes: only where the sidecars are the same as well it is linked."""
    policy(root, "link")
    slide = builders.aperio_svs(tmp_path / "a.svs")
    inbox = root.path / "inbox" / "ann"
    for stem, notes in (("one", "<a/>"), ("two", "<b/>"), ("Größe", "<a/>")):
        root.drop(slide, f"{stem}.svs")
        (inbox / f"{stem}.xml").write_text(notes)
        assert root.run_until_idle() == 0
    found = root.by_name()
    assert found["two.svs"]["duplicate_of"] is None
    assert found["Größe.svs"]["duplicate_of"] == found["one.svs"]["id"]
    for stem, notes in (("one", "<a/>"), ("two", "<b/>"), ("Größe", "<a/>")):
        out = tmp_path / stem
        done = subprocess.run(
            root.command("export", f"{stem}.svs", str(out), "--root", str(root.path), "--config", str(root.config)),
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (out / f"{stem}.xml").read_text() == notes
        assert (out / f"{stem}.svs").read_bytes() == slide.read_bytes()
    root.assert_clean()


def test_a_linked_set_is_given_back_under_its_own_names(root: Root, tmp_path: Path) -> None:
    """Its bytes are the first one's, its names are not."""
    policy(root, "link")
    inbox = root.path / "inbox" / "ann"
    for stem in ("one", "Größe [2]"):
        vendors.mirax_mrxs(inbox, stem)
        assert root.run_until_idle() == 0
    linked = root.by_name()["Größe [2].mrxs"]
    assert (linked["_path"] / "source").is_symlink()
    names = {name for _, name in originals(linked)}
    assert names == {
        "Größe [2].mrxs", *(f"Größe [2]/{name}" for name in
                            ("Data0000.dat", "Data0001.dat", "Index.dat", "Slidedat.ini")),
    }  # fmt: skip
