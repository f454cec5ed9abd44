"""Wiring and life cycle: recover, watch, claim, treat, tell; until a signal or until idle."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from cytowatch import formats
from cytowatch.config import Config
from cytowatch.inbox import claim
from cytowatch.lifecycle import clock, start
from cytowatch.lifecycle.look import Looking
from cytowatch.lifecycle.parts import Outside, Parts, assemble
from cytowatch.lifecycle.port import Listener
from cytowatch.lifecycle.presence import Presence
from cytowatch.lifecycle.reload import before_a_start, take_over
from cytowatch.lifecycle.signals import Asked
from cytowatch.lifecycle.start import Waiting
from cytowatch.lifecycle.take_up import take_up
from cytowatch.lifecycle.tell import Teller
from cytowatch.lifecycle.work import Work
from cytowatch.observe import logs, reports, systemd
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from cytowatch.record.errors import CytowatchError
from cytowatch.transitions.recover import finish
from cytowatch.tree.spool import Spool

__all__ = ["run"]

#: The longest that it leaves to those who do the work when something waits for it.
_LEFT_S = 0.1
#: Threads that wait for the disk are many, and each needs the interpreter only for a moment: with
#: Python's own 5 ms they would spend their time in waiting for it (claims were half as fast).
_SWITCH_S = 0.0005
#: With `until_idle`, a drop that lacks something is waited for if its time is up so soon.
_PATIENCE_S = 60.0
#: A command that changes something where no daemon runs holds the lock for so long at most.
_PATIENCE_FOR_LOCK_S = 2.0


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
    outside = Outside(asked=asked, health=told, metrics=metrics, listener=listener)
    with asked.signals(), ExitStack() as stack:
        listener.ensure(time.monotonic())
        stack.callback(listener.close)
        while asked.end is None:
            daemon: _Daemon | None = None
            try:
                prepare(config)
                with _locked_root(config) as spool:
                    daemon = _Daemon(
                        assemble(spool, config, outside), until_idle=until_idle, reload=reload
                    )
                    return daemon.run()
            except Exception as error:
                if start.is_for_an_admin(error) or (daemon is not None and daemon.started):
                    raise
                waiting.pause(error, _report_of(error, config))
            if asked.take_reload() and reload is not None:
                config = before_a_start(config, reload)
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
    """A file for whoever mends the defect that `error` is; None for what the machine did."""
    if isinstance(error, OSError | CytowatchError):
        return None
    text = "".join(traceback.format_exception(error))
    return reports.keep(Path(config.root) / "state" / "reports", "start", text, now=clock.now())


class _Daemon:
    """Guards the one main loop; everything here runs in the main thread."""

    def __init__(
        self, parts: Parts, *, until_idle: bool, reload: Callable[[], Config] | None
    ) -> None:
        self._parts = parts
        self._asked = parts.outside.asked
        self._until_idle = until_idle
        self._reload = reload
        self._presence = Presence(parts)
        self._looking = Looking(parts)
        self._work = Work(parts, self._presence)
        self._teller = Teller(parts, self._presence, self._work)
        #: Whether it has come up: what goes wrong then is no matter of the start.
        self.started = False

    def run(self) -> int:
        parts = self._parts
        claim.prepare_process()
        sys.setswitchinterval(_SWITCH_S)
        threading.excepthook = self._thread_died
        with ExitStack() as stack:
            stack.callback(parts.index.close)
            stack.callback(parts.indexing.stop)
            # An attempt to start that fails leaves no threads behind.
            stack.callback(parts.engine.stop)
            stack.callback(parts.intake.stop)
            parts.decoders.start()
            stack.callback(parts.decoders.stop)
            take_up(parts)
            stack.callback(self._end_work)
            self._looking.listening.start(time.monotonic())
            stack.callback(parts.watcher.stop)
            parts.courier.start()
            stack.callback(parts.courier.stop)
            parts.hasher.start()
            stack.callback(parts.hasher.stop)
            self._teller.describe()
            parts.duties.do("inbox", partial(self._looking.scan, time.monotonic()), None)
            self.started = True
            parts.health.clear("start")
            systemd.notify("READY=1", f"STATUS={self._teller.summary()}")
            parts.log.info("ready", root=str(parts.spool.root), workers=parts.engine.count)
            self._loop()
            parts.log.info("stopping", signal=self._asked.end)
            systemd.notify("STOPPING=1")
        tell = partial(self._teller.tell, time.monotonic(), force=True)
        parts.duties.do("telling", tell, None)
        errors, with_losses = parts.ledger.errors, parts.ledger.with_losses
        parts.log.info("stopped", ended_in_error=errors, with_losses=with_losses)
        return 1 if self._until_idle and (errors or with_losses) else 0

    def _loop(self) -> None:
        parts, do = self._parts, self._parts.duties.do
        while self._asked.end is None:
            now = time.monotonic()
            parts.duties.ailing = False
            if not do("tree", self._presence.is_there, otherwise=True):
                systemd.notify("WATCHDOG=1")
                for part in ("watcher", "scanner", "scheduler"):
                    parts.pulse.beat(part, now)
                self._sleep(now, None)
                continue
            self._looking.scan_if_due(now)
            put_off = do("hints", partial(self._looking.go_on, now), None)
            # A fault that is reported, and a full disk, are moves as well.
            parts.pulse.beat("scheduler", now)
            do("claims", partial(self._work.begin_some, now), None)
            do("collecting", partial(self._work.collect, now), None)
            do("mending", partial(self._work.mend, now), None)
            do("requests", partial(self._work.do_requests, now), None)
            if self._asked.take_reload() and self._reload is not None:
                take_over(parts, self._reload)
            do("processes", parts.decoders.ensure_alive, None)
            do("listening", partial(parts.outside.listener.ensure, now), None)
            do("watching", partial(self._looking.listening.supervise, now), None)
            do("watchdog", partial(self._looking.listening.feel_pulse, now), None)
            do("telling", partial(self._teller.tell, now), None)
            if self._until_idle and do("idle", partial(self._idle, now), otherwise=False):
                return
            self._sleep(now, put_off)

    def _sleep(self, now: float, put_off: float | None) -> None:
        duties, worked_s = self._parts.duties, time.monotonic() - now
        due_at = duties.do("due", partial(self._due_at, now, put_off), now + clock.TICK_S)
        self._asked.sleep(due_at - time.monotonic())
        # A turn costs more the more there is: half of the time is left to those who do the work. And a
        # part that fails must not be tried as fast as this machine can.
        self._parts.stop.wait(clock.TICK_S if duties.ailing else min(_LEFT_S, worked_s))
        self._asked.forget_wakeups()

    def _due_at(self, now: float, put_off: float | None) -> float:
        """When there is something to do next."""
        parts = self._parts
        quiet = parts.intake.is_empty and parts.engine.idle and not parts.ledger.has_changed
        rests = quiet and not self._until_idle
        times = [
            now + (clock.TICK_AT_REST_S if rests else clock.TICK_S),
            self._looking.due_at(),
            *(t for t in (put_off, parts.intake.next_due(), parts.engine.next_due()) if t),
        ]
        return min(times)

    def _idle(self, now: float) -> bool:
        parts = self._parts
        return (
            parts.engine.idle
            and parts.courier.idle()
            and parts.hasher.idle()
            and parts.intake.idle(now, patience_s=_PATIENCE_S)
            and self._rescan_found_nothing(now)
        )

    def _rescan_found_nothing(self, now: float) -> bool:
        """One more look before going: an event may not have come through yet."""
<<<<<<< HEAD
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
=======
        self._looking.scan(now, whole=True)
        return self._parts.intake.idle(now, patience_s=_PATIENCE_S)
>>>>>>> origin/main

    def _end_work(self) -> None:
        parts, do = self._parts, self._parts.duties.do
        parts.stop.set()
        do("putting down", parts.intake.stop, None)
        do("collecting", partial(self._work.collect_all, time.monotonic()), None)
        parts.engine.stop()
        do("finishing", lambda: parts.index.look(finish(parts.spool)), None)

    def _thread_died(self, died: threading.ExceptHookArgs) -> None:
        """One line and no traceback; who needs the thread looks after it."""
        name = died.thread.name if died.thread else "unknown"
        said = f"{died.exc_type.__name__}: {died.exc_value}"
        self._parts.log.error("thread_died", thread=name, error=said)
