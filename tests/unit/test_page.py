"""How `list` looks: on a terminal no line is wider than it, elsewhere nothing is cut off or coloured."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cytowatch.cli import table
from cytowatch.cli.columns import cells, cut
from cytowatch.cli.lists import list_lines, waiting_lines, write_csv
from cytowatch.cli.page import status_lines, styled
from cytowatch.cli.show import facts, tree
from cytowatch.record.entries import ErrorEntry, FormatEntry, Manifest
from cytowatch.record.status import Status
from cytowatch.tree.find import Entry

NOW = datetime(2026, 11, 26, 14, 0, tzinfo=UTC)
LONG = "20261126-120000-abcd-" + "a" * 60


def entry(
    id_: str, user: str, status: Status = Status.DEPLOYED, *, drop: str = "", reason: str = "",
    at: str = "2026-11-26T12:00:05Z", form: str = "aperio-svs",
) -> Entry:  # fmt: skip
    drop = drop or f"{id_}.svs"
    error = ErrorEntry(reason=reason, detail="", stage="", retryable=False) if reason else None
    about = {
        "id": id_, "user": user, "size_bytes": 1_938_955, "name": drop.rpartition("/")[2], "error": error,
        "format": FormatEntry(id=form, name="", native=True, evidence="", openslide_vendor=None),
        "drop_path": f"{user}/{drop}", "received_at": at, "skipped": [],
    }  # fmt: skip
    return Entry(path=Path(id_), manifest=cast("Manifest", about), status=status)


DAY = [
    entry("20261126-120000-abcd-CMU-1", "ann", drop="case-101/CMU-1.svs"),
    entry("20261126-115500-k3f9-HE", "pathology-scanner", Status.ERROR_FORMAT,
          drop="batch 2026-11-26.zip/case-102/HE 2026-11-26 block 3 level 2.svs", reason="incomplete"),
    entry("20261125-080000-zz22-a", "bob", Status.EXTRACTED, drop="a.zip", form="zip",
          at="2026-11-25T08:00:00Z"),
    entry("20251125-080000-yy33-b", "ann", Status.ERROR_CONVERSION, drop="検体/検体1234567890検体.jpg",
          at="2025-11-25T08:00:00Z", form="jpeg", reason="too_many_samples"),
]  # fmt: skip

PICTURES = {
    50: """
ID    NAME            STATUS            TIME
abcd  case…CMU-1.svs  DEPLOYED          12:00
k3f9  batc…vel 2.svs  ERROR FORMAT      12:00
      incomplete
zz22  a.zip           EXTRACTED         11-25
yy33  検体…0検体.jpg  ERROR CONVERSION  2025-11-25
      too_many_samples
""",
    80: """
ID    NAME                        STATUS            TIME        REASON
abcd  case-101/CMU-1.svs          DEPLOYED          12:00
k3f9  batch 20…ock 3 level 2.svs  ERROR FORMAT      12:00       incomplete
zz22  a.zip                       EXTRACTED         11-25
yy33  検体/検…234567890検体.jpg   ERROR CONVERSION  2025-11-25  too_many_samples
""",
    140: """
