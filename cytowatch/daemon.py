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
from cytowatch.lifecycle.heap import Heap, share_one_arena
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
    share_one_arena()
    logs.configure(config.log.level, config.log.format)
    asked, told = Asked(), Health(config.root)
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
    """A file for anyone who mends the defect that `error` is; None for what the machine did."""
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
        self._heap = Heap()
        self._looking = Looking(parts)
        self._work = Work(parts, self._presence)
        self._teller = Teller(parts, self._presence, self._work)
        #: Whether it has come up: what goes wrong then is not a matter of the start.
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
            do("heap", partial(self._heap.give_back, now), None)
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
            *(t for t in (put_off, self._teller.due_at) if t),
            *(t for t in (parts.intake.next_due(), parts.engine.next_due()) if t),
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
        self._looking.scan(now, whole=True)
        return self._parts.intake.idle(now, patience_s=_PATIENCE_S)

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
