"""Which files belong together: by their names and what little must be read, in any order."""

from __future__ import annotations

import configparser
import struct
import tempfile
import unicodedata
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.formats import Probe
from cytowatch.formats.completeness import arrival
from cytowatch.formats.completeness import whole as completeness
from cytowatch.formats.sets import groups
from cytowatch.formats.sets.groups import Group
from cytowatch.formats.structure import mirax
from tests import builders
from tests.builders import others, vendors

T = TypeVar("T")
JPEG = b"\xff\xd8\xff\xe0 and so on"
VMS = b"[Virtual Microscope Specimen]\nImageFile=a(0,0).jpg\nMapFile=a_map2.jpg\n"


def grouped(files: Mapping[str, bytes]) -> list[Group]:
    def look(path: str, function: Callable[[Probe], T]) -> T:
        with tempfile.TemporaryFile() as file:
            file.write(files[path])
            file.flush()
            return function(Probe(file.fileno(), name=path.rpartition("/")[2]))

    return groups.groups({path: len(data) for path, data in files.items()}, look)


def only(files: Mapping[str, bytes]) -> Group:
    [group] = grouped(files)
    return group


def test_single_files_are_single() -> None:
    """No matter what they are called."""
    found = grouped({"a.svs": b"x", "b.jpg": JPEG, "c": b"", "d/e.tif": b"II*\0"})
    assert [group.members for group in found] == [("d/e.tif",), ("a.svs",), ("b.jpg",), ("c",)]
    assert all(group.kind is None and group.missing is None for group in found)


def test_a_name_alone_makes_nothing_wait() -> None:
    """An .mrxs that is not a JPEG and a .vsi that is not a TIFF have no companions."""
    assert only({"a.mrxs": b"II*\0"}).kind is None
    assert only({"a.vsi": JPEG}).kind is None
    assert only({"a.vms": JPEG}).kind is None


def test_mirax_in_every_state() -> None:
    """Head or folder first; each lack has a name."""
    ini = b"[GENERAL]\nSLIDE_CREATION_FINISHED=True\n[HIERARCHICAL]\nINDEXFILE=Index.dat\n[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n"
    assert only({"S.mrxs": JPEG}).missing == "S/Slidedat.ini"
    assert only({"S/Data0000.dat": b"x"}).missing == "S.mrxs"
    assert only({"S.mrxs": JPEG, "S/Data0000.dat": b"x"}).missing == "S/Slidedat.ini"
    assert only({"S.mrxs": JPEG, "S/Slidedat.ini": ini}).missing == "S/Index.dat"
    part = {"S.mrxs": JPEG, "S/Slidedat.ini": ini, "S/Index.dat": b"x"}
    assert only(part).missing == "S/Data0000.dat"
    whole = only({**part, "S/Data0000.dat": b"x"})
    assert (whole.missing, whole.head, whole.folder) == (None, "S.mrxs", "S")
    at_work = ini.replace(b"=True", b"=False")
    assert "still at work" in str(only({**part, "S/Slidedat.ini": at_work}).missing)


INI = (
    b"[GENERAL]\nSLIDE_ID=" + b"A" * 32 + b"\n[HIERARCHICAL]\nINDEXFILE=Index.dat\n"
    b"[DATAFILE]\nFILE_COUNT=2\nFILE_0=Data0000.dat\nFILE_1=Data0001.dat\n"
)


@pytest.mark.parametrize(
    ("changed", "data"),
    [
        ("Index.dat", b"01.02" + b"B" * 32),
        ("Data0000.dat", b"B" * 32 + JPEG),
        ("Data0001.dat", b"01.02" + b"B" * 32 + b"001"),
    ],
)
def test_files_of_two_slides_are_not_one(changed: str, data: bytes) -> None:
    """SLIDE_ID stands in the index, and in the header of a data file where that has one."""
    own = b"A" * 32
    files = {
        "S.mrxs": JPEG, "S/Slidedat.ini": INI, "S/Index.dat": b"01.02" + own,
        "S/Data0000.dat": own + JPEG, "S/Data0001.dat": JPEG + bytes(90),
    }  # fmt: skip
    assert (only(files).missing, only(files).mixed) == (None, None)
    found = only({**files, f"S/{changed}": data})
    assert found.mixed == f"S/{changed}"
    assert f"S/{changed}" in str(found.missing)


