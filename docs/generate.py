"""Write what in the documents is made from the code: the table of formats and their page.

`python docs/generate.py` writes it; a test compares, so that the documents cannot lie.
"""

from __future__ import annotations

import re
from pathlib import Path

from cytowatch import formats, reasons
from cytowatch.formats import Format
from cytowatch.observe.events import EVENTS
from cytowatch.observe.metrics import Metrics

HOUSE = Path(__file__).resolve().parents[1]
_HEAD = """# Formats

What cytowatch recognises, by content alone, and what it does with it. This page is made from the
code by `python docs/generate.py`.

Of everything that is converted holds: the original is kept beside the pyramid; a pixel size is
taken over where the source states one that a scanner or a microscope can have, and never made up;
what had to be done to the pixels is a line in the manifest's `warnings`. 8-bit samples become
JPEG tiles (or lossless ones, by configuration), samples of more bits are kept without loss.
What is none of these ends ERROR_FORMAT and says what it looks like.
"""


def _way(one: Format) -> str:
    """How it is treated, in the words of the README."""
    if one.extract:
        return "its members become uploaded files of their own"
    if one.treated == "native":
        return "deployed as it is"
    return f"{one.treated}" if one.treated != "pyramid derived" else "a pyramid is derived"


def table() -> str:
    """The table of the README."""
    rows = [f"| `{one.id}` | {one.name} | {_way(one)} |" for one in formats.FORMATS]
    return "\n".join(["| id | format | what is done |", "|---|---|---|", *rows]) + "\n"


def page() -> str:
    """docs/formats.md."""
    parts = [_HEAD]
    for one in formats.FORMATS:
        source = f"<{one.source}>" if one.source.startswith("http") else one.source
        parts.append(
            f"## {one.name} (`{one.id}`)\n\n"
            f"**Told by** {one.marker}. **Samples** {one.samples}. **Treated**: {one.treated}. "
            f"**Read by** {one.reader}.\n\n{one.oddities}\n\nSource: {source}\n"
        )
    return "\n".join(parts)


def readme(text: str) -> str:
    """The README with its table of formats."""
    return re.sub(
        r"(<!-- formats -->\n).*?(<!-- /formats -->)",
        lambda found: found[1] + table() + found[2],
        text,
        flags=re.DOTALL,
    )


_REASONS = """# Reasons

Every error has a reason, which is a stable word, and a detail in plain words; `cytowatch show` tells both. The original
is always kept, untouched. This page is made from the code by `python docs/generate.py`.

| reason | it means | the technician | the administrator |
|---|---|---|---|
"""


def reasons_page() -> str:
    """docs/reasons.md."""
    rows = [
        f"| `{one.word}` | {one.means} | {one.technician} | {one.admin} |"
        for one in sorted(reasons.REASONS, key=lambda one: one.word)
    ]
    return _REASONS + "\n".join(rows) + "\n"


def metrics_table() -> str:
    """The table of docs/monitoring.md."""
    rows = []
    metrics = Metrics()
    metrics.hook_deliveries.labels("viewer", "delivered")
    for family in metrics.registry.collect():
        kind = {"counter": "_total"}.get(family.type, "")
        labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
        rows.append(
            f"| `{family.name}{kind}` | {family.type} | {', '.join(labels) or '–'} | "
            f"{family.documentation} |"
        )
    head = ["| metric | kind | labels | what it tells |", "|---|---|---|---|"]
    return "\n".join([*head, *sorted(rows)]) + "\n"


_OPERATIONS = """# Operations: every line of the log

One line an event: JSON, or words and colours on a terminal. Under systemd each line carries its priority, so that
`journalctl -u cytowatch -p warning` shows what somebody should look at. Every line has `at` (UTC), `level` and `event`.
No line holds pixels, a label's text, a property of a header or a secret; names are escaped, so that one event stays one
line. A traceback is never logged: `unexpected` names a file below `state/reports/` instead, of which the last hundred are
kept. Warnings of libraries come out the same way, with their own words in `event`. This page is made from the code by
`python docs/generate.py`, and a test walks through the source for lines that are not here.

Each change of status is one line `stage`, and each upload at its end one line `ended`: all of last week's errors are

```
journalctl -u cytowatch --since -7d -o cat | grep '"ended"' | grep '"level": "warning"'
```

| event | level | what it tells | further fields | what to do |
|---|---|---|---|---|
"""


def operations_page() -> str:
    """docs/operations.md."""
    rows = [
        f"| `{one.word}` | {', '.join(one.levels)} | {one.tells} | "
        f"{', '.join(f'`{name}`' for name in one.fields) or '–'} | {one.admin} |"
        for one in EVENTS
    ]
    return _OPERATIONS + "\n".join(rows) + "\n"


def monitoring(text: str) -> str:
    """docs/monitoring.md with its table of metrics."""
    return re.sub(
        r"(<!-- metrics -->\n).*?(<!-- /metrics -->)",
        lambda found: found[1] + metrics_table() + found[2],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    (HOUSE / "docs" / "reasons.md").write_text(reasons_page())
    (HOUSE / "docs" / "operations.md").write_text(operations_page())
    watched = HOUSE / "docs" / "monitoring.md"
    watched.write_text(monitoring(watched.read_text()))
    (HOUSE / "docs" / "formats.md").write_text(page())
    path = HOUSE / "README.md"
    path.write_text(readme(path.read_text()))
