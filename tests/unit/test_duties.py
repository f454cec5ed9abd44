"""The parts of the main loop: one that fails costs only itself, and is never tried without a pause."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cytowatch import aside
from cytowatch.durable.failpoints import POISONS
from cytowatch.lifecycle.duties import Duties
from cytowatch.observe.health import Health


class Log:
    """What was logged, as (word, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def error(self, word: str, **fields: object) -> None:
        self.lines.append((word, fields))

    warning = error


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    aside.reset()
    yield
    aside.reset()


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("cytowatch.aside.time.monotonic", lambda: self.now)


def failing(kind: type[Exception]) -> object:
    raise kind("it broke")


@pytest.mark.parametrize("kind", [*POISONS.values(), FileNotFoundError, StopIteration])
def test_whatever_a_part_raises_the_others_go_on(tmp_path: Path, kind: type[Exception]) -> None:
    """Its name is in `/healthz`, a line in the log, and what it gives is what stands for nothing."""
    told, log = Health(), Log()
    parts = Duties(told, log, tmp_path / "reports")
    assert parts.do("first", lambda: failing(kind), "nothing") == "nothing"
    assert parts.do("second", lambda: "done", "nothing") == "done"
    assert set(told.reasons()) == {"first"}
    assert parts.ailing
    [(word, fields)] = log.lines
    if issubclass(kind, OSError):
        assert (word, fields["where"]) == ("fault", "first")
    else:
        assert (word, fields["part"]) == ("part_failed", "first")
        assert "it broke" in Path(str(fields["report"])).read_text()


def test_a_part_that_fails_again_and_again_backs_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out for longer each time, reported once, and healthy when it works again."""
    clock = Clock(monkeypatch)
    told, log = Health(), Log()
    parts = Duties(told, log, tmp_path / "reports")
    tries = []

    def part() -> str:
        tries.append(clock.now)
        if len(tries) < 6:
            raise KeyError("id")
        return "done"

    while parts.do("one", part, None) is None:
        clock.now += 0.5
        parts.ailing = False
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps == [1, 2, 4, 8, 16]
    assert told.reasons() == {}
    assert len(log.lines) == 1


def test_a_part_that_is_left_out_is_still_ailing(tmp_path: Path) -> None:
    """The loop must not spin while it waits for it, and it stays in `/healthz`."""
    told = Health()
    parts = Duties(told, Log(), tmp_path / "reports")
    parts.do("one", lambda: failing(ValueError), None)
    parts.ailing = False
    assert parts.do("one", lambda: "done", None) is None
    assert parts.ailing
    assert "one" in told.reasons()


def test_a_fault_of_the_machine_is_tried_with_every_turn(tmp_path: Path) -> None:
    """It may be gone the next moment."""
    told = Health()
    parts = Duties(told, Log(), tmp_path / "reports")
    parts.do("one", lambda: failing(OSError), None)
    assert "one" in told.reasons()
    assert parts.do("one", lambda: "done", None) == "done"
    assert told.reasons() == {}
