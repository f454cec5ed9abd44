"""Wiring and life cycle: recover, watch, claim, treat, tell; until a signal or until idle."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cytowatch import __version__, formats, manifest, names, pauses
from cytowatch.config import Config, reloaded
from cytowatch.engine import after, requests
from cytowatch.engine.child import Zygote
from cytowatch.engine.cluster import Cluster
from cytowatch.engine.contents import Contents
from cytowatch.engine.engine import Engine, workers
from cytowatch.engine.folders import Folders
from cytowatch.engine.hashing import Hasher
from cytowatch.engine.recover import finish, recover, set_doubles_aside
from cytowatch.engine.room import Room, free_bytes
from cytowatch.engine.treat import Treatment
from cytowatch.errors import ConfigError, RootError
from cytowatch.hooks import Pending, count_dead, drop_untrue
from cytowatch.hooks.deliver import Courier
from cytowatch.inbox import claim
from cytowatch.inbox.watch import Watcher
from cytowatch.index import Index
from cytowatch.indexing import Indexing
from cytowatch.intake import Claimed, Intake
from cytowatch.ledger import Ledger
from cytowatch.names import UploadedFileId
from cytowatch.observe import feedback, health, logs, systemd
from cytowatch.observe.feedback import Notes
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from cytowatch.observe.pulse import Pulse
from cytowatch.observe.versions import software
from cytowatch.pauses import Pauses
from cytowatch.spool import Spool
from cytowatch.status import Status

__all__ = ["run"]

#: The longest the loop sleeps: so often it looks after watcher, zygote and watchdog.
_TICK_S = 0.5
#: The longest that it leaves to those who do the work when something waits for it.
_LEFT_S = 0.1
#: The longest the loop sleeps with nothing in the inboxes and nothing in work: what comes wakes the loop.
_TICK_AT_REST_S = 2.0
#: The least time between two tellings, as a multiple of what the last one took.
_TELL_EVERY = 10.0
#: So much later when there is nothing to tell of.
_TELL_AT_REST_S = 2.0
#: The least time between two looks whether every folder is watched, as a multiple likewise.
_UNWATCHED_EVERY = 3000.0
#: How often the ages of the oldest are asked of the index; they are in seconds, and read every 15.
_AGES_EVERY_S = 5.0
#: Threads that wait for the disk are many, and each needs the interpreter only for a moment: with
#: Python's own 5 ms they would spend their time in waiting for it (claims were half as fast).
_SWITCH_S = 0.0005
#: How often the watcher's whole way is tried with a file of ours.
_POKE_EVERY_S = 10.0
#: A watcher through which nothing has come for so long is replaced.
_DEAF_S = 30.0
#: A part that has stood still for so long keeps systemd's watchdog unfed.
_STILL_S = 120.0
#: With `until_idle`, a drop that lacks something is waited for if its time is up so soon.
_PATIENCE_S = 60.0
#: A command that changes something where no daemon runs holds the lock for so long at most.
_PATIENCE_FOR_LOCK_S = 2.0
#: How often errors are looked through for those that have been kept long enough.
_PRUNE_EVERY_S = 60.0
_STAGES = "CYTOWATCH_TEST_STAGES"


def run(
    config: Config, *, until_idle: bool = False, reload: Callable[[], Config] | None = None
) -> int:
    """Be the daemon of `config.root` until SIGTERM or SIGINT, or until nothing is left to do.

    Parameters
    ----------
    reload
        Gives the configuration as it is now; asked on SIGHUP.

    Returns
    -------
    int
        0; with `until_idle` 1 if anything of this run ended in an error.

    Raises
    ------
    ConfigError, RootError
        It cannot start; the message says why.
    """
    logs.configure(config.log.level, config.log.format)
    spool = Spool.create(Path(config.root))
    with spool.lock(patience_s=_PATIENCE_FOR_LOCK_S):
        if config.storage.group:
            spool.share_with(config.storage.group)
        return _Daemon(spool, config, until_idle=until_idle, reload=reload).run()


class _Daemon:
    """Guards the one main loop; everything here runs in the main thread unless it says otherwise."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        until_idle: bool,
        reload: Callable[[], Config] | None,
    ) -> None:
        self._spool = spool
        self._config = config
        self._until_idle = until_idle
        self._log = logs.get()
        self._metrics = Metrics((one.id, end) for one in formats.FORMATS for end in one.ends)
        self._health = Health()
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._count = workers(config.engine)
        self._room = Room(lambda: free_bytes(spool.root))
        self._index = Index(spool)
        self._ledger = Ledger(
            self._metrics,
            self._log,
            self._index,
            status_for=timedelta(days=config.feedback.status_days),
            defects=spool.state / "reports",
        )
        spool.hooks = config.hooks
        self._hasher = Hasher(spool, self._index, self._log, self._wake)
        self._courier = Courier(spool, config.hooks, self._hook_told)
        self._notes = Notes(spool.root, config.feedback.dir)
        # The tests put stages that crash, hang and pause in the place of the real ones.
        stages = os.environ.get(_STAGES, "cytowatch.stages")
        self._zygote = (
            Cluster(config, spool.root, stages=stages)
            if config.engine.kind == "dask"
            else Zygote(config, stages=stages)
        )
        self._random = random.Random()
        self._folders = Folders(
            spool, self._ledger, self._index, now=_now, make_id=self._new_id, software=software(),
            settings=config.storage,
        )  # fmt: skip
        self._intake = Intake(
            spool,
            config,
            now=_now,
            make_id=self._new_id,
            software=software(),
            folders=self._folders,
            wake=self._wake,
        )
        self._engine = Engine(
            Treatment(
                spool=spool,
                config=config,
                zygote=self._zygote,
                observer=self._ledger,
                index=self._index,
                contents=Contents(),
                room=self._room,
                now=_now,
                monotonic=time.monotonic,
                stop=self._stop,
            ),
            count=self._count,
            wake=self._wake,
        )
        self._pulse = Pulse(
            {
                "watcher": _STILL_S,
                "scanner": _STILL_S + 3 * config.inbox.rescan_s,
                "scheduler": _STILL_S,
            },
            now=time.monotonic(),
        )
        self._watcher = Watcher(
            spool.inbox,
            config.inbox.watch,
            self._intake.hint,
            self._events_were_lost,
            requests=spool.requests,
            asked=self._wake,
            moved=lambda: self._pulse.beat("watcher", time.monotonic()),
        )
        self._poked_at = float("-inf")
        self._watch_again_at = self._watched_at = float("-inf")
        self._unwatched = 0
        self._look_for_unwatched_at = float("-inf")
        self._set_ages_at = float("-inf")
        self._indexing = Indexing(self._index, self._health, self._log)
        self._offline = False
        self._scanned_at = float("-inf")
        self._scan_now = False
        self._tell_at = float("-inf")
        self._told: dict[str, Any] = {}
        self._pruned_at = float("-inf")
        self._asked_to_end: str | None = None
        self._pauses = Pauses()
        self._reload = reload
        self._asked_to_reload = False

    def run(self) -> int:
        claim.prepare_process()
        sys.setswitchinterval(_SWITCH_S)
        threading.excepthook = self._thread_died
        with ExitStack() as stack:
            stack.enter_context(self._signals())
            stack.callback(self._index.close)
            self._zygote.start()
            stack.callback(self._zygote.stop)
            self._recover()
            if self._config.metrics.listen:
                self._listen(stack)
            stack.callback(self._end_work)
            self._watch()
            stack.callback(self._watcher.stop)
            self._courier.start()
            stack.callback(self._courier.stop)
            self._hasher.start()
            stack.callback(self._hasher.stop)
            self._describe()
            self._scan(time.monotonic())
            systemd.notify("READY=1", f"STATUS={self._summary()}")
            self._log.info("ready", root=str(self._spool.root), workers=self._count)
            self._loop()
            self._log.info("stopping", signal=self._asked_to_end)
            systemd.notify("STOPPING=1")
        self._tell(time.monotonic(), force=True)
        self._log.info("stopped", ended_in_error=self._ledger.errors)
        return 1 if self._until_idle and self._ledger.errors else 0

    def _listen(self, stack: ExitStack) -> None:
        try:
            server = health.serve(self._config.metrics.listen, self._metrics, self._health)
        except RootError as error:
            # Slides matter more than figures: whoever scrapes sees that nobody answers.
            self._log.error("no_metrics", detail=str(error))
            return
        stack.callback(server.close)
        self._log.info("listening", address=server.address)

    def _loop(self) -> None:
        while self._asked_to_end is None:
            now = time.monotonic()
            if not self._root_is_there():
                systemd.notify("WATCHDOG=1")
                for part in ("watcher", "scanner", "scheduler"):
                    self._pulse.beat(part, now)
                self._sleep(now, None)
                continue
            if self._scan_now or now - self._scanned_at >= self._config.inbox.rescan_s:
                self._scan(now)
            put_off = None
            with self._told_of_faults("hints"):
                put_off = self._look_on(now)
            with self._told_of_faults("claims"):
                # A fault that is told, and a full disk, are moves as well.
                self._pulse.beat("scheduler", now)
                if self._disk_has_room():
                    self._pauses = pauses.read(self._spool)
                    self._engine.hold(self._pauses)
                    self._intake.claim_due(now, self._pauses)
                    self._engine.start_some(now)
            self._collect(self._intake.collect(now), now)
            self._mend(now)
            with self._told_of_faults("requests"):
                self._requests(now)
            if self._asked_to_reload:
                self._reload_configuration()
            with self._told_of_faults("processes"):
                self._supervise()
            self._tell(now)
            if self._until_idle and self._idle(now):
                return
            self._sleep(now, put_off)

    def _root_is_there(self) -> bool:
        """Whether the tree is still the one that is locked; what vanished is offline, not deleted."""
        if not self._spool.is_there():
            if not self._offline:
                self._log.error("root_offline", root=str(self._spool.root))
            self._offline = True
            said = f"{self._spool.root} is gone, or another tree lies there: all waits until it is back"
            self._health.fault("root", said)
            self._metrics.watcher_alive.set(0)
            return False
        if self._offline and not self._engine.busy:
            self._offline = False
            self._log.info("root_back", root=str(self._spool.root))
            self._health.clear("root")
            for user, id_ in recover(self._spool, now=_now()):
                self._engine.submit(user, id_)
            self._scan_now = True
        return not self._offline

    @contextmanager
    def _told_of_faults(self, name: str) -> Iterator[None]:
        """A fault of the machine is told, and tried again on the next turn; it ends nothing."""
        try:
            yield
        except OSError as error:
            said = f"{error.strerror or error}: {error.filename or ''}"
            if self._health.reasons().get(name) != said:
                self._log.warning("fault", where=name, error=said)
            self._health.fault(name, said)
        else:
            self._health.clear(name)

    def _mend(self, now: float) -> None:
        """Put right what a fault has left of claims, or say why it cannot be."""
        with self._told_of_faults("mending"):
            self._collect(self._intake.mend(), now)
        for id_, why in self._intake.kept.items():
            self._health.fault("kept", f"state/tmp/{id_}: {why}")
        if not self._intake.kept:
            self._health.clear("kept")

    def _sleep(self, now: float, put_off: float | None) -> None:
        worked_s = time.monotonic() - now
        quiet = self._intake.is_empty and self._engine.idle and not self._ledger.has_changed
        rests = quiet and not self._until_idle
        times = [
            now + (_TICK_AT_REST_S if rests else _TICK_S),
            self._scanned_at + self._config.inbox.rescan_s,
            *(t for t in (put_off, self._intake.next_due(), self._engine.next_due()) if t),
        ]
        try:
            self._wakeups.get(timeout=max(0.001, min(times) - time.monotonic()))
            # A turn costs more the more there is: half of the time is left to those who do the work.
            self._stop.wait(min(_LEFT_S, worked_s))
            while True:
                self._wakeups.get_nowait()
        except queue.Empty:
            return

    def _idle(self, now: float) -> bool:
        return (
            self._engine.idle
            and self._courier.idle()
            and self._hasher.idle()
            # In this order: what an archive hands out is in the ledger before the engine is idle.
            and not self._ledger.has_children
            and self._intake.idle(now, patience_s=_PATIENCE_S)
            and self._rescan_found_nothing(now)
        )

    def _rescan_found_nothing(self, now: float) -> bool:
        """One more look before going: an event may not have come through yet."""
        self._scan(now, whole=True)
        return self._intake.idle(now, patience_s=_PATIENCE_S)

    def _events_were_lost(self) -> None:
        """Called from the watcher's thread."""
        self._log.warning("events_lost", detail="more came than the kernel keeps: all is scanned")
        self._scan_now = True
        self._wake()

    def _look_on(self, now: float) -> float | None:
        """Go on with the scan, which looks at each inbox for a moment in each turn."""
        more_at = self._intake.scan_some(now)
        found, whole = self._intake.seen()
        self._metrics.rescan_found.inc(found)
        if whole:
            self._pulse.beat("scanner", now)
            self._metrics.last_scan.set(time.time())
        return more_at

    def _scan(self, now: float, *, whole: bool = False) -> None:
        """Begin to scan all inboxes, and end it with `whole`."""
        lost, self._scan_now = self._scan_now, False
        self._pulse.beat("scanner", now)
        try:
            self._intake.scan_all(now, events_lost=lost, whole=whole)
        except OSError as error:
            self._health.fault("inbox", f"the inboxes cannot be read: {error}")
            return
        self._health.clear("inbox")
        self._scanned_at = now
        began = time.monotonic()
        if now >= self._look_for_unwatched_at:
            self._look_for_unwatched()
            took_s = time.monotonic() - began
            # What is wrong is looked at with every scan until it is right again.
            pause_s = 0.0 if self._unwatched else _UNWATCHED_EVERY * took_s
            self._look_for_unwatched_at = now + pause_s
        self._indexing.look()

    def _look_for_unwatched(self) -> None:
        """Say so if folders are watched by the scan alone; one that is just made may not be yet."""
        before, self._unwatched = self._unwatched, self._watcher.unwatched()
        if before and self._unwatched:
            self._health.fault(
                "watches",
                f"of {self._unwatched} folders no events come, the kernel has no watches left "
                "(fs.inotify.max_user_watches): drops there are found by the scan every "
                f"{self._config.inbox.rescan_s:g} s",
            )
        else:
            self._health.clear("watches")

    def _collect(self, arrived: list[Claimed], now: float) -> None:
        self._ledger.arrived([claimed.id for claimed in arrived])
        for claimed in arrived:
            self._metrics.received_bytes.inc(claimed.size_bytes)
            self._log.info(
                "claimed",
                id=claimed.id,
                user=claimed.user,
                name=names.printable(claimed.name),
                bytes=claimed.size_bytes,
                seconds=round(claimed.settled_s, 3),
            )
            self._engine.submit(claimed.user, claimed.id, claimed.size_bytes)
            # A free thread must not wait for the next turn of the loop.
            self._engine.start_some(now)
        for user, id_ in self._ledger.take_children():
            self._engine.submit(user, id_)
        self._engine.start_some(now)

    def _reload_configuration(self) -> None:
        """Take over what of the configuration may change, and name what may not."""
        self._asked_to_reload = False
        if self._reload is None:
            return
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config, changed, refused = reloaded(self._config, self._reload())
        except (ConfigError, OSError) as error:
            self._log.error("reload_refused", detail=str(error))
        else:
            self._config = config
            self._intake.reconfigure(config)
            self._engine.reconfigure(config)
            self._zygote.reconfigure(config)
            self._spool.hooks = config.hooks
            self._courier.reconfigure(config.hooks)
            logs.configure(config.log.level, config.log.format)
            self._log.info("reloaded", changed=changed, needs_a_restart=refused)
        systemd.notify("READY=1")

    def _requests(self, now: float) -> None:
        """Do what commands have asked for, and take up what they sent back to a stage."""
        for request, answer, before in requests.answer_all(self._spool, self._index, now=_now()):
            self._log.info("requested", **request, **answer)
            if request.get("do") == "reindex":
                self._indexing.begin()
            if "error" in answer or before is None:
                continue
            self._ledger.left(before, request["id"])
            if request["do"] == "retry" and answer["said"] != "inbox":
                id_ = UploadedFileId(request["id"])
                self._ledger.arrived([id_], Status[answer["said"]])
                found = self._spool.find(id_)
                if found is not None:
                    self._engine.submit(manifest.read(found[1])["user"], id_)
        if self._config.storage.keep_errors_days and now - self._pruned_at > _PRUNE_EVERY_S:
            self._pruned_at = now
            days = self._config.storage.keep_errors_days
            for status, id_ in list(after.expired(self._spool, now=_now(), days=days)):
                after.remove(self._spool, id_, self._index, even_linked=True)
                self._log.info("expired", id=id_, days=days)
                self._ledger.left(status, id_)

    def _recover(self) -> None:
        for id_, outcome in claim.recover(self._spool).items():
            self._log.warning("claim_recovered", id=id_, outcome=outcome)
        for id_, status, place in set_doubles_aside(self._spool):
            self._log.warning("set_aside", id=id_, status=status.name, path=str(place))
        for number, (user, id_) in enumerate(recover(self._spool, now=_now())):
            if number % 100 == 0:
                # Each of them costs a look at its files: systemd must not take it for hanging.
                systemd.notify(
                    "EXTEND_TIMEOUT_USEC=60000000", f"STATUS=taking up, {number:,} so far"
                )
            self._log.info("taken_up", id=id_, user=user)
            self._engine.submit(user, id_)
        for untrue in drop_untrue(self._spool):
            self._log.info("hook_dropped", hook=untrue.hook, id=untrue.id, status=untrue.status)
        changed = list(finish(self._spool))
        self._indexing.reconcile()
        self._index.look(changed)
        self._ledger.count_tree(self._spool, _now())
        self._folders.recover()

    def _watch(self) -> None:
        self._watch_again_at = float("-inf")
        self._watched_at = time.monotonic()
        try:
            self._watcher.start()
        except OSError as error:
            # It is told and tried again: no reason for systemd to end the daemon.
            self._pulse.beat("watcher", self._watched_at)
            self._watch_again_at = self._watched_at + min(_DEAF_S, self._config.inbox.rescan_s)
            self._health.fault(
                "watcher",
                f"no events ({error.strerror or error}): drops are found by the scan every "
                f"{self._config.inbox.rescan_s:g} s",
            )
        else:
            self._health.clear("watcher")

    def _hook_told(self, one: Pending, outcome: str) -> None:
        """Called from the courier's threads."""
        self._metrics.hook_deliveries.labels(one.hook, outcome).inc()
        tell = self._log.info if outcome == "delivered" else self._log.warning
        tell(
            "hook", hook=one.hook, outcome=outcome, id=one.id, status=one.status, tries=one.tries,
            said=one.said,
        )  # fmt: skip
        self._wake()

    def _supervise(self) -> None:
        self._zygote.ensure_alive()
        now = time.monotonic()
        if now >= self._watch_again_at and not self._hears(now):
            self._log.warning("watcher_replaced")
            self._watcher.stop()
            self._watch()
            self._scan(now)
        if now - self._poked_at >= _POKE_EVERY_S:
            self._poked_at = now
            try:
                self._watcher.poke()
            except OSError:
                # On a disk that takes no writes it cannot be tried.
                self._pulse.beat("watcher", now)
        still = self._pulse.still(now)
        if not still:
            systemd.notify("WATCHDOG=1")
            self._health.clear("pulse")
        for part, age_s in still.items():
            self._health.fault("pulse", f"the {part} has not moved for {age_s:.0f} s")

    def _hears(self, now: float) -> bool:
        """Whether the watcher is there, and what was done to a file of ours came through."""
        deaf = self._pulse.age_s("watcher", now) > _DEAF_S and now - self._watched_at > _DEAF_S
        return self._watcher.alive and not deaf

    def _disk_has_room(self) -> bool:
        free = free_bytes(self._spool.root)
        self._metrics.disk_free.set(free)
        reserve = self._config.storage.reserve_bytes
        if free >= reserve:
            self._health.clear("disk")
            return True
        self._health.fault(
            "disk",
            f"{free:,} bytes are free, {reserve:,} are kept in reserve: nothing new is begun",
        )
        return False

    def _describe(self) -> None:
        """The gauges that stay."""
        self._metrics.workers.set(self._count)
        for hook in self._config.hooks:
            for outcome in ("delivered", "failed", "dead"):
                self._metrics.hook_deliveries.labels(hook.name, outcome)
        self._metrics.sandbox_enabled.set(self._zygote.sandboxed)
        if not self._zygote.sandboxed:
            self._log.warning("sandbox_off", detail="this kernel has no Landlock for decoders")

    def _tell(self, now: float, *, force: bool = False) -> None:
        """Gauges, and ``state/live.json`` for the commands, when something is different."""
        news = self._engine.busy or self._ledger.has_changed or not self._intake.is_empty
        due_at = self._tell_at + (0.0 if news else _TELL_AT_REST_S)
        if self._offline or (now < due_at and not force):
            return
        began = time.monotonic()
        self._tell_of_all(now, force=force)
        # With much in the inboxes, or much that ended lately, to tell of it all takes its time.
        self._tell_at = now + max(_TICK_S, _TELL_EVERY * (time.monotonic() - began))

    def _tell_of_all(self, now: float, *, force: bool) -> None:
        self._metrics.set_waiting(*self._intake.waiting_counts(now))
        self._metrics.watcher_alive.set(
            self._watcher.alive and "watches" not in self._health.reasons()
        )
        self._metrics.set_watcher_mode(self._watcher.mode)
        self._metrics.workers_busy.set(self._engine.busy)
        self._metrics.paused.set(bool(self._pauses))
        self._metrics.hooks_dead.set(count_dead(self._spool))
        self._metrics.disk_reserved.set(
            self._config.storage.reserve_bytes + self._room.reserved_bytes()
        )
        if now >= self._set_ages_at:
            self._ledger.set_ages(_now())
            self._set_ages_at = now + _AGES_EVERY_S
        waiting = self._intake.waiting(now)
        live: dict[str, Any] = {
            "pid": os.getpid(),
            "version": __version__,
            "progress": self._ledger.progress(),
            "held_up": {
                id_: {"why": why, "detail": detail}
                for id_, (why, detail) in list(self._engine.waiting.items())
            },
            "waiting": waiting,
            "paused": {**self._pauses.document, "held": self._engine.held},
            "workers": {"busy": self._engine.busy, "of": self._count},
            "watcher": {"mode": self._watcher.mode, "alive": self._watcher.alive},
            "sandbox": self._zygote.sandboxed,
            "health": self._health.reasons(),
        }
        if self._ledger.take_changed() or live != self._told or force:
            self._write_notes(waiting)
        if live == self._told and not force:
            return
        self._told = live
        text = json.dumps({"at": manifest.utc(_now()), **live})
        temporary = self._spool.state / ".live.json"
        with self._told_of_faults("live"):
            temporary.write_text(text)
            temporary.rename(self._spool.state / "live.json")
        systemd.notify(f"STATUS={self._summary()}")

    def _write_notes(self, waiting: list[dict[str, Any]]) -> None:
        """Tell those who see only the share; a fault there holds up no slide."""
        notes = self._ledger.notes(_now())
        for drop in waiting:
            if drop["user"]:
                notes[drop["path"]] = feedback.of_drop(
                    drop["user"], drop["path"], drop["why"], drop["detail"], drop["size_bytes"]
                )
        with self._told_of_faults("feedback"):
            self._notes.show(notes)

    def _summary(self) -> str:
        counts, _, _ = self._intake.waiting_counts(time.monotonic())
        return f"{self._engine.busy} in work, {counts.total()} waiting in the inboxes"

    def _end_work(self) -> None:
        self._stop.set()
        self._intake.stop()
        now = time.monotonic()
        while arrived := self._intake.collect(now):
            self._collect(arrived, now)
        self._engine.stop()
        self._index.look(finish(self._spool))

    def _new_id(self, now: datetime, name: str) -> UploadedFileId:
        return UploadedFileId(names.new_id(now, name, self._random))

    def _wake(self) -> None:
        self._wakeups.put(None)

    def _thread_died(self, died: threading.ExceptHookArgs) -> None:
        """One line and no traceback; who needs the thread looks after it."""
        name = died.thread.name if died.thread else "unknown"
        said = f"{died.exc_type.__name__}: {died.exc_value}"
        self._log.error("thread_died", thread=name, error=said)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def end(number: int, _frame: object) -> None:
            # No lock may be taken here: the thread that it interrupts may hold it.
            self._asked_to_end = signal.Signals(number).name
            self._wake()

        def again(_number: int, _frame: object) -> None:
            self._asked_to_reload = True
            self._wake()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, again)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_now = partial(datetime.now, UTC)
