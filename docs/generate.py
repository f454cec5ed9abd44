"""Write what in the documents is made from the code: the table of formats and their page.

`python docs/generate.py` writes it; a test compares, so that the documents cannot lie.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from typer.main import get_command

from cytowatch import formats
from cytowatch.cli.commands import application
from cytowatch.cli.schema import schema_of
from cytowatch.cli.table import COLUMNS
from cytowatch.config import RELOADABLE, render
from cytowatch.formats import Format
from cytowatch.observe.events import EVENTS
from cytowatch.observe.metrics import Metrics
from cytowatch.panel.measures import Measures
from cytowatch.record import leftovers, reasons

HOUSE = Path(__file__).resolve().parents[1]
_HEAD = """# Formats

cytowatch detects these formats by content only. This page is made from the code by
`python docs/generate.py`.

For everything that is converted: the original is kept beside the pyramid. A pixel size is taken over if the source
states one that a scanner or a microscope can have, and is never invented. `warnings` in the manifest lists what had to be done
to the pixels. 8-bit samples become JPEG tiles (or lossless ones, by configuration); samples of more bits are kept without loss.
A file in none of these formats ends as ERROR_FORMAT with a note of what it looks like.

**When a slide was scanned.** `acquired_at` in the manifest has the time that the file states, for Aperio, Hamamatsu, Leica, Philips, Ventana,
MIRAX, DICOM, CZI and OME. A time with an offset is converted to UTC and ends in `Z`. A time without an offset is the scanner's own clock and has
no `Z`: Hamamatsu, Philips, Ventana and MIRAX never state one, Aperio, CZI, OME and DICOM sometimes do not. Hamamatsu often states only the day.
If a file states no time, or one that is impossible, `acquired_at` is null.

## When a file is complete

cytowatch takes a drop when its structure is complete. It checks headers, directories, ends and holes, never pixels. Until then
the drop waits as `incomplete`, and `cytowatch status` shows what is missing.

**Holes.** A client that sets the size first, or copies in several parts, leaves holes: bytes that were never written. A hole in any part
of a file counts as missing, in every format (on ext4, XFS, btrfs, F2FS and tmpfs; ZFS turns zeros into holes by itself, and on a network
filesystem holes mean nothing). A hole in padding, or after the end, does no harm.

**Zeros.** While cytowatch hashes a file, it looks for runs of 512 or more zeros, on every filesystem. Inside compressed pixels they end as
`incomplete`: ERROR_FORMAT for native slides, ERROR_CONVERSION for others. Flat pixels can be zeros too, so each compression has its own rule:
the tables of a JPEG, the checksums of PNG and deflate, the number of packets of a JPEG 2000. In a native slide the first bytes of every
tile of every level are checked as well.

**Tiles.** In a native TIFF, every JPEG or JPEG 2000 tile of every level must have the size, the samples and the bits that its directory states;
otherwise OpenSlide refuses it in front of the viewer, or shows what is left in memory. Such a slide is `damaged`, or a pyramid is derived if only
the tiles at the edges of an Aperio, a generic pyramid or a DICOM are cut off. Only the first 64 KiB of a tile are searched for its size. In an MRXS the
sizes of JPEG tiles are checked in the same way, if all levels have one size, and in DICOM those of the frames, if each is one piece. In a Sakura database they are not checked.

**A late hash.** With `storage.hash = "after"` the tiles are checked before the slide is published; zeros
inside a tile are found later, by the hash, and become a warning in the manifest and the log line `not_whole`.

**Labels.** If a label or macro was deliberately blanked with zeros (as programs do that remove patient data), the slide is deployed, with a warning.

