"""From the last byte to deployment: what counts, from when, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from cytowatch.lifecycle.delays import Delays
from cytowatch.record.entries import Manifest

NOW = datetime(2026, 11, 26, 14, 0, tzinfo=UTC)


def found(
    id_: str = "a", root: str = "a", *statuses: str, received: str = "2026-11-26T13:59:00Z"
) -> Manifest:
    history = [{"status": status} for status in statuses or ("UPLOADED", "DEPLOYING")]
    about: dict[str, Any] = {
        "id": id_,
        "root_id": root,
        "history": history,
        "received_at": received,
    }
    return cast("Manifest", about)


def test_a_drop_counts_from_its_last_byte() -> None:
    """Which came before the claim, by the time that it was quiet."""
    delays = Delays()
    delays.claimed("a", NOW, 10.0)
    assert delays.after_s(found(), NOW + timedelta(seconds=5)) == 15.0
    # A clock that was set back gives no negative time.
    assert delays.after_s(found(), NOW - timedelta(hours=1)) == 0.0


def test_a_member_counts_from_the_last_byte_of_its_archive() -> None:
    """Its own time of receipt is when the archive was unpacked."""
    delays = Delays()
    delays.claimed("zip", NOW, 30.0)
    assert delays.after_s(found("member", "zip"), NOW + timedelta(seconds=60)) == 90.0


def test_after_a_restart_it_counts_from_the_claim() -> None:
    """How long it was quiet before is unknown then."""
    assert Delays().after_s(found(), NOW) == 60.0
    for odd in ("", "soon", "2026-11-26T13:59:00", "99999-01-01T00:00:00Z"):
        assert Delays().after_s(found(received=odd), NOW) is None


@pytest.mark.parametrize("error", ["ERROR_FORMAT", "ERROR_CONVERSION"])
def test_what_was_in_error_does_not_count(error: str) -> None:
    """Its sender or an admin took the time, not the service."""
    delays = Delays()
    delays.claimed("a", NOW, 0.0)
    assert delays.after_s(found("a", "a", "UPLOADED", error, "CONVERTING"), NOW) is None
    assert delays.after_s(found("a", "a", "UPLOADED", "OF_ANOTHER_VERSION"), NOW) == 0.0


def test_it_remembers_only_the_latest() -> None:
    """However many come, memory is bounded; the others count from their claim."""
    delays = Delays(most=3)
    for number in range(1000):
        delays.claimed(str(number), NOW, 0.0)
    assert len(delays._last_byte_at) == 3
    assert delays.after_s(found("999", "999"), NOW) == 0.0
    assert delays.after_s(found("5", "5"), NOW) == 60.0
