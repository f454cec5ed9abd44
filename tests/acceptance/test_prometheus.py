"""A real Prometheus watches a daemon under load: every query of dashboard and alerts has data."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cytowatch.record.status import Status
from tests import builders
from tests.lab.panel import Served
from tests.lab.prometheus import HOUSE, Prometheus, missing
from tests.lab.root import STAGES, Root
from tests.lab.told import free_port, metric
from tests.needs import unless

pytestmark = unless(missing())
DASHBOARD = HOUSE / "config/grafana/cytowatch.json"


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def asked(expr: str) -> str:
    """As Grafana asks it: its variables filled in."""
    return expr.replace("$instance", ".*").replace("$__rate_interval", "30s")


@pytest.fixture
def watched(root: Root, tmp_path: Path) -> Iterator[tuple[Root, Prometheus, int]]:
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}", engine="max_attempts = 1")
    root.environment = dict(STAGES)
    (root.path / "inbox" / "ann").mkdir()
    root.start()
    panel = Served(root.path)
    server = Prometheus(tmp_path / "prometheus", port, panel.port)
    yield root, server, port
    server.stop()
    panel.stop()


def load(root: Root, tmp_path: Path, round_: int) -> None:
    """One of everything: native, converted, extracted, failed, crashed, waiting."""
    builders.png(tmp_path / "b.png")
    root.drop(builders.aperio_svs(tmp_path / "a.svs"), f"{round_}.svs")
    root.drop(tmp_path / "b.png", f"{round_}.png")
    root.drop(tmp_path / "b.png", f"segfault-CONVERTING-{round_}.png")
    root.drop(tmp_path / "b.png", f"slow-CONVERTING-{round_}.png")
    (root.path / "inbox" / "ann" / f"{round_}.pdf").write_bytes(b"%PDF-1.4 hello")
    half = (tmp_path / "a.svs").read_bytes()[:-3000]
    (root.path / "inbox" / "ann" / f"half-{round_}.svs").write_bytes(half)


def wait(true: Any, timeout_s: float = 40) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.3)


def test_every_query_has_data(watched: tuple[Root, Prometheus, int], tmp_path: Path) -> None:
    """Of each panel, of each alert; over a restart counters count on and gauges are right at once."""
    root, server, port = watched
    wait(lambda: server.value('sum(up{job=~"cytowatch(-panel)?"})') == 2)
    load(root, tmp_path, 1)
    wait(lambda: server.value('sum(cytowatch_files{status=~"DEPLOYED|CONVERTED"})') == 3)
    load(root, tmp_path, 2)
    wait(lambda: server.value('sum(cytowatch_files{status=~"DEPLOYED|CONVERTED"})') == 6)
    text = urlopen(f"http://127.0.0.1:{port}/metrics").read()
    told = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, b"", b"")

    for panel in panels():
        for target in panel["targets"]:
            found = server.query(asked(target["expr"]))
            assert found, f"{panel['title']}: {target['expr']}"
            assert all(row["value"][1] != "NaN" for row in found) or "quantile" in target["expr"]
    rules = {rule["name"]: rule for rule in server.rules()}
    for name, rule in rules.items():
        assert rule["health"] == "ok", f"{name}: {rule.get('lastError')}"
        for one in set(re.findall(r"cytowatch_[a-z_]+|up(?=\{)", rule["query"])):
            assert server.query(one), f"{name} looks at {one}, of which there is nothing"

    # A restart: what was counted before and after adds up, and nothing reads wrong meanwhile.
    assert (
        server.value('sum(increase(cytowatch_errors_total{reason="unsupported_format"}[2m]))') >= 1
    )
    assert root.stop() == 0
    root.start()
    first = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'cytowatch_files{status="CONVERTED"} 4.0' in first
    assert 'cytowatch_files{status="ERROR_FORMAT"} 2.0' in first
    root.drop(tmp_path / "a.svs", "after.svs")
    wait(lambda: server.value('sum(cytowatch_files{status="DEPLOYED"})') == 3)
    wait(
        lambda: (
            2.5
            < server.value('sum(increase(cytowatch_uploads_total{status="DEPLOYED"}[2m]))')
            < 4.5
        )
    )
    low = server.range('cytowatch_files{status="CONVERTED"}', 30, 1)
    values = [float(value) for row in low for _, value in row["values"]]
    assert values == sorted(values), "a gauge went down over the restart"
    assert root.stop() == 0


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """`promtool test rules`: each one firing, and not firing."""
    rules = HOUSE / "config/prometheus"
    subprocess.run(["promtool", "check", "rules", rules / "alerts.yml"], check=True)
    # It makes a database in TMPDIR for each group, and panics where that is not a directory.
    told = subprocess.run(
        ["promtool", "test", "rules", rules / "alerts.test.yml"],
        check=False, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    tested = (rules / "alerts.test.yml").read_text()
    names = re.findall(r"- alert: (\w+)", (rules / "alerts.yml").read_text())
    assert len(names) >= 12
    for name in names:
        assert name in tested or name in ("CytowatchDiskFull", "CytowatchDiskFilling"), name


def test_each_alert_leads_to_its_section_of_the_runbook() -> None:
    """By an address of the project, to a page and a heading that exist; and no section is of no alert."""
    alerts = (HOUSE / "config/prometheus/alerts.yml").read_text()
    names = re.findall(r"- alert: (\w+)", alerts)
    urls = dict(zip(names, re.findall(r"runbook_url: (\S+)", alerts), strict=True))
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["urls"]
    for name, url in urls.items():
        address, _, anchor = url.partition("#")
        path = address.removeprefix(f"{project['Homepage']}/blob/main/")
        headings = re.findall(r"^## (.+)$", (HOUSE / path).read_text(), re.MULTILINE)
        # As the page is shown, a heading's anchor is its words in small letters.
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings], name
        assert name in headings
    assert set(
        re.findall(r"^## (.+)$", (HOUSE / "docs/runbook.md").read_text(), re.MULTILINE)
    ) == set(names)
    severities = dict(zip(names, re.findall(r"severity: (\w+)", alerts), strict=True))
    sections = (HOUSE / "docs/runbook.md").read_text().split("\n## ")[1:]
    for section in sections:
        name, _, text = section.partition("\n")
        assert text.strip().startswith(f"*{severities[name].title()}.*"), name


def test_the_restarts_are_on_the_dashboard(watched: tuple[Root, Prometheus, int]) -> None:
    """Its annotation gives the moment of the start, as a real Prometheus has it."""
    root, server, _ = watched
    [restarts] = json.loads(DASHBOARD.read_text())["annotations"]["list"]
    assert restarts["useValueForTime"]
    wait(lambda: server.query(asked(restarts["expr"])))
    began = server.value(asked(restarts["expr"])) / 1000
    assert abs(began - time.time()) < 60
    assert root.stop() == 0
    root.start()
    wait(lambda: server.value(asked(restarts["expr"])) / 1000 > began + 0.5)
    assert root.stop() == 0


def test_a_folder_that_grows_alarms_nobody(root: Root, tmp_path: Path) -> None:
    """It is in its stage for as long as something comes: neither an age nor a duration of work."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    # It stays open until this test says otherwise.
    root.configure(listen=listen, inbox={"folder_quiet_s": 600})
    (root.path / "inbox" / "ann" / "day").mkdir(parents=True)
    root.environment = dict(STAGES)
    root.start()
    slide = builders.aperio_svs(tmp_path / "a.svs").read_bytes()
    began = time.monotonic()
    (root.path / "inbox" / "ann" / "day" / "1.svs").write_bytes(slide)
    root.wait(lambda: root.by_name().get("1.svs", {}).get("status") == "DEPLOYED")
    assert root.by_name()["day"]["status"] == "EXTRACTING_DATA"
    # Ages are asked for now and then: that of one that came later is known by then.
    builders.png(tmp_path / "b.png")
    root.drop(tmp_path / "b.png", "hang-CONVERTING.png", user="bob")
    ages = 'cytowatch_oldest_file_age_seconds{status="%s"}'
    root.wait(lambda: metric(port, ages % Status.CONVERTING.name) > 1)
    assert metric(port, ages % Status.EXTRACTING_DATA.name) == 0
    root.configure(listen=listen, inbox={"folder_quiet_s": 0.5})
    root.reload()
    root.wait(lambda: root.by_name()["day"]["status"] == "EXTRACTED")
    assert metric(port, 'cytowatch_stage_seconds_count{stage="EXTRACTING_DATA"}') == 0
    # The slide itself counts, from its last byte; the folder is not a slide.
    assert metric(port, "cytowatch_deployed_after_seconds_count") == 1
    # From its last byte to its end: less than all of this took, however slow this machine is.
    assert 0.3 < metric(port, "cytowatch_deployed_after_seconds_sum") < time.monotonic() - began
    assert root.stop() == 0


def test_the_dashboard_is_as_it_was_made(tmp_path: Path) -> None:
    """By docs/dashboard.py; no panel lies over another, each has a unit and says what it shows."""
    given = importlib.util.spec_from_file_location("dashboard", HOUSE / "docs" / "dashboard.py")
    assert given
    assert given.loader
    made = importlib.util.module_from_spec(given)
    import sys

    sys.modules["dashboard"] = made
    given.loader.exec_module(made)
    assert DASHBOARD.read_text() == made.text()
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        # A sentence: it begins, it ends, and it has some words between.
        assert re.fullmatch(r"[A-Z0-9](\S+ ){4,}\S+\.", panel["description"]), panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
