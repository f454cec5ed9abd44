"""How `list` looks: on a terminal no line is wider than it, elsewhere nothing is cut off or coloured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch.cli.page import list_lines, styled
from cytowatch.record.manifest import FormatEntry, Manifest
from cytowatch.record.status import Status
from cytowatch.tree.find import Entry

LONG = "20261126-120000-abcd-" + "a" * 60


def entry(id_: str, user: str, status: Status = Status.DEPLOYED) -> Entry:
    form = FormatEntry(id="aperio-svs", name="Aperio SVS", detected_by="")
    about = {"id": id_, "user": user, "format": form, "size_bytes": 1_938_955}
    return Entry(path=Path(id_), manifest=cast("Manifest", about), status=status)


def test_where_nobody_looks_every_line_is_one_uploaded_file() -> None:
    head, *rows = list_lines([entry(LONG, "ann"), entry("b", "bob", Status.ERROR_FORMAT)], None)
    assert head.split() == ["ID", "USER", "STATUS", "FORMAT", "SIZE"]
    assert [row.split() for row in rows] == [
        [LONG, "ann", "DEPLOYED", "aperio-svs", "1.9", "MB"],
        ["b", "bob", "ERROR", "FORMAT", "aperio-svs", "1.9", "MB"],
    ]
    assert len({len(row) for row in (head, *rows)}) == 1


def test_on_a_terminal_an_id_is_folded_and_can_be_put_together_again() -> None:
    _, first, second, *more = list_lines([entry(LONG, "ann")], 80)
    assert not more
    assert len(first) <= 80
    assert first.split()[0] + second == LONG


def test_a_user_of_wide_letters_moves_no_column() -> None:
    _, wide, narrow = list_lines([entry("a", "検査室"), entry("b", "abcdef")], None)
    assert wide.index("DEPLOYED") + 3 == narrow.index("DEPLOYED")


@pytest.mark.parametrize(
    ("environment", "seen"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_who_wants_them(
    environment: dict[str, str], seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", cast("Any", Terminal()))
    assert ("\x1b[" in styled("x", "red")) is seen
