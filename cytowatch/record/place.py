"""Where an uploaded file is, in which status, and what its manifest says there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.status import Status

__all__ = ["FOLDER", "Place", "is_folder", "is_linked"]

#: The format of what stands for a dropped folder.
FOLDER = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an uploaded file is, in which status, and what its manifest says there."""

    status: Status
    path: Path
    manifest: Manifest

    @classmethod
    def read(cls, path: Path, status: Status | None = None) -> Self:
        """The uploaded file at `path`, with the `status` of the directory that it is in, or that of its manifest.

        Raises
        ------
        FileNotFoundError, ManifestError, OSError
            As `manifest.read`.
        """
        found = manifest.read(path)
        return cls(status=status or manifest.status_of(found), path=path, manifest=found)


def is_folder(found: Manifest) -> bool:
    """Whether it stands for a dropped folder, which no stage treats."""
    return found["format"] is not None and found["format"]["id"] == FOLDER


def is_linked(place: Place) -> bool:
    """Whether its replacement by links to a file with the same content has begun."""
    source = place.path / "source"
    return place.manifest["duplicate_of"] is not None and (
        source.is_symlink() or not source.is_dir()
    )
