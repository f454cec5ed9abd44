"""Every metric, with bounded labels that are there from the start: no user, file or project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from cytowatch import __version__, aside
from cytowatch.record import reasons
from cytowatch.record.status import ERROR_OF, STAGE_STATUSES, Status

__all__ = ["WAITING", "Metrics"]

#: Why drops wait in an inbox; anything else counts as ``other``.
WAITING = (
    "settling",
    "open_for_writing",
    "still_copied",
    "temporary_name",
    "no_lease",
    "incomplete",
    "done_marker",
    "paused",
    "not_an_image",
    "too_deep",
    "no_user",
    "not_a_regular_file",
    "other_filesystem",
    "unreadable",
    "set_aside",
    "input_output",
    "not_permitted",
    "disk",
    "other",
)
_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
#: For the service's objective: 900 s is its limit (config/prometheus/alerts.yml).
_AFTER_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS", "SIGXCPU", "none")


class Metrics:
    """Guards one registry; safe from any thread. The attributes are Prometheus' own instruments.

    `ends` are the formats, by id, and the statuses that each can end in.
    """

    def __init__(self, ends: Iterable[tuple[str, Status]] = ()) -> None:
        self._ends = tuple(ends)
        self._counted = False
        self.registry = CollectorRegistry(auto_describe=False)
        self.files = self._gauge("files", "Uploaded files at present, by status.", "status")
        self.uploads = self._counter(
            "uploads",
            "Uploaded files that are finished, by format and final status.",
            "format",
            "status",
        )
        self.stage_seconds = Histogram(
            "cytowatch_stage_seconds",
            "How long a stage took, in seconds.",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.deployed_after = Histogram(
            "cytowatch_deployed_after_seconds",
            "Time from the last byte of a drop to its deployment, in seconds; not of what was retried.",
            buckets=_AFTER_S,
            registry=self.registry,
        )
        self.received_bytes = self._counter("received_bytes", "Bytes claimed from the inboxes.")
        self.converted_pixels = self._counter(
            "converted_pixels", "Pixels of level 0 of derived pyramids."
        )
        self.errors = self._counter(
            "errors", "Uploaded files that ended in an error.", "stage", "reason"
        )
        self.retries = self._counter(
            "retries", "Stages that were started again after a crash.", "stage"
        )
        self.oldest = self._gauge(
            "oldest_file_age_seconds",
            "Age of the oldest uploaded file in progress, in seconds.",
            "status",
        )
        self.waiting_files = self._gauge(
            "inbox_waiting_files", "Drops that wait in the inboxes.", "why"
        )
        self.waiting_oldest = self._gauge(
            "inbox_oldest_waiting_seconds",
            "How long the oldest drop has waited, in seconds.",
            "why",
        )
        self.waiting_bytes = self._gauge(
            "inbox_waiting_bytes", "Bytes of the drops that wait in the inboxes."
        )
        self.rescan_found = self._counter(
            "rescan_found", "Drops that a scan found and no event announced."
        )
        self.watcher_alive = self._gauge("watcher_alive", "1 while the watcher receives events.")
        self.watcher_mode = self._gauge(
            "watcher_mode", "1 for the mode that watches the inboxes.", "mode"
        )
        self.last_scan = self._gauge(
            "last_scan_timestamp_seconds", "When all inboxes were last scanned, as a Unix time."
        )
        self.hook_deliveries = self._counter(
            "hook_deliveries", "Attempts to deliver a notification to a hook.", "hook", "outcome"
        )
        self.hooks_dead = self._gauge("hooks_dead", "Notifications that were given up.")
        self.set_aside = self._counter(
            "set_aside",
            "Things set aside because of an unexpected error, while all others continue.",
            "where",
        )
        self.storage_missing = self._gauge(
            "storage_missing_files", "Uploaded files that vanished from storage."
        )
        self.archives_with_losses = self._counter(
            "archives_with_losses", "Archives with members that could not be unpacked."
        )
        self.paused = self._gauge("paused", "1 while everyone or any user is paused.")
        self.workers_busy = self._gauge("workers_busy", "Uploaded files being processed now.")
        self.workers = self._gauge(
            "workers", "Uploaded files that can be processed at the same time."
        )
        self.worker_crashes = self._counter(
            "worker_crashes", "Decoder processes that a signal ended.", "signal"
        )
        self.disk_free = self._gauge("disk_free_bytes", "Free bytes of the root's filesystem.")
        self.disk_reserved = self._gauge(
            "disk_reserved_bytes",
            "Bytes kept free, including what work in progress may still write.",
        )
        self.inodes_free = self._gauge(
            "inodes_free", "Free inodes of the root's filesystem; 0 if it does not count them."
        )
        self.inodes_reserved = self._gauge(
            "inodes_reserved", "Inodes kept free, including what work in progress may still use."
        )
        self.sandbox_enabled = self._gauge(
            "sandbox_enabled", "1 if Landlock and seccomp confine decoders."
        )
        # The daemon's own memory, processor time, descriptors and start, under Prometheus' usual names.
        ProcessCollector(registry=self.registry)
        self._gauge("build_info", "1 for the version that runs.", "version").labels(
            __version__
        ).set(1)
        self._zero()

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"cytowatch_{name}", about, labels, registry=self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"cytowatch_{name}", about, labels, registry=self.registry)

    def _zero(self) -> None:
        for status in Status:
            self.files.labels(status.name)
        for status in STAGE_STATUSES:
            self.oldest.labels(status.name)
        for stage in ERROR_OF:
            self.stage_seconds.labels(stage.name)
            self.retries.labels(stage.name)
        for why in WAITING:
            self.waiting_files.labels(why)
            self.waiting_oldest.labels(why)
        # A counter that begins with its first event has no increase there.
        for reason in reasons.REASONS:
            for stage in reason.stages:
                self.errors.labels(stage.name, reason.word)
        for format_id, end in self._ends:
            self.uploads.labels(format_id, end.name)
        self.uploads.labels("unknown", Status.ERROR_FORMAT.name)
        for mode in ("inotify", "polling"):
            self.watcher_mode.labels(mode)
        for where in aside.WHERES:
            self.set_aside.labels(where)
        for name in _SIGNALS:
            self.worker_crashes.labels(name)

    def error(self, stage: str, reason: str) -> None:
        """Count an uploaded file that ended in an error."""
        known = reasons.of(reason) is not None
        self.errors.labels(stage, reason if known else "other").inc()

    def crash(self, signal: str) -> None:
        """Count a decoder process that died of `signal`."""
        self.worker_crashes.labels(signal).inc()

    def set_files(self, counts: Mapping[Status, int]) -> None:
        """How many uploaded files there are in each status."""
        for status, count in counts.items():
            self.files.labels(status.name).set(count)
        self._counted = True

    def set_oldest(self, ages_s: Mapping[Status, float]) -> None:
        """The age of the oldest in each status, in seconds."""
        for status, age_s in ages_s.items():
            self.oldest.labels(status.name).set(age_s)

    def set_waiting(
        self, counts: Mapping[str, int], oldest_s: Mapping[str, float], size_bytes: int
    ) -> None:
        """How many drops wait and the oldest for how long, by reason, and their bytes together."""
        for why in WAITING:
            self.waiting_files.labels(why).set(counts.get(why, 0))
            self.waiting_oldest.labels(why).set(oldest_s.get(why, 0.0))
        other = sum(count for why, count in counts.items() if why not in WAITING)
        self.waiting_files.labels("other").set(counts.get("other", 0) + other)
        self.waiting_bytes.set(size_bytes)

    def set_free(self, size_bytes: int, inodes: int) -> None:
        """What the disk has left."""
        self.disk_free.set(size_bytes)
        self.inodes_free.set(inodes)

    def set_reserved(self, size_bytes: int, inodes: int) -> None:
        """What is kept free, and reserved for what is in work."""
        self.disk_reserved.set(size_bytes)
        self.inodes_reserved.set(inodes)

    def set_watcher_mode(self, mode: str) -> None:
        """How the inboxes are watched."""
        for known in ("inotify", "polling"):
            self.watcher_mode.labels(known).set(known == mode)

    def text(self) -> bytes:
        """All of it in Prometheus' text format, without the creation times of counters.

        While a start waits, how many uploaded files there are is not known, so it is left out: zero would
        be read as a tree that was emptied.
        """
        lines = generate_latest(self.registry).splitlines(keepends=True)
        left_out = b"" if self._counted else b"cytowatch_files{"
        return b"".join(
            line
            for line in lines
            if b"_created" not in line.split(b"{")[0]
            and not (left_out and line.startswith(left_out))
        )
