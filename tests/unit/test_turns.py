"""Users take turns, and what waits for the disk for one of them holds nobody else up."""

from __future__ import annotations

import threading
import time
from collections import Counter

from hypothesis import given, settings
from hypothesis.strategies import lists, sampled_from

from cytowatch.inbox.turns import Turns
from tests.lab.root import HANGS_S


def test_huge_files_of_one_user_leave_a_thread_to_the_others() -> None:
    """One user has no more threads than `of_one`, however much he gave."""
    gate, done = threading.Event(), threading.Event()
    begun: Counter[str] = Counter()

    def do(one: str) -> None:
        begun[one] += 1
        if one == "huge":
            gate.wait(30)
        else:
            done.set()

    turns = Turns(do, threads=5, of_one=4)
    for _ in range(20):
        turns.put("ann", "huge")
    turns.put("bob", "small")
    assert done.wait(HANGS_S)
    assert begun["huge"] <= 4
    gate.set()
    turns.stop()


def test_they_take_turns() -> None:
    """With one thread each user has the next one."""
    gate, ready, finished = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def do(one: str) -> None:
        if one == "first":
            ready.set()
            gate.wait(30)
        order.append(one)
        if len(order) == 7:
            finished.set()

    turns = Turns(do, threads=1, of_one=1)
    turns.put("ann", "first")
    assert ready.wait(HANGS_S)
    for user in ("ann", "ann", "bob", "bob", "cid"):
        turns.put(user, user)
    turns.put("zoe", "zoe")
    gate.set()
    assert finished.wait(HANGS_S)
    turns.stop()
    assert order == ["first", "ann", "bob", "cid", "zoe", "ann", "bob"]


@settings(deadline=None, max_examples=30)
@given(lists(sampled_from(["ann", "bob", "cid"]), max_size=60))
def test_all_of_them_are_done_once(users: list[str]) -> None:
    """No matter who gave how many, and in which order."""
    done: Counter[int] = Counter()
    lock, finished = threading.Lock(), threading.Event()

    def do(number: int) -> None:
        with lock:
            done[number] += 1
            if done.total() == len(users):
                finished.set()

    turns = Turns(do, threads=3, of_one=2)
    for number, user in enumerate(users):
        turns.put(user, number)
    assert not users or finished.wait(HANGS_S)
    turns.stop()
    assert done == Counter(range(len(users)))


def test_what_has_not_begun_when_it_is_stopped_never_does() -> None:
    """What has begun is finished."""
    gate, ready = threading.Event(), threading.Event()
    done: list[int] = []

    def do(number: int) -> None:
        ready.set()
        gate.wait(30)
        done.append(number)

    turns = Turns(do, threads=1, of_one=1)
    for number in range(5):
        turns.put("ann", number)
    assert ready.wait(HANGS_S)
    stopping = threading.Thread(target=turns.stop)
    stopping.start()
    end = time.monotonic() + HANGS_S
    while turns._waiting and time.monotonic() < end:
        time.sleep(0.001)
    gate.set()
    stopping.join(HANGS_S)
    assert done == [0]
