"""What is set aside is reported where people and machines look: bounded, and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema_rs
import pytest

from cytowatch import aside
from cytowatch.cli import check
from cytowatch.cli.check import _held_up, _set_aside
from cytowatch.cli.page import _WHERES, status_lines
from cytowatch.cli.schema import schema_of
from cytowatch.config import from_mapping
from cytowatch.lifecycle.summary import status_page
from cytowatch.observe import reports
from cytowatch.observe.metrics import Metrics
from cytowatch.record import manifest
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool


@pytest.fixture(autouse=True)
def nothing_aside() -> Iterator[None]:
    aside.reset()
    yield
    aside.reset()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "root")


def poisoned(count: int) -> None:
    for number in range(count):
        with aside.fence("drop", f"ann/{number:03}\x1b[2J\udce4.svs"):
            raise KeyError("x" * 1000)


def test_every_place_has_its_counter_from_the_start() -> None:
    """A counter that begins with its first event has no increase there."""
    text = Metrics().text().decode()
    for where in aside.WHERES:
        assert f'cytowatch_set_aside_total{{where="{where}"}} 0.0' in text
        assert where in _WHERES
    for name in ("storage_missing_files", "archives_with_losses_total"):
        assert f"cytowatch_{name} 0.0" in text


def test_status_and_check_show_it(spool: Spool) -> None:
    """As the daemon said: a bounded list, of text that can be written and acts on no terminal."""
    poisoned(150)
    (spool.state / "live.json").write_text(
        json.dumps({"at": "x", "set_aside": reports.set_aside()})
    )
    index = Index(spool, memory=True)
    with spool.lock():
        page = status_page(spool, index, 1, json.loads((spool.state / "live.json").read_text()))
        results = list(_set_aside(spool))
    assert len(page["set_aside"]) == len(results) == 100
    jsonschema_rs.validator_for(schema_of("status")).validate({**page, "waiting_as_of": None})
    lines = [line for line in status_lines(page) if "aside" in line]
    assert len(lines) == 21
    assert lines[-1].endswith("and 80 more are set aside")
    for line in (*lines, *(one.detail for one in results)):
        line.encode()
        assert "\x1b" not in line
    assert {one.good for one in results} == {False}


def test_check_asks_again_for_what_began_to_wait_a_moment_ago(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inbox that is being made may not have its owner yet; one that stays as it is, is reported."""
    config = from_mapping({"root": str(spool.root)})

    def says(*since: datetime) -> None:
        rows = [
            {
                "user": "ann", "path": "ann", "why": "unreadable", "detail": "closed", "size_bytes": 0,
                "since": manifest.utc(one), "until": None, "due_at": None,
            }
            for one in since
        ]  # fmt: skip
        (spool.state / "live.json").write_text(json.dumps({"waiting": rows}))

    def checked() -> list[tuple[bool | None, str]]:
        return [(one.good, one.detail) for one in check._inboxes(spool, config, running=True)]

    asked: list[float] = []
    monkeypatch.setattr(check.time, "sleep", lambda seconds: (asked.append(seconds), says()))
    says(datetime.now(UTC))
    assert [good for good, _ in checked()] == [True]
    assert len(asked) == 1
    # It has waited for long: nobody need ask twice.
    says(datetime.now(UTC) - timedelta(minutes=1))
    assert checked() == [(False, "ann waits: closed")]
    assert len(asked) == 1
    monkeypatch.setattr(check, "_FRESH_S", 0.2)
    monkeypatch.setattr(check.time, "sleep", lambda _: says(datetime.now(UTC)))
    says(datetime.now(UTC))
    assert checked() == [(False, "ann waits: closed")]


def test_check_shows_what_slides_in_work_wait_for(spool: Spool) -> None:
    """Each cause once; that one waits for another of the same content is as it should be."""
    held = {
        "a": {"why": "not_permitted", "detail": "storage/ann cannot be written\x1b"},
        "b": {"why": "not_permitted", "detail": "storage/ann cannot be written\x1b"},
        "c": {"why": "duplicate", "detail": "d is in work"},
        "e": {"why": "input_output", "detail": "Input/output error"},
    }
    (spool.state / "live.json").write_text(json.dumps({"held_up": held}))
    assert list(_held_up(spool)) == []
    with spool.lock():
        found = list(_held_up(spool))
    assert {one.good for one in found} == {False}
    assert [one.detail for one in found] == [
        "a and 1 more wait for not_permitted: storage/ann cannot be written\\x1b",
        "e waits for input_output: Input/output error",
    ]


def test_a_daemon_that_is_gone_has_set_nothing_aside(spool: Spool) -> None:
    """What it said before it ended no longer holds: the next one tries all of it again."""
    poisoned(1)
    (spool.state / "live.json").write_text(json.dumps({"set_aside": reports.set_aside()}))
    live = json.loads((spool.state / "live.json").read_text())
    assert status_page(spool, Index(spool, memory=True), None, live)["set_aside"] == []
    assert list(_set_aside(spool)) == []


def test_what_was_refused_is_counted(spool: Spool) -> None:
    """Until somebody has deleted it."""
    folder = spool.requests / "refused"
    folder.mkdir()
    (folder / "a.json.1").touch()
    [result] = _set_aside(spool)
    assert (result.name, result.good) == ("requests", False)
    assert str(folder) in result.detail
