"""What a file of a set was called where it was dropped: kept with it, and given back byte for byte."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.decoder import facts
from cytowatch.formats.sets import groups
from cytowatch.formats.sets.groups import Group
from cytowatch.record import manifest, names, schema, shape
from cytowatch.record.entries import FileEntry, Manifest
from cytowatch.record.errors import IngestError
from cytowatch.record.originals import originals
from cytowatch.record.status import Status

PARTS = st.binary(min_size=1, max_size=80).map(
    lambda raw: os.fsdecode(raw.replace(b"\0", b"-").replace(b"/", b"-"))
).filter(lambda name: name not in (".", ".."))  # fmt: skip


def of_group(group: Group, name: str) -> Manifest:
    """The manifest of `group` as a claim writes it."""
    placed = groups.placed(group, names.decode(os.fsencode(name))[0])
    files = [
        manifest.received(
            role="sidecar" if path in group.sidecars else "source",
            path=f"source/{inside}",
            size_bytes=1,
            dropped_as=group.dropped_as(path),
        )
        for path, inside in placed.items()
    ]
    text, coded = names.decode(os.fsencode(name))
    made = manifest.new(
        id="20260101-000000-aaaa-x", user="ann", name=text, name_base64=coded, drop_path="ann/x",
        files=files, now=datetime.now(UTC), software={},
    )  # fmt: skip
    assert schema.problem(made) is None
    shape.check(cast("dict[str, Any]", made))
    return made


def given_back(found: Manifest) -> set[str]:
    return {path for _, path in originals(found)}


@given(
    st.sampled_from(["mirax-mrxs", "olympus-vsi", "hamamatsu-vms", "dicom"]),
    PARTS,
    st.lists(PARTS, min_size=1, max_size=6, unique=True),
    st.booleans(),
    st.sampled_from(["", "case/", "day 1/Fälle/"]),
)
def test_every_name_of_a_set_comes_back(
    kind: str, stem: str, parts: list[str], has_head: bool, above: str
) -> None:
    """With any name that a disk can hold, with or without a head, wherever the set lay."""
    folder = f"{above}{stem}" if kind in ("mirax-mrxs", "olympus-vsi") else None
    inside = f"{folder}/" if folder else above
    paths = [f"{inside}{part}" for part in parts]
    head = f"{above}{stem}.HEAD"
    members = (head, *paths) if has_head else tuple(paths)
    if len(set(members)) < len(members):
        return
    group = Group(kind=kind, members=members, headless=not has_head, folder=folder)
    found = of_group(group, os.path.basename(group.called))
    assert given_back(found) == {path.removeprefix(above) for path in members}


def test_a_lone_image_and_its_sidecar_keep_their_names() -> None:
    """The image by the name of the uploaded file, the sidecar by its own."""
    group = Group(kind=None, members=("Größe.SVS",), sidecars=("Größe.xml", "Größe.SVS.txt"))
    assert given_back(of_group(group, "Größe.SVS")) == {"Größe.SVS", "Größe.xml", "Größe.SVS.txt"}


def test_what_an_older_version_wrote_is_given_back_as_it_was() -> None:
    """Without the key, head and folder get their stem from the name of the uploaded file."""
    rows = [("source/Falle-1.mrxs"), ("source/Falle-1/Index.dat")]
    found = of_group(Group(kind=None, members=("x",)), "Fälle 1.mrxs")
    files = [manifest.received(role="source", path=path, size_bytes=1) for path in rows]
    assert given_back(cast("Manifest", {**found, "files": files})) == {
        "Fälle 1.mrxs",
        "Fälle 1/Index.dat",
    }


@pytest.mark.parametrize(
    "hostile", ["../x", "/etc/passwd", "a//b", "", ".", "a/..", "n" * 256, "a\0b", 7, None, ["x"]]
)
def test_no_path_that_leads_out_is_believed(hostile: object) -> None:
    """One in a set and the names of its files on the disk are taken for all of them."""
    found = of_group(Group(kind="dicom", members=("ä", "b")), "ä")
    assert given_back(found) == {"ä", "b"}
    rows = cast("list[FileEntry]", [{**row, "dropped_as": hostile} for row in found["files"]])
    back = given_back(cast("Manifest", {**found, "files": rows}))
    assert all("/" not in path and path not in ("", ".", "..") for path in back)
    assert len(back) == 2


def test_a_decoder_cannot_rename_what_was_dropped() -> None:
    """It may say the hash of a file, and nothing of what the file was called."""
    found = of_group(Group(kind="dicom", members=("ä", "b")), "ä")
    for wrong in ({"dropped_as": "c"}, {"dropped_as_base64": "YQ=="}):
        rows = [{**row, **wrong} for row in found["files"]]
        with pytest.raises(IngestError, match="not the file that was received"):
            facts._check_files(Status.DETECTING_FORMAT, found["files"], rows)
