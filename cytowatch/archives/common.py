"""What holds for every kind of archive: names that stay inside, and a budget of real bytes."""

from __future__ import annotations

from dataclasses import dataclass

from cytowatch.config import Limits
from cytowatch.errors import ExtractionError

__all__ = ["Budget", "DamagedMember", "checked_path"]

#: Below this an archive may be as dense as it likes: a white image packs a thousandfold.
_RATIO_FROM_BYTES = 256 << 20


class DamagedMember(Exception):
    """One member cannot be unpacked; the others may be whole."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """Guards how much an archive of `archive_bytes` may unpack to, whatever it states."""

    limits: Limits
    archive_bytes: int
    spent_bytes: int = 0

    def check(self, total: int) -> None:
        """Refuse `total` bytes.

        Raises
        ------
        ExtractionError
            `too_large` or `ratio`.
        """
        limits = self.limits
        if total > limits.archive_max_bytes:
            raise ExtractionError(
                "too_large",
                f"it unpacks to more than {limits.archive_max_bytes:,} bytes "
                "(limits.archive_max_bytes)",
            )
        if total > _RATIO_FROM_BYTES and total > limits.archive_max_ratio * self.archive_bytes:
            raise ExtractionError(
                "ratio",
                f"it unpacks to more than {limits.archive_max_ratio} times its size "
                "(limits.archive_max_ratio)",
            )

    def spend(self, count: int) -> None:
        """Take note of `count` bytes that were unpacked.

        Raises
        ------
        ExtractionError
            They are too many, together with those before.
        """
        self.spent_bytes += count
        self.check(self.spent_bytes)


def checked_path(stated: str) -> str:
    """The path of a member with ``/`` between its parts.

    Raises
    ------
    ExtractionError
        It leads out of the archive, is absolute, or holds control characters.
    """
    shown = ascii(stated)[1:-1][:200]
    if any(ord(char) < 32 for char in stated):
        raise ExtractionError("control_characters", f"the name {shown} holds control characters")
    path = stated.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":":
        raise ExtractionError("absolute_path", f"the member {shown} has an absolute path")
    if ".." in path.split("/"):
        raise ExtractionError("path_traversal", f"the member {shown} leads out of the archive")
    return "/".join(part for part in path.split("/") if part not in ("", "."))
