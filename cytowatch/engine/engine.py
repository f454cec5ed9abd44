"""Scheduling: uploaded files onto a few threads, each of which owns one decoder process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from cytowatch import aside, outside, threads
from cytowatch.config import Config
from cytowatch.config.keys import Engine as Settings
from cytowatch.decoder.ends import Stopped
from cytowatch.durable import failpoints
from cytowatch.engine.fair import FairQueue
from cytowatch.engine.held_up import HeldUp
from cytowatch.engine.spare import Spare
from cytowatch.engine.treat import Treatment, give_up, treat
from cytowatch.record.errors import TransientError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.tree.pauses import Pauses

__all__ = ["Engine", "workers"]

_ON_A_CLUSTER = 32


def workers(settings: Settings) -> int:
    """How many uploaded files are in work at a time.

    For ``auto`` one per core; with a cluster as many as may wait there for its workers' resources.
    """
    if isinstance(settings.workers, int):
        return settings.workers
    return _ON_A_CLUSTER if settings.kind == "dask" else len(os.sched_getaffinity(0))


class Engine:
    """Guards that each uploaded file is treated by one thread at a time, and none is forgotten."""

    def __init__(
        self,
        treatment: Treatment,
        *,
        count: int,
        wake: Callable[[], None],
    ) -> None:
        self._treatment = replace(treatment, between_stages=self._give_way)
        self._executor = threads.pool(count + 1, "worker")
        self._wake = wake
        self._lock = threading.Lock()
        self._queue = FairQueue()
        self._known: set[UploadedFileId] = set()
        self._busy: dict[UploadedFileId, str] = {}
        self._mine = threading.local()
        self._spare = Spare(count)
        self._held_up = HeldUp()
        #: How often an unexpected error was met with each.
        self._defects: dict[UploadedFileId, int] = {}
        self._held_back = Pauses()
        self.count = count

    @property
    def waiting(self) -> dict[UploadedFileId, tuple[str, str]]:
        """Uploaded files that wait for the machine: id -> (why, detail)."""
        return self._held_up.reasons

    def reconfigure(self, config: Config) -> None:
        """What begins from now on is treated by `config`."""
        moves = replace(self._treatment.transitions, config=config)
        self._treatment = replace(self._treatment, transitions=moves)

    def submit(self, user: str, id_: UploadedFileId, size_bytes: int | None = None) -> None:
        """Let `id_` be treated in its turn; a second time while it is in work does nothing.

        Its `size_bytes` is looked up if it is not told.
        """
        with self._lock:
            if id_ not in self._known:
                self._known.add(id_)
                if size_bytes is None:
                    size_bytes = self._size_bytes(id_)
                now = self._treatment.transitions.monotonic()
                self._queue.put(user, id_, size_bytes, now=now)

    @property
    def busy(self) -> int:
        """How many are being treated now."""
        return len(self._busy)

    @property
    def idle(self) -> bool:
        """Whether nothing is in work, and nothing waits but what is paused."""
        with self._lock:
            return len(self._known) == self._queue.waiting_for(self._held_back.covers)

    def next_due(self) -> float | None:
        """When what waits for the machine or for a thread may go on, on the monotonic clock."""
        with self._lock:
            times = [self._held_up.next_at()]
            if len(self._queue) > self._queue.waiting_for(self._is_served):
                times.append(self._spare.needed_at(self._treatment.transitions.monotonic()))
            return min((one for one in times if one is not None), default=None)

    def hold(self, pauses: Pauses) -> None:
        """From now on begin nothing of those that `pauses` covers."""
        self._held_back = pauses

    @property
    def held(self) -> int:
        """How many wait because their user is paused."""
        with self._lock:
            return self._queue.waiting_for(self._held_back.covers)

    def start_some(self, now: float) -> None:
        """Give free threads their next uploaded file; those that work take further ones by themselves."""
        with self._lock:
            for user, id_ in self._held_up.due(now):
                self._queue.put(user, id_, self._size_bytes(id_), now=now)
            covers = self._held_back.covers
            free = len(self._queue) - self._queue.waiting_for(covers)
            for _ in range(min(free, self.count - len(self._busy))):
                self._start(*self._queue.take(covers, now=now), now)
            if self._spare.is_needed(now):
                with suppress(IndexError):
                    self._start(*self._queue.take(self._is_served, now=now), now)

    def _start(self, user: str, id_: UploadedFileId, now: float) -> None:
        self._busy[id_] = user
        self._spare.moved(id_, now)
        self._executor.submit(self._serve, user, id_)

    def _is_served(self, user: str) -> bool:
        """Whether `user` has something in work, or is held back."""
        return user in self._busy.values() or self._held_back.covers(user)

    def _serve(self, user: str, id_: UploadedFileId) -> None:
        """What a thread does with the uploaded file that it is given, and then with the next ones."""
        following: tuple[str, UploadedFileId] | None = (user, id_)
        while following is not None:
            user, id_ = following
            self._mine.given, self._mine.gives_way = id_, True
            self._run(user, id_)
            following = self._following()

    def _following(self) -> tuple[str, UploadedFileId] | None:
        """What this thread goes on with at once, as the main loop may be at something else, or asleep."""
        now = self._treatment.transitions.monotonic()
        with self._lock:
            if self._treatment.stop.is_set() or len(self._busy) >= self.count:
                return None
            try:
                user, id_ = self._queue.take(self._held_back.covers, now=now)
            except IndexError:
                return None
            self._busy[id_] = user
            self._spare.moved(id_, now)
            return user, id_

    def _give_way(self) -> None:
        """Between two stages of a file: first one of a user who has none in work at all.

        So anyone who drops a single slide waits for one stage of one file at most, however many
        another one has dropped. The file that gives way keeps its decoder, and is not given way in.
        """
        monotonic = self._treatment.transitions.monotonic
        given, now = self._mine.given, monotonic()
        with self._lock:
            self._spare.moved(given, now)
            if not self._mine.gives_way:
                return
            try:
                user, id_ = self._queue.take(self._is_served, now=now)
            except IndexError:
                return
            self._busy[id_] = user
            # It is the other one's time.
            self._queue.ended(given, now=now)
        self._mine.gives_way = False
        try:
            self._run(user, id_)
        finally:
            self._mine.gives_way = True
            with self._lock:
                self._queue.began(self._busy[given], given, now=monotonic())

    def _run(self, user: str, id_: UploadedFileId) -> None:
        pause: TransientError | None = None
        try:
            failpoints.poisoned("treatment", id_, depth=1)
            self._submit_members(treat(self._treatment, id_))
        except TransientError as fault:
            pause = fault
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the one catch-all: an outage of one file only
            pause = self._unexpected(id_, error)
        if pause is not None and self.waiting.get(id_, ("", ""))[0] != pause.why:
            with aside.fence("uploaded_file", id_):
                self._treatment.transitions.observer.held_up(id_, pause.why, pause.detail)
        with self._lock:
            self._busy.pop(id_, None)
            self._spare.ended(id_)
            self._queue.ended(id_, now=self._treatment.transitions.monotonic())
            if pause is None or self._treatment.stop.is_set():
                self._known.discard(id_)
                self._defects.pop(id_, None)
                self._held_up.forget(id_)
                self._held_up.hurry(("disk", "duplicate"), self._treatment.transitions.monotonic())
            else:
                self._held_up.put(user, id_, pause, self._treatment.transitions.monotonic())
        self._wake()

    def _submit_members(self, place: Place | None) -> None:
        """What an archive has handed out is treated in its turn."""
        if place is None or place.status is not Status.EXTRACTED:
            return
        for child in place.manifest["children"]:
            self.submit(place.manifest["user"], UploadedFileId(child))

    def _unexpected(self, id_: UploadedFileId, error: BaseException) -> TransientError | None:
        """Report a defect; `id_` is tried again, and ends as an error after `max_attempts` of them."""
        with aside.fence("uploaded_file", id_):
            self._treatment.transitions.observer.unforeseen(id_, error)
        said = outside.text(f"{type(error).__name__}: {error}")
        self._defects[id_] = self._defects.get(id_, 0) + 1
        if self._defects[id_] >= self._treatment.transitions.config.engine.max_attempts:
            with aside.fence("uploaded_file", id_) as giving_up:
                give_up(self._treatment, id_, said)
            if not giving_up.failed:
                return None
        return TransientError("unexpected", said)

    def _size_bytes(self, id_: UploadedFileId) -> int:
        """How large `id_` is; what cannot be looked up is taken for small."""
        with aside.fence("row", id_):
            return self._treatment.transitions.index.size_bytes(id_)
        return 0

    def stop(self) -> None:
        """Wait until every thread has put down what it held; `Treatment.stop` must be set."""
        self._executor.shutdown(wait=True, cancel_futures=True)
