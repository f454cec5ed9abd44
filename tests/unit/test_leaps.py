"""What is removed because of its age is as old by the days that the daemon has lived through."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cytowatch.lifecycle.leaps import FILE_NAME, Leaps

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY_S = 86_400.0


def test_a_clock_that_leaps_ahead_makes_nothing_old(tmp_path: Path) -> None:
    """Neither while the daemon runs nor after a restart; what comes afterwards is as old as it is."""
    leaps = Leaps(tmp_path)
    leaps.look(NOW, 0.0)
    ahead = NOW + timedelta(days=365)
    leaps.look(ahead + timedelta(minutes=1), 60.0)
    assert leaps.age_s(NOW - timedelta(days=2), ahead) == pytest.approx(2 * DAY_S, abs=120)
    assert leaps.age_s(ahead, ahead + timedelta(days=3)) == 3 * DAY_S
    again = Leaps(tmp_path)
    again.look(ahead + timedelta(minutes=5), 7.0)
    assert again.age_s(NOW - timedelta(days=2), ahead) == pytest.approx(2 * DAY_S, abs=120)


def test_one_that_is_set_back_was_wrong(tmp_path: Path) -> None:
    """Then all is as old as before."""
    leaps = Leaps(tmp_path)
    for seconds, days in ((0.0, 0), (60.0, 365), (120.0, 0), (180.0, 0)):
        leaps.look(NOW + timedelta(days=days, seconds=seconds), seconds)
    assert leaps.age_s(NOW - timedelta(days=2), NOW) == 2 * DAY_S


def test_a_machine_that_starts_with_its_clock_at_zero(tmp_path: Path) -> None:
    """What ended before its clock was set is as old as it is, and what is older stays so."""
    leaps = Leaps(tmp_path)
    leaps.look(NOW - timedelta(minutes=9), 5000.0)
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    leaps = Leaps(tmp_path)
    leaps.look(zero, 0.0)
    leaps.look(NOW, 60.0)
    assert leaps.age_s(zero, NOW) == 60.0
    assert leaps.age_s(NOW - timedelta(days=2), NOW) == 2 * DAY_S


def test_a_daemon_that_was_down_for_long(tmp_path: Path) -> None:
    """A year is not counted, a night is."""
    for days, counted in ((365, 2.0), (0.9, 2.9)):
        (tmp_path / FILE_NAME).unlink(missing_ok=True)
        Leaps(tmp_path).look(NOW, 0.0)
        later = NOW + timedelta(days=days)
        leaps = Leaps(tmp_path)
        leaps.look(later, 0.0)
        assert leaps.age_s(NOW - timedelta(days=2), later) == pytest.approx(
            counted * DAY_S, abs=200
        )


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"at": -1, "leaps": [], "known_from": 0}', '{"at": 9, "leaps": [[1]]}', "\0", "{" * 9],
)  # fmt: skip
def test_of_a_file_that_is_damaged_nothing_is_known(tmp_path: Path, text: str) -> None:
    """It may have held a leap: all is as old as it has been since, also for the daemon after this one."""
    (tmp_path / FILE_NAME).write_text(text)
    leaps, old = Leaps(tmp_path), NOW - timedelta(days=2)
    leaps.look(NOW, 0.0)
    assert leaps.age_s(old, NOW) == 0.0
    for hours in (8, 16):
        later = NOW + timedelta(hours=hours)
        again = Leaps(tmp_path)
        again.look(later, 0.0)
        assert again.age_s(old, later) == hours * 3600
        assert again.age_s(later - timedelta(hours=1), later) == 3600
