"""A parcel: the files that are claimed as one uploaded file, a single file or a set."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from cytowatch.durable import owner
from cytowatch.record import names
from cytowatch.record.drop import Drop
from cytowatch.record.entries import Manifest

__all__ = ["JOURNAL", "MARKER", "Held", "Member", "Parcel", "directories"]

#: The list of what a claim moves, in ``state/tmp/<id>/`` until it is done.
JOURNAL = "claim.json"
MARKER = "done-marker"


def directories(paths: Iterable[str]) -> list[str]:
    """The directories below ``<id>/`` that hold the files at `paths`, each after the one that it lies in.

    >>> directories(["source/1.mrxs", "source/1/Slidedat.ini"])
    ['source', 'source/1']
    """
    found: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        found.update(dict.fromkeys("/".join(parts[:n]) for n in range(1, len(parts))))
    return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file to be claimed, and its place below ``<id>/``; its role is source or sidecar.

    `dropped_as` is the path of a file of a set, from the folder of its head.
    """

    drop: Drop
    to: str
    role: str = "source"
    dropped_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """The files that become one uploaded file; the first member is its head.

    `folder` is removed if nothing is left in it,
    `marker` is its ``done_marker`` file, `parent` is the uploaded file of the dropped
    folder; with `images_only` a file that no format claims stays where it is. `warnings` are the manifest's first.
    """

    members: tuple[Member, ...]
    folder: str | None = None
    marker: Drop | None = None
    parent: Manifest | None = None
    images_only: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def head(self) -> Drop:
        """The file that names it."""
        return self.members[0].drop

    @property
    def path(self) -> str:
        """The source of its name: its head, or for a set without a head the folder of the set."""
        if self.folder is not None and self.head.path.startswith(f"{self.folder}/"):
            return self.folder
        return self.head.path

    @property
    def name(self) -> tuple[str, str | None]:
        """What it is called; and its bytes in base64, where they are not that text."""
        return names.decode(os.fsencode(os.path.basename(self.path)))

    @property
    def directories(self) -> list[str]:
        """The directories that its files are moved into."""
        return directories(member.to for member in self.members)

    @property
    def size_bytes(self) -> int:
        """The bytes of all members."""
        return sum(member.drop.fingerprint.size_bytes for member in self.members)


@dataclass(slots=True, kw_only=True)
class Held:
    """An open member: its own descriptor and that of its folder."""

    member: Member
    folder_fd: int
    descriptor: int
    leased: bool = False
    #: Its former owner, once it is taken.
    before: owner.Owner | None = None
