"""`show`, `list` and `watch` of a real tree on terminals of 50, 80 and 140 columns, and in a pipe."""

from __future__ import annotations

import csv
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
import zipfile
from pathlib import Path

import pytest

from cytowatch import cli
from cytowatch.cli.columns import cells
from cytowatch.cli.watch import Looks, frame
from cytowatch.tree.spool import Spool
from tests import builders
from tests.builders import vendors
from tests.lab.root import Root

ARCHIVE = "batch 2026-11-29.zip"
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A zip with a set, a slide in two folders, a picture, what is not an image, and one that is cut; a duplicate."""
    made, folder = Root(tmp_path_factory.mktemp("looks") / "root"), tmp_path_factory.mktemp("made")
    made.create()
    vendors.mirax_mrxs(folder / "set", "CMU-1")
    slide = builders.aperio_svs(folder / "HE.svs")
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for path in sorted((folder / "set").rglob("*")):
            if path.is_file():
                archive.write(path, f"case-101/{path.relative_to(folder / 'set')}")
        archive.write(slide, "case-102/block A/HE.svs")
        archive.write(builders.jpeg(folder / "x.jpg"), "case-103/HE.jpg")
        archive.writestr("case-103/notes.txt", "x")
        archive.writestr("case-104/broken.svs", slide.read_bytes()[:-3000])
    made.configure(inbox="incomplete_after_s = 1.0")
    made.drop(folder / ARCHIVE)
    assert made.run_until_idle() == 1
    made.drop(slide, "again.svs")
    assert made.run_until_idle() == 0
    return made


def on_a_terminal(root: Root, width: int, *words: str) -> list[str]:
    """The lines that a command shows on a terminal of `width` columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    left_out = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI")
    given = {name: value for name, value in os.environ.items() if name not in left_out}
    process = subprocess.Popen(
        [*root.command(*words), "--root", str(root.path)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**given, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    found = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        found += part
    assert process.wait(30) == 0
    os.close(ours)
    return [line.rstrip() for line in _STYLE.sub("", found.decode()).replace("\r", "").split("\n")]


def in_a_pipe(root: Root, *words: str) -> str:
    done = subprocess.run(
        [*root.command(*words), "--root", str(root.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


TREE = """\
batch 2026-11-29.zip  EXTRACTED  Zip archive
├── source/batch-2026-11-29.zip
├── case-101/
│   └── CMU-1.mrxs  DEPLOYED  3DHistech MRXS
│       ├── 1,024 x 1,024 px, 2 levels, 0.5 µm/px, 20x
│       ├── source/CMU-1.mrxs
│       ├── derived/thumbnail.jpg  thumbnail
│       ├── derived/macro.jpg  macro
│       └── source/CMU-1/
│           ├── Data0000.dat
│           ├── Data0001.dat
│           ├── Index.dat
│           └── Slidedat.ini
├── case-102/
│   └── block A/
│       └── HE.svs  DEPLOYED  Aperio / Leica SVS
│           ├── 1,200 x 900 px, 2 levels, 0.499 µm/px, 20x
│           ├── source/HE.svs
│           └── derived/thumbnail.jpg  thumbnail
├── case-103/
│   ├── HE.jpg  CONVERTED  JPEG
│   │   ├── 400 x 300 px, 2 levels, pixel size unknown
│   │   ├── source/HE.jpg
│   │   ├── derived/HE.tiff  DEPLOYED
│   │   └── derived/thumbnail.jpg  thumbnail
│   └── notes.txt  skipped  not_an_image: a text file
└── case-104/
    └── broken.svs  ERROR FORMAT
        └── source/broken"""


def test_show_draws_every_file(filled: Root) -> None:
    """In a pipe in full: sets, folders of the zip, thumbnail and macro, what was passed over; no sizes here."""
    shown = in_a_pipe(filled, "show", ARCHIVE)
    tree = shown.split("\n\n")[0]
    assert re.sub(r"  \d[\d.]* k?B$", "", tree, flags=re.MULTILINE) == TREE
    lies_in = next(line for line in shown.splitlines() if line.startswith("lies in"))
    assert Path(lies_in.split(maxsplit=2)[2]).is_dir()


@pytest.mark.parametrize("width", [50, 80, 140])
def test_show_fits_the_terminal(filled: Root, width: int) -> None:
    """Names and statuses stay, sizes and formats go first; the history has bars. Only a path is never broken."""
    lines = on_a_terminal(filled, width, "show", ARCHIVE)
    [lies_in] = [line for line in lines if line.startswith("lies in")]
    assert Path(lies_in.split(maxsplit=2)[2]).is_dir()
    assert max(cells(line) for line in lines if line != lies_in) <= width
    text = "\n".join(lines)
    for word in ("CMU-1.mrxs  DEPLOYED", "HE.jpg  CONVERTED", "broken.svs  ERROR FORMAT", "block A/",
                 "Slidedat.ini", "notes.txt  skipped", "derived/HE.tiff  DEPLOYED"):  # fmt: skip
        assert word in text, word
    assert ("3DHistech MRXS  159.7 kB" in text) is (width > 50)
    bars = [line for line in lines if "█" in line]
    assert len(bars) >= 1
    # Which status has the bar hangs on how long each took here.
    assert any(line.startswith("EXTRACTING DATA") for line in lines)


def test_show_names_the_duplicate_from_both_sides(filled: Root) -> None:
    """By where it was dropped, its day and its id."""
    assert re.search(r"^duplicate +the same content as batch 2026-11-29\.zip/case-102/block A/HE\.svs of \d{4}-\d\d-\d\d \(\d{8}-", in_a_pipe(filled, "show", "again.svs"), re.MULTILINE)  # fmt: skip
    assert re.search(r"^duplicate +again\.svs of .* has the same content$", in_a_pipe(filled, "show", "HE.svs"), re.MULTILINE)  # fmt: skip


@pytest.mark.parametrize("width", [50, 80, 140])
def test_list_and_watch_fit_the_terminal(filled: Root, width: int) -> None:
    """No line is wider than it, and the names are still there."""
    for words in (("list",), ("watch", "--once")):
        lines = on_a_terminal(filled, width, *words)
        assert max(map(cells, lines)) <= width, words
        assert any("again.svs" in line for line in lines)


def test_what_a_list_shows_is_taken_for_a_name(filled: Root) -> None:
    """The path in an archive, with the user's name or without."""
    path = f"{ARCHIVE}/case-102/block A/HE.svs"
    [user] = {one["user"] for one in filled.manifests().values()}
    for wanted in (path, f"{user}/{path}"):
        assert in_a_pipe(filled, "show", wanted).startswith("HE.svs  DEPLOYED")


def test_names_that_several_have_are_told_apart_by_their_paths(root: Root, tmp_path: Path) -> None:
    """The message gives an id to type for each, and where it was dropped; `watch` shows the paths as well."""
    for case in ("case-101", "case-102"):
        (root.path / "inbox" / "ann" / case).mkdir(parents=True)
        builders.aperio_svs(root.path / "inbox" / "ann" / case / "HE.svs")
    root.configure(inbox={"folder_quiet_s": 0.5})
    assert root.run_until_idle() == 0
    done = subprocess.run([*root.command("show", "HE.svs"), "--root", str(root.path)], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    for case in ("case-101", "case-102"):
        assert re.search(rf"\d-\w{{4}}-HE \(ann/{case}/HE\.svs\)", done.stderr), done.stderr
    ended = "\n".join(on_a_terminal(root, 80, "watch", "--once"))
    assert "case-101/HE.svs" in ended
    assert "case-102/HE.svs" in ended


def test_watch_sees_what_is_being_received(root: Root, tmp_path: Path) -> None:
    """Its size, how fast it grows, and when it will be taken in; beside a real daemon."""
    root.configure(inbox={"quiet_s": 30})
    data = builders.aperio_svs(tmp_path / "a.svs").read_bytes()
    (root.path / "inbox" / "ann").mkdir()
    root.start()
    spool, looks = Spool.open(root.path), Looks()
    rates: list[float] = []
    began, written = time.monotonic(), 0
    with (root.path / "inbox" / "ann" / "slow.svs").open("wb", buffering=0) as file:
        # On a busy machine the daemon sees it late: it grows until it was seen growing.
        while len(rates) < 3 and written < 150_000:
            written += file.write(data[written : written + 500])
            time.sleep(0.1)
            drops = frame(spool, looks, time.monotonic())["waiting"]
            rates += [one["bytes_per_s"] for one in drops if one["bytes_per_s"]]
            assert all(one["size_bytes"] <= written for one in drops)
    speed = written / (time.monotonic() - began)
    assert rates, "it was never seen growing"
    # The daemon looks now and then, so that a rate is uneven; it is of the right size.
    assert speed / 10 < max(rates) < speed * 10
    root.wait(
        lambda: (drop := root.waiting()) and drop[0]["due_at"] and drop[0]["size_bytes"] == written
    )
    assert root.manifests() == {}


def test_groups_of_statuses_and_the_order_of_a_list(filled: Root) -> None:
    """`done`, `error` and `in-progress` are one word each; names go from A to Z, and back with --reverse."""

    def names(*words: str) -> list[str]:
        rows = csv.DictReader(in_a_pipe(filled, "list", "--csv", *words).splitlines())
        return [row["name"] for row in rows]

    done = ["CMU-1.mrxs", "HE.jpg", "HE.svs", "again.svs", ARCHIVE]
    assert names("--status", "done", "--sort", "name") == done
    assert names("--status", "DONE", "--sort", "name", "--reverse") == done[::-1]
    assert names("--status", "error") == ["broken.svs"]
    assert names("--status", "in progress") == []
    assert names("--status", "converted") == ["HE.jpg"]
    assert names("--sort", "size")[0] == ARCHIVE
    assert "again.svs" == names()[0], "the newest first"


def test_no_line_is_broken_in_a_pipe(root: Root, tmp_path: Path) -> None:
    """A path is as long as it is; what draws tables and trees is the only code that fits anything to a width."""
    slide = builders.aperio_svs(tmp_path / f"{'x' * 150}.svs")
    done = subprocess.run(root.command("detect", str(slide)), capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.splitlines() == [
        f"{slide}: Aperio / Leica SVS (description starts with Aperio): native"
    ]
    for path in Path(cli.__file__).parent.glob("*.py"):
        drawn = path.stem in ("demo", "detect", "read", "show", "watch")
        assert drawn or "console.print(" not in path.read_text(), path
