"""The port of ``/metrics`` and ``/healthz``."""

from __future__ import annotations

from typing import Any

from cytowatch.observe import health
from cytowatch.observe.health import Health, Server
from cytowatch.observe.metrics import Metrics
from cytowatch.record.errors import RootError

__all__ = ["Listener"]

#: How often a port that is taken is tried again.
_LISTEN_EVERY_S = 5.0


class Listener:
    """Guards the server of ``/metrics`` and ``/healthz``: a port that is taken, and a thread that died.

    Slides matter more than figures: without it everything else goes on.
    """

    def __init__(self, listen: str, metrics: Metrics, told: Health, log: Any) -> None:
        self._listen = listen
        self._metrics = metrics
        self._health = told
        self._log = log
        self._server: Server | None = None
        self._again_at = float("-inf")

    def ensure(self, now: float) -> None:
        """Listen, if nothing listens yet and it is time to try."""
        if not self._listen or now < self._again_at:
            return
        if self._server is not None:
            if self._server.alive:
                return
            self.close()
        self._again_at = now + _LISTEN_EVERY_S
        try:
            self._server = health.serve(self._listen, self._metrics, self._health)
        except RootError as error:
            if self._health.reasons().get("metrics") != str(error):
                self._log.error("no_metrics", detail=str(error))
            self._health.fault("metrics", str(error))
            return
        self._again_at = float("-inf")
        self._health.clear("metrics")
        self._log.info("listening", address=self._server.address)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None
