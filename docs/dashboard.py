"""Write config/grafana/cytowatch.json: the dashboard, from the few lines per panel here.

`python docs/dashboard.py`; a test compares. Every query is asked of a real Prometheus in
tests/acceptance/test_prometheus.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parents[1]
FILE = HOUSE / "config" / "grafana" / "cytowatch.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: `queries` are (expression, legend); `width` of 24 columns, `height` in rows."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    stacked: bool = False
    bars: bool = False
    steps: tuple[tuple[str, float | None], ...] = ((_GREEN, None),)


def _of(metric: str, labels: str = "") -> str:
    inside = 'instance=~"$instance"' + (f", {labels}" if labels else "")
    return f"{metric}{{{inside}}}"


def _per_second(metric: str, labels: str = "") -> str:
    return f"rate({_of(metric, labels)}[$__rate_interval])"


def _quantile(share: float) -> str:
    inside = f"sum by (le, stage) ({_per_second('cytowatch_stage_seconds_bucket')})"
    return f"histogram_quantile({share}, {inside})"


_GOOD = 'status=~"DEPLOYED|CONVERTED"'
_BAD = 'status=~"ERROR_.*"'
_WORK = 'status=~"UPLOADED|DETECTING_FORMAT|EXTRACTING_DATA|CONVERTING|DEPLOYING"'

PANELS = (
    Panel(title="Slides in storage", kind="stat", width=4, height=4, unit="short",
          about="Deployed and converted, all users.",
          queries=((f"sum({_of('cytowatch_files', _GOOD)})", ""),)),
    Panel(title="In work", kind="stat", width=4, height=4, about="Received and not at their end.",
          queries=((f"sum({_of('cytowatch_files', _WORK)})", ""),),
          steps=((_GREEN, None), (_YELLOW, 1000))),
    Panel(title="Waiting in inboxes", kind="stat", width=4, height=4, about="Drops that are not claimed yet.",
          queries=((f"sum({_of('cytowatch_inbox_waiting_files')})", ""),)),
    Panel(title="In error", kind="stat", width=4, height=4, about="Kept until they are retried, returned or removed.",
          queries=((f"sum({_of('cytowatch_files', _BAD)})", ""),),
          steps=((_GREEN, None), (_YELLOW, 1), (_RED, 50))),
    Panel(title="Oldest drop", kind="stat", width=4, height=4, unit="s",
          about="How long the oldest drop waits, for any cause.",
          queries=((f"max({_of('cytowatch_inbox_oldest_waiting_seconds')})", ""),),
          steps=((_GREEN, None), (_YELLOW, 3600), (_RED, 86400))),
    Panel(title="Last scan", kind="stat", width=4, height=4, unit="s", about="Since all inboxes were looked at.",
          queries=((f"time() - max({_of('cytowatch_last_scan_timestamp_seconds')})", ""),),
          steps=((_GREEN, None), (_YELLOW, 120), (_RED, 600))),
    Panel(title="Inflow: bytes received", unit="binBps", about="Claimed from the inboxes, a second.",
          queries=((f"sum({_per_second('cytowatch_received_bytes_total')})", "received"),)),
    Panel(title="Outflow: slides an hour", bars=True, stacked=True, about="By how they ended.",
          queries=((f"3600 * sum by (status) ({_per_second('cytowatch_uploads_total')})", "{{status}}"),)),
    Panel(title="Statuses now", stacked=True, about="Everything on its way, by stage.",
          queries=((f"sum by (status) ({_of('cytowatch_files', _WORK)})", "{{status}}"),)),
    Panel(title="Waiting, and why", stacked=True, about="Drops in the inboxes.",
          queries=((f"sum by (why) ({_of('cytowatch_inbox_waiting_files')}) > 0", "{{why}}"),)),
    Panel(title="Time in each stage, half of all", unit="s", about="The median.",
          queries=((_quantile(0.5), "{{stage}}"),)),
    Panel(title="Time in each stage, 95 of 100", unit="s", about="The slow ones.",
          queries=((_quantile(0.95), "{{stage}}"),)),
    Panel(title="Errors an hour, by reason", bars=True, stacked=True, about="docs/reasons.md says what to do for each.",
          queries=((f"3600 * sum by (reason) ({_per_second('cytowatch_errors_total')}) > 0", "{{reason}}"),)),
    Panel(title="Decoders that crashed, an hour", bars=True, stacked=True, about="By signal; each cost one attempt at one slide.",
          queries=((f"3600 * sum by (signal) ({_per_second('cytowatch_worker_crashes_total')})", "{{signal}}"),)),
    Panel(title="Workers", about="Busy of all.",
          queries=((f"sum({_of('cytowatch_workers_busy')})", "busy"), (f"sum({_of('cytowatch_workers')})", "all"))),
    Panel(title="Pixels converted a second", unit="short", about="Level 0 of derived pyramids, counted at their end.",
          queries=((f"sum({_per_second('cytowatch_converted_pixels_total')})", "pixels"),)),
    Panel(title="Disk", unit="bytes", about="Free, and what is kept free or reserved for what is in work.",
          queries=((f"min({_of('cytowatch_disk_free_bytes')})", "free"), (f"max({_of('cytowatch_disk_reserved_bytes')})", "reserved"))),
    Panel(title="Inodes", unit="short", about="Free, and what is kept free; 0 of 0 where the filesystem counts none.",
          queries=((f"min({_of('cytowatch_inodes_free')})", "free"), (f"max({_of('cytowatch_inodes_reserved')})", "reserved"))),
    Panel(title="Oldest in work", unit="s", about="Since it was received, by stage.",
          queries=((f"max by (status) ({_of('cytowatch_oldest_file_age_seconds', _WORK)})", "{{status}}"),)),
    Panel(title="Watcher", width=8, height=6, about="1 while events come from all inboxes.",
          queries=((f"min({_of('cytowatch_watcher_alive')})", "alive"),)),
    Panel(title="Found by the scan", width=8, height=6, bars=True, about="Drops that no event had announced, per hour.",
          queries=((f"3600 * sum({_per_second('cytowatch_rescan_found_total')})", "drops"),)),
    Panel(title="Held", width=8, height=6, about="1 where decoders are held by Landlock; 1 while anybody is paused.",
          queries=((f"min({_of('cytowatch_sandbox_enabled')})", "sandbox"), (f"max({_of('cytowatch_paused')})", "paused"))),
)  # fmt: skip


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {
            "drawStyle": "bars" if panel.bars else "line",
            "fillOpacity": 70 if panel.bars else (30 if panel.stacked else 10),
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
        options: dict[str, Any] = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": [
            {"refId": chr(65 + index), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom,
                "color": {"mode": "palette-classic" if custom else "thresholds"},
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"color": color, "value": value} for color, value in panel.steps],
                },
            },
            "overrides": [],
        },
        "options": options,
    }


def dashboard() -> dict[str, Any]:
    """The whole of it, in Grafana's own form."""
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        panels.append(_panel(number, panel, x, y))
        x, row = x + panel.width, max(row, panel.height)
    instance = {
        "name": "instance",
        "label": "machine",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(cytowatch_build_info, instance)", "refId": "instance"},
        "includeAll": True,
        "multi": True,
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "refresh": 2,
    }
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    return {
        "uid": "cytowatch",
        "title": "cytowatch",
        "description": "From scanner inboxes to deployed pyramids.",
        "tags": ["cytowatch", "pathology"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [source, instance]},
        "annotations": {"list": []},
        "panels": panels,
    }


def text() -> str:
    """The file, as it must be."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