**Announced levels.** A pyramid that is written level by level is a complete TIFF after each level. cytowatch waits for levels and planes that
are announced: by the XML of Leica SCN, Philips and OME-TIFF, and by SubIFDs whose place is reserved. SVS, NDPI, BIF, Huron, other
pyramidal TIFFs and zips announce nothing: see [a writer that pauses](how-to/new-user.md#a-writer-that-pauses).

**Complete after all.** A TIFF that lacks the four zeros after its last directory, or states more bytes in a strip than there are, waits first.
After `inbox.incomplete_after_s` a reader of every pixel decides, and a warning says what the structure lacks.

cytowatch cannot detect the following before a file is decoded or unpacked:

- zeros in the middle of uncompressed pixels (BMP, PNM, plain TIFF, CZI and DICOM, data of MRXS in BMP or PNG), because they are
  black pixels as well. Zeros up to the end of the file are detected if they start in the middle of a row, under a row that is not black;
- less than a disk block (4 KiB) that is missing at the end of such pixels, if it was filled with zeros;
- zeros in a JPEG whose tables allow flat pixels there (progressive, optimised), if they happen to make exactly as many blocks as what
  they replace. In the scan of a progressive JPEG that only refines the brightness of blocks they always do, and change it by one step;
- fewer than 2,304 zeros in a Zstandard block that does not compress, fewer than 2,048 in JPEG-XR, and
  fewer zeros in a JPEG 2000 than a tile has packets;
- runs of fewer than 512 zeros, and missing bytes that other bytes replace;
- a truncated tar.gz whose last four bytes happen to be a multiple of 512, and damage in it;
- truncated plain numbers (P2, P3) above 64 MiB, or in their last number, run-length codes of a BMP without their length,
  data files of an MRXS whose Index.dat lists more than 4,194,304 tiles or is larger than 64 MiB, anything after the TIFF in a .vsi (holes are detected), a stack of a VSI
  where its .vsi does not announce how many it has, and zeros in a Sakura database.

A file in which a program deliberately made holes of black pixels (`cp --sparse=always`, `rsync --sparse`) counts as incomplete: copy it with
`cp --sparse=never`. cytowatch does not accept such holes, not even in uncompressed pixels between written zeros: a fluorescence image is
black nearly everywhere, so a lost block mostly lies between written zeros as well, and nothing tells the two apart. A cell that never arrived
would be shown as black.
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
            f"**Marker**: {one.marker}. **Samples**: {one.samples}. **Treated**: {one.treated}. "
            f"**Reader**: {one.reader}.\n\n{one.oddities}\n\nSource: {source}\n"
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

Every error has a reason, which is a stable word, and a detail, which is a sentence; `cytowatch show` gives both. The original
is always kept, untouched. Three texts go with each reason: a few words for the name of the note on the share, what that note
tells the technician to do, and what the administrator can do. This page is made from the code by `python docs/generate.py`.
[Every note of an error](reference/notes.md) shows these texts as a technician reads them.

| reason | in the note's name | it means | the technician | the administrator |
|---|---|---|---|---|
"""


def reasons_page() -> str:
    """docs/reasons.md."""
    rows = [
        f"| `{one.word}` | {one.says} | {one.means} | {one.technician} | {one.admin} |"
        for one in sorted(reasons.REASONS, key=lambda one: one.word)
    ]
    waits = [
        f"| `{word}` | {one.says} | {one.means} | {one.technician} | {one.admin} |"
        for word, one in reasons.WAITING.items()
    ]
    return (
        _REASONS + "\n".join(rows) + "\n\n## Why a drop waits in its inbox\n\n"
        "`cytowatch status` shows the word and a detail; the note in `status/<user>/` explains it. The same "
        "words are the label `why` of the metrics.\n\n| why | in the note's name | it means | the technician | the administrator |\n"
        "|---|---|---|---|---|\n" + "\n".join(waits) + "\n"
    )


def metrics_table() -> str:
    """The table of docs/monitoring.md."""
    metrics = Metrics()
    metrics.hook_deliveries.labels("viewer", "delivered")
    return _metrics_table(metrics.registry)


def _metrics_table(registry: CollectorRegistry) -> str:
    rows = []
    for family in registry.collect():
        kind = {"counter": "_total"}.get(family.type, "")
        labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
        rows.append(
            f"| `{family.name}{kind}` | {family.type} | {', '.join(labels) or '–'} | "
            f"{family.documentation} |"
        )
    head = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *sorted(rows)]) + "\n"


_OPERATIONS = """# Operations: every line of the log

Each event is one line: JSON, or words and colours on a terminal. Under systemd each line has a priority, so
`journalctl -u cytowatch -p warning` shows the lines that need attention. Every line has `at` (UTC), `level` and `event`.
No line contains pixels, the text of a label, a property of a header or a secret. Names are escaped, so one event stays one
line. Tracebacks are not logged: `unexpected` names a file below `state/reports/` instead, where the last hundred are
kept. Warnings from libraries appear in the same way, with the library's own words in `event`. This page is made from the code by
`python docs/generate.py`, and a test searches the source for lines that are missing here.

Each change of status is one line `stage`, and each finished uploaded file is one line `ended`. To see all errors of the last week:

```
journalctl -u cytowatch --since -7d -o cat | grep '"ended"' | grep '"level": "warning"'
```

| event | level | meaning | other fields | what to do |
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


_MADE = "This page is made from the code by `python docs/generate.py`.\n"


def configuration_page() -> str:
    """docs/reference/configuration.md."""
    reloaded = ", ".join(f"`{name}`" for name in sorted(RELOADABLE))
    return (
        f"# Configuration\n\n{_MADE}\n"
        "One TOML file: `--config FILE`; else with `--root DIR` the file `DIR/cytowatch.toml`, if it exists, and no other "
        "file, so that a trial tree never fires the hooks of the machine's own service; else `$CYTOWATCH_CONFIG`; else "
        "`/etc/cytowatch/cytowatch.toml` (with `$CYTOWATCH_ROOT` the `cytowatch.toml` in that root). Without any file the "
        "defaults apply. `--root`, else `$CYTOWATCH_ROOT`, overrides `root`.\n\n"
        "The file must be a regular file (or a link to one) of at most 1 MiB in UTF-8. An unknown key, a wrong type and a "
        "value out of range are errors, and all of them are listed at once. A reload refuses a file with errors: the "
        "daemon keeps the configuration it has and logs `reload_refused`. Every key, its default and its unit:\n\n"
        f"```toml\n{render()}```\n\n"
        f"`systemctl reload cytowatch` applies {reloaded}. Everything else needs a restart, and the log says so.\n"
    )


def commands_page() -> str:
    """docs/reference/commands.md."""
    parts = [
        f"# The command line\n\n{_MADE}\nExit codes: 0 good, 1 something is wrong, 2 usage or configuration. "
        "For programs: `--json`; `cytowatch schema COMMAND` prints its schema. An ID is a whole id, its four "
        "characters, or the name or the path as dropped (`case-101/HE.svs`). When root runs a command, it acts as the owner of the tree. "
        "After `cytowatch --install-completion` the shell completes ids, users, projects and statuses.\n"
    ]
    commands = dict(get_command(application()).commands)
    for name, group in list(commands.items()):
        inner = getattr(group, "commands", {})
        commands |= {f"{name} {word}": command for word, command in inner.items()}
    for name, one in sorted(commands.items()):
        words = [name]
        rows = []
        for parameter in one.params:
            if parameter.param_type_name == "argument":
                shown = parameter.metavar or parameter.name.upper()
                words.append(shown if parameter.required or "[" in shown else f"[{shown}]")
            elif "--help" not in parameter.opts:
                value = "" if parameter.is_flag else " …"
                rows.append(f"| `{parameter.opts[0]}{value}` | {parameter.help} |")
        said = " ".join((one.help or "").split())
        parts.append(f"## cytowatch {' '.join(words)}\n\n{said}\n")
        if rows:
            parts.append("\n".join(["| option | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """What may be null as well, without that."""
    for word in ("anyOf", "oneOf"):
        if word in one:
            rest = [inner for inner in one[word] if inner.get("type") != "null"] or one[word]
            kinds = [rest[0].get("type", "object"), "null"]
            return {**one, **rest[0], "type": kinds if len(rest) < len(one[word]) else kinds[0]}
    return one


def _type_of(one: dict[str, Any]) -> str:
    if "const" in one:
        return f"`{json.dumps(one['const'])}`"
    if "enum" in one:
        return "one of " + ", ".join(f"`{json.dumps(value)}`" for value in one["enum"])
    kinds = one.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else kinds


def _rows(one: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, given in one.get("properties", {}).items():
        inner = _plain(given)
        text = inner.get("description", "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type_of(inner)} | {text} |"
        yield from _rows(inner, f"{prefix}{name}.")
        if isinstance(inner.get("items"), dict):
            yield from _rows(inner["items"], f"{prefix}{name}[].")


def manifest_page() -> str:
    """docs/reference/manifest.md."""
    schema = schema_of("manifest")
    head = (
        f"# The manifest\n\n{_MADE}\n`manifest.json` in the directory of an uploaded file: its journal in `stages/`, the "
        "sidecar of its pyramid in `storage/`. Paths in it are relative to that directory. Times are UTC in ISO 8601, except `acquired_at`. "
        "Unknown values are null, never guessed. Keys that a later version wrote are kept. "
        "`cytowatch schema manifest` prints the JSON Schema.\n\n| key | type | |\n|---|---|---|\n"
    )
    return head + "\n".join(_rows(schema)) + "\n"


_KINDS = {
    "text": "text",
    "texts": "list of texts",
    "whole": "whole number",
    "number": "number",
    "truth": "true or false",
    "time": "time, UTC",
}


def table_page() -> str:
    """docs/reference/table.md."""
    listed = [f"| `{one.name}` | {_KINDS[one.kind]} | {one.means} |" for one in COLUMNS]
    return (
        f"# The table of all manifests\n\n{_MADE}\n"
        "`cytowatch export --table FILE` writes one row per pyramid, and one row for each uploaded file without a pyramid. "
        "FILE ends in `.csv` (UTF-8, with a header) or in `.parquet` (with types; needs `pip install "
        "'cytowatch[table]'`); `-` prints CSV. Unknown values are empty in CSV and null in Parquet. A list is joined by `; ` in "
        "CSV. In CSV a text that a spreadsheet would run as a formula (`=…`) has an apostrophe before it; Parquet has each text "
        "as it is. Rows are sorted by `id`, so by time. [How to use it](../how-to/python.md).\n\n"
        "| column | type | |\n|---|---|---|\n" + "\n".join(listed) + "\n"
    )


def ignored_page() -> str:
    """docs/reference/ignored-names.md."""
    rows = []
    for one in leftovers.LEFTOVERS:
        shown = (pattern.encode("unicode_escape").decode() for pattern in one.patterns)
        patterns = ", ".join(f"`{pattern}`" for pattern in shown)
        source = f"<{one.source}>" if one.source.startswith("http") else one.source
        rows.append(f"| {one.by} | {patterns} | {source} | {'yes' if one.temporary else ''} |")
    return (
        f"# Ignored names\n\n{_MADE}\n"
        "cytowatch never takes a file or folder with one of these names: programs use them until a copy is done, or keep "
        "their own notes under them. Upper and lower case are the same. `inbox.ignore` adds patterns. A program that writes "
        "under the final name needs no pattern: the lease, the quiet time and the structure of the file show when it is "
        "done. A copier that adds random letters of its own, such as the AWS command line (`NAME.6eF5b5da`), cannot be "
        "recognised by name: set `inbox.done_marker`, for its user only if you like.\n\n"
        "Where the last column says so, a file has such a name only until its copy is done. If nothing has changed about it "
        "for `inbox.quiet_s`, it is shown as waiting (`temporary_name`) and gets a note, because its copy may have broken off. "
        "A pattern of your own in `inbox.ignore`, such as `*_index.tmp`, prevents that.\n\n"
        "| made by | patterns | source | only until the copy is done |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def notes_page() -> str:
    """docs/reference/notes.md, by the module beside this one."""
    given = importlib.util.spec_from_file_location("notes", HOUSE / "docs" / "notes.py")
    assert given is not None
    assert given.loader is not None
    made = importlib.util.module_from_spec(given)
    # Its dataclasses look for their module.
    sys.modules["notes"] = made
    given.loader.exec_module(made)
    return str(made.page())


def pages() -> dict[Path, str]:
    """Every page that is made as a whole."""
    docs = HOUSE / "docs"
    return {
        docs / "reasons.md": reasons_page(),
        docs / "operations.md": operations_page(),
        docs / "formats.md": page(),
        docs / "reference" / "configuration.md": configuration_page(),
        docs / "reference" / "ignored-names.md": ignored_page(),
        docs / "reference" / "commands.md": commands_page(),
        docs / "reference" / "manifest.md": manifest_page(),
        docs / "reference" / "table.md": table_page(),
        docs / "reference" / "notes.md": notes_page(),
    }


def monitoring(text: str) -> str:
    """docs/monitoring.md with its table of metrics."""
    tables = {"metrics": metrics_table(), "panel-metrics": _metrics_table(Measures().registry)}
    for name, made in tables.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, made=made: found[1] + made + found[2],
            text,
            flags=re.DOTALL,
        )
    return text


def dependencies(text: str) -> str:
    """docs/dependencies.md with its table of the files of others."""
    given = importlib.util.spec_from_file_location("vendored", HOUSE / "docs" / "vendored.py")
    assert given
    assert given.loader
    vendored = importlib.util.module_from_spec(given)
    sys.modules["vendored"] = vendored
    given.loader.exec_module(vendored)
    return re.sub(
        r"(<!-- vendored -->\n).*?(<!-- /vendored -->)",
        lambda found: found[1] + str(vendored.table()) + found[2],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for where, made in pages().items():
        where.write_text(made)
    watched = HOUSE / "docs" / "monitoring.md"
    watched.write_text(monitoring(watched.read_text()))
    depends = HOUSE / "docs" / "dependencies.md"
    depends.write_text(dependencies(depends.read_text()))
    path = HOUSE / "README.md"
    path.write_text(readme(path.read_text()))
