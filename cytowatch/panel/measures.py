"""The panel's own metrics, ``cytowatch_panel_*``: labels without any user, file or project."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cytowatch import __version__

__all__ = ["ROUTES", "Measures"]

#: What is asked for: the label `route`; anything else counts as ``other``.
ROUTES = (
    "storage", "files", "details", "download", "thumbnail", "view", "tile", "iiif", "projects",
    "reasons", "upload", "action", "login", "api", "live", "static", "metrics", "other",
)  # fmt: skip
_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.3, 1, 3, 10)


class Measures:
    """Guards one registry; safe from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.requests = Counter(
            "cytowatch_panel_requests", "Answered requests, by route and class of the status code.",
            ["route", "code"], registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "cytowatch_panel_request_seconds", "How long an answer took, in seconds.",
            ["route"], buckets=_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "cytowatch_panel_errors", "Requests that ended in an unexpected error.",
            registry=self.registry,
        )  # fmt: skip
        self.logins = Counter(
            "cytowatch_panel_logins", "Attempts to log in, by their result.",
            ["result"], registry=self.registry,
        )  # fmt: skip
        self.actions = Counter(
            "cytowatch_panel_actions", "Requested actions, by their result.",
            ["action", "result"], registry=self.registry,
        )  # fmt: skip
        self.build = Gauge(
            "cytowatch_panel_build_info", "1 for the version of the panel.", ["version"],
            registry=self.registry,
        )  # fmt: skip
        self.build.labels(__version__).set(1)
        for route in ROUTES:
            self.requests.labels(route, "2xx")
            self.seconds.labels(route)
        for result in ("good", "wrong", "slowed", "unreachable"):
            self.logins.labels(result)
        for action in ("retry", "return", "link", "unlink", "pause", "resume"):
            for result in ("done", "refused"):
                self.actions.labels(action, result)

    def done(self, scope: Any, code: int, seconds: float) -> str:
        """Count one answer; returns its route."""
        route = getattr(scope.get("route"), "name", None) or scope["state"].get("route") or "other"
        route = route if route in ROUTES else "other"
        self.requests.labels(route, f"{code // 100}xx").inc()
        self.seconds.labels(route).observe(seconds)
        return route

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)
