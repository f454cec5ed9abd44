"""Where an uploaded file is, in which status, and what its manifest says there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cytowatch.record.entries import Manifest
from cytowatch.record.status import Status

__all__ = ["Place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an uploaded file is, in which status, and what its manifest says there."""

    status: Status
    path: Path
    manifest: Manifest
