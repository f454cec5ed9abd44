"""A real Prometheus on a loopback port, with the rules of config/prometheus."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.lab.root import HANGS_S
from tests.lab.told import free_port
from tests.needs import lacking

HOUSE = Path(__file__).resolve().parents[2]


def missing() -> str | None:
    """Why no Prometheus can be started here."""
    return lacking("prometheus", "promtool")


class Prometheus:
    """One server that scrapes one daemon, and one panel, every second."""

    def __init__(
        self, folder: Path, target: int, panel: int, *, rules: Path | None = None,
        job: str = "cytowatch",
    ) -> None:  # fmt: skip
        """Scrape the ports `target` and `panel`; `rules` stand for the shipped ones, `job` for the daemon's name."""
        self.port = free_port()
        folder.mkdir()
        config = folder / "prometheus.yml"
        scrape = (HOUSE / "config/prometheus/scrape.yml").read_text()
        scrape = scrape.replace(
            "/etc/prometheus/cytowatch-alerts.yml",
            str(rules or HOUSE / "config/prometheus/alerts.yml"),
        )
        scrape = scrape.replace("job_name: cytowatch\n", f"job_name: {job}\n")
        scrape = scrape.replace("127.0.0.1:9755", f"127.0.0.1:{target}").replace("15s", "1s")
        scrape = scrape.replace("127.0.0.1:9780", f"127.0.0.1:{panel}")
        config.write_text("global: {evaluation_interval: 1s}\n" + scrape)
        subprocess.run(["promtool", "check", "config", config], check=True, capture_output=True)
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + HANGS_S
        while time.monotonic() < end:
            try:
                urlopen(f"http://127.0.0.1:{self.port}/-/ready").read()
            except (URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise AssertionError((folder / "log").read_text()[-2000:])

    def _ask(self, path: str, **words: Any) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(words)}") as answer:
            return json.loads(answer.read())["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        found: list[dict[str, Any]] = self._ask("query", query=expr)["result"]
        return found

    def value(self, expr: str) -> float:
        """The one value of an expression, or nan."""
        found = self.query(expr)
        return float(found[0]["value"][1]) if found else float("nan")

    def range(self, expr: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """Its values over the last `seconds`."""
        now = time.time()
        found: list[dict[str, Any]] = self._ask(
            "query_range", query=expr, start=now - seconds, end=now, step=step
        )["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """The alerts as the server has loaded them."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(HANGS_S)
