"""Sets and shapes of drop: anything that comes, in any order, one uploaded file per slide."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from tests import builders
from tests.builders import cellsens, others, vendors
from tests.lab.pictures import Pictures
from tests.lab.root import Root

FOLDER = "folder_quiet_s = 0.8\nincomplete_after_s = 2.0"


def packed(folder: Path, target: Path, *, under: str = "", junk: bool = False) -> Path:
    """A zip, tar or tar.gz of `folder` by the extension of `target`."""
    files = {
        f"{under}{path.relative_to(folder)}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if junk:
        files |= {f"__MACOSX/{name}": b"\0\5\x16\7" for name in list(files)}
        files |= {f"{under}.DS_Store": b"junk", f"{under}Thumbs.db": b"junk"}
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return target
    with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_one_set_in_an_archive(pictures: Pictures, tmp_path: Path, ending: str) -> None:
    """In its natural layout, in a wrapping folder, and with what a Mac leaves: one slide each."""
    vendors.mirax_mrxs(tmp_path / "m")
    plain = packed(tmp_path / "m", tmp_path / f"plain.{ending}")
    wrapped = packed(tmp_path / "m", tmp_path / f"wrapped.{ending}", under="case 7/", junk=True)
    pictures.drop(plain)
    pictures.drop(wrapped)
    assert pictures.treated() == 0, pictures.said()
    found = pictures.manifests().values()
    slides = [one for one in found if one["format"]["id"] == "mirax-mrxs"]
    assert len(found) == 4
    assert [one["status"] for one in slides] == ["DEPLOYED"] * 2
    for slide in slides:
        assert slide["name"] == "CMU-1.mrxs"
        assert sorted(row["path"] for row in slide["files"] if row["role"] == "source") == [
            "source/CMU-1.mrxs", "source/CMU-1/Data0000.dat", "source/CMU-1/Data0001.dat",
            "source/CMU-1/Index.dat", "source/CMU-1/Slidedat.ini",
        ]  # fmt: skip
    pictures.check_hashes()


def test_a_batch_of_everything(pictures: Pictures, tmp_path: Path) -> None:
    """Images and sets, nested folders, sidecars, a zip in a zip, junk and a damaged member."""
    batch = tmp_path / "batch"
    vendors.mirax_mrxs(batch / "one")
    vendors.vms(batch / "two" / "deep", "V 2")
    builders.aperio_svs(batch / "a.svs")
    (batch / "a.xml").write_text("<Annotations/>")
    (batch / "two" / "b.ndpi").write_bytes(vendors.ndpi(tmp_path / "b").read_bytes())
    (batch / "two" / "b.ndpi.ndpa").write_text("<annotations/>")
    (batch / "letter.txt").write_text("please scan again")
    (batch / "broken.png").write_bytes(builders.png(tmp_path / "p.png").read_bytes()[:200])
    inner = tmp_path / "inner"
    builders.jpeg(tmp_path / "x.jpg")
    inner.mkdir()
    shutil.copy(tmp_path / "x.jpg", inner / "name(1,2).jpg")
    packed(inner, batch / "inner.zip")
    pictures.drop(packed(batch, tmp_path / "batch.zip"))
    assert pictures.treated() == 1, pictures.said()
    found = pictures.by_name()
    top = found["batch.zip"]
    assert top["status"] == "EXTRACTED"
    told = {
        name: (one["status"], one["format"] and one["format"]["id"]) for name, one in found.items()
    }
    assert told == {
        "batch.zip": ("EXTRACTED", "zip"),
        "inner.zip": ("EXTRACTED", "zip"),
        "name(1,2).jpg": ("CONVERTED", "jpeg"),
        "CMU-1.mrxs": ("DEPLOYED", "mirax-mrxs"),
        "V 2.vms": ("DEPLOYED", "hamamatsu-vms"),
        "a.svs": ("DEPLOYED", "aperio-svs"),
        "b.ndpi": ("DEPLOYED", "hamamatsu-ndpi"),
        "broken.png": ("ERROR_FORMAT", None),
    }
    assert [row["path"] for row in found["a.svs"]["files"] if row["role"] == "sidecar"] == [
        "source/a.xml"
    ]
    assert [row["path"] for row in found["b.ndpi"]["files"] if row["role"] == "sidecar"] == [
        "source/b.ndpi.ndpa"
    ]
    [skipped] = top["skipped"]
    assert skipped["name"] == "letter.txt"
    assert skipped["reason"].startswith("not_an_image: a text file")
    assert len(top["children"]) == 6
    pictures.check_hashes()


def test_an_archive_without_an_image(pictures: Pictures, tmp_path: Path) -> None:
    """It is an error of the archive, which says what was found instead."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("nothing")
    pictures.drop(packed(tmp_path / "t", tmp_path / "t.tar.gz"))
    assert pictures.treated() == 1
    [document] = pictures.manifests().values()
    assert (document["status"], document["error"]["reason"]) == ("ERROR_EXTRACTION", "no_image")
    assert "a.txt" in document["error"]["detail"]


