"""What a note needs: of one uploaded file, and of all that came out of an archive or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cytowatch.record.status import Status

__all__ = ["Seen", "Sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a note needs of an uploaded file.

    `path` is where it was dropped, below the user's folder; of a member it begins with the path of its
    archive. `skipped` holds (name, reason, count, whether it may have been a slide).
    """

    id: str
    parent_id: str | None
    user: str
    path: str
    status: Status
    share: float
    at: datetime
    received_at: str
    reason: str | None = None
    detail: str = ""
    children: int = 0
    is_folder: bool = False
    skipped: tuple[tuple[str, str, int, bool], ...] = ()
    warnings: tuple[str, ...] = ()
    same_as: str | None = None
    #: The word for the fault of the machine that it waits for.
    held: str | None = None

    @property
    def is_container(self) -> bool:
        """Whether it is an archive that was unpacked, or a folder."""
        return self.status is Status.EXTRACTED or (self.is_folder and not self.status.is_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What came out of an archive or a folder; `lost` are members that could not be unpacked.

    Of those that are done `more` are known only by their number.
    """

    done: tuple[Seen, ...]
    more: int = 0
    failed: tuple[Seen, ...]
    in_work: tuple[Seen, ...]
    lost: tuple[tuple[str, str, int, bool], ...]
    left: tuple[tuple[str, str, int, bool], ...]
    total: int

    @property
    def usable(self) -> int:
        """How many can be used."""
        return len(self.done) + self.more

    @property
    def bad(self) -> int:
        """How many failed or were lost."""
        return len(self.failed) + sum(count for _, _, count, _ in self.lost)

    @property
    def pending(self) -> int:
        """How many are not finished."""
        return max(0, self.total - self.usable - self.bad)
