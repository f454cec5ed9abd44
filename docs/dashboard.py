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


def _an_hour(metric: str, labels: str = "") -> str:
    """How much a counter grew in the last hour: a whole number of slides, not a rate that is scaled up."""
    return f"increase({_of(metric, labels)}[1h])"


_GOOD = 'status=~"DEPLOYED|CONVERTED"'
_BAD = 'status=~"ERROR_.*"'
_WORK = 'status=~"UPLOADED|DETECTING_FORMAT|EXTRACTING_DATA|CONVERTING|DEPLOYING"'
_LATE = "cytowatch_deployed_after_seconds"
_WITHIN = 'le="900.0"'
#: The share of the last day's slides that were deployed within 15 minutes of their last byte.
_IN_TIME = f"sum(increase({_of(_LATE + '_bucket', _WITHIN)}[1d])) / sum(increase({_of(_LATE + '_count')}[1d]))"
#: Of the daemon, not of other programs on the machine.
_OURS = 'job="cytowatch"'

PANELS = (
    Panel(title="Slides in storage", kind="stat", width=4, height=4, unit="short",
          about="Counts the slides of all users that are deployed or converted.",
          queries=((f"sum({_of('cytowatch_files', _GOOD)})", ""),)),
    Panel(title="In work", kind="stat", width=4, height=4,
          about="Counts the uploaded files that were received and are not finished.",
          queries=((f"sum({_of('cytowatch_files', _WORK)})", ""),),
          steps=((_GREEN, None), (_YELLOW, 1000))),
    Panel(title="Waiting in inboxes", kind="stat", width=4, height=4,
          about="Counts the drops that still lie in an inbox, for any reason.",
          queries=((f"sum({_of('cytowatch_inbox_waiting_files')})", ""),)),
    Panel(title="In error", kind="stat", width=4, height=4,
          about="Counts the uploaded files in error; their originals are kept until they are retried, returned or removed.",
          queries=((f"sum({_of('cytowatch_files', _BAD)})", ""),),
          steps=((_GREEN, None), (_YELLOW, 1), (_RED, 50))),
    Panel(title="Oldest drop", kind="stat", width=4, height=4, unit="s",
          about="Shows how long the oldest drop has waited in its inbox.",
          queries=((f"max({_of('cytowatch_inbox_oldest_waiting_seconds')})", ""),),
          steps=((_GREEN, None), (_YELLOW, 3600), (_RED, 86400))),
    Panel(title="Last scan", kind="stat", width=4, height=4, unit="s",
          about="Shows how long ago all inboxes were last looked at.",
          queries=((f"time() - max({_of('cytowatch_last_scan_timestamp_seconds')})", ""),),
          steps=((_GREEN, None), (_YELLOW, 120), (_RED, 600))),
    Panel(title="Deployed in time, last day", kind="stat", width=6, height=4, unit="percentunit",
          about="Shows the share of slides that were deployed within 15 minutes of their last byte; the objective is 99 %.",
          queries=((_IN_TIME, ""),),
          steps=((_RED, None), (_YELLOW, 0.95), (_GREEN, 0.99))),
    Panel(title="Missing from storage", kind="stat", width=6, height=4,
          about="Counts the slides that something other than cytowatch deleted; `cytowatch verify` lists them.",
          queries=((f"sum({_of('cytowatch_storage_missing_files')})", ""),),
          steps=((_GREEN, None), (_RED, 1))),
    Panel(title="Notifications given up", kind="stat", width=6, height=4,
          about="Counts the deliveries to hooks that were given up; `cytowatch hooks --retry` sends them again.",
          queries=((f"sum({_of('cytowatch_hooks_dead')})", ""),),
          steps=((_GREEN, None), (_YELLOW, 1))),
    Panel(title="Set aside, last hour", kind="stat", width=6, height=4,
          about="Counts the things that met an unexpected error and are tried again while all others go on.",
          queries=((f"sum({_an_hour('cytowatch_set_aside_total')})", ""),),
          steps=((_GREEN, None), (_YELLOW, 1))),
    Panel(title="Inflow: bytes received", unit="Bps", about="Shows the bytes that were claimed from the inboxes, per second.",
          queries=((f"sum({_per_second('cytowatch_received_bytes_total')})", "received"),)),
    Panel(title="Outflow: slides in the last hour", bars=True, stacked=True,
          about="Counts the uploaded files that finished in the hour before each point, by how they ended.",
          queries=((f"sum by (status) ({_an_hour('cytowatch_uploads_total')})", "{{status}}"),)),
    Panel(title="Statuses now", stacked=True, about="Counts everything that is in work, by its stage.",
          queries=((f"sum by (status) ({_of('cytowatch_files', _WORK)})", "{{status}}"),)),
    Panel(title="Waiting, and why", stacked=True, about="Counts the drops in the inboxes by what they wait for; docs/reasons.md explains each word.",
          queries=((f"sum by (why) ({_of('cytowatch_inbox_waiting_files')}) > 0", "{{why}}"),)),
    Panel(title="Time in each stage, median", unit="s", about="Half of the uploaded files took less than this; dropped folders are not counted.",
          queries=((_quantile(0.5), "{{stage}}"),)),
    Panel(title="Time in each stage, 95th percentile", unit="s", about="Of 100 uploaded files 95 took less than this; dropped folders are not counted.",
          queries=((_quantile(0.95), "{{stage}}"),)),
    Panel(title="From the last byte to deployment", unit="s",
          about="Shows how long half, and 95 of 100, of the last hour's slides took from their last byte to their deployment.",
          queries=tuple(
              (f"histogram_quantile({share}, sum by (le) ({_an_hour(_LATE + '_bucket')}))", legend)
              for share, legend in ((0.5, "median"), (0.95, "95th percentile"))
          )),
    Panel(title="Errors in the last hour, by reason", bars=True, stacked=True,
          about="Counts the errors of the hour before each point; docs/reasons.md says what to do for each reason.",
          queries=((f"sum by (reason) ({_an_hour('cytowatch_errors_total')}) > 0", "{{reason}}"),)),
    Panel(title="Decoders that crashed in the last hour", bars=True, stacked=True,
          about="Counts crashes by signal; each one cost one attempt at one slide.",
          queries=((f"sum by (signal) ({_an_hour('cytowatch_worker_crashes_total')})", "{{signal}}"),)),
    Panel(title="Workers", about="Compares the workers that are busy with all there are.",
          queries=((f"sum({_of('cytowatch_workers_busy')})", "busy"), (f"sum({_of('cytowatch_workers')})", "all"))),
    Panel(title="Pixels converted", unit="short", about="Shows the pixels of level 0 of derived pyramids per second, counted when each is finished.",
          queries=((f"sum({_per_second('cytowatch_converted_pixels_total')})", "pixels per second"),)),
    Panel(title="Disk", unit="decbytes", about="Compares what is free with what is kept free, including what work in progress may still write.",
          queries=((f"min({_of('cytowatch_disk_free_bytes')})", "free"), (f"max({_of('cytowatch_disk_reserved_bytes')})", "reserved"))),
    Panel(title="Inodes", unit="short", about="Compares the free inodes with those kept free; both are 0 where the filesystem does not count them.",
          queries=((f"min({_of('cytowatch_inodes_free')})", "free"), (f"max({_of('cytowatch_inodes_reserved')})", "reserved"))),
    Panel(title="Oldest in work", unit="s", about="Shows the time since the oldest uploaded file of each stage was received; dropped folders are not counted.",
          queries=((f"max by (status) ({_of('cytowatch_oldest_file_age_seconds', _WORK)})", "{{status}}"),)),
    Panel(title="Watcher", width=8, height=6, about="Is 1 while the kernel sends events from all inboxes.",
          queries=((f"min({_of('cytowatch_watcher_alive')})", "alive"),)),
    Panel(title="Found by the scan in the last hour", width=8, height=6, bars=True,
          about="Counts the drops that no event announced, and that the scan found.",
          queries=((f"sum({_an_hour('cytowatch_rescan_found_total')})", "drops"),)),
    Panel(title="Sandbox and pauses", width=8, height=6,
          about="The sandbox is 1 while Landlock and seccomp hold decoders; paused is 1 while anybody is paused.",
          queries=((f"min({_of('cytowatch_sandbox_enabled')})", "sandbox"), (f"max({_of('cytowatch_paused')})", "paused"))),
    Panel(title="Daemon: processor time", width=8, height=6, unit="percentunit",
          about="Shows the processor time of the daemon itself, without its decoders; 100 % is one core.",
          queries=((f"rate({_of('process_cpu_seconds_total', _OURS)}[$__rate_interval])", "{{instance}}"),)),
    Panel(title="Daemon: memory", width=8, height=6, unit="decbytes",
          about="Shows the memory that the daemon itself holds, without its decoders.",
          queries=((_of("process_resident_memory_bytes", _OURS), "{{instance}}"),)),
    Panel(title="Daemon: open files", width=8, height=6,
          about="Compares the daemon's open file descriptors with the most it may have.",
          queries=((_of("process_open_fds", _OURS), "open"), (_of("process_max_fds", _OURS), "limit"))),
)  # fmt: skip

#: A line over all panels where the daemon began, which explains a change that a restart made.
_RESTARTS = {
    "name": "Starts of the daemon",
    "datasource": _SOURCE,
    "enable": True,
    "hide": False,
    "iconColor": "orange",
    "expr": f"{_of('process_start_time_seconds', _OURS)} * 1000",
    "useValueForTime": True,
    "step": "60s",
    "titleFormat": "cytowatch started",
    "textFormat": "{{instance}}",
}


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
        "annotations": {"list": [_RESTARTS]},
        "panels": panels,
    }


def text() -> str:
    """The file, as it must be."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
