"""The twelve cases of a technician who has only the share: what is put into the inbox, and what comes of it.

`test_technician` puts them in through a real smbd and compares what the status share then shows with
docs/explanation/what-a-technician-sees.md. What the same drops led to before notes summed up a drop stands in
technician_before.json: a run of the version d10b838, through the same smbd.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import builders
from tests.builders import vendors

__all__ = ["BEFORE", "CASES", "Case", "files_of_a_slide"]

#: By the number of its case: each note's text by its name.
BEFORE: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("technician_before.json").read_text()
)
#: What is put into the inbox, in this order.
Drops = list[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`first` is dropped, and when that is finished, `then`."""

    title: str
    does: str
    first: Callable[[Path], Drops]
    then: Callable[[Path], Drops] | None = None
    returned: bool = False


def svs(work: Path, width: int = 600) -> bytes:
    """A small slide; another width is another slide."""
    return builders.aperio_svs(work / f"{width}.svs", width=width, height=400).read_bytes()


def packed(members: Mapping[str, bytes]) -> bytes:
    """A zip of `members`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def files_of_a_slide(work: Path, stem: str) -> dict[str, bytes]:
    """A whole MIRAX slide, by path."""
    folder = work / f"mirax-{stem}"
    vendors.mirax_mrxs(folder, stem)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _word_document() -> bytes:
    return packed({"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<w:document/>"})


def _damaged(work: Path) -> bytes:
    """A zip of two slides, one of whose bytes changed after it was packed."""
    data = bytearray(packed({"liver.svs": svs(work, 610), "spleen.svs": svs(work, 650)}))
    # A stored member: its checksum no longer fits.
    data[data.index(b"liver.svs") + 9 + 5000] ^= 0xFF
    return bytes(data)


CASES = (
    Case(
        title="A zip of several slides",
        does="drops `batch.zip`, which holds three slides",
        first=lambda work: [("batch.zip", packed({f"{n}.svs": svs(work, 600 + 40 * n) for n in range(3)}))],
    ),
    Case(
        title="One slide of a zip fails",
        does="drops `batch 2026.zip`: two slides, and an .mrxs without its folder",
        first=lambda work: [("batch 2026.zip", packed({
            "liver.svs": svs(work, 720), "spleen.svs": svs(work, 760),
            "CMU-1.mrxs": files_of_a_slide(work, "CMU-1")["CMU-1.mrxs"],
        }))],
    ),
    Case(
        title="A zip was damaged on its way",
        does="drops `week 48.zip`; one of its two slides was damaged after it was packed",
        first=lambda work: [("week 48.zip", _damaged(work))],
    ),
    Case(
        title="Two slides of one name in two folders",
        does="drops the folders `case-101` and `case-102`; both hold `HE.svs`, and `case-102` a damaged photograph as well",
        first=lambda work: [
            ("case-101/HE.svs", svs(work, 800)),
            ("case-102/HE.svs", svs(work, 840)),
            ("case-102/KI67.jpg", _broken_jpeg(work)),
        ],
    ),
    Case(
        title="The copy stops in the middle",
        does="copies `scan.svs`; the connection breaks off",
        first=lambda work: [("scan.svs", svs(work, 880)[:-20_000])],
    ),
    Case(
        title="A zip that is packed wrongly",
        does="drops `CMU-2.zip`: the content of the folder `CMU-2`, without the folder and the .mrxs file",
        first=lambda work: [("CMU-2.zip", packed({
            name.partition("/")[2]: data for name, data in files_of_a_slide(work, "CMU-2").items() if "/" in name
        }))],
    ),
    Case(
        title="An empty file",
        does="copies `empty.svs`; nothing of it arrives but its name",
        first=lambda _: [("empty.svs", b"")],
    ),
    Case(
        title="Documents beside the slides",
        does="drops `letter.docx`, and `report.zip` with a slide, a PDF and a Word document",
        first=lambda work: [
            ("letter.docx", _word_document()),
            ("report.zip", packed({"kidney.svs": svs(work, 920), "report.pdf": b"%PDF-1.7\n%\xe2\xe3\n", "letter.docx": _word_document()})),
        ],
    ),
    Case(
        title="The second try works",
        does="drops `skin.jpg`, which is damaged, and then a whole one under the same name",
        first=lambda work: [("skin.jpg", _broken_jpeg(work))],
        then=lambda work: [("skin.jpg", builders.jpeg(work / "skin.jpg").read_bytes())],
    ),
    Case(
        title="The administrator returns a file",
        does="drops `minutes.txt`; the administrator runs `cytowatch return`",
        first=lambda _: [("minutes.txt", b"Minutes of the meeting\n" * 20)],
        returned=True,
    ),
    Case(
        title="The same slide twice",
        does="drops `lung.svs`, and next day the same slide as `lung copy.svs`",
        first=lambda work: [("lung.svs", svs(work, 960))],
        then=lambda work: [("lung copy.svs", svs(work, 960))],
    ),
    Case(
        title="A case folder with a note in it",
        does="drops the folder `case-103` with `HE.svs` and `notes.txt`",
        first=lambda work: [("case-103/notes.txt", b"for whom it may concern\n"), ("case-103/HE.svs", svs(work, 1000))],
    ),
)  # fmt: skip


def _broken_jpeg(work: Path) -> bytes:
    """A photograph in whose middle the bytes are of something else."""
    data = bytearray(builders.jpeg(work / "broken.jpg").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(range(100)) * 6
    return bytes(data)
