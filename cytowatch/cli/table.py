"""One table of all manifests, as CSV or Parquet: one row per pyramid, for statistics and machine learning.

An uploaded file without a pyramid (in work, in error, an archive) has one row whose columns of images are
empty. Rows are sorted by id, which is by time.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from cytowatch.cli.page import no_formula
from cytowatch.cli.part import until_whole
from cytowatch.record.errors import RootError
from cytowatch.tree.find import Entry

__all__ = ["COLUMNS", "Column", "rows", "write"]

_ROWS_AT_ONCE = 1000
_STDOUT = Path("-")
_CSV, _PARQUET = ".csv", ".parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`kind` is text, texts, whole, number, truth or time; `of` takes the uploaded file and its image."""

    name: str
    kind: str
    means: str
    of: Callable[[Entry, Any], Any]


def _of_file(name: str, kind: str, means: str) -> Column:
    return Column(name=name, kind=kind, means=means, of=lambda entry, _: entry.document[name])


def _of_image(name: str, kind: str, means: str) -> Column:
    return Column(
        name=name, kind=kind, means=means, of=lambda _, image: image[name] if image else None
    )


def _column(name: str, kind: str, means: str, of: Callable[[Entry, Any], Any]) -> Column:
    return Column(name=name, kind=kind, means=means, of=of)


def _path(entry: Entry, inside: str) -> str:
    """Below the root, whichever directory holds it."""
    root = entry.path.parents[2]
    return f"{entry.path.relative_to(root)}/{inside}"


def _original(entry: Entry) -> str | None:
    found = (file["path"] for file in entry.manifest["files"] if file["role"] == "source")
    path = next(found, None)
    return _path(entry, path) if path else None


def _conversion(key: str) -> Callable[[Entry, Any], Any]:
    return lambda entry, _: _inside(entry, "conversion", key)


def _inside(entry: Entry, part: str, key: str) -> Any:
    """A key of a part of the manifest that may be null."""
    found = entry.document[part]
    return found[key] if found else None


COLUMNS = (
    _of_file("id", "text", "The uploaded file."),
    _of_file("parent_id", "text", "The archive or folder that it came in."),
    _of_file("root_id", "text", "The outermost archive or folder; its own id if there is none."),
    _of_file("user", "text", "Whose inbox it was dropped into."),
    _of_file("projects", "texts", "The projects that show it."),
    _of_file("name", "text", "The name as dropped."),
    _of_file("drop_path", "text", "The path as dropped, from the inbox of all users on."),
    _column("status", "text", "One of the twelve statuses.", lambda entry, _: entry.status.name),
    _column(
        "reason", "text", "Why it failed.", lambda entry, _: _inside(entry, "error", "reason")
    ),
    _of_file("received_at", "time", "When it was received."),
    _column(
        "changed_at",
        "time",
        "When it reached its status.",
        lambda entry, _: entry.manifest["history"][-1]["at"] if entry.manifest["history"] else None,
    ),
    _of_file("size_bytes", "whole", "The size as dropped, in bytes."),
    _of_file("sha256", "text", "The hash of a single file; empty for sets, folders and archives."),
    _column(
        "format", "text", "The id of the format.", lambda entry, _: _inside(entry, "format", "id")
    ),
    _of_file("duplicate_of", "text", "The id of an earlier uploaded file with the same content."),
    _column("source", "text", "The original, relative to the root.", lambda entry, _: _original(entry)),
    _column(
        "image",
        "text",
        "The pyramid, relative to the root. Empty without one.",
        lambda entry, image: _path(entry, image["file"]) if image else None,
    ),
    _of_image("scene", "whole", "The number of the scene, from 0."),
    _of_image("width", "whole", "Pixels of level 0."),
    _of_image("height", "whole", "Pixels of level 0."),
    _column(
        "levels", "whole", "The number of levels.", lambda _, image: len(image["levels"]) if image else None
    ),
    _of_image("samples_per_pixel", "whole", "1 for grey, 3 for RGB."),
    _of_image("bits_per_sample", "whole", "8 or 16."),
    _of_image("mpp_x", "number", "Micrometres per pixel; empty where the source states none."),
    _of_image("mpp_y", "number", "Micrometres per pixel; empty where the source states none."),
    _of_image("objective_power", "number", "The magnification of the objective."),
    _of_image("acquired_at", "text", "When it was scanned; without a Z it is the scanner's own time."),
    _of_image("vendor", "text", "The vendor as OpenSlide names it."),
    _of_image("icc_profile", "truth", "Whether the pyramid has an ICC profile."),
    _of_image("associated", "texts", "The names of label, macro and thumbnail."),
    _column("compression", "text", "Of a derived pyramid: jpeg or lossless.", _conversion("compression")),
    _column("quality", "whole", "Of a derived pyramid: the JPEG quality.", _conversion("quality")),
    _of_file("warnings", "texts", "Notes on the conversion, and on oddities of the source."),
)  # fmt: skip


def rows(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """One row per pyramid; an uploaded file without a pyramid has one row."""
    for entry in entries:
        for image in entry.document["images"] or [None]:
            yield {column.name: column.of(entry, image) for column in COLUMNS}


def write(target: Path, found: Iterable[dict[str, Any]]) -> int:
    """Write the rows to `target` (``-`` is the standard output, as CSV); returns their number.

    A table that is there already is replaced once the new one is complete.

    Raises
    ------
    RootError
        The name ends neither in .csv nor in .parquet, is a directory, or lies in none; or pyarrow is missing.
    """
    if target == _STDOUT:
        return _write_csv(sys.stdout, found)
    kind = target.suffix.lower()
    if kind not in (_CSV, _PARQUET):
        raise RootError(f"{target} must end in .csv or .parquet")
    if target.is_dir() or not target.parent.is_dir():
        wrong = (
            f"{target} is a directory"
            if target.is_dir()
            else f"there is no directory {target.parent}"
        )
        raise RootError(f"{wrong}: name the file to write")
    if kind == _PARQUET:
        _need_pyarrow()
    with until_whole(target) as part:
        if kind == _PARQUET:
            return _write_parquet(part, found)
        with open(part, "w", encoding="utf-8", newline="") as file:
            return _write_csv(file, found)


def _write_csv(file: TextIO, found: Iterable[dict[str, Any]]) -> int:
    """UTF-8 with a header; several texts in one column are separated by ``; ``.

    A text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(column.name for column in COLUMNS)
    count = 0
    for row in found:
        writer.writerow(_cell(row[column.name]) for column in COLUMNS)
        count += 1
    return count


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return no_formula("; ".join(value))
        case str():
            return no_formula(value)
        case _:
            return value


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise RootError(
            "Parquet needs pyarrow: install cytowatch[table], or write a .csv"
        ) from error


def _write_parquet(path: Path, found: Iterable[dict[str, Any]]) -> int:
    # Imported here: no other command needs it, and it is an extra.
    import pyarrow
    from pyarrow import parquet

    kinds = {
        "text": pyarrow.string(),
        "texts": pyarrow.list_(pyarrow.string()),
        "whole": pyarrow.int64(),
        "number": pyarrow.float64(),
        "truth": pyarrow.bool_(),
        "time": pyarrow.timestamp("ms", tz="UTC"),
    }
    schema = pyarrow.schema([(column.name, kinds[column.kind]) for column in COLUMNS])
    count = 0
    source = iter(found)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := list(islice(source, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist([_typed(row) for row in part], schema))
            count += len(part)
    return count


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    from datetime import datetime

    times = [column.name for column in COLUMNS if column.kind == "time" and row[column.name]]
    return {**row, **{name: datetime.fromisoformat(row[name]) for name in times}}
