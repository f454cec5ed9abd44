"""When the spare thread is needed: every other one has been in one stage for long."""

from __future__ import annotations

from cytowatch.record.names import UploadedFileId

__all__ = ["Spare"]

#: How long every thread may be in one stage before a user who has nothing in work gets one more.
_PATIENCE_S = 0.5


class Spare:
    """Guards that the spare thread of `count` others works only while they are held up.

    What hangs, or takes hours, would else keep everybody waiting who has dropped one slide. Under the lock
    of the engine only; times are on the monotonic clock.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        #: What each thread was given, and when it last came to the end of a stage.
        self._moved_at: dict[UploadedFileId, float] = {}

    def moved(self, id_: UploadedFileId, now: float) -> None:
        """The thread that was given `id_` has come to the end of a stage, or to its beginning."""
        self._moved_at[id_] = now

    def ended(self, id_: UploadedFileId) -> None:
        """`id_` is no longer in work."""
        self._moved_at.pop(id_, None)

    def is_needed(self, now: float) -> bool:
        """Whether all threads but the spare one have been in one stage each for long."""
        moved = self._moved_at.values()
        return len(moved) <= self._count and all(now - at >= _PATIENCE_S for at in moved)

    def needed_at(self, now: float) -> float | None:
        """When they will have been, if nothing moves; None once they have been."""
        at = max(self._moved_at.values(), default=0.0) + _PATIENCE_S
        # Once they are held up, help comes with this turn, or what it takes is not there.
        return at if at > now else None