def _arrivals(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _copy(root: Root, folder: Path, path: Path) -> None:
    target = root.path / "inbox" / "ann" / path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


@pytest.mark.parametrize("kind", ["mrxs", "vms"])
def test_loose_sets_in_any_order(root: Root, tmp_path: Path, kind: str) -> None:
    """However its files come, it waits, says for what, and is claimed as one when it is whole."""
    made = tmp_path / "made"
    vendors.mirax_mrxs(made) if kind == "mrxs" else vendors.vms(made)
    files = _arrivals(made)
    orders = [files, files[::-1], files[2:] + files[:2]]
    root.start()
    for number, order in enumerate(orders):
        for path in order[:-1]:
            _copy(root, made, path)
        root.wait(lambda: [one for one in root.waiting() if one["why"] == "incomplete"])
        [waits] = root.waiting()
        assert waits["detail"].startswith("missing "), waits
        assert len(root.manifests()) == number
        _copy(root, made, order[-1])
        root.wait(
            lambda n=number: (
                sum(one["status"] == "DEPLOYED" for one in root.manifests().values()) == n + 1
            )
        )
        root.wait(lambda: not root.waiting())
    assert root.stop() == 0
    assert {one["status"] for one in root.manifests().values()} == {"DEPLOYED"}
    assert list((root.path / "inbox" / "ann").iterdir()) == []
    root.assert_clean()


def test_what_never_comes_is_named(root: Root, tmp_path: Path) -> None:
    """After incomplete_after_s: ERROR_FORMAT incomplete, with all that came, and what did not."""
    root.configure(inbox="incomplete_after_s = 1.0")
    made = tmp_path / "made"
    vendors.mirax_mrxs(made, "M")
    (made / "M" / "Data0001.dat").unlink()
    vendors.vms(made, "V")
    (made / "V.vms").unlink()
    shutil.copytree(made, root.path / "inbox" / "ann")
    shutil.copyfile(builders.jpeg(tmp_path / "j"), root.path / "inbox" / "ann" / "lone.mrxs")
    assert root.run_until_idle() == 1
    told = {one["name"]: one for one in root.manifests().values()}
    assert len(told) == 3
    for name, missing in (
        ("M.mrxs", "M/Data0001.dat"),
        ("V(0,0).jpg", "V.vms"),
        ("lone.mrxs", "lone/Slidedat.ini"),
    ):
        error = told[name]["error"]
        assert (told[name]["status"], error["reason"]) == ("ERROR_FORMAT", "incomplete"), error
        assert missing in error["detail"], error
    assert len(told["V(0,0).jpg"]["files"]) == 5
    root.assert_clean()


def test_what_never_comes_is_named_as_it_was_dropped(root: Root, tmp_path: Path) -> None:
    """Not by the names that the files have on the server, where a decoder reads them."""
    root.configure(inbox="incomplete_after_s = 1.0")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    shutil.copyfile(builders.jpeg(tmp_path / "j"), inbox / "Größe 7.mrxs")
    vendors.mirax_mrxs(tmp_path / "made", "M")
    shutil.copytree(tmp_path / "made" / "M", inbox / "検体")
    assert root.run_until_idle() == 1
    told = {one["name"]: one["error"]["detail"] for one in root.manifests().values()}
    assert (
        "missing Größe 7/Slidedat.ini; a whole slide is Größe 7.mrxs and the folder Größe 7 beside it"
        in told["Größe 7.mrxs"]
    )
    assert (
        "missing 検体.mrxs; a whole slide is 検体.mrxs and the folder 検体 beside it"
        in told["検体"]
    )


def test_a_slide_whose_tile_came_alone_names_it(root: Root, tmp_path: Path) -> None:
    """The first tile of a VMS is a picture by its name: what comes later says what became of it, and where it is."""
    root.configure(inbox="incomplete_after_s = 2.0")
    made = vendors.vms(tmp_path / "made", "V").parent
    (made / "V(0,0).jpg").rename(made / "V.jpg")
    index = made / "V.vms"
    index.write_text(index.read_text().replace("V(0,0).jpg", "V.jpg"))
    root.drop(made / "V.jpg")
    assert root.run_until_idle() == 0
    [first] = root.manifests()
    (made / "V.jpg").unlink()
    root.start()
    for path in made.iterdir():
        root.drop(path)
    root.wait(lambda: [one for one in root.waiting() if first in one["detail"]])
    root.wait(lambda: root.by_name().get("V.vms", {}).get("status") == "ERROR_FORMAT")
    detail = root.by_name()["V.vms"]["error"]["detail"]
    assert (
        f"V.jpg arrived earlier without the others, and was taken for an image of its own: {first}"
        in detail
    )
    assert root.stop() == 0
    root.assert_clean()


def test_a_slide_of_two_drops_is_never_deployed(root: Root, tmp_path: Path) -> None:
    """Members of another slide's set that lie under its names are refused, loose and in a zip."""
    root.configure(inbox="incomplete_after_s = 1.0")
    made = tmp_path / "made"
    vendors.mirax_mrxs(made, "1")
    stray = made / "1" / "Data0001.dat"
    own = b"0123456789abcdef0123456789ABCDEF"
    stray.write_bytes(stray.read_bytes().replace(own, b"B" * 32))
    packed(made, tmp_path / "1.zip")
    root.drop(tmp_path / "1.zip")
    shutil.copytree(made, root.path / "inbox" / "bob")
    assert root.run_until_idle() == 1
    found = [one for one in root.manifests().values() if one["name"] == "1.mrxs"]
    assert [one["error"]["reason"] for one in found] == ["mixed_slides"] * 2
    assert all("Data0001.dat" in one["error"]["detail"] for one in found)
    root.assert_clean()


def test_a_name_that_promises_more_is_taken_by_its_content(root: Root, tmp_path: Path) -> None:
    """When the wait is over: images that are whole by themselves, each with a warning."""
    root.configure(inbox="incomplete_after_s = 1.0")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir(parents=True, exist_ok=True)
    for name in ("S26-1_macro.jpg", "tile(0,1).jpg", "S26-2_map2.jpg"):
        builders.jpeg(inbox / name)
    builders.planar_tiff(inbox / "Export_01.vsi")
    assert root.run_until_idle() == 0
    found = root.by_name()
    assert {one["status"] for one in found.values()} == {"CONVERTED"}
    assert all("by itself" in one["warnings"][0] for one in found.values()), found
    root.assert_clean()


def test_a_scanner_at_work_is_waited_for(root: Root, tmp_path: Path) -> None:
    """SLIDE_CREATION_FINISHED = False in Slidedat.ini."""
    made = tmp_path / "made"
    vendors.mirax_mrxs(made)
    ini = made / "CMU-1" / "Slidedat.ini"
    done = ini.read_text()
    ini.write_text(done.replace("FINISHED=True", "FINISHED=False"))
    root.start()
    shutil.copytree(made, root.path / "inbox" / "ann")
    root.wait(lambda: [one for one in root.waiting() if "still at work" in one["detail"]])
    (root.path / "inbox" / "ann" / "CMU-1" / "Slidedat.ini").write_text(done)
    root.wait(lambda: [one for one in root.manifests().values() if one["status"] == "DEPLOYED"])
    assert root.stop() == 0


def test_a_folder_that_comes_piece_by_piece(root: Root, tmp_path: Path) -> None:
    """Its images are claimed one by one, as children; it ends when nothing more comes."""
    # It stays open until this test says otherwise.
    root.configure(inbox={"folder_quiet_s": 600, "incomplete_after_s": 2.0})
    case = root.path / "inbox" / "ann" / "case 12"
    (case / "more").mkdir(parents=True)
    root.start()
    builders.aperio_svs(tmp_path / "a.svs")
    shutil.copyfile(tmp_path / "a.svs", case / "a.svs")
    root.wait(lambda: root.by_name().get("a.svs", {}).get("status") == "DEPLOYED")
    parent = root.by_name()["case 12"]
    assert (parent["status"], parent["format"]["id"]) == ("EXTRACTING_DATA", "directory")
    shutil.copyfile(builders.jpeg(tmp_path / "b.jpg"), case / "more" / "b.jpg")
    vendors.mirax_mrxs(case / "more", "M")
    (case / "notes.txt").write_text("for whom it may concern")
    root.wait(lambda: root.by_name().get("b.jpg", {}).get("status") == "CONVERTED")
    root.wait(lambda: root.by_name().get("M.mrxs", {}).get("status") == "DEPLOYED")
    root.configure(inbox=FOLDER)
    root.reload()
    root.wait(lambda: root.by_name().get("case 12", {}).get("status") == "EXTRACTED")
    found = root.by_name()
    parent = found["case 12"]
    children = {one["name"]: one for one in found.values() if one["parent_id"] == parent["id"]}
    assert children.keys() == {"a.svs", "b.jpg", "M.mrxs"}
    assert sorted(parent["children"]) == sorted(one["id"] for one in children.values())
    assert children["b.jpg"]["drop_path"] == "ann/case 12/more/b.jpg"
    [skipped] = parent["skipped"]
    assert (skipped["name"], skipped["reason"].split(":")[0]) == ("notes.txt", "not_an_image")
    assert [path.name for path in case.rglob("*") if path.is_file()] == ["notes.txt"]
    assert root.stop() == 0
    root.check_hashes()
    root.assert_clean()


def test_a_folder_survives_a_kill(root: Root, tmp_path: Path) -> None:
    """Its uploaded file is taken up again, with every child; nothing is claimed twice."""
    root.configure(inbox=FOLDER)
    case = root.path / "inbox" / "ann" / "case"
    case.mkdir(parents=True)
    for number in range(6):
        shutil.copyfile(builders.jpeg(tmp_path / f"{number}.jpg"), case / f"{number}.jpg")
    root.start()
    root.wait(lambda: len(root.manifests()) >= 3)
    root.kill()
    assert root.run_until_idle() == 0
    found = root.manifests()
    [parent] = [one for one in found.values() if one["parent_id"] is None]
    assert parent["status"] == "EXTRACTED"
    assert sorted(parent["children"]) == sorted(found.keys() - {parent["id"]})
    assert sorted(one["name"] for one in found.values()) == [
        *(f"{n}.jpg" for n in range(6)),
        "case",
    ]
    assert not case.exists()
    root.assert_clean()


def test_the_marker_alone_claims(root: Root, tmp_path: Path) -> None:
    """With done_marker nothing else does, however quiet it is; and then at once."""
    root.configure(inbox='done_marker = ".done"\nfolder_quiet_s = 60')
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    vendors.mirax_mrxs(root.path / "inbox" / "ann", "M")
    case = root.path / "inbox" / "ann" / "case"
    case.mkdir()
    shutil.copyfile(builders.jpeg(tmp_path / "b.jpg"), case / "b.jpg")
    root.start()
    root.wait(lambda: len(root.waiting()) >= 3)
    root.wait(lambda: all(one["why"] == "done_marker" for one in root.waiting()))
    assert root.manifests() == {}
    for name in ("a.svs", "M.mrxs", "case"):
        (root.path / "inbox" / "ann" / f"{name}.done").touch()
        root.wait(
            lambda n=name: root.by_name().get(n, {}).get("status") in ("DEPLOYED", "EXTRACTED")
        )
    root.wait(lambda: list((root.path / "inbox" / "ann").iterdir()) == [])
    root.wait(lambda: root.by_name().get("b.jpg", {}).get("status") == "CONVERTED")
    assert root.stop() == 0
    root.assert_clean()


def test_a_folder_waits_for_the_markers_of_its_images(root: Root, tmp_path: Path) -> None:
    """However quiet it is: an image that lacks its marker is still to come; a note is not."""
    root.configure(inbox='done_marker = ".done"\nfolder_quiet_s = 0.2')
    case = root.path / "inbox" / "ann" / "case"
    case.mkdir(parents=True)
    (case / "notes.txt").write_text("for whom it may concern")
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(builders.jpeg(tmp_path / name), case / name)
    (case / "a.jpg.done").touch()
    root.start()
    root.wait(lambda: root.by_name().get("a.jpg", {}).get("status") == "CONVERTED")
    # One that came later, and has been quiet for less time, is at its end before it.
    later = root.path / "inbox" / "ann" / "later"
    later.mkdir()
    shutil.copyfile(tmp_path / "a.jpg", later / "c.jpg")
    (later / "c.jpg.done").touch()
    root.wait(lambda: root.by_name().get("later", {}).get("status") == "EXTRACTED")
    assert root.by_name()["case"]["status"] == "EXTRACTING_DATA"
    (case / "b.jpg.done").touch()
    root.wait(lambda: root.by_name()["case"]["status"] == "EXTRACTED")
    for name in ("b.jpg", "c.jpg"):
        root.wait(lambda name=name: root.by_name()[name]["status"] == "CONVERTED")
    assert root.stop() == 0
    names = ["a.jpg", "b.jpg", "c.jpg", "case", "later"]
    assert sorted(one["name"] for one in root.manifests().values()) == names
    root.assert_clean()


def test_the_same_name_twice_is_two(pictures: Pictures, tmp_path: Path) -> None:
    """Nothing is replaced."""
    made = builders.aperio_svs(tmp_path / "a.svs")
    for _ in range(2):
        pictures.drop(made)
        assert pictures.treated() == 0
    assert [one["name"] for one in pictures.manifests().values()] == ["a.svs", "a.svs"]


def test_odd_names_of_sets(pictures: Pictures, tmp_path: Path) -> None:
    """Head and folder get another name together; what an index names keeps its own."""
    inbox = pictures.inbox
    vendors.mirax_mrxs(inbox, "Fälle [page=3]")
    vendors.vms(inbox, "Größe %s")
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    assert found["Fälle [page=3].mrxs"]["status"] == "DEPLOYED"
    assert found["Größe %s.vms"]["status"] == "DEPLOYED"
    assert found["Fälle [page=3].mrxs"]["images"][0]["file"] == "source/Falle-page-3.mrxs"
    pictures.check_hashes()


def test_references_that_lead_out_are_refused(pictures: Pictures, tmp_path: Path) -> None:
    """Before a decoder sees them."""
    inbox = pictures.inbox
    head = vendors.vms(inbox, "V")
    head.write_text(head.read_text().replace("V_macro.jpg", "../../../etc/passwd"))
    (inbox / "V_macro.jpg").unlink()
    vendors.mirax_mrxs(inbox, "M")
    ini = inbox / "M" / "Slidedat.ini"
    ini.write_text(ini.read_text().replace("Data0001.dat", "/etc/passwd"))
    assert pictures.treated() == 1
    for document in pictures.manifests().values():
        assert document["error"]["reason"] == "unsafe_reference", document["error"]
        assert "passwd" in document["error"]["detail"]
    assert len(pictures.manifests()) == 2


def test_a_link_that_a_folder_was_swapped_for(root: Root, tmp_path: Path) -> None:
    """What lies behind it is never touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    builders.jpeg(outside / "secret.jpg")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    os.symlink(outside, inbox / "case")
    os.symlink(outside / "secret.jpg", inbox / "a.jpg")
    assert root.run_until_idle() == 0
    assert root.manifests() == {}
    assert (outside / "secret.jpg").exists()


def test_every_order_of_a_small_set(root: Root, tmp_path: Path) -> None:
    """All of them at once, one user each: the order in which files are made means nothing."""
    made = tmp_path / "made"
    vendors.mirax_mrxs(made, "M", data_files=1)
    files = _arrivals(made)
    for number, order in enumerate(itertools.permutations(files)):
        for path in order:
            target = root.path / "inbox" / f"u{number}" / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    assert root.run_until_idle() == 0
    assert {one["status"] for one in root.manifests().values()} == {"DEPLOYED"}
    assert len(root.manifests()) == 24
    root.assert_clean()


def test_scenes_of_a_czi(pictures: Pictures, tmp_path: Path) -> None:
    """Each is a pyramid of its own; 16 bits stay 16 bits; label and mpp are kept."""
    pictures.drop(others.czi(tmp_path / "two.czi", scenes=2))
    pictures.drop(others.czi(tmp_path / "grey.czi", channels=2, dtype=np.uint16))
    assert pictures.treated() == 0, pictures.said()
    found = pictures.by_name()
    images = found["two.czi"]["images"]
    assert [(one["scene"], one["width"], one["height"]) for one in images] == [
        (0, 700, 500),
        (1, 700, 500),
    ]
    assert len({one["file"] for one in images}) == 2
    assert any("2 scenes" in one for one in found["two.czi"]["warnings"])
    [grey] = found["grey.czi"]["images"]
    assert (grey["bits_per_sample"], grey["samples_per_pixel"], grey["mpp_x"]) == (16, 1, 0.5)
    assert any("2 channels" in one for one in found["grey.czi"]["warnings"])
    pictures.check_hashes()


def test_label_and_macro_of_a_czi(pictures: Pictures, tmp_path: Path) -> None:
    """They are kept as files, in their own colours."""
    made = others.czi(tmp_path / "slide.czi")
    label = others.czi(tmp_path / "label.czi", width=120, height=80)
    macro = others.czi(tmp_path / "macro.czi", width=200, height=90)
    pictures.drop(others.attach(made, Label=label, SlidePreview=macro))
    assert pictures.treated() == 0, pictures.said()
    [document] = pictures.manifests().values()
    assert document["images"][0]["associated"] == ["label", "macro"]
    rows = {row["role"]: row["path"] for row in document["files"]}
    shown = np.asarray(Image.open(document["_path"] / rows["label"]))
    assert np.abs(shown.astype(int) - builders.picture(120, 80).astype(int)).mean() < 2
    with Image.open(document["_path"] / rows["macro"]) as picture:
        assert picture.size == (200, 90)
    assert document["format"]["openslide_vendor"] is None
    pictures.check_hashes()


def test_thousands_of_members(pictures: Pictures, tmp_path: Path) -> None:
    """Unpacked once; what was skipped is named up to a hundred, and counted."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(3000):
            archive.writestr(f"notes/{number}.txt", "nothing to see")
        archive.write(builders.jpeg(tmp_path / "x.jpg"), "deep/er/x.jpg")
    pictures.drop(tmp_path / "many.zip")
    assert pictures.treated() == 0
    top = pictures.by_name()["many.zip"]
    assert len(top["children"]) == 1
    assert len(top["skipped"]) == 101
    assert top["skipped"][-1]["count"] == 2900


@pytest.mark.parametrize("where", ["loose", "folder", "zip"])
def test_a_set_keeps_its_sidecars(root: Root, tmp_path: Path, where: str) -> None:
    """Loose, in a folder and in an archive alike; the slide opens beside them."""
    root.configure(inbox="folder_quiet_s = 0.2")
    inbox = root.path / "inbox" / "ann"
    place = {"loose": inbox, "folder": inbox / "case", "zip": tmp_path / "z"}[where]
    place.mkdir(parents=True)
    vendors.mirax_mrxs(place, "M")
    vendors.vms(place, "K")
    (place / "M.xml").write_text("<annotations/>")
    (place / "K.vms.ndpa").write_text("<annotations/>")
    if where == "zip":
        shutil.make_archive(str(tmp_path / "case"), "zip", root_dir=place)
        root.drop(tmp_path / "case.zip")
    assert root.run_until_idle() == 0
    found = root.by_name()
    for name, sidecar in (("M.mrxs", ".xml"), ("K.vms", ".ndpa")):
        one = found[name]
        assert one["status"] == "DEPLOYED"
        [row] = [row for row in one["files"] if row["role"] == "sidecar"]
        assert row["path"].endswith(sidecar)
        with openslide.OpenSlide(one["_path"] / one["images"][0]["file"]) as slide:
            slide.read_region((0, 0), 0, (10, 10))
    assert len(found) == {"loose": 2, "folder": 3, "zip": 3}[where]
    root.check_hashes()
    root.assert_clean()


@pytest.mark.parametrize("where", ["loose", "folder", "zip"])
def test_pictures_in_the_folder_of_a_slide_are_named(
    root: Root, tmp_path: Path, where: str
) -> None:
    """They went along without a word, as if they were parts of the slide; manifest and note name them now."""
    root.configure(inbox="folder_quiet_s = 0.2")
    inbox = root.path / "inbox" / "ann"
    place = {"loose": inbox, "folder": inbox / "case", "zip": tmp_path / "z"}[where]
    place.mkdir(parents=True)
    vendors.mirax_mrxs(place, "M")
    cellsens.olympus_vsi(place, "V")
    (place / "M" / "more").mkdir()
    own = {"M.mrxs": ["M/notes.jpg", "M/more/gross.png", "M/case.txt"], "V.vsi": ["_V_/notes.jpg"]}
    for path in (place / name for names in own.values() for name in names):
        if path.suffix == ".txt":
            path.write_text("called back on Monday")
        else:
            (builders.jpeg if path.suffix == ".jpg" else builders.png)(path)
    if where == "zip":
        shutil.make_archive(str(tmp_path / "case"), "zip", root_dir=place)
        root.drop(tmp_path / "case.zip")
    assert root.run_until_idle() == 0
    found = root.by_name()
    notes = [path.read_text() for path in (root.path / "status").rglob("*.txt")]
    for name, files in own.items():
        one = found[name]
        assert one["status"] in ("DEPLOYED", "CONVERTED")
        sidecars = [row["path"] for row in one["files"] if row["role"] == "sidecar"]
        assert sorted(sidecars) == sorted(f"source/{file}" for file in files)
        [said] = [
            warning for warning in one["warnings"] if "that its index does not name" in warning
        ]
        assert all(file.partition("/")[2] in said for file in files)
        assert any(said in note for note in notes)
    root.check_hashes()
    root.assert_clean()


@pytest.mark.parametrize("place", ["CMU-1/Slidedat.ini", "_CMU-1_/stack1/frame_t.ets"])
@pytest.mark.parametrize("folder", ["", "case 1"])
def test_a_set_of_which_one_file_came_is_incomplete(root: Root, folder: str, place: str) -> None:
    """Loose and in a folder, where it once stayed for good, and its folder had "no slide and no image"."""
    root.configure(inbox="incomplete_after_s = 0.5\nfolder_quiet_s = 0.5")
    path = root.path / "inbox" / "ann" / folder / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"[GENERAL]\nSLIDE_ID=1\n")
    assert root.run_until_idle() == 1
    [found] = [one for one in root.manifests().values() if one["status"] != "EXTRACTED"]
    assert [row["path"] for row in found["files"]] == [f"source/{place}"]
    assert not path.exists()
    assert (found["error"]["reason"], found["error"]["retryable"]) == ("incomplete", True)
