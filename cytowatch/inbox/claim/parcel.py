"""What is claimed as one: a file, or the files of a set."""

from __future__ import annotations

from dataclasses import dataclass

from cytowatch.durable import owner
from cytowatch.record.drop import Drop
from cytowatch.record.entries import Manifest

__all__ = ["JOURNAL", "MARKER", "Held", "Member", "Parcel"]

#: The list of what a claim moves, in ``state/tmp/<id>/`` until it is done.
JOURNAL = "claim.json"
MARKER = "done-marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file to be claimed, and where it goes below ``<id>/``; role is source or sidecar.

    `dropped_as` is the path of a file of a set, from the folder of its head.
    """

    drop: Drop
    to: str
    role: str = "source"
    dropped_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What becomes one uploaded file; the first member is its head.

    `folder` is a folder that is removed if nothing is left in it,
    `marker` the ``done_marker`` file that goes with it, `parent` the uploaded file of the dropped
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
        """What it is called by: its head, or of a set that has none the folder of the set."""
        if self.folder is not None and self.head.path.startswith(f"{self.folder}/"):
            return self.folder
        return self.head.path

    @property
    def size_bytes(self) -> int:
        """The bytes of all members."""
        return sum(member.drop.fingerprint.size_bytes for member in self.members)


@dataclass(slots=True, kw_only=True)
class Held:
    """A member that is open: its own descriptor and that of its folder."""

    member: Member
    folder_fd: int
    descriptor: int
    leased: bool = False
    #: Whose it was, once it was taken.
    before: owner.Owner | None = None
