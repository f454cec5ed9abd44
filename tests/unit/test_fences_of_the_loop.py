"""What the main loop and its threads do for many: one that raises anything costs itself only, and goes on after."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cytowatch import aside
from cytowatch.config.keys import Config, Feedback
from cytowatch.durable import failpoints
from cytowatch.engine import hashing
from cytowatch.engine.hashing import Hasher
from cytowatch.inbox.claims import Claimed
from cytowatch.lifecycle.parts import Outside, Parts, assemble
from cytowatch.lifecycle.port import Listener
from cytowatch.lifecycle.presence import Presence
from cytowatch.lifecycle.reload import take_over
from cytowatch.lifecycle.signals import Asked
from cytowatch.lifecycle.work import Work
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.spool import Spool
from tests.unit.test_damaged_tree import BAD, SOUND, Log, put


@pytest.fixture(autouse=True)
def nothing_aside() -> Iterator[None]:
    aside.reset()
    yield
    aside.reset()
    sys.settrace(None)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """All parts of a daemon; nothing is begun."""
    spool = Spool.create(tmp_path / "root")
    config, asked, health, metrics = Config(root=str(spool.root)), Asked(), Health(), Metrics()
    made = assemble(
        spool, config,
        Outside(
            asked=asked, health=health, metrics=metrics,
            listener=Listener("", metrics, health, Log("x")),
        ),
    )  # fmt: skip
    made.engine.hold(Pauses(everyone=True))
    yield made
    made.stop.set()
    made.intake.stop()
    made.engine.stop()


@pytest.fixture(params=failpoints.POISONS)
def poison(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """Let a thing raise a kind of exception where it enters the loop of a function; with "" none does."""

    def set_(function: str, which: str) -> None:
        poisons = [(f"cytowatch.{function}", which, request.param, "")] if function else []
        monkeypatch.setattr(failpoints, "_POISONED", poisons)
        if not function:
            monkeypatch.setattr(aside.time, "monotonic", itertools.count(1e9).__next__)

    yield set_
    monkeypatch.setattr(failpoints, "_POISONED", [])


def set_aside(parts: Parts, where: str) -> list[str]:
    """What is set aside there; the metric has counted it."""
    found = [one.which for one in aside.all_of(where)]
    line = f'cytowatch_set_aside_total{{where="{where}"}} {len(found)}.0'
    assert not found or line in parts.metrics.text().decode()
    return found


def test_what_was_claimed(parts: Parts, poison: Callable[[str, str], None]) -> None:
    """It is treated like the others, even where it cannot be reported."""
    for id_ in (BAD, SOUND):
        put(parts.spool, id_, Status.UPLOADED)
    arrived = [
        Claimed(id=id_, user="ann", name="a", size_bytes=7, settled_s=1.0) for id_ in (BAD, SOUND)
    ]
    work = Work(parts, Presence(parts))
    poison("lifecycle.work.Work._take_up", BAD)
    work._take_up(arrived, time.monotonic())
    assert set_aside(parts, "uploaded_file") == [BAD]
    assert parts.engine.held == 2
    assert "cytowatch_received_bytes_total 7.0" in parts.metrics.text().decode()
    poison("", "")
    work._take_up(arrived[:1], time.monotonic())
    assert set_aside(parts, "uploaded_file") == []


def test_what_was_asked_for(
    parts: Parts, poison: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are taken up; it is, when the cause is gone."""
    # On a slow machine a turn may end before the second one.
    monkeypatch.setattr("cytowatch.lifecycle.work._REQUESTS_S", float("inf"))
    for name, id_ in (("b", BAD), ("c", SOUND)):
        put(parts.spool, id_, Status.ERROR_FORMAT)
        request = json.dumps({"do": "retry", "id": id_})
        (parts.spool.requests / f"{name}.json").write_text(request)
    work = Work(parts, Presence(parts))
    poison("lifecycle.work.Work.do_requests", BAD)
    work.do_requests(time.monotonic())
    assert set_aside(parts, "uploaded_file") == [BAD]
    assert parts.engine.held == 1
    poison("", "")
    work.do_requests(0.0)
    assert set_aside(parts, "uploaded_file") == []
    assert parts.engine.held == 2


def test_many_requests_do_not_hold_up_the_loop(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn answers some of them, and asks for the next turn at once, until all are answered."""
    monkeypatch.setattr("cytowatch.lifecycle.work._REQUESTS_S", 0.0)
    put(parts.spool, SOUND, Status.ERROR_FORMAT)
    for number in range(3):
        request = json.dumps({"do": "verify", "id": SOUND})
        (parts.spool.requests / f"{number}.json").write_text(request)
    work = Work(parts, Presence(parts))
    for answered in (1, 2, 3):
        parts.outside.asked.forget_wakeups()
        work.do_requests(time.monotonic())
        assert len(list(parts.spool.requests.glob("*.answer"))) == answered
        assert not parts.outside.asked.wakeups.empty()
    parts.outside.asked.forget_wakeups()
    work.do_requests(time.monotonic())
    assert parts.outside.asked.wakeups.empty()


def test_a_reload(parts: Parts, poison: Callable[[str, str], None]) -> None:
    """The configuration that holds goes on to hold, and the next reload is taken."""
    before = parts.config
    changed = Config(root=before.root, feedback=Feedback(status_days=before.feedback.status_days))
    poison("lifecycle.reload.take_over", "reload")
    take_over(parts, lambda: changed)
    assert parts.config is before
    assert 'set_aside_total{where="part"} 1.0' in parts.metrics.text().decode()
    assert aside.all_of("part") == []
    poison("", "")
    take_over(parts, lambda: changed)
    assert parts.config is not before


def test_what_is_hashed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Callable[[str, str], None]
) -> None:
    """The others are hashed, in the same thread; it is, when the cause is gone."""
    monkeypatch.setattr(hashing, "_LOOK_EVERY_S", 0.01)
    spool = Spool.create(tmp_path / "root")
    for id_ in (BAD, SOUND):
        put(spool, id_, Status.DEPLOYED)
        (spool.requests / f"{id_}.hash").write_text("ann")
    hasher = Hasher(spool, Index(spool, memory=True), Log("x"), lambda: None)
    poison("engine.hashing.Hasher._serve", BAD)
    hasher.start()
    try:
        until(lambda: not (spool.requests / f"{SOUND}.hash").exists() and aside.all_of() != [])
        assert [one.which for one in aside.all_of("uploaded_file")] == [BAD]
        assert (spool.requests / f"{BAD}.hash").exists()
        poison("", "")
        until(lambda: not (spool.requests / f"{BAD}.hash").exists())
        assert hasher._thread.is_alive()
    finally:
        hasher.stop()
    assert aside.all_of() == []


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")