ID    NAME                                              USER        STATUS            TIME              REASON            FORMAT        SIZE
abcd  case-101/CMU-1.svs                                ann         DEPLOYED          2026-11-26 12:00                    aperio-svs  1.9 MB
k3f9  batch 2026-11-2…E 2026-11-26 block 3 level 2.svs  pat…canner  ERROR FORMAT      2026-11-26 12:00  incomplete        aperio-svs  1.9 MB
zz22  a.zip                                             bob         EXTRACTED         2026-11-25 08:00                    zip         1.9 MB
yy33  検体/検体1234567890検体.jpg                       ann         ERROR CONVERSION  2025-11-25 08:00  too_many_samples  jpeg        1.9 MB
""",
}


@pytest.mark.parametrize("width", PICTURES)
def test_a_list_fits_the_terminal(width: int) -> None:
    """What matters most stays; nothing is wider; an error keeps its reason, if need be on a line of its own."""
    shown = list(list_lines(DAY, width, NOW))
    assert shown == PICTURES[width].strip("\n").split("\n")
    assert max(map(cells, shown)) <= width


def test_a_wide_terminal_shows_ids_and_paths_whole() -> None:
    """The name and where it lay, which tells apart what bears the same name."""
    twins = [
        entry(f"20261126-12000{n}-abc{n}-HE", "ann", drop=f"case-10{n}/HE.svs") for n in (1, 2)
    ]
    _, first, second = list_lines(twins, 160, NOW)
    assert first.startswith("20261126-120001-abc1-HE  HE.svs  case-101/HE.svs  ann")
    assert "case-102/HE.svs" in second


@given(st.lists(st.text(max_size=80), min_size=1, max_size=5), st.integers(40, 250))
def test_no_line_is_wider_than_the_terminal(names: list[str], width: int) -> None:
    """No matter what a drop is called; and no name can break its line."""
    found = [
        entry(
            "20261126-120000-abcd-x",
            "ann",
            Status.ERROR_CONVERSION,
            drop=f"d/{name}",
            reason="damaged",
        )
        for name in names
    ]
    shown = list(list_lines(found, width, NOW))
    assert all(cells(line) <= width for line in shown), shown
    assert len(shown) in (1 + len(names), 1 + 2 * len(names))
    assert not any(set(line) & set("\n\r\x1b\u2028") for line in shown)


@given(st.text(max_size=60), st.integers(0, 60), st.booleans())
def test_what_is_cut_fits(text: str, width: int, prose: bool) -> None:
    """And what fits is not cut."""
    shown = cut(text, width, prose=prose)
    assert cells(shown) <= max(width, 0)
    if cells(text) <= width:
        assert shown == text


WAITS = [
    {"user": "ann", "path": "ann/case-101/CMU-1.mrxs", "why": "incomplete", "size_bytes": 970_000,
     "detail": "The copy stopped after 0.97 of at least 1.28 MB. Copy it again.",
     "since": "2026-11-26T10:00:00Z"},
    {"user": "pathology-scanner", "path": "pathology-scanner/b.svs", "why": "settling", "size_bytes": 97,
     "detail": "", "since": "2026-11-25T10:00:00Z"},
]  # fmt: skip


@pytest.mark.parametrize("width", [50, 80, 140])
def test_what_waits_fits_the_terminal(width: int) -> None:
    """Its path, why, since when and how large; whose it is where there is room; the sentence beside it or below."""
    shown = list(waiting_lines(WAITS, width, NOW))
    assert max(map(cells, shown)) <= width
    text = "\n".join(shown)
    for word in (
        "case-101/CMU-1.mrxs",
        "incomplete",
        "10:00",
        "970.0 kB",
        "The copy stopped after 0.97",
    ):
        assert word in text
    assert ("USER" in shown[0]) is (width >= 80)
    assert ("DETAIL" in shown[0]) is (width == 140)


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t"])
def test_the_table_of_all_manifests_runs_no_formula(tmp_path: Path, begins: str) -> None:
    """Neither a name nor a project, which a user's folder names; numbers below zero stay numbers."""
    row = dict.fromkeys(one.name for one in table.COLUMNS)
    row |= {"name": f"{begins}1.svs", "projects": [f"{begins}HYPERLINK(1)"], "mpp_x": -1.0}
    table.write(tmp_path / "t.csv", [row])
    with open(tmp_path / "t.csv", newline="") as file:
        [told] = csv.DictReader(file)
    assert (told["name"], told["projects"], told["mpp_x"]) == (
        f"'{begins}1.svs",
        f"'{begins}HYPERLINK(1)",
        "-1.0",
    )


