"""Every alert, in a real Prometheus: it fires for what it is meant for, and on a healthy daemon none does.

What Prometheus scrapes is written by the daemon's own `Metrics`, with values that would take a daemon hours to
have. The rules are the shipped ones, only without their time to wait (`for`), which promtool tests.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cytowatch.observe.metrics import Metrics
from cytowatch.record.status import Status
from tests.lab.prometheus import HOUSE, Prometheus, missing
from tests.lab.root import HANGS_S
from tests.needs import unless

pytestmark = unless(missing())

#: An alert, and what makes the daemon's metrics such that it fires.
CAUSES: dict[str, Callable[[Metrics], object]] = {
    "CytowatchNoScan": lambda of: of.last_scan.set(time.time() - 700),
    "CytowatchWatcherDead": lambda of: of.watcher_alive.set(0),
    "CytowatchSlideStuckInInbox": lambda of: of.set_waiting({"open_for_writing": 1}, {"open_for_writing": 8000.0, "incomplete": 4000.0}, 5),
    "CytowatchDropIncomplete": lambda _: None,
    "CytowatchSlideStuckInWork": lambda of: of.set_oldest({Status.CONVERTING: 30_000.0}),
    "CytowatchDeploysVeryLate": lambda of: [of.deployed_after.observe(4000) for _ in range(20)],
    "CytowatchDeploysLate": lambda _: None,
    "CytowatchManyErrors": lambda of: [of.error("CONVERTING", "damaged") for _ in range(20)],
    "CytowatchSlidesMissing": lambda of: of.storage_missing.set(2),
    "CytowatchArchiveLostMembers": lambda of: of.archives_with_losses.inc(),
    "CytowatchHooksDead": lambda of: of.hooks_dead.set(1),
    "CytowatchDecodersCrash": lambda of: [of.crash("SIGSEGV") for _ in range(20)],
    "CytowatchDiskFull": lambda of: of.set_free(5, 4),
    "CytowatchInodesGone": lambda _: None,
    "CytowatchDiskFilling": lambda _: None,
    "CytowatchSetAside": lambda of: of.set_aside.labels("row").inc(),
    "CytowatchSandboxOff": lambda of: of.sandbox_enabled.set(0),
}  # fmt: skip
#: What needs a whole day, or the panel, is tested by promtool; what needs a daemon that is gone, below.
ELSEWHERE = {
    "CytowatchNothingDeployed", "CytowatchPanelDown", "CytowatchPanelErrors", "CytowatchDown",
    "CytowatchTargetGone", "CytowatchPausedForLong",
}  # fmt: skip


def healthy() -> Metrics:
    """As a daemon at work has them."""
    made = Metrics([("jpeg", Status.CONVERTED)])
    made.set_files({Status.DEPLOYED: 3})
    made.watcher_alive.set(1)
    made.sandbox_enabled.set(1)
    made.paused.set(0)
    made.last_scan.set(time.time() + 3600)
    made.set_free(10**15, 10**9)
    made.set_reserved(10**9, 1000)
    made.uploads.labels("jpeg", "CONVERTED").inc(5)
    return made


class Daemon:
    """Serves what a `Metrics` says, as the daemon does, on a port of its own."""

    def __init__(self) -> None:
        daemon = self
        self.metrics = healthy()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = daemon.metrics.text()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *_arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Daemon, Prometheus]]:
    rules = tmp_path / "alerts.yml"
    shipped = (HOUSE / "config/prometheus/alerts.yml").read_text()
    rules.write_text(re.sub(r"^        for: .*\n", "", shipped, flags=re.MULTILINE))
    daemon = Daemon()
    server = Prometheus(tmp_path / "prometheus", daemon.port, 1, rules=rules)
    yield daemon, server
    server.stop()
    daemon.stop()


def firing(server: Prometheus) -> set[str]:
    """The alerts that fire; those of the panel, which does not run here, aside."""
    found = {one["metric"]["alertname"] for one in server.query('ALERTS{alertstate="firing"}')}
    return found - {"CytowatchPanelDown"}


def until(true: Callable[[], object], server: Prometheus) -> None:
    end = time.monotonic() + HANGS_S
    while not true():
        assert time.monotonic() < end, f"not firing: {set(CAUSES) - firing(server)}"
        time.sleep(0.2)


def test_each_alert_fires_in_a_real_prometheus(watched: tuple[Daemon, Prometheus]) -> None:
    """None on a healthy daemon; all of them at once on one that has everything wrong; then the daemon is gone."""
    daemon, server = watched
    named = {rule["name"] for rule in server.rules()}
    assert named == {*CAUSES, *ELSEWHERE}
    ours = 'up{job="cytowatch"}'
    until(lambda: server.value(f"sum_over_time({ours}[1m])") >= 4, server)
    # "Nothing was deployed for hours" may be true of a healthy daemon: it is for people's working days.
    assert firing(server) <= {"CytowatchNothingDeployed"}
    for rule in server.rules():
        assert rule["health"] == "ok", rule["name"]
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['name'].lower()}")

    for cause in CAUSES.values():
        cause(daemon.metrics)
    until(lambda: firing(server) >= set(CAUSES), server)
    texts = {
        alert["labels"]["alertname"]: alert["annotations"]
        for rule in server.rules() for alert in rule["alerts"]
    }  # fmt: skip
    for name in CAUSES:
        # Every template was filled in: nothing is left of it, and no value is missing.
        shown = " ".join(texts[name].values())
        assert "{{" not in shown, shown
        assert "<no value>" not in shown
        assert "error" not in texts[name]["summary"].lower() or name == "CytowatchManyErrors"
    daemon.stop()
    until(lambda: "CytowatchDown" in firing(server), server)


def test_a_target_that_is_gone_is_noticed(tmp_path: Path) -> None:
    """Nobody scrapes a cytowatch: that fires, and nothing else."""
    rules = tmp_path / "alerts.yml"
    shipped = (HOUSE / "config/prometheus/alerts.yml").read_text()
    rules.write_text(re.sub(r"^        for: .*\n", "", shipped, flags=re.MULTILINE))
    server = Prometheus(tmp_path / "prometheus", 1, 1, rules=rules, job="other")
    try:
        until(lambda: firing(server) == {"CytowatchTargetGone"}, server)
    finally:
        server.stop()
