"""The way back into an inbox: one unit under one free stem, and never into another slide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cytowatch.inbox import back
from cytowatch.inbox.back import Unit


def given_back(tmp_path: Path, files: list[str], there: list[str]) -> set[str]:
    """What lies in the folder afterwards and did not before; `there` ends in a slash for a folder."""
    place, inbox = tmp_path / "id", tmp_path / "inbox"
    (place / "source").mkdir(parents=True)
    folder = inbox / "ann"
    folder.mkdir(parents=True)
    for name in there:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.write_bytes(b"another")
    rows = []
    for number, name in enumerate(files):
        (place / "source" / str(number)).write_bytes(name.encode())
        rows.append((f"source/{number}", name))
    stem = os.path.splitext(files[0].partition("/")[0])[0]
    back.give_back(place, Unit(stem=stem, files=rows), inbox, "ann")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in there if not name.endswith("/")} <= found
    for name in there:
        if not name.endswith("/"):
            assert (folder / name).read_bytes() == b"another"
    return found - set(there)


MRXS = ["1.mrxs", "1/Slidedat.ini", "1/Index.dat"]
VMS = ["1.vms", "1(0,0).jpg", "1_map2.jpg"]


@pytest.mark.parametrize(
    "files", [MRXS, VMS, ["1.mrxs"], ["1(0,0).jpg"], ["_1_/stack1/frame_t.ets"]]
)
@pytest.mark.parametrize(
    "there", ["1.mrxs", "1/Data0000.dat", "1(1,0).jpg", "1.opt", "_1_/", "1.jpg", "1.vsi", "1.MRXS"]
)
def test_nothing_goes_back_beside_a_part_of_another_slide(
    tmp_path: Path, files: list[str], there: str
) -> None:
    """Not even where no name is taken: head and folder of two drops would be one slide."""
    names = {name.partition("/")[0] for name in given_back(tmp_path, files, [there])}
    stems = {name.removesuffix(".mrxs").removeprefix("_").removesuffix("_") for name in names}
    assert all("(1)" in stem for stem in stems), names
    assert len(stems) == 1, names


def test_a_lone_image_goes_back_beside_anything_but_a_folder_of_its_stem(tmp_path: Path) -> None:
    """Of which it could be taken for the head."""
    assert given_back(tmp_path / "a", ["1.jpg"], ["1.xml", "1.svs"]) == {"1.jpg"}
    assert given_back(tmp_path / "b", ["1.jpg"], ["1/"]) == {"1 (1).jpg"}
    assert given_back(tmp_path / "c", ["1.jpg"], ["1.JPG"]) == {"1 (1).jpg"}


def test_what_is_free_keeps_its_names(tmp_path: Path) -> None:
    """Beside slides of other names, however alike those are."""
    assert given_back(tmp_path, MRXS, ["11.mrxs", "1 (1).mrxs", "2/Index.dat"]) == set(MRXS)


def test_a_folder_of_a_vsi_stays_one(tmp_path: Path) -> None:
    """Without its head too: under a name that only looked like it, nothing would ever take it again."""
    stack = "stack1/frame_t.ets"
    assert given_back(tmp_path / "a", [f"_1_/{stack}"], ["1.vsi"]) == {f"_1 (1)_/{stack}"}
    assert given_back(tmp_path / "b", ["_1_.jpg"], ["_1_.jpg"]) == {"_1_ (1).jpg"}