def test_csv_for_a_spreadsheet(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole, and no name is run as a formula."""
    evil = entry(
        "20261126-120000-abcd-x",
        "ann",
        Status.ERROR_FORMAT,
        drop="=cmd|'-c calc'!A1.svs",
        reason="damaged",
    )
    write_csv([*DAY, evil], waiting=False)
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["drop_path"] for row in rows][:2] == [
        "ann/case-101/CMU-1.svs", f"pathology-scanner/{DAY[1].manifest['drop_path'].split('/', 1)[1]}",
    ]  # fmt: skip
    assert rows[0] == {
        "id": "20261126-120000-abcd-CMU-1", "name": "CMU-1.svs", "user": "ann", "status": "DEPLOYED",
        "time": "2026-11-26T12:00:05Z", "reason": "", "format": "aperio-svs", "size_bytes": "1938955",
        "drop_path": "ann/case-101/CMU-1.svs", "lost": "0",
    }  # fmt: skip
    assert rows[-1]["name"] == "'=cmd|'-c calc'!A1.svs"
    write_csv(WAITS, waiting=True)
    [first, _] = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (first["why"], first["size_bytes"]) == ("incomplete", "970000")


def test_where_nobody_looks_every_line_is_one_uploaded_file() -> None:
    """In a pipe no name is shortened and no column is left out."""
    head, *rows = list_lines(
        [entry(LONG, "ann"), entry("b", "bob", Status.ERROR_FORMAT)], None, NOW
    )
    assert head.split() == [
        "ID", "NAME", "USER", "STATUS", "TIME", "REASON", "FORMAT", "SIZE", "DROPPED", "AS",
    ]  # fmt: skip
    when = "2026-11-26T12:00:05Z"
    assert [row.split() for row in rows] == [
        [LONG, f"{LONG}.svs", "ann", "DEPLOYED", when, "aperio-svs", "1.9", "MB", f"{LONG}.svs"],
        ["b", "b.svs", "bob", "ERROR", "FORMAT", when, "aperio-svs", "1.9", "MB", "b.svs"],
    ]


def test_a_user_of_wide_letters_moves_no_column() -> None:
    """A letter that takes two columns counts as two."""
    _, wide, narrow = list_lines([entry("a", "検査室"), entry("b", "abcdef")], None, NOW)
    assert wide.index("DEPLOYED") + 3 == narrow.index("DEPLOYED")


@pytest.mark.parametrize(
    ("environment", "seen"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_who_wants_them(
    environment: dict[str, str], seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, unless `NO_COLOR` is set or it has none."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", cast("Any", Terminal()))
    assert ("\x1b[" in styled("x", "red")) is seen


def test_an_error_says_what_each_can_do() -> None:
    """The words that the technician was given, and the command as an admin types it, for this one."""
    one = entry("20261126-120000-abcd-a", "ann", Status.ERROR_FORMAT, reason="incomplete")
    one.manifest.update(projects=[], duplicate_of=None, warnings=[], files=[], parent_id=None)
    told = {word: text for word, _, text in facts(one, None, [])}
    assert told["technician"] == "Send all of it again."
    assert told["admin"].partition(" puts")[0] == "cytowatch retry 20261126-120000-abcd-a"
    # What `retry` would refuse is not advised: it came out of an archive.
    one.manifest.update(parent_id="20261126-115900-zzzz-batch")
    told = {word: text for word, _, text in facts(one, None, [])}
    assert "retry" not in told["admin"]
    assert "20261126-115900-zzzz-batch" in told["admin"]


def test_status_gives_a_share_only_where_a_stage_says_how_far_it_is() -> None:
    """A dropped folder that is still open is not at 0 %."""
    status = {"daemon": {"running": False, "pid": None}, "disk_free_bytes": 1, "inodes_free": None, "missing": 0,
              "paused": {"everyone": False, "users": []}, "health": {}, "set_aside": [], "dead_letters": [],
              "last_hour": {}, "files": dict.fromkeys(Status.__members__, 0), "oldest": {}, "held_up": {}, "waiting": [],
              "in_work": {"a": {"status": "EXTRACTING_DATA", "share": 0.0}, "b": {"status": "CONVERTING", "share": 0.4}}}  # fmt: skip
    assert [line for line in status_lines(status) if line.startswith("in work")] == [
        "in work  a  EXTRACTING DATA",
        "in work  b  CONVERTING 40%",
    ]


@pytest.mark.parametrize("width", [40, 50, 80])
def test_a_narrow_tree_keeps_the_size_of_an_image(width: int) -> None:
    """What `show` says of an image is cut at its end, where the least important fact is."""
    one = entry("20261126-120000-abcd-CMU-1", "ann")
    image = {
        "width": 101_600,
        "height": 91_600,
        "levels": [1, 2, 3, 4],
        "mpp_x": None,
        "objective_power": None,
    }
    about = {**one.manifest, "parent_id": None, "images": [image], "files": []}
    shown = Entry(path=one.path, manifest=cast("Manifest", about), status=one.status)
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(tree(shown, [shown], width))
    assert "101,600 x 91,600 px, 4 lev" in out.getvalue()
