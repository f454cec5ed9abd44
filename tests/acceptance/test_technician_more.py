"""More that a technician drops by mistake, through a real smbd: each note says what it is and what to do."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import smbclient

from tests.acceptance.technician import files_of_a_slide, packed, svs
from tests.acceptance.test_technician import put, seen, share
from tests.lab import samba
from tests.lab.root import Root
from tests.lab.samba import Samba
from tests.needs import unless

__all__ = ["share"]

pytestmark = unless(samba.missing())


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """`drops` lead to the note `name`, whose text has `says`."""

    drops: Callable[[Path], list[tuple[str, bytes]]]
    name: str
    says: str


def _one(name: str, head: bytes) -> Callable[[Path], list[tuple[str, bytes]]]:
    # Behind its first bytes come such as no program has packed.
    return lambda _: [(name, head + bytes(range(256)) * 20)]


def _without_its_head(work: Path) -> list[tuple[str, bytes]]:
    files = files_of_a_slide(work, "CMU-5")
    return [(name, data) for name, data in files.items() if "/" in name]


def _encrypted(work: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(work / "secret.zip", "w") as archive:
        archive.writestr("liver.svs", svs(work, 640))
    data = bytearray((work / "secret.zip").read_bytes())
    # As no library writes one: bit 0 of the flags, before the member and in the list, says "encrypted".
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return [("secret.zip", bytes(data))]


_SHORTCUT = bytes.fromhex("4C0000000114020000000000C000000000000046")
MISTAKES = (
    Mistake(
        drops=_one("slide.svs.lnk", _SHORTCUT),
        name="! slide.svs.lnk - FAILED, a shortcut to a file.txt",
        says="What to do: Copy the file itself, not the shortcut to it.\n",
    ),
    Mistake(
        drops=_one("camera.gif", b"GIF89a"),
        name="! camera.gif - FAILED, a GIF image.txt",
        says="It is a GIF image, which cannot be taken as it is.\nWhat to do: Save it as TIFF, PNG or JPEG, and drop that.\n",
    ),
    Mistake(
        drops=_one("tour.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isommp41"),
        name="! tour.mp4 - FAILED, a video.txt",
        says="What to do: Save single pictures of it as TIFF, PNG or JPEG, and drop that.\n",
    ),
    Mistake(
        drops=_one("IMG_1.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        name="! IMG_1.HEIC - FAILED, an HEIC image.txt",
        says="What to do: Export it as TIFF, PNG or JPEG, and drop that.\n",
    ),
    Mistake(
        drops=lambda work: [("week.zip.001", packed({"a.svs": svs(work, 680)})[:50_000])],
        name="! week.zip.001 - WAITING, incomplete.txt",
        says="It is a part of a split archive, which cannot be taken as it is.\n"
        "What to do: Pack the slides again as one zip that is not split, and drop that. Delete all parts.\n",
    ),
    Mistake(
        drops=_one("week.zip.002", b"\x93\x11"),
        name="! week.zip.002 - FAILED, a part of a split archive.txt",
        says="What to do: Pack the slides again as one zip that is not split, and drop that.\n",
    ),
    Mistake(
        drops=_encrypted,
        name="! secret.zip - FAILED, needs a password.txt",
        says="What to do: Pack it again without a password.\n",
    ),
    Mistake(
        drops=lambda work: [("deep.zip", packed({"b.zip": packed({"c.zip": packed({"a.svs": svs(work, 720)})})}))],
        name="! b.zip in deep.zip - FAILED, packed too deep.txt",
        says="What to do: Pack the slides themselves into one zip, without the folders or zips around them.\n",
    ),
    Mistake(
        drops=_without_its_head,
        name="! CMU-5 - WAITING, incomplete.txt",
        says=": a whole slide is CMU-5.mrxs and the folder CMU-5 beside it.\n",
    ),
    Mistake(
        drops=lambda work: [("a.ndpis", b"[NanoZoomer Digital Pathology Image Set]\r\nNoImages=1\r\nImage0=a-DAPI.ndpi\r\n")],
        name="! a.ndpis - FAILED, the list of a Hamamatsu set (NDPIS).txt",
        says="What to do: Drop the slides that it names, each of which is shown by itself: a-DAPI.ndpi.\n",
    ),
    Mistake(
        drops=_one("case.rar", b"Rar!\x1a\x07\x01\0"),
        name="! case.rar - FAILED, a RAR archive.txt",
        says="What to do: Pack the slides again as a zip, and drop that.\n",
    ),
    Mistake(
        drops=lambda _: [("papers/list.txt", b"1 liver\n2 spleen\n")],
        name="papers - NO IMAGE IN IT.txt",
        says="list.txt: It is not an image. What to do: Nothing: delete it, or leave it there.\n",
    ),
    Mistake(
        drops=lambda work: [("broken off.svs.filepart", svs(work, 740))],
        name="! broken off.svs.filepart - WAITING, copy not finished.txt",
        says="It has a name that says that it is still being copied.\n"
        "What to do: Let the copy program finish, or start the copy again. If it has arrived under its own name, delete this one. Give a folder another name.\n",
    ),
    Mistake(
        drops=lambda work: [("wrong ending.jpg", svs(work, 760))],
        name="wrong ending.jpg - DEPLOYED.txt",
        says="It is done, and can be used (DEPLOYED).\n",
    ),
)  # fmt: skip


def test_each_mistake_is_named_with_what_to_do(root: Root, share: Samba, tmp_path: Path) -> None:
    """Nothing is reported in the words of a library, and no advice is of no use."""
    root.configure(inbox="folder_quiet_s = 1.0")
    root.start()
    for one in MISTAKES:
        put(share, one.drops(tmp_path))
    wanted = {one.name for one in MISTAKES}
    root.wait(lambda: wanted <= seen(share).keys(), 120)
    notes = seen(share)
    for one in MISTAKES:
        assert one.says in notes[one.name], one.name
    # What its archive says in a line is the only note besides.
    assert notes.keys() - wanted == {"! deep.zip - EXTRACTED 0 of 1, 1 FAILED.txt"}
    assert root.stop() == 0


@pytest.mark.parametrize("does", ["rename", "remove", "complete"])
def test_a_note_of_a_drop_that_waited_goes_with_it(
    root: Root, share: Samba, tmp_path: Path, does: str
) -> None:
    """A file that waits for its rest is renamed, deleted or copied again: the old note does not stay."""
    root.start()
    whole = svs(tmp_path, 800)
    share.put("scan.svs", whole[:-20_000])
    root.wait(lambda: "! scan.svs - WAITING, incomplete.txt" in seen(share), 60)
    after = {"rename": {"! new.svs - WAITING, incomplete.txt"}, "remove": set(), "complete": {"scan.svs - DEPLOYED.txt"}}  # fmt: skip
    match does:
        case "rename":
            smbclient.rename(share.path("scan.svs"), share.path("new.svs"), **share.session)
        case "remove":
            smbclient.remove(share.path("scan.svs"), **share.session)
        case _:
            share.put("scan.svs", whole)
    root.wait(lambda: seen(share).keys() == after[does], 60)
    assert root.stop() == 0


def test_a_part_of_an_archive_whose_time_is_up(root: Root, tmp_path: Path) -> None:
    """It ends as what it is, and not as a copy that broke off."""
    (root.path / "inbox" / "ann").mkdir()
    part = packed({"a.svs": svs(tmp_path, 840)})[:50_000]
    (root.path / "inbox" / "ann" / "week.zip.001").write_bytes(part)
    root.configure(inbox="incomplete_after_s = 0.5")
    assert root.run_until_idle() == 1
    [one] = root.manifests().values()
    assert one["error"]["reason"] == "unsupported_format"
    assert "a part of a split archive" in one["error"]["detail"]
    [note] = (root.path / "status" / "ann").iterdir()
    assert note.name == "! week.zip.001 - FAILED, a part of a split archive.txt"
