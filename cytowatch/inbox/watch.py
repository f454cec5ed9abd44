"""Events from the inboxes: a hint that makes the next scan come sooner, never the truth.

watchdog drops events on overflow and does not report a replaced root. So the daemon scans all
inboxes again every `rescan_s`, and compares what it watches with what is there.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver

from cytowatch import aside, durable

__all__ = ["Watcher"]

#: With everything subscribed a burst of 20,000 files lost 70 % of its events; with these, none.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


#: How long the threads of a watcher may take to end.
_PATIENCE_S = 5.0
#: Seconds between two comparisons if the kernel reports no events.
_POLL_EVERY_S = 1.0
#: Our own file in ``state/requests/``: changes to it show that events arrive.
_BEAT = ".beat"


class _Handler(FileSystemEventHandler):
    def __init__(self, inbox: Path, told: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._inbox = os.fspath(inbox)
        self._told = told
        self._lost = lost

    def on_any_event(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            if not path:
                continue
            user = os.path.relpath(os.fsdecode(path), self._inbox).split("/", 1)[0]
            with aside.fence("event", user) as fenced:
                if user == ".":
                    # Something was missed: all is scanned.
                    self._lost()
                elif user != "..":
                    self._told(user)
            if fenced.failed:
                self._lost()


class _RequestsHandler(FileSystemEventHandler):
    def __init__(self, asked: Callable[[], None], moved: Callable[[], None]) -> None:
        self._asked = asked
        self._moved = moved

    def on_any_event(self, event: FileSystemEvent) -> None:
        with aside.fence("event", "requests"):
            if os.path.basename(os.fsdecode(event.src_path)) == _BEAT:
                self._moved()
            elif isinstance(event, FileMovedEvent):
                self._asked()


class _Ear(logging.Handler):
    """Notices that the kernel dropped events, which watchdog reports only in its log."""

    def __init__(self, overflowed: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._overflowed = overflowed

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._overflowed()


class Watcher:
    """Keeps one observer thread on ``inbox/`` and ``state/requests/``; a dead or deaf one is replaced.

    `told` is called, from the observer's thread, with the name of the user whose inbox changed,
    `overflowed` when events of unknown inboxes were lost, `asked` when a command has
    laid down a request, and `moved` when what `poke` did to a file of our own beside the requests has
    come the whole way that an event of an inbox comes.
    """

    def __init__(
        self,
        inbox: Path,
        mode: str,
        told: Callable[[str], None],
        overflowed: Callable[[], None],
        *,
        requests: Path,
        asked: Callable[[], None],
        moved: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._requests = requests
        self._requests_handler = _RequestsHandler(asked, moved)
        self._ear = _Ear(overflowed)
        self._handler = _Handler(inbox, told, overflowed)
        self._observer: BaseObserver | None = None
        self._threads: list[threading.Thread] = []
        self._identity: tuple[int, int] | None = None
        self.mode = mode
        if mode == "auto":
            self.mode = "inotify" if durable.is_local(inbox) else "polling"

    def start(self) -> None:
        """Start watching.

        Raises
        ------
        OSError
            The inbox is gone, or the kernel has no watches left.
        """
        before = set(threading.enumerate())
        # Imported here: each observer loads the library of its system.
        from cytowatch.inbox import bounded

        observer = (
            bounded.polling(os.fspath(self._inbox), _POLL_EVERY_S)
            if self.mode == "polling"
            else bounded.inotify()
        )
        logging.getLogger("watchdog").addHandler(self._ear)
        found = os.stat(self._inbox)
        with suppress(OSError):
            (self._requests / _BEAT).touch()
        try:
            observer.schedule(
                self._requests_handler,
                os.fspath(self._requests),
                event_filter=[FileClosedEvent, FileModifiedEvent, FileMovedEvent],
            )
            observer.schedule(
                self._handler, os.fspath(self._inbox), recursive=True, event_filter=_EVENTS
            )
            observer.start()
        except OSError:
            observer.unschedule_all()
            raise
        self._observer = observer
        # Only watchdog knows the thread that reads the kernel's queue.
        self._threads = [
            thread
            for thread in threading.enumerate()
            if thread not in before and type(thread).__module__.startswith("watchdog.")
        ]
        self._identity = (found.st_dev, found.st_ino)

    def poke(self) -> None:
        """Cause an event on a file of our own; with inotify, this writes nothing to disk.

        Raises
        ------
        OSError
            The file is gone.
        """
        beat = self._requests / _BEAT
        if self.mode == "polling":
            os.utime(beat)
        else:
            os.close(os.open(beat, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))

    @property
    def alive(self) -> bool:
        """Whether its threads run and what they watch is still the inbox."""
        if self._observer is None or not all(thread.is_alive() for thread in self._threads):
            return False
        try:
            found = os.stat(self._inbox)
        except OSError:
            return False
        return self._identity == (found.st_dev, found.st_ino)

    def unwatched(self) -> tuple[int, list[str]]:
        """The number of folders below ``inbox/`` whose events are missed; and the users with more folders than their share.

        watchdog skips a folder that it cannot watch, so the kernel itself is asked.
        """
        if self.mode != "inotify" or self._observer is None:
            return 0, []
        from cytowatch.inbox import bounded

        top = len(os.fspath(self._inbox)) + 1
        found = Counter(
            path[top:].split("/", 1)[0] for path in bounded.folders(os.fspath(self._inbox))
        )
        most = bounded.most_watches()
        # That of the requests is watched as well; those of the inbox begin with itself.
        missed = max(0, 1 + found.total() - _watches())
        return missed, sorted(user for user, count in found.items() if count > most)

    def stop(self) -> None:
        """End its threads."""
        logging.getLogger("watchdog").removeHandler(self._ear)
        if self._observer is None:
            return
        # Events that arrive while it stops are logged as errors, but are not errors.
        logger = logging.getLogger("watchdog")
        before = logger.level
        logger.setLevel(logging.CRITICAL)
        # In a thread of its own, because one that hangs would block its replacement.
        ending = threading.Thread(target=_end, args=(self._observer,), name="unwatch", daemon=True)
        ending.start()
        ending.join(_PATIENCE_S)
        self._observer = None
        logger.setLevel(before)


def _end(observer: BaseObserver) -> None:
    observer.stop()
    if observer.is_alive():
        observer.join()


def _watches() -> int:
    """The number of watches that this process holds, over all its inotify descriptors."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                count += Path(f"/proc/self/fdinfo/{name}").read_text().count("inotify wd:")
    return count
