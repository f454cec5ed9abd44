"""The parts of the daemon, made for one tree and wired to each other."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cytowatch import aside
from cytowatch.config import Config
from cytowatch.decoder.cluster import Cluster
from cytowatch.decoder.decoding import Decoders
from cytowatch.decoder.forks import Zygote
from cytowatch.engine.engine import Engine, workers
from cytowatch.engine.firsts import Contents
from cytowatch.engine.hashing import Hasher
from cytowatch.engine.treatment import Treatment
from cytowatch.hooks.deliver import Courier
from cytowatch.hooks.pending import Pending
from cytowatch.inbox.folders import Folders
from cytowatch.inbox.intake import Intake
from cytowatch.inbox.watch import Watcher
from cytowatch.lifecycle import clock
from cytowatch.lifecycle.counts import Ledger
from cytowatch.lifecycle.duties import Duties
from cytowatch.lifecycle.mending import Indexing
from cytowatch.lifecycle.port import Listener
from cytowatch.lifecycle.signals import Asked
from cytowatch.observe import logs
from cytowatch.observe.feedback import Notes
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from cytowatch.observe.pulse import Pulse
from cytowatch.observe.versions import software
from cytowatch.record import names
from cytowatch.record.names import UploadedFileId
from cytowatch.transitions.moves import Transitions
from cytowatch.tree import announced
from cytowatch.tree.index.index import Index
from cytowatch.tree.room import Room, free
from cytowatch.tree.spool import Spool

__all__ = ["STILL_S", "Current", "Outside", "Parts", "assemble"]

#: If a part does not move for this long, systemd's watchdog is not fed.
STILL_S = 120.0
_STAGES = "CYTOWATCH_TEST_STAGES"


@dataclass(slots=True)
class Current:
    """The configuration in use; a reload puts another one in its place."""

    config: Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Parts that exist before the tree does, and outlive an attempt to start."""

    asked: Asked
    health: Health
    metrics: Metrics
    listener: Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that the duties of the main loop work with."""

    outside: Outside
    current: Current
    spool: Spool
    log: Any
    duties: Duties
    index: Index
    indexing: Indexing
    ledger: Ledger
    notes: Notes
    hasher: Hasher
    courier: Courier
    decoders: Decoders
    room: Room
    folders: Folders
    intake: Intake
    engine: Engine
    pulse: Pulse
    watcher: Watcher
    #: Set when events were lost, or more is to be seen than they say: all inboxes are scanned.
    scan_now: threading.Event
    #: Set when the daemon ends: what is in work is put down.
    stop: threading.Event

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return self.current.config

    @property
    def health(self) -> Health:
        """What ``/healthz`` reports."""
        return self.outside.health

    @property
    def metrics(self) -> Metrics:
        """What ``/metrics`` shows."""
        return self.outside.metrics


def assemble(spool: Spool, config: Config, outside: Outside) -> Parts:
    """All parts of a daemon for `spool`; nothing of them has begun to work."""
    log, health, metrics, wake = logs.get(), outside.health, outside.metrics, outside.asked.wake
    stop, scan_now = threading.Event(), threading.Event()
    defects = spool.state / "reports"
    index = Index(spool)
    ledger = Ledger(
        metrics, log, index, defects=defects,
        status_for=timedelta(days=config.feedback.status_days),
    )  # fmt: skip
    moves = Transitions(
        spool=spool, index=index, config=config, observer=ledger, now=clock.now,
        monotonic=time.monotonic,
    )  # fmt: skip
    chance = random.Random()

    def new_id(now: datetime, name: str) -> UploadedFileId:
        return UploadedFileId(names.new_id(now, name, chance))

    made_by = software()
    folders = Folders(moves, make_id=new_id, software=made_by, settings=config.storage)
    intake = Intake(
        spool, config, now=clock.now, make_id=new_id, software=made_by, folders=folders,
        wake=wake, images_of=index.images_of,
    )  # fmt: skip
    decoders = _decoders(spool, config)
    room = Room(lambda: free(spool.root), lambda: announced.read(spool.inbox))
    treatment = Treatment(
        transitions=moves, decoders=decoders, contents=Contents(), room=room, stop=stop
    )
    pulse = Pulse(
        {
            "watcher": STILL_S,
            "scanner": STILL_S + 3 * config.inbox.rescan_s,
            "scheduler": STILL_S,
        },
        now=time.monotonic(),
    )

    def events_were_lost() -> None:
        """Called from the watcher's thread."""
        log.warning("events_lost", detail="more came than the kernel keeps: all is scanned")
        scan_now.set()
        wake()

    def hook_told(one: Pending, outcome: str) -> None:
        """Called from the courier's threads."""
        metrics.hook_deliveries.labels(one.hook, outcome).inc()
        tell = log.info if outcome == "delivered" else log.warning
        tell(
            "hook", hook=one.hook, outcome=outcome, id=one.id, status=one.status, tries=one.tries,
            said=one.said,
        )  # fmt: skip
        wake()

    watcher = Watcher(
        spool.inbox,
        config.inbox.watch,
        intake.hint,
        events_were_lost,
        requests=spool.requests,
        asked=wake,
        moved=lambda: pulse.beat("watcher", time.monotonic()),
    )
    _tell_what_is_set_aside(metrics, log)
    return Parts(
        outside=outside,
        current=Current(config),
        spool=spool,
        log=log,
        duties=Duties(health, log, defects),
        index=index,
        indexing=Indexing(index, health, log),
        ledger=ledger,
        notes=Notes(spool.root, config.feedback.dir),
        hasher=Hasher(spool, index, log, wake),
        courier=Courier(spool, config.hooks, hook_told),
        decoders=decoders,
        room=room,
        folders=folders,
        intake=intake,
        engine=Engine(treatment, count=workers(config.engine), wake=wake),
        pulse=pulse,
        watcher=watcher,
        scan_now=scan_now,
        stop=stop,
    )


def _decoders(spool: Spool, config: Config) -> Decoders:
    # The tests put stages that crash, hang and pause in the place of the real ones.
    stages = os.environ.get(_STAGES, "cytowatch.stages")
    if config.engine.kind == "dask":
        return Cluster(config, spool.root, stages=stages)
    return Zygote(config, stages=stages)


def _tell_what_is_set_aside(metrics: Metrics, log: Any) -> None:
    def told(one: aside.SetAside) -> None:
        """Called from any thread, when something is set aside first or for another reason."""
        metrics.set_aside.labels(one.where).inc()
        log.warning("set_aside", where=one.where, which=names.printable(one.which), why=one.why)

    aside.reset()
    aside.listen(told)
