"""One row of the index: its facts about an uploaded file, in a form that SQLite can store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cytowatch.outside import LARGEST
from cytowatch.record.content import content_key
from cytowatch.record.entries import Manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import FOLDER
from cytowatch.record.status import Status

__all__ = [
    "COLUMNS",
    "OF_ROW",
    "PUT",
    "SORTS",
    "Row",
    "fitting",
    "marks",
    "values_of",
]

#: The columns of the table `uploaded`, in order.
COLUMNS = (
    "id", "parent_id", "user", "name", "status", "format", "size_bytes", "received_at",
    "changed_at", "reason", "content", "duplicate_of", "short",
)  # fmt: skip
#: The columns that make a `Row`.
OF_ROW = "id, parent_id, user, name, status, received_at, changed_at, reason, format, size_bytes"
#: Writes a whole row, in place of an older one.
PUT = (
    f"INSERT INTO uploaded VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
)
#: The words by which a list can be sorted, and their columns.
SORTS: Mapping[str, str] = {
    "received": "id",
    "name": "name",
    "size": "size_bytes",
    "status": "status",
    "ended": "changed_at",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The facts that the index has about one uploaded file; `changed_at` is when it entered its status."""

    id: UploadedFileId
    parent_id: str | None
    user: str
    name: str
    status: Status
    received_at: str
    changed_at: str
    reason: str | None
    format: str | None
    size_bytes: int

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a dropped folder."""
        return self.format == FOLDER


def values_of(found: Manifest, status: Status) -> tuple[Any, ...]:
    """The row of an uploaded file in `status`, in the order of `COLUMNS`."""
    history = found["history"]
    # Only files in storage count as content that is already there.
    content = content_key(found["files"]) or found["sha256"] if status.is_success else None
    return (
        found["id"],
        found["parent_id"],
        found["user"],
        found["name"],
        status.name,
        found["format"]["id"] if found["format"] else None,
        found["size_bytes"],
        found["received_at"],
        history[-1]["at"] if history else found["received_at"],
        found["error"]["reason"] if found["error"] else None,
        content,
        found["duplicate_of"],
        found["id"].split("-")[2],
    )


def fitting(value: object) -> str | int | None:
    """`value` as SQLite can hold it.

    >>> fitting("a\\udce4"), fitting(1 << 70)
    ('a?', 9223372036854775807)
    """
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case int():
            return max(-LARGEST, min(value, LARGEST))
        case _:
            return None


def marks(values: Sequence[str]) -> str:
    """As many question marks for SQL as there are `values`."""
    return ", ".join("?" * len(values))
