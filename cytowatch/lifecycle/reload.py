"""SIGHUP: what of a changed configuration a running daemon takes over."""

from __future__ import annotations

import time
from collections.abc import Callable

from cytowatch import aside
from cytowatch.config import Config, reloaded
from cytowatch.lifecycle import start
from cytowatch.lifecycle.parts import Parts
from cytowatch.observe import logs, systemd
from cytowatch.record.errors import ConfigError

__all__ = ["before_a_start", "take_over"]


def take_over(parts: Parts, read: Callable[[], Config]) -> None:
    """Take over what of the configuration may change, and name what may not; a wrong one changes nothing."""
    systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    with aside.fence("part", "reload") as fenced:
        _take_over(parts, read)
    if fenced.failed:
        parts.log.error("reload_refused", detail=f"unexpected error: {fenced.why}")
        # It is tried again at the next reload, and not before.
        aside.clear("part", "reload")
    systemd.notify("READY=1")


def before_a_start(config: Config, read: Callable[[], Config]) -> Config:
    """The configuration as it is now: before the start all of it may change; `config` if it is wrong."""
    try:
        with aside.fence("part", "reload", but=(ConfigError, OSError)):
            return read()
        logs.get().error("reload_refused", detail="unexpected error")
    except (ConfigError, OSError) as error:
        logs.get().error("reload_refused", detail=start.words(error))
    return config


def _take_over(parts: Parts, read: Callable[[], Config]) -> None:
    try:
        config, changed, refused = reloaded(parts.config, read())
    except (ConfigError, OSError) as error:
        parts.log.error("reload_refused", detail=start.words(error))
        return
    parts.current.config = config
    for part in (parts.intake, parts.engine, parts.decoders, parts.folders):
        part.reconfigure(config)
    parts.courier.reconfigure(config.hooks)
    logs.configure(config.log.level, config.log.format)
    parts.log.info("reloaded", changed=changed, needs_a_restart=refused)
