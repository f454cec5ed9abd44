"""The texts of every reason, rendered as notes in docs/reference/notes.md with details that the code can give."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytowatch.observe.seen import Seen
from cytowatch.observe.wording import of_one
from cytowatch.record import reasons
from cytowatch.record.names import file_name

HOUSE = Path(__file__).resolve().parents[2]


@functools.cache
def examples() -> Any:
    given = importlib.util.spec_from_file_location("notes", HOUSE / "docs" / "notes.py")
    assert given
    assert given.loader
    made = importlib.util.module_from_spec(given)
    sys.modules["notes"] = made
    given.loader.exec_module(made)
    return made


def pattern(node: ast.expr) -> str:
    """What a text in the source can be, as a regular expression; what it takes in is anything."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(pattern(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return pattern(left) + pattern(right)
        case ast.Subscript(value=value):
            return pattern(value)
        case ast.Call(func=ast.Name(id="quoting"), args=[sentence, *_]):
            return pattern(sentence) + r" \(.*\)"
        case ast.Call(func=ast.Attribute(attr="kind")):
            return r"it is .*, which is not supported(: .*)?"
    return ".*"


def given() -> Iterator[tuple[str, str]]:
    """Each reason that the code raises or returns, with what its detail can be."""
    for path in (HOUSE / "cytowatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            args: list[ast.expr] = []
            if isinstance(node, ast.Call):
                args = node.args
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                args = node.value.elts
            if len(args) < 2 or not isinstance(args[0], ast.Constant):
                continue
            word = args[0].value
            if isinstance(word, str) and reasons.of(word):
                yield word, pattern(args[1])


def test_every_reason_is_shown_with_a_detail_that_the_code_gives() -> None:
    """One example for each reason, none for what is not one; its detail is a sentence of the source."""
    shown = examples().EXAMPLES
    assert shown.keys() == {one.word for one in reasons.REASONS}
    known: dict[str, list[str]] = {}
    for word, text in given():
        known.setdefault(word, []).append(text)
    for word, example in shown.items():
        assert any(re.fullmatch(one, example.detail) for one in known[word]), (word, known[word])


@pytest.mark.parametrize("reason", reasons.REASONS, ids=lambda one: one.word)
def test_a_technician_can_act_on_it(reason: reasons.Reason) -> None:
    """Name and text: what happened first, then what to do, and no command, page or key but in the detail."""
    example = examples().EXAMPLES[reason.word]
    note = of_one(examples().seen(reason.word), None)
    assert note.first
    name = f"! {note.about} - {note.says}.txt"
    assert file_name(name) == name
    assert len(name) < 120
    lines = note.text.splitlines()
    happened = lines.index(next(one for one in lines if one.startswith("What to do: "))) - 1
    detail = next(n for n, one in enumerate(lines) if one.startswith("Technical detail: "))
    assert example.detail in lines[detail]
    for line in lines[happened:detail]:
        assert not re.search(r"`|cytowatch|limits\.|_s\b|list of formats", line), line
        assert line == "" or line[0].isupper()
    assert len(example.reader) > 10


@pytest.mark.parametrize("word", reasons.WAITING)
def test_every_wait_has_its_words(word: str) -> None:
    """Sentences without a command for the technician."""
    wait = reasons.WAITING[word]
    for text in (wait.means, wait.technician):
        assert text[0].isupper()
        assert text.endswith(".")
        assert not re.search(r"`|cytowatch |inbox\.", text)
    assert len(examples().WAITING[word].reader) > 10


def test_an_archive_that_lost_a_member_is_no_plain_success() -> None:
    """Neither by its name nor by its place in the folder."""
    from cytowatch.observe.seen import Sum
    from cytowatch.observe.wording import of_many

    base = examples().seen("damaged")
    root = Seen(
        id=base.id, parent_id=None, user="ann", path="batch.zip", status=base.status.EXTRACTED,
        share=0.0, at=base.at, received_at=base.received_at, children=1,
    )  # fmt: skip
    lost = (("a.svs", "damaged: it does not fit its checksum (CRC-32)", 1, True),)
    note = of_many(root, Sum(done=(), failed=(), in_work=(), lost=lost, left=(), total=2))
    assert (note.first, note.day) == (True, None)
    assert "1 FAILED" in note.says
    assert "FAILED     a.svs: could not be unpacked" in note.text


def test_a_technician_learns_what_to_do_about_each_member_of_an_archive() -> None:
    """A foreign slide is exported, not packed again; an empty file is copied again; what is ignored is not named."""
    from cytowatch.observe.seen import Sum
    from cytowatch.observe.wording import of_many

    base = examples().seen("damaged")
    root = Seen(
        id=base.id, parent_id=None, user="ann", path="batch.zip", status=base.status.EXTRACTED,
        share=0.0, at=base.at, received_at=base.received_at, children=1,
    )  # fmt: skip
    lost = (
        ("a.isyntax", "unsupported_format: a Philips iSyntax slide; export it as TIFF", 1, True),
        ("deep.zip", "nested_too_deep: an archive in an archive in an archive", 1, True),
    )
    left = (
        ("Thumbs.db", "ignored", 1, False),
        ("b.svs", "not_an_image: an empty file", 1, False),
        ("c.txt", "not_an_image: a text file", 1, False),
        (
            "d.svs.part",
            "temporary_name: it has a name that says that it is still being copied",
            1,
            False,
        ),
    )
    text = of_many(root, Sum(done=(), failed=(), in_work=(), lost=lost, left=left, total=2)).text
    assert (
        "FAILED     a.isyntax: a Philips iSyntax slide, which cannot be taken as it is. Export it as TIFF, and drop that\n"
        "FAILED     deep.zip: an archive in an archive in an archive. Pack the slides themselves into one zip, and drop it\n"
    ) in text
    assert "Copy again:\n  b.svs: an empty file\n" in text
    assert "Nothing to do:\n  c.txt: a text file\n" in text
    assert "has a note that says what to do:\n  d.svs.part: it has a name" in text
    assert "Thumbs.db" not in text


def test_an_empty_file_in_a_folder_is_to_be_copied_again() -> None:
    """It is not an image, but may be meant to be one."""
    from datetime import timedelta

    from cytowatch.observe import arriving
    from cytowatch.observe.drops import Drops

    row = {
        "user": "ann", "path": "ann/case/a.svs", "why": "not_an_image", "size_bytes": 0,
        "detail": "it is an empty file, and stays where it is", "since": "2026-11-29T14:44:02Z",
    }  # fmt: skip
    [note] = arriving.notes([row], Drops(keep_for=timedelta())).values()
    assert (
        "a.svs: It is empty: the copy broke off before anything arrived. What to do: Copy"
        in note.text
    )


@pytest.mark.parametrize("word", reasons.WAITING)
def test_what_waits_for_a_hand_is_sorted_first(word: str) -> None:
    """As errors are: it has a deadline, or waits for ever."""
    from datetime import timedelta

    from cytowatch.observe import arriving
    from cytowatch.observe.drops import Drops

    row = {
        "user": "ann", "path": "ann/a.svs", "why": word, "detail": "", "size_bytes": 1,
        "since": "2026-11-29T14:44:02Z",
    }  # fmt: skip
    [note] = arriving.notes([row], Drops(keep_for=timedelta())).values()
    assert note.first == (reasons.WAITING[word].by_hand and word != "not_an_image")


def test_a_part_of_a_split_archive_is_not_to_be_copied_again() -> None:
    """Neither while it waits for its end, which never comes, nor when its time is up."""
    from datetime import timedelta

    from cytowatch.observe import arriving
    from cytowatch.observe.drops import Drops

    row = {
        "user": "ann", "path": "ann/week.zip.001", "why": "incomplete", "size_bytes": 50_000,
        "detail": "missing the central directory of the zip", "until": "2026-11-30T14:44:02Z",
    }  # fmt: skip
    [note] = arriving.notes([row], Drops(keep_for=timedelta())).values()
    assert "It is a part of a split archive" in note.text
    assert "Pack the slides again as one zip that is not split" in note.text
    assert "Copy" not in note.text
