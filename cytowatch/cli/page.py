"""What ``status`` and ``list`` show, as plain lines.

Both are typed all day and asked by scripts, so they start without rich, which takes longer to
load than a million rows take to search.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import typer

from cytowatch.lifecycle.summary import bytes_text
from cytowatch.record.names import printable, shortened
from cytowatch.record.skipped import losses
from cytowatch.record.status import Status
from cytowatch.tree.find import Entry

__all__ = [
    "aside_text",
    "bytes_text",
    "colour",
    "free_text",
    "no_formula",
    "status_lines",
    "status_text",
    "styled",
]

#: A spreadsheet takes what begins like this for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: At most this many that wait or are in work are shown one by one.
_MOST_SHOWN = 20


def styled(text: str, colour: str | None = None, *, dim: bool | None = None) -> str:
    """`text` in a colour, where there is somebody who sees colours (https://no-color.org)."""
    seen = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if not seen or os.environ.get("NO_COLOR"):
        return text
    return typer.style(text, fg=colour, dim=dim)


def colour(status: Status) -> str:
    """The colour that a status is shown in."""
    if status.is_error:
        return "red"
    return "green" if status.is_success else "cyan"


def status_text(entry: Entry) -> str:
    """The status as a list shows it, with what an archive lost."""
    lost = losses(entry.manifest) if entry.status is Status.EXTRACTED else 0
    return f"{entry.status.label}, {lost:,} lost" if lost else entry.status.label


def free_text(page: dict[str, Any]) -> str:
    """What is free, in bytes, and in inodes where they are counted.

    >>> free_text({"disk_free_bytes": 1_938_955, "inodes_free": None})
    '1.9 MB'
    >>> free_text({"disk_free_bytes": 1_938_955, "inodes_free": 1200})
    '1.9 MB and 1,200 inodes'
    """
    size, inodes = bytes_text(page["disk_free_bytes"]), page["inodes_free"]
    return size if inodes is None else f"{size} and {inodes:,} inodes"


#: A word for each of `aside.WHERES`.
_WHERES = {
    "user": "inbox of", "drop": "drop", "claim": "claim of", "folder": "folder",
    "uploaded_file": "uploaded file", "row": "index of", "request": "request", "note": "note on",
    "hook": "hook", "event": "event", "part": "daemon's",
}  # fmt: skip


def aside_text(where: str, which: str, why: str, tries: int = 1) -> str:
    """One thing that is set aside: what it is, why, and how often it was tried.

    >>> aside_text("drop", "ann/a.svs", "ValueError: x", 3)
    'drop ann/a.svs: ValueError: x (3 tries)'
    """
    said = printable(f"{_WHERES.get(where, where)} {shortened(which)}: {why}")
    return said if tries == 1 else f"{said} ({tries:,} tries)"


def _aside_lines(found: list[dict[str, Any]]) -> Iterator[str]:
    for one in found[:_MOST_SHOWN]:
        said = aside_text(one["where"], one["which"], one["why"], one["tries"])
        yield f"{styled('aside', 'yellow')}    {said}"
    if len(found) > _MOST_SHOWN:
        yield styled(f"         and {len(found) - _MOST_SHOWN:,} more are set aside", dim=True)


def status_lines(page: dict[str, Any]) -> Iterator[str]:
    """`status_page` for people."""
    running = page["daemon"]["running"]
    told = (
        f"running, process {page['daemon']['pid']}" if running else styled("not running", "yellow")
    )
    yield f"daemon   {told}"
    yield f"disk     {free_text(page)} free"
    if page["paused"]["everyone"]:
        yield f"{styled('paused', 'yellow')}   everyone"
    elif page["paused"]["users"]:
        yield f"{styled('paused', 'yellow')}   {printable(', '.join(page['paused']['users']))}"
    for name, reason in page["health"].items():
        yield f"{styled(name, 'red')}  {printable(reason)}"
    if page["missing"]:
        said = f"{page['missing']:,} vanished from storage: `cytowatch verify` lists them"
        yield f"{styled('missing', 'red')}  {said}"
    yield from _aside_lines(page["set_aside"])
    for one in page["dead_letters"][:_MOST_SHOWN]:
        said = f"{one['hook']} of {one['id']} {one['status']}: {one['said']}"
        yield f"{styled('untold', 'red')}   {printable(said)}"
    hour = [f"{n} {Status[name].label}" for name, n in page["last_hour"].items() if n]
    yield f"1 hour   {', '.join(hour) or 'nothing was finished'}"
    for status in Status:
        if count := page["files"][status.name]:
            oldest = page["oldest"].get(status.name)
            since = styled(f"  the oldest received {oldest[:19]}Z", dim=True) if oldest else ""
            yield f"{styled(f'{status.label:<18}', colour(status))} {count:>9,}{since}"
    rows = []
    for id_, at in page["in_work"].items():
        # A stage that cannot say how far it is says 0.
        share = f" {at['share']:.0%}" if at["share"] else ""
        rows.append(f"in work  {id_}  {Status[at['status']].label}{share}")
    held = [
        f"held up  {id_}  {why['why']}: {why['detail']}" for id_, why in page["held_up"].items()
    ]
    waiting = [
        f"waiting  {shortened(drop['path'])}  {drop['why']}: {drop['detail']}"
        for drop in page["waiting"]
    ]
    for lines in (rows, held, waiting):
        yield from map(printable, lines[:_MOST_SHOWN])
        if len(lines) > _MOST_SHOWN:
            yield styled(f"         and {len(lines) - _MOST_SHOWN:,} more", dim=True)


def no_formula(text: str, *, begins: str | None = None) -> str:
    """`text` for a cell of a CSV file, with an apostrophe before what a spreadsheet would run as a formula.

    What counts is how the text `begins` as it was dropped.

    >>> no_formula("=HYPERLINK(1)"), no_formula("slide.svs")
    ("'=HYPERLINK(1)", 'slide.svs')
    """
    return f"'{text}" if (text if begins is None else begins).startswith(_FORMULA) else text
