"""Threads are there when they are needed, and go on no matter what one piece of their work raises."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from cytowatch import aside, threads
from cytowatch.durable.failpoints import POISONS
from cytowatch.inbox.turns import Turns
from cytowatch.lifecycle.duties import Duties
from cytowatch.observe import health
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from tests.lab.root import HANGS_S


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_PAUSE_S", 0.01)
    aside.reset()
    yield
    aside.reset()


@pytest.mark.parametrize("kind", POISONS.values())
def test_work_that_raises_is_begun_again(kind: type[Exception], tmp_path: Path) -> None:
    """In the same thread; `/healthz` names it until it works."""
    told, tries, seen = Health(), [], []
    parts = Duties(told, None, tmp_path)

    def work() -> None:
        tries.append(threading.get_ident())
        parts.hear_others()
        seen.append(dict(told.reasons()))
        if len(tries) < 3:
            raise kind("it broke")

    threads.forever("courier", work, threading.Event())
    assert len(tries) == 3
    assert len(set(tries)) == 1
    assert seen[0] == {}
    assert set(seen[1]) == set(seen[2]) == {"courier"}
    parts.hear_others()
    assert told.reasons() == {}


def test_a_thread_that_is_to_stop_does(tmp_path: Path) -> None:
    """Also one whose work fails for ever."""
    stop = threading.Event()

    def work() -> None:
        stop.set()
        raise ValueError("it broke")

    threads.forever("hasher", work, stop)
    assert [one.which for one in aside.all_of("part")] == ["hasher"]


def test_a_pool_has_all_its_threads_from_the_start() -> None:
    """Afterwards the machine may have none left."""
    before = threading.active_count()
    made = threads.pool(4, "few")
    assert threading.active_count() == before + 4
    made.shutdown()


def test_a_pool_that_cannot_have_them_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves none behind that waits for ever."""
    before = threading.active_count()
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        threads.pool(4, "few")
    for thread in started:
        thread.join(HANGS_S)
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", POISONS.values())
def test_a_claim_that_raises_holds_up_no_other(kind: type[Exception]) -> None:
    """Not one of the few threads is lost by it."""
    done: list[int] = []

    def do(number: int) -> None:
        if number % 2:
            raise kind("it broke")
        done.append(number)

    turns = Turns(do, threads=2, of_one=1)
    for number in range(20):
        turns.put("ann" if number % 3 else "bob", number)
    end = threading.Event()
    for _ in range(500):
        if len(done) == 10:
            break
        end.wait(0.01)
    turns.stop()
    assert sorted(done) == list(range(0, 20, 2))


class Broken(Metrics):
    """Metrics that cannot be counted for as long as there is a cause."""

    cause: type[Exception] | None

    def text(self) -> bytes:
        if self.cause is not None:
            raise self.cause("it broke")
        return super().text()


@pytest.mark.parametrize("kind", POISONS.values())
def test_a_page_that_fails_leaves_the_server_alive(kind: type[Exception], tmp_path: Path) -> None:
    """Who asks gets 500, others their answer, which names it; without the cause all is well."""
    metrics, told = Broken(), Health()
    metrics.cause = kind
    parts = Duties(told, None, tmp_path)
    server = health.serve("127.0.0.1:0", metrics, told)
    try:
        with pytest.raises(HTTPError) as refused:
            urlopen(f"http://{server.address}/metrics")
        with refused.value as answer:
            assert answer.code == 500
        assert [one.which for one in aside.all_of("part")] == ["http"]
        parts.hear_others()
        with pytest.raises(HTTPError) as failing:
            urlopen(f"http://{server.address}/healthz")
        with failing.value as answer:
            assert answer.code == 503
            assert "it broke" in json.load(answer)["reasons"]["http"]
        metrics.cause = None
        with urlopen(f"http://{server.address}/metrics") as answer:
            assert answer.status == 200
        parts.hear_others()
        with urlopen(f"http://{server.address}/healthz") as answer:
            assert answer.status == 200
        assert aside.all_of("part") == []
        assert server.alive
    finally:
        server.close()


@pytest.mark.parametrize(
    "listen", ["no such host.invalid:80", f"{'a' * 70}.b:80", "127.0.0.1:99999"]
)
def test_an_address_that_is_none_is_refused_in_words(listen: str) -> None:
    """It holds up nothing: the daemon goes on without it."""
    from cytowatch.record.errors import RootError

    with pytest.raises(RootError, match=r"metrics\.listen"):
        health.serve(listen, Metrics(), Health())