def built(tmp_path: Path) -> dict[str, bytes]:
    """The files of a slide of two data files, by their paths."""
    vendors.mirax_mrxs(tmp_path, "S")
    return {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }


def test_a_data_file_is_as_long_as_the_index_says(tmp_path: Path) -> None:
    """Cut anywhere in its tiles it is missing its end; behind them a picture beside the slide is cut."""
    whole = built(tmp_path)
    assert only(whole).missing is None
    for name in ("S/Data0000.dat", "S/Data0001.dat"):
        size = len(whole[name])
        for part in range(1, 8):
            found = only({**whole, name: whole[name][: size * part // 8]})
            assert f"the end of {name} (it has " in str(found.missing), part
            assert not found.is_spare
    macro = only({**whole, "S/Data0000.dat": whole["S/Data0000.dat"][:-100]})
    assert "the end of S/Data0000.dat" in str(macro.missing)
    assert macro.is_spare
    longer = only({**whole, "S/Data0001.dat": whole["S/Data0001.dat"] + bytes(500)})
    assert longer.missing is None


def test_no_index_holds_up_what_waits(tmp_path: Path) -> None:
    """Pages that lead in a circle, or promise more than there is, end soon; so does any other damage."""
    whole = built(tmp_path)
    index = bytearray(whole["S/Index.dat"])
    for at in range(37, len(index) - 4, 12):
        for value in (at, 37, 45, 2**31 - 1, -1):
            changed = bytearray(index)
            struct.pack_into("<i", changed, at, value)
            only({**whole, "S/Index.dat": bytes(changed)})
    # Root, two records, and the one page of both, which is followed by itself.
    circle = struct.pack("<12i", 45, 0, 53, 53, 0, 61, 1, 61, 0, 0, 0, 0)
    path = tmp_path / "Index.dat"
    path.write_bytes(bytes(index[:37]) + circle + bytes(1000))
    ini = configparser.ConfigParser()
    ini.read_string(whole["S/Slidedat.ini"].decode("utf-8-sig"))
    with path.open("rb") as file:
        listed = mirax.places(ini, file.fileno())
    # Each is listed once, however often the index leads to it.
    assert listed == {0: array("Q", [0])}


def test_a_slidedat_that_is_being_written_is_looked_at_at_any_moment(tmp_path: Path) -> None:
    """Cut anywhere, without any of its sections, with lines that have no value: its own slide waits or is refused, and nothing raises."""
    whole = built(tmp_path)
    ini = whole["S/Slidedat.ini"]
    lines = ini.splitlines(keepends=True)
    changed = [ini[:at] for at in range(0, len(ini), 2)]
    changed += [b"".join(lines[:at] + lines[at + 1 :]) for at in range(len(lines))]
    changed += [
        b"".join([*lines[:at], lines[at].partition(b"=")[0].rstrip() + b"\n", *lines[at + 1 :]])
        for at in range(len(lines))
    ]
    for one in changed:
        files = {**whole, "S/Slidedat.ini": one}
        assert {path for group in grouped(files) for path in (*group.members, *group.sidecars)} == {
            *files
        }
        (tmp_path / "S" / "Slidedat.ini").write_bytes(one)
        arrival.of_sets([str(tmp_path / "S" / "Slidedat.ini")])


def test_a_data_file_that_no_index_names_is_no_part_of_the_slide(tmp_path: Path) -> None:
    """It goes along as it is; but one of another slide refuses the set."""
    whole = built(tmp_path)
    stray = only({**whole, "S/Data0007.dat": JPEG})
    assert (stray.sidecars, stray.missing, len(stray.members)) == (("S/Data0007.dat",), None, 5)
    assert groups.placed(stray, "S.mrxs")["S/Data0007.dat"] == "S/Data0007.dat"
    other = only({**whole, "S/Data0007.dat": b"F" * 32 + JPEG})
    assert (other.mixed, other.sidecars) == ("S/Data0007.dat", ())
    assert "S/Data0007.dat" in other.members
    # While something is missing the index may still be written.
    part = {path: data for path, data in whole.items() if path != "S/Data0001.dat"}
    assert only({**part, "S/Data0007.dat": b"x"}).sidecars == ()


def test_what_else_lies_in_the_folder_goes_along_by_name(tmp_path: Path) -> None:
    """Pictures, notes and whole slides that somebody put there: beside the slide, and not as if they were a part of it."""
    whole = built(tmp_path)
    own = {
        "S/notes.jpg": JPEG,
        "S/more/T.mrxs": JPEG,
        "S/more/T/Slidedat.ini": INI,
        "S/a.txt": b"x",
    }
    found = only({**whole, **own})
    assert set(found.sidecars) == {*own}
    assert (found.missing, len(found.members)) == (None, 5)
    # While something is missing the index may still be written.
    part = {path: data for path, data in whole.items() if path != "S/Data0001.dat"}
    assert only({**part, **own}).sidecars == ()
    # An index that does not say what belongs to it.
    short = INI.partition(b"[DATAFILE]")[0]
    assert only({**whole, "S/Slidedat.ini": short, "S/notes.jpg": JPEG}).sidecars == ()


def test_of_two_heads_that_differ_in_case_none_is_taken(tmp_path: Path) -> None:
    """Either may be the folder's own; where one has its very name, that is."""
    whole = built(tmp_path)
    head = whole.pop("S.mrxs")
    found = {one.head: one for one in grouped({**whole, "s.mrxs": head, "s.MRXS": head})}
    assert [one.missing for one in found.values() if one.folder] == ["S.mrxs"]
    exact = {one.head: one for one in grouped({**whole, "S.mrxs": head, "s.mrxs": head})}
    assert exact["S.mrxs"].missing is None


def test_case_is_no_difference_where_one_folder_can_be_meant() -> None:
    """As on Windows; the decoder gets the names that the index has."""
    files = {
        "case.mrxs": JPEG, "Case/SLIDEDAT.INI": INI, "Case/INDEX.DAT": b"01.02",
        "Case/data0000.dat": b"x", "Case/Data0001.dat": b"x",
    }  # fmt: skip
    found = only(files)
    assert (found.missing, found.head, found.headless) == (None, "case.mrxs", False)
    assert set(groups.placed(found, "case.mrxs").values()) == {
        "case.mrxs", "case/Slidedat.ini", "case/Index.dat", "case/Data0000.dat", "case/Data0001.dat",
    }  # fmt: skip
    two = grouped({**files, "CASE/Data0000.dat": b"y"})
    assert all("case.mrxs" not in group.members or len(group.members) == 1 for group in two)


@pytest.mark.parametrize("change", [str.lower, str.upper], ids=["lower", "upper"])
def test_a_slide_all_of_whose_names_have_another_case(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    """As a copier of another system writes them: each data file is of the slide, and no picture beside it."""
    files = {change(path): data for path, data in built(tmp_path).items()}
    found = only(files)
    assert found.missing is None
    assert set(found.members) == set(files)
    assert found.sidecars == ()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_composed_in_two_ways(form: str) -> None:
    """As where a Mac copied one of them: what is one name to it is one slide."""
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    ours, theirs = (unicodedata.normalize(one, "Größe é") for one in (form, other))
    slide = {f"{theirs}/{part}": b"x" for part in ("Index.dat", "Data0000.dat", "Data0001.dat")}
    found = only({f"{ours}.mrxs": JPEG, f"{theirs}/Slidedat.ini": INI, **slide})
    assert (found.missing, found.head) == (None, f"{ours}.mrxs")
    found = only({f"{ours}.vsi": b"II*\0" + bytes(12), f"_{theirs}_/stack1/frame_t.ets": b"x"})
    assert (found.missing, found.head) == (None, f"{ours}.vsi")
    index = VMS.replace(b"=a", f"={ours}".encode())
    found = only({"a.vms": index, f"{theirs}(0,0).jpg": JPEG, f"{theirs}_map2.jpg": JPEG})
    assert (found.missing, len(found.members)) == (None, 3)
    assert f"{ours}_map2.jpg" in groups.placed(found, "a.vms").values()


def test_the_first_tile_of_a_vms_waits_with_the_others() -> None:
    """It has no number; by itself such a name means nothing."""
    parts = {"a.jpg": JPEG, "a(0,1).jpg": JPEG, "a_macro.jpg": JPEG, "a.opt": b"x"}
    found = only(parts)
    assert (set(found.members), found.missing) == (set(parts), "a.vms")
    assert only({"a.jpg": JPEG}).kind is None
    index = VMS.replace(b"a(0,0).jpg", b"a.jpg").replace(b"a_map2", b"a_macro")
    named = {group.head: group for group in grouped({**parts, "a.vms": index})}
    assert "a.jpg" in named["a.vms"].members


@pytest.mark.parametrize(
    ("names", "together"),
    [
        (("Slide [1](2,3).jpg", "Slide [1](2,4).jpg", "Slide [1].jpg"), False),
        (("S26_macro.jpg", "S26.jpg", "S26_map2.jpg"), False),
        (("a.opt", "a.jpg"), False),
        (("a.opt", "a(0,1).jpg"), True),
        (("a_macro.jpg", "a(0,1).jpg", "a.jpg"), True),
        (("a.opt", "a_map2.jpg"), True),
    ],
)
def test_names_of_a_camera_make_no_slide(names: tuple[str, ...], together: bool) -> None:
    """Each waits by itself for an index, unless all of them can only be parts of one slide."""
    stem = names[0].partition("(")[0].partition("_")[0].removesuffix(".opt")
    found = grouped(dict.fromkeys(names, JPEG))
    assert len(found) == (1 if together else len(names))
    assert {group.missing for group in found} == {f"{stem}.vms"}
    whole = VMS.replace(b"a(0,0).jpg", names[0].encode()).replace(b"a_map2.jpg", names[1].encode())
    joined = {
        group.head: group for group in grouped({**dict.fromkeys(names, JPEG), "i.vms": whole})
    }
    assert joined["i.vms"].members == ("i.vms", *names[:2])


def test_an_index_may_differ_in_case() -> None:
    """As on Windows, where only one file can be meant; the decoder gets the names of the index."""
    found = only({"a.vms": VMS, "A(0,0).JPG": JPEG, "a_Map2.jpg": JPEG})
    assert found.missing is None
    assert set(groups.placed(found, "a.vms").values()) == {"a.vms", "a(0,0).jpg", "a_map2.jpg"}
    two = {"a.vms": VMS, "A(0,0).JPG": JPEG, "a(0,0).JPG": JPEG, "a_map2.jpg": JPEG}
    [doubted] = [group for group in grouped(two) if group.head == "a.vms"]
    assert doubted.missing == "a(0,0).jpg"


def test_tiffs_in_the_place_of_frames_are_images_by_themselves() -> None:
    """CellSens writes some stacks so; no .ets ever comes."""
    tiff = b"II*\0" + bytes(12)
    found = grouped({"f.vsi": tiff, "_f_/stack1/frame_t_0.tif": tiff})
    assert {group.members for group in found} == {("f.vsi",), ("_f_/stack1/frame_t_0.tif",)}


def test_vms_in_every_state() -> None:
    """Its JPEGs wait for the index, the index for its JPEGs."""
    assert only({"a(0,0).jpg": JPEG, "a_map2.jpg": JPEG}).missing == "a.vms"
    assert only({"a.vms": VMS}).missing == "a(0,0).jpg"
    assert only({"a.vms": VMS, "a(0,0).jpg": JPEG}).missing == "a_map2.jpg"
    found = only({"a.vms": VMS, "a(0,0).jpg": JPEG, "a_map2.jpg": JPEG})
    assert found.missing is None
    assert found.members == ("a.vms", "a(0,0).jpg", "a_map2.jpg")


def test_two_sets_in_one_folder() -> None:
    """Each has its own files, and no other's."""
    other = VMS.replace(b"a", b"b").replace(b"Mbp", b"Map").replace(b"Imbge", b"Image")
    files = {
        "a.vms": VMS,
        "a(0,0).jpg": JPEG,
        "b(0,0).jpg": JPEG,
        "b_mbp2.jpg": JPEG,
        "x.jpg": JPEG,
    }
    found = {group.head: group for group in grouped(files)}
    assert found["a.vms"].missing == "a_map2.jpg"
    assert found["x.jpg"].kind is None
    assert other


def test_sidecars_stay_with_their_slide() -> None:
    """By stem, or by the whole name; a text without a slide is only."""
    files = {"a.svs": b"x", "a.xml": b"<a/>", "b.ndpi": b"x", "b.ndpi.ndpa": b"<b/>", "c.txt": b"c"}
    found = {group.head: group.sidecars for group in grouped(files)}
    assert found == {"a.svs": ("a.xml",), "b.ndpi": ("b.ndpi.ndpa",), "c.txt": ()}


def test_sidecars_stay_with_sets_too() -> None:
    """Beside the head, by its name or its stem, even if something else has that stem."""
    ini = b"[GENERAL]\nSLIDE_CREATION_FINISHED=True\n[HIERARCHICAL]\nINDEXFILE=Index.dat\n[DATAFILE]\nFILE_COUNT=0\n"
    files = {
        "M.mrxs": JPEG, "M/Slidedat.ini": ini, "M/Index.dat": b"x", "M.xml": b"<a/>",
        "v.vsi": b"II*\0" + bytes(12), "_v_/stack1/frame_t.ets": b"x", "v.txt": b"for v",
        "a.vms": VMS, "a(0,0).jpg": JPEG, "a_map2.jpg": JPEG, "a.vms.ndpa": b"<b/>",
        "s.csv": b"1,2", "s.svs": b"II*\0" + bytes(9), "s.xml": b"<c/>", "s.geojson": b"{}",
    }  # fmt: skip
    found = {group.head: group.sidecars for group in grouped(files) if group.sidecars}
    assert found == {
        "M.mrxs": ("M.xml",), "v.vsi": ("v.txt",), "a.vms": ("a.vms.ndpa",), "s.svs": ("s.xml",),
    }  # fmt: skip


@given(
    st.dictionaries(
        st.lists(
            st.sampled_from(["a", "b.mrxs", "b", "_c_", "c.vsi", "stack1", "frame_t_0.ets", "a(0,1).jpg",
                             "Slidedat.ini", "Data0001.dat", "d.vms", "d.xml", "d.opt"]),
            min_size=1, max_size=4,
        ).map("/".join),
        st.sampled_from([b"", JPEG, VMS, b"II*\0\0\0\0\0", b"[GENERAL]\nA=B\n"]),
        max_size=12,
    )
)  # fmt: skip
def test_each_file_is_in_exactly_one_group(files: dict[str, bytes]) -> None:
    """However strange the tree is; and each finds a place of its own below source/."""
    files = {p: d for p, d in files.items() if not any(o.startswith(f"{p}/") for o in files)}
    found = grouped(files)
    inside = [path for group in found for path in (*group.members, *group.sidecars)]
    assert sorted(inside) == sorted(files)
    for group in found:
        placed = groups.placed(group, group.head.rpartition("/")[2])
        assert len({place.lower() for place in placed.values()}) == len(placed)
        assert not any(
            place.startswith("/") or ".." in place.split("/") for place in placed.values()
        )


@pytest.mark.parametrize(
    "make",
    [
        builders.aperio_svs, builders.pyramidal_tiff, builders.jpeg, builders.png, vendors.ndpi,
        vendors.leica_scn, others.bmp, others.pgm, others.ppm, others.jp2, others.jp2_tiled,
        others.czi, others.ome_pyramid,
    ],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_what_is_cut_is_not_whole(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Wherever the connection was cut, save in the last few bytes, which may be padding."""
    data = make(tmp_path / "a").read_bytes()

    def lacking(size: int) -> str | None:
        path = tmp_path / "cut"
        path.write_bytes(data[:size])
        with path.open("rb") as file:
            return completeness.missing(file.fileno(), size)

    assert lacking(len(data)) is None
    for part in range(1, 20):
        assert lacking(len(data) * part // 20) is not None, part
