"""watchdog's observers, adapted so that no depth, folder or event in the inboxes ends one of their threads.

watchdog walks folders with `os.walk`, whose recursion ends the thread that reads the kernel's queue at some
990 levels. It makes events for everything below a new folder, and compares each moved folder with all that it
watches. Here a folder is watched as deep as the scan looks, one event names the inbox in which something
happened, and an error that one event raises is set aside.

Source: watchdog 7, ``observers/inotify.py`` and ``observers/polling.py``. Some private parts of them are
overridden, so the version is pinned below 8.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from watchdog.events import FileCreatedEvent
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyEvent, Mask, WatchDescriptor
from watchdog.observers.inotify_move_event_grouper import (
    GroupedInotifyEvent,
    InotifyMoveEventGrouper,
    PathedInotifyEvent,
)
from watchdog.observers.polling import PollingObserverVFS

from cytowatch import aside, durable
from cytowatch.inbox.scan import DEEPEST

__all__ = ["folders", "inotify", "most_watches", "polling"]

#: How long watchdog holds back that something was moved away, to pair it with where it went: the two
#: come together. With its own half second every claim would hold up the events behind it.
_PAIRING_S = 0.02
_MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
#: The kernel's watches are divided into so many shares, of which one user may use one; a few in any case.
_SHARES = 4
_FEW_WATCHES = 64


def folders(top: str) -> Iterator[str]:
    """`top` and the readable folders below it, as deep as the scan looks."""
    waiting = [(top, -1)]
    while waiting:
        path, depth = waiting.pop()
        try:
            with os.scandir(path) as entries:
                below = [entry.path for entry in entries if durable.is_directory(entry)]
        except OSError:
            # The scan reports why.
            continue
        yield path
        if depth < DEEPEST:
            waiting += [(inner, depth + 1) for inner in below]


def most_watches() -> int:
    """The most folders of one user that are watched, because all users share the kernel's watches."""
    try:
        there = int(_MAX_WATCHES.read_text())
    except (OSError, ValueError):
        return _FEW_WATCHES
    return max(_FEW_WATCHES, there // _SHARES)


class _Group(InotifyWatchGroup):
    """The watches of ``inbox/`` and the folders below it; no user has more than a share of them.

    Only the scan finds what is in folders beyond that share.
    """

    def __init__(self, *arguments: Any, most: int, **more: Any) -> None:
        # The base watches all that lies there, and so asks for these at once.
        self._most = most
        self._of_user: dict[str, set[WatchDescriptor]] = {}
        super().__init__(*arguments, **more)

    def on_event(self, event: InotifyEvent) -> None:
        with self._lock:
            path = self._build_event_source_path(event) if self.is_active else None
            if path is None or event.is_moved_from:
                return
            with aside.fence("event", self._whose(path), clears=False) as fenced:
                if event.is_directory and (event.is_create or event.is_moved_to):
                    # Watched before it is looked into, so nothing comes between.
                    self._add_all_callbacks(path)
                self._put(event, path)
            if fenced.failed:
                self._lost()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        with self._lock:
            self._remove_watch_internally(wd)

    def on_queue_overflow(self) -> None:
        with aside.fence("event", "overflow"):
            super().on_queue_overflow()

    def _put(self, event: InotifyEvent, path: bytes) -> None:
        # Not by the grouper's own way, which looks through all that waits for where it was moved from.
        self._move_event_grouper._queue.put(PathedInotifyEvent(event, path))

    def _lost(self) -> None:
        """Let everything be scanned, because it is unknown what was missed."""
        self._put(InotifyEvent(WatchDescriptor(0), Mask(0), 0, b""), self.path)

    def _whose(self, path: bytes) -> str:
        return os.fsdecode(path[len(self.path) + 1 :].split(b"/", 1)[0])

    def _remove_watch_internally(self, wd: WatchDescriptor) -> None:
        path = self._active_callbacks_by_watch.pop(wd, None)
        if path is not None:
            self._of_user.get(self._whose(path), set()).discard(wd)
        if path is not None and self._active_callbacks_by_path.get(path) == wd:
            del self._active_callbacks_by_path[path]

    def _add_all_callbacks(self, path: bytes) -> None:
        depth = path.count(b"/") - self.path.count(b"/")
        if path == self.path:
            # If it cannot be watched at all, its OSError says why.
            self._add_callback(path)
        waiting = [(path, depth)]
        while waiting:
            folder, depth = waiting.pop()
            if depth > DEEPEST + 1 or (folder != self.path and not self._watched(folder)):
                continue
            try:
                with os.scandir(folder) as entries:
                    below = [entry.path for entry in entries if durable.is_directory(entry)]
            except OSError:
                continue
            waiting += [(inner, depth + 1) for inner in below]

    def _watched(self, folder: bytes) -> bool:
        """Watch `folder`, no matter what its name was before; return whether that was possible."""
        user = self._whose(folder)
        theirs = self._of_user.setdefault(user, set())
        if len(theirs) >= self._most and folder not in self._active_callbacks_by_path:
            return False
        try:
            wd = self._inotify_fd.add_callback(folder, self.event_mask, self._callback, self._id)
        except OSError:
            return False
        if wd == -1:
            return False
        before = self._active_callbacks_by_watch.get(wd)
        if before is not None and self._active_callbacks_by_path.get(before) == wd:
            del self._active_callbacks_by_path[before]
        if before is not None:
            self._of_user.get(self._whose(before), set()).discard(wd)
        theirs.add(wd)
        self._active_callbacks_by_path[folder] = wd
        self._active_callbacks_by_watch[wd] = folder
        return True


class _Emitter(InotifyEmitter):
    """Turns each event of the inboxes into one that names the inbox; events of other watches stay as they are."""

    def on_thread_start(self) -> None:
        if not self.watch.is_recursive:
            super().on_thread_start()
            return
        self._inotify = _Group(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=True,
            event_mask=self.get_event_mask_from_filter(),
            follow_symlink=False,
            most=most_watches(),
        )

    def build_and_queue_event(
        self, event: GroupedInotifyEvent, *, full_events: bool = False
    ) -> None:
        with aside.fence("event", "emitter"):
            if not self.watch.is_recursive or not isinstance(event, PathedInotifyEvent):
                super().build_and_queue_event(event, full_events=full_events)
            elif not event.ev.is_delete_self:
                self.queue_event(FileCreatedEvent(self._decode_path(event.path)))
            elif event.path == os.fsencode(self.watch.path):
                super().build_and_queue_event(event, full_events=full_events)


def inotify() -> BaseObserver:
    """An observer that the kernel informs."""
    InotifyMoveEventGrouper.delay = _PAIRING_S
    # A folder that was moved is watched once more under its new name, which watchdog remarks upon.
    warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
    observer = InotifyObserver()
    observer._emitter_class = _Emitter
    return observer


def polling(top: str, interval_s: float) -> BaseObserver:
    """An observer that compares the files below `top` with those seen before, every `interval_s` seconds."""
    slashes = top.count("/")

    def listed(path: str | None) -> Iterator[os.DirEntry[str]]:
        """The entries of a folder; none if it cannot be read, or if the scan does not look there."""
        path = path or "."
        if path.count("/") - slashes > DEEPEST + 1:
            return iter(())
        try:
            with os.scandir(path) as entries:
                return iter(list(entries))
        except OSError:
            if path == top or not path.startswith(f"{top}/"):
                raise
            return iter(())

    return PollingObserverVFS(os.lstat, listed, polling_interval=interval_s)
