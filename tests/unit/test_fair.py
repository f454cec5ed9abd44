"""Fairness by simulation: whole weeks of drops in a moment, with a clock of its own."""

from __future__ import annotations

import heapq
import itertools
import random
from datetime import UTC, datetime, timedelta

from cytowatch.engine.fair import FairQueue
from cytowatch.record.names import UploadedFileId

BEGAN = datetime(2026, 11, 23, tzinfo=UTC)


def id_at(seconds: float, number: int) -> UploadedFileId:
    return UploadedFileId(f"{BEGAN + timedelta(seconds=int(seconds)):%Y%m%d-%H%M%S}-{number:04}-x")


def simulate(
    drops: list[tuple[float, str, int, float]], workers: int
) -> dict[int, tuple[float, float]]:
    """(seconds waited, seconds worked) of each drop, which are (at, user, bytes, work)."""
    queue = FairQueue()
    events = [(at, 0, number) for number, (at, _, _, _) in enumerate(drops)]
    heapq.heapify(events)
    known: dict[UploadedFileId, int] = {}
    free, told = workers, {}
    while events:
        now, kind, number = heapq.heappop(events)
        if kind == 1:
            free += 1
            queue.ended(id_at(drops[number][0], number), now=now)
        else:
            at, user, size, _ = drops[number]
            id_ = id_at(at, number)
            known[id_] = number
            queue.put(user, id_, size, now=now)
        while free and len(queue):
            _, id_ = queue.take(now=now)
            started = known[id_]
            work = drops[started][3]
            told[started] = (now - drops[started][0], work)
            heapq.heappush(events, (now + work, 1, started))
            free -= 1
    assert len(told) == len(drops)
    return told


def test_a_batch_delays_another_users_slide_by_one_file_at_most() -> None:
    """5,000 of one user, and a single slide of another in their middle."""
    drops = [(0.0, "ann", 1_000_000, 2.0)] * 5000 + [(100.5, "bob", 1_000_000, 2.0)]
    told = simulate(drops, workers=2)
    assert told[5000][0] <= 2.0


def test_every_user_gets_a_like_share_however_much_one_drops() -> None:
    """Ten users, one with a hundred times as many: nobody else waits longer than ten files."""
    drops = [(0.0, "ann", 1_000_000, 1.0)] * 1000
    drops += [(float(n), f"user{n % 9}", 1_000_000, 1.0) for n in range(90)]
    told = simulate(drops, workers=1)
    assert max(told[1000 + n][0] for n in range(90)) <= 10.0 * 10


def test_files_that_take_long_have_no_more_of_the_time() -> None:
    """One user's hang for three seconds each, without end; another's take a moment, one each second."""
    hang = [(float(n), "ann", 1_000_000, 3.0) for n in range(0, 3000, 1)]
    quick = [(n + 0.5, "bob", 1_000_000, 0.2) for n in range(2000)]
    told = simulate(hang + quick, workers=2)
    waited = sorted(told[3000 + n][0] for n in range(2000))
    # Never longer than until one of ann's ends, however long this goes on.
    assert waited[-1] <= 3.0
    assert waited[1000] < 1.5


def test_what_was_not_used_is_not_saved() -> None:
    """Anyone who comes after hours of quiet does not hold up the others for hours."""
    drops = [(float(n), "ann", 1_000_000, 1.0) for n in range(2000)]
    drops += [(1000.0, "bob", 1_000_000, 1.0)] * 500
    told = simulate(drops, workers=1)
    assert told[1001][0] <= 4.0


def test_one_long_file_earns_no_credit() -> None:
    """Ten hours in one thread, while another user has the other seven: a batch of the first then shares them."""
    drops = [(0.0, "ann", 1_000_000, 36_000.0)]
    drops += [(float(n), "bob", 1_000_000, 7.0) for n in range(40_000)]
    drops += [(30_000.0, "ann", 1_000_000, 7.0)] * 5000
    told = simulate(drops, workers=8)
    waits = [at + told[number][0] for number, (at, user, _, _) in enumerate(drops) if user == "bob"]
    begun = sorted(at for at in waits if at >= 29_900)
    # Bob goes on: no two files of the batch in a row are far apart.
    assert max(b - a for a, b in itertools.pairwise(begun)) < 60


def test_what_a_user_took_while_nobody_waited_is_no_debt() -> None:
    """Ann has one long file all night, and Bob four threads that nobody else needs; in the morning they are equal."""
    drops = [(0.0, "ann", 1_000_000, 40_000.0)]
    drops += [(float(n), "bob", 1_000_000, 4.0) for n in range(36_000)]
    drops += [(36_000.0, user, 1_000_000, 2.0) for user in ("ann", "bob") for _ in range(2000)]
    told = simulate(drops, workers=8)
    first_of_bob = 1 + 36_000 + 2000
    assert told[first_of_bob][0] < 20


def test_small_overtakes_huge_and_huge_does_not_starve() -> None:
    """A huge one among an endless stream of small ones of the same user, which fill all that there is."""
    huge = (0.0, "ann", 40_000_000_000, 800.0)
    small = [(float(n), "ann", 50_000_000, 1.0) for n in range(5000)]
    told = simulate([(0.0, "ann", 50_000_000, 1.0), huge, *small], workers=1)
    # The small ones that came before it was due went first, and it was not put off for ever.
    assert 700.0 < told[1][0] < 900.0
    first_hundred = [told[2 + n][0] for n in range(100)]
    assert max(first_hundred) < 10.0


def test_none_is_forgotten_whatever_comes(seed: int = 7) -> None:
    """A random month of three scanners and a batch user: everything is treated, and in bounded time."""
    dice = random.Random(seed)
    drops = []
    for _ in range(3000):
        size = int(10 ** dice.uniform(5, 10.5))
        drops.append((dice.uniform(0, 200_000), dice.choice("abcd"), size, 0.1 + size / 100e6))
    told = simulate(drops, workers=4)
    assert max(waited for waited, _ in told.values()) < 20_000
