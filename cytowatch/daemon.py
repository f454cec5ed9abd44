"""Wiring and life cycle: recover, watch, claim, treat, tell; until a signal or until idle."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cytowatch import __version__, aside, durable, formats
from cytowatch.admin import requests, retry
from cytowatch.config import Config, reloaded
from cytowatch.decoder.child import Zygote
from cytowatch.decoder.cluster import Cluster
from cytowatch.engine.engine import Engine, workers
from cytowatch.engine.firsts import Contents
from cytowatch.engine.hashing import Hasher
from cytowatch.engine.treat import Treatment
from cytowatch.hooks import Pending, count_dead, drop_untrue
from cytowatch.hooks.deliver import Courier
from cytowatch.inbox import claim
from cytowatch.inbox.folders import Folders
from cytowatch.inbox.intake import Claimed, Intake
from cytowatch.inbox.watch import Watcher
from cytowatch.lifecycle import start
from cytowatch.lifecycle.counts import Ledger
from cytowatch.lifecycle.mending import Indexing
from cytowatch.lifecycle.parts import Parts
from cytowatch.lifecycle.start import Asked, Listener, Waiting
from cytowatch.observe import logs, reports, systemd
from cytowatch.observe.feedback import Notes
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from cytowatch.observe.pulse import Pulse
from cytowatch.observe.versions import software
from cytowatch.record import manifest, names
from cytowatch.record.errors import ConfigError, CytowatchError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.transitions.moves import Transitions
from cytowatch.transitions.recover import finish, recover, set_doubles_aside
from cytowatch.tree import pauses
from cytowatch.tree.index.index import Index
from cytowatch.tree.live import FILE_NAME
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.room import Amount, Room, free, spare, too_little
from cytowatch.tree.spool import Spool

__all__ = ["run"]

#: The longest the loop sleeps: so often it looks after watcher, zygote and watchdog.
_TICK_S = 0.5
#: The longest that it leaves to those who do the work when something waits for it.
_LEFT_S = 0.1
#: The longest the loop sleeps with nothing in the inboxes and nothing in work: what comes wakes the loop.
_TICK_AT_REST_S = 2.0
#: The least time between two tellings, as a multiple of what the last one took.
_TELL_EVERY = 10.0
#: So much later when there is nothing to report.
_TELL_AT_REST_S = 2.0
#: The least time between two checks whether every folder is watched, as a multiple of the same.
_UNWATCHED_EVERY = 3000.0
#: How often the ages of the oldest are asked of the index; they are in seconds, and read every 15.
_AGES_EVERY_S = 5.0
#: Threads that wait for the disk are many, and each needs the interpreter only for a moment: with
#: Python's own 5 ms they would spend their time in waiting for it (claims were half as fast).
_SWITCH_S = 0.0005
#: How often the watcher's whole way is tried with a file of our own.
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
_MOST_NAMED = 3
_STAGES = "CYTOWATCH_TEST_STAGES"


def run(
    config: Config,
    *,
    until_idle: bool = False,
    reload: Callable[[], Config] | None = None,
    prepare: Callable[[Config], None] = lambda _: None,
) -> int:
    """Run the daemon of `config.root` until SIGTERM or SIGINT, or until nothing is left to do.

    What stands in the way of a start and passes by itself, such as a full disk, is waited for.

    Parameters
    ----------
    reload
        Gives the configuration as it is now; asked on SIGHUP.
    prepare
        Called before each attempt to start.

    Returns
    -------
    int
        0; with `until_idle` 1 if anything of this run ended in an error, an archive lost members, or it
        was asked to end before it could start.

    Raises
    ------
    ConfigError, RootError
        It cannot start until somebody changes something; the message says what.
    """
    logs.configure(config.log.level, config.log.format)
    asked, told = Asked(), Health()
    metrics = Metrics((one.id, end) for one in formats.FORMATS for end in one.ends)
    listener = Listener(config.metrics.listen, metrics, told, logs.get())
    waiting = Waiting(asked, listener, told, logs.get())
    with asked.signals(), ExitStack() as stack:
        listener.ensure(time.monotonic())
        stack.callback(listener.close)
        while asked.end is None:
            daemon: _Daemon | None = None
            try:
                prepare(config)
                with _locked_root(config) as spool:
                    daemon = _Daemon(
                        spool, config, until_idle=until_idle, reload=reload, asked=asked,
                        told=told, metrics=metrics, listener=listener,
                    )  # fmt: skip
                    return daemon.run()
            except Exception as error:
                if start.is_for_an_admin(error) or (daemon is not None and daemon.started):
                    raise
                waiting.pause(error, _report_of(error, config))
            if asked.take_reload() and reload is not None:
                config = _read_again(config, reload)
    return 1 if until_idle else 0


@contextmanager
def _locked_root(config: Config) -> Iterator[Spool]:
    """The tree at the root, made if need be, held by this process and found to take writes.

    Raises
    ------
    RootError
        It cannot be used.
    OSError
        It cannot be used now.
    """
    spool = Spool.create(Path(config.root))
    with spool.lock(patience_s=_PATIENCE_FOR_LOCK_S):
        with suppress(OSError):
            # What is to be deleted anyway may be all the room that is missing.
            spool.empty_trash()
        spool.remove_temporaries()
        spool.try_writing()
        if config.storage.group:
            spool.share_with(config.storage.group)
        yield spool


def _report_of(error: Exception, config: Config) -> str | None:
    """A file for anyone who mends the defect that `error` is; None for what the machine did."""
    if isinstance(error, OSError | CytowatchError):
        return None
    text = "".join(traceback.format_exception(error))
    return reports.keep(Path(config.root) / "state" / "reports", "start", text, now=_now())


def _read_again(config: Config, reload: Callable[[], Config]) -> Config:
    """The configuration as it is now: before the start all of it may change; `config` if it is wrong."""
    try:
        with aside.fence("part", "reload", but=(ConfigError, OSError)):
            return reload()
        logs.get().error("reload_refused", detail="unexpected error")
    except (ConfigError, OSError) as error:
        logs.get().error("reload_refused", detail=start.words(error))
    return config


class _Daemon:
    """Guards the one main loop; everything here runs in the main thread unless it says otherwise."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        until_idle: bool,
        reload: Callable[[], Config] | None,
        asked: Asked,
        told: Health,
        metrics: Metrics,
        listener: Listener,
    ) -> None:
        self._spool = spool
        self._config = config
        self._until_idle = until_idle
        self._log = logs.get()
        aside.reset()
        aside.listen(self._set_aside_told)
        self._metrics = metrics
        self._health = told
        self._asked = asked
        self._listener = listener
        self._wake = asked.wake
        self._parts = Parts(told, self._log, spool.state / "reports")
        #: Whether it has come up: what goes wrong then is not a matter of the start.
        self.started = False
        self._stop = threading.Event()
        self._count = workers(config.engine)
        self._room = Room(lambda: free(spool.root))
        self._index = Index(spool)
        self._ledger = Ledger(
            self._metrics,
            self._log,
            self._index,
            status_for=timedelta(days=config.feedback.status_days),
            defects=spool.state / "reports",
        )
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
        moves = Transitions(
            spool=spool, index=self._index, config=config, observer=self._ledger, now=_now,
            monotonic=time.monotonic,
        )  # fmt: skip
        self._folders = Folders(
            moves, make_id=self._new_id, software=software(), settings=config.storage
        )  # fmt: skip
        self._intake = Intake(
            spool,
            config,
            now=_now,
            make_id=self._new_id,
            software=software(),
            folders=self._folders,
            wake=self._wake,
            images_of=self._index.images_of,
        )
        self._engine = Engine(
            Treatment(
                transitions=moves,
                decoders=self._zygote,
                contents=Contents(),
                room=self._room,
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
        self._pauses = Pauses()
        self._reload = reload

    def run(self) -> int:
        claim.prepare_process()
        sys.setswitchinterval(_SWITCH_S)
        threading.excepthook = self._thread_died
        with ExitStack() as stack:
            stack.callback(self._index.close)
            stack.callback(self._indexing.stop)
            # An attempt to start that fails leaves no threads behind.
            stack.callback(self._engine.stop)
            stack.callback(self._intake.stop)
            self._zygote.start()
            stack.callback(self._zygote.stop)
            self._recover()
            stack.callback(self._end_work)
            self._watch()
            stack.callback(self._watcher.stop)
            self._courier.start()
            stack.callback(self._courier.stop)
            self._hasher.start()
            stack.callback(self._hasher.stop)
            self._describe()
            self._parts.do("inbox", partial(self._scan, time.monotonic()), None)
            self.started = True
            self._health.clear("start")
            systemd.notify("READY=1", f"STATUS={self._summary()}")
            self._log.info("ready", root=str(self._spool.root), workers=self._count)
            self._loop()
            self._log.info("stopping", signal=self._asked.end)
            systemd.notify("STOPPING=1")
        self._parts.do("telling", partial(self._tell, time.monotonic(), force=True), None)
        errors, with_losses = self._ledger.errors, self._ledger.with_losses
        self._log.info("stopped", ended_in_error=errors, with_losses=with_losses)
        return 1 if self._until_idle and (errors or with_losses) else 0

    def _loop(self) -> None:
        do = self._parts.do
        while self._asked.end is None:
            now = time.monotonic()
            self._parts.ailing = False
            if not do("tree", self._root_is_there, otherwise=True):
                systemd.notify("WATCHDOG=1")
                for part in ("watcher", "scanner", "scheduler"):
                    self._pulse.beat(part, now)
                self._sleep(now, None)
                continue
            if self._scan_now or now - self._scanned_at >= self._config.inbox.rescan_s:
                do("inbox", partial(self._scan, now), None)
            put_off = do("hints", partial(self._look_on, now), None)
            # A fault that is reported, and a full disk, are moves as well.
            self._pulse.beat("scheduler", now)
            do("claims", partial(self._begin_some, now), None)
            do("collecting", partial(self._collect_claimed, now), None)
            do("mending", partial(self._mend, now), None)
            do("requests", partial(self._requests, now), None)
            if self._asked.take_reload():
                self._reload_configuration()
            do("processes", self._zygote.ensure_alive, None)
            do("listening", partial(self._listener.ensure, now), None)
            do("watching", partial(self._keep_watching, now), None)
            do("watchdog", partial(self._feel_pulse, now), None)
            do("telling", partial(self._tell, now), None)
            if self._until_idle and do("idle", partial(self._idle, now), otherwise=False):
                return
            self._sleep(now, put_off)

    def _collect_claimed(self, now: float) -> None:
        self._collect(self._intake.collect(now), now)

    def _collect_all(self, now: float) -> None:
        """In a turn only some are taken up."""
        while arrived := self._intake.collect(now):
            self._collect(arrived, now)

    def _begin_some(self, now: float) -> None:
        lacks = self._lacking_room()
        if lacks is not None:
            self._intake.hold(now, lacks)
        else:
            self._pauses = pauses.read(self._spool)
            self._engine.hold(self._pauses)
            self._intake.claim_due(now, self._pauses)
            self._engine.start_some(now)

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

    def _mend(self, now: float) -> None:
        """Put right what a fault has left of claims, or say why it cannot be."""
        self._collect(self._intake.mend(), now)
        for id_, why in self._intake.kept.items():
            self._health.fault("kept", f"state/tmp/{id_}: {why}")
        if not self._intake.kept:
            self._health.clear("kept")

    def _sleep(self, now: float, put_off: float | None) -> None:
        worked_s = time.monotonic() - now
        due_at = self._parts.do("due", partial(self._due_at, now, put_off), now + _TICK_S)
        self._asked.sleep(due_at - time.monotonic())
        # A turn costs more the more there is: half of the time is left to those who do the work. And a
        # part that fails must not be tried as fast as this machine can.
        self._stop.wait(_TICK_S if self._parts.ailing else min(_LEFT_S, worked_s))
        self._asked.forget_wakeups()

    def _due_at(self, now: float, put_off: float | None) -> float:
        """When there is something to do next."""
        quiet = self._intake.is_empty and self._engine.idle and not self._ledger.has_changed
        rests = quiet and not self._until_idle
        times = [
            now + (_TICK_AT_REST_S if rests else _TICK_S),
            self._scanned_at + self._config.inbox.rescan_s,
            *(t for t in (put_off, self._intake.next_due(), self._engine.next_due()) if t),
        ]
        return min(times)

    def _idle(self, now: float) -> bool:
        return (
            self._engine.idle
            and self._courier.idle()
            and self._hasher.idle()
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
        self._intake.scan_all(now, events_lost=lost, whole=whole)
        self._scanned_at = now
        began = time.monotonic()
        if now >= self._look_for_unwatched_at:
            self._parts.do("unwatched", self._look_for_unwatched, None)
            took_s = time.monotonic() - began
            # What is wrong is looked at with every scan until it is right again.
            pause_s = 0.0 if self._unwatched else _UNWATCHED_EVERY * took_s
            self._look_for_unwatched_at = now + pause_s
        self._parts.do("indexing", self._indexing.look, None)
        self._parts.do("indexing again", partial(self._ledger.again, self._spool), None)
        self._parts.do("missing", partial(self._indexing.look_for_vanished, now), None)

    def _look_for_unwatched(self) -> None:
        """Say so if folders are watched only by the scan; one that is just made may not be yet."""
        before = self._unwatched
        self._unwatched, crowded = self._watcher.unwatched()
        if before and self._unwatched:
            cause = (
                f"{names.printable(', '.join(crowded[:_MOST_NAMED]))} has more of them than one user may"
                if crowded
                else "the kernel has no watches left"
            )
            self._health.fault(
                "watches",
                f"of {self._unwatched} folders no events come, {cause} "
                "(fs.inotify.max_user_watches): drops there are found by the scan every "
                f"{self._config.inbox.rescan_s:g} s",
            )
        else:
            self._health.clear("watches")

    def _collect(self, arrived: list[Claimed], now: float) -> None:
        self._ledger.arrived([claimed.id for claimed in arrived])
        for claimed in arrived:
            self._engine.submit(claimed.user, claimed.id, claimed.size_bytes)
            with aside.fence("uploaded_file", claimed.id):
                self._tell_claimed(claimed)
            # A free thread must not wait for the next turn of the loop.
            self._engine.start_some(now)
        self._engine.start_some(now)

    def _tell_claimed(self, claimed: Claimed) -> None:
        self._metrics.received_bytes.inc(claimed.size_bytes)
        self._log.info(
            "claimed",
            id=claimed.id,
            user=claimed.user,
            name=names.printable(claimed.name),
            bytes=claimed.size_bytes,
            seconds=round(claimed.settled_s, 3),
        )

    def _reload_configuration(self) -> None:
        """Take over what of the configuration may change, and name what may not."""
        if self._reload is None:
            return
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        with aside.fence("part", "reload") as fenced:
            self._take_over(self._reload)
        if fenced.failed:
            [one] = [one for one in aside.all_of("part") if one.which == "reload"]
            self._log.error("reload_refused", detail=f"unexpected error: {one.why}")
            # It is tried again when somebody asks for it, and not before.
            aside.clear("part", "reload")
        systemd.notify("READY=1")

    def _take_over(self, reload: Callable[[], Config]) -> None:
        try:
            config, changed, refused = reloaded(self._config, reload())
        except (ConfigError, OSError) as error:
            self._log.error("reload_refused", detail=start.words(error))
            return
        self._config = config
        self._intake.reconfigure(config)
        self._engine.reconfigure(config)
        self._zygote.reconfigure(config)
        self._folders.reconfigure(config)
        self._courier.reconfigure(config.hooks)
        logs.configure(config.log.level, config.log.format)
        self._log.info("reloaded", changed=changed, needs_a_restart=refused)

    def _requests(self, now: float) -> None:
        """Do what commands have asked for, and take up what they sent back to a stage."""
        for done in requests.answer_all(self._spool, self._index, now=_now()):
            self._log.info("requested", **done.request, **done.answer)
            with aside.fence("request", done.name):
                self._follow(done)
        if now - self._pruned_at <= _PRUNE_EVERY_S:
            return
        self._pruned_at = now
        self._ledger.look_for_returned(self._spool, _now())
        requests.sweep(self._spool, now_s=time.time())
        days = self._config.storage.keep_errors_days
        for status, id_ in list(retry.expired(self._spool, now=_now(), days=days)):
            with aside.fence("uploaded_file", id_):
                retry.remove(self._spool, id_, self._index, even_linked=True)
                self._log.info("expired", id=id_, days=days)
                self._ledger.left(status, id_)

    def _follow(self, done: requests.Answered) -> None:
        """Take note of what was done to an uploaded file, and take it up if it was sent back."""
        if done.request.get("do") == "reindex":
            self._indexing.begin()
        if "error" in done.answer or done.before is None:
            return
        if done.request["do"] in ("link", "unlink"):
            # It stays where it is.
            return
        id_ = UploadedFileId(done.request["id"])
        self._ledger.left(done.before, id_)
        if done.request["do"] == "return":
            self._ledger.look_for_returned(self._spool, _now())
        if done.request["do"] == "retry" and done.answer["said"] != "inbox":
            self._ledger.arrived([id_], Status[done.answer["said"]])
            found = self._spool.find(id_)
            if found is not None:
                self._engine.submit(self._user_of(found[1]), id_)

    def _user_of(self, path: Path) -> str:
        try:
            return manifest.read(path)["user"]
        except (OSError, ManifestError):
            # Whose turn it is does not matter so much as that it comes.
            return "unknown"

    def _set_aside_told(self, one: aside.SetAside) -> None:
        """Called from any thread, when something is set aside first or for another reason."""
        self._metrics.set_aside.labels(one.where).inc()
        which = names.printable(one.which)
        self._log.warning("set_aside", where=one.where, which=which, why=one.why)

    def _recover(self) -> None:
        for id_, outcome in claim.recover(self._spool, self._config.storage).items():
            self._log.warning("claim_recovered", id=id_, outcome=outcome)
        for id_, status, place in set_doubles_aside(self._spool):
            self._log.warning("second_copy", id=id_, status=status.name, path=str(place))
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
            # It is reported and tried again: no reason for systemd to end the daemon.
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

    def _keep_watching(self, now: float) -> None:
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

    def _feel_pulse(self, now: float) -> None:
        """Let systemd know that all goes on, as long as it does."""
        self._parts.hear_others()
        still = self._pulse.still(now)
        if not still:
            systemd.notify("WATCHDOG=1")
            self._health.clear("pulse")
        for part, age_s in still.items():
            self._health.fault("pulse", f"the {part} has not moved for {age_s:.0f} s")

    def _hears(self, now: float) -> bool:
        """Whether the watcher is there, and what was done to a file of our own came through."""
        deaf = self._pulse.age_s("watcher", now) > _DEAF_S and now - self._watched_at > _DEAF_S
        return self._watcher.alive and not deaf

    def _lacking_room(self) -> str | None:
        """What the disk lacks for anything new to begin; None if there is room."""
        there = free(self._spool.root)
        kept = spare(self._config.storage, there)
        self._metrics.set_free(there.bytes, there.inodes or 0)
        if lacks := too_little(there, Amount(), kept):
            self._health.fault("disk", f"{lacks}: nothing new is begun")
            return lacks
        self._health.clear("disk")
        return None

    def _describe(self) -> None:
        """The gauges that stay."""
        self._metrics.workers.set(self._count)
        for hook in self._config.hooks:
            for outcome in ("delivered", "failed", "dead"):
                self._metrics.hook_deliveries.labels(hook.name, outcome)
        self._metrics.sandbox_enabled.set(self._zygote.sandboxed)
        if not self._zygote.sandboxed:
            self._log.warning(
                "sandbox_off",
                detail="this kernel has no Landlock, or no filter of system calls, for decoders: "
                "`cytowatch check` names what they can do",
            )

    def _tell(self, now: float, *, force: bool = False) -> None:
        """Gauges, and ``state/live.json`` for the commands, when something is different."""
        news = self._engine.busy or self._ledger.has_changed or not self._intake.is_empty
        due_at = self._tell_at + (0.0 if news else _TELL_AT_REST_S)
        if self._offline or (now < due_at and not force):
            return
        began = time.monotonic()
        self._tell_of_all(now, force=force)
        # With much in the inboxes, or much that ended lately, reporting it all takes its time.
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
        kept = spare(self._config.storage, free(self._spool.root)) + self._room.reserved()
        self._metrics.set_reserved(kept.bytes, kept.inodes)
        if now >= self._set_ages_at:
            self._ledger.set_ages(_now())
            self._metrics.storage_missing.set(len(self._index.missing()))
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
            "set_aside": reports.set_aside(),
        }
        if self._ledger.take_changed() or live != self._told or force:
            self._write_notes([*waiting, *self._intake.left(now)])
        if live == self._told and not force:
            return
        self._told = live
        self._parts.do("live", partial(self._write_live, live), None)
        systemd.notify(f"STATUS={self._summary()}")

    def _write_live(self, live: dict[str, Any]) -> None:
        temporary = self._spool.state / f".{FILE_NAME}"
        text = json.dumps({"at": manifest.utc(_now()), **live}, ensure_ascii=False)
        durable.write_fresh(temporary, text)
        durable.move_over(temporary, self._spool.state / FILE_NAME)

    def _write_notes(self, waiting: list[dict[str, Any]]) -> None:
        """Tell those who see only the share; a fault there holds up no slide."""
        notes = self._ledger.notes(_now(), waiting)
        self._parts.do("feedback", partial(self._notes.show, notes), None)

    def _summary(self) -> str:
        counts, _, _ = self._intake.waiting_counts(time.monotonic())
        return f"{self._engine.busy} in work, {counts.total()} waiting in the inboxes"

    def _end_work(self) -> None:
        self._stop.set()
        do = self._parts.do
        do("putting down", self._intake.stop, None)
        do("collecting", partial(self._collect_all, time.monotonic()), None)
        self._engine.stop()
        do("finishing", lambda: self._index.look(finish(self._spool)), None)

    def _new_id(self, now: datetime, name: str) -> UploadedFileId:
        return UploadedFileId(names.new_id(now, name, self._random))

    def _thread_died(self, died: threading.ExceptHookArgs) -> None:
        """One line and no traceback; who needs the thread looks after it."""
        name = died.thread.name if died.thread else "unknown"
        said = f"{died.exc_type.__name__}: {died.exc_value}"
        self._log.error("thread_died", thread=name, error=said)


_now = partial(datetime.now, UTC)
