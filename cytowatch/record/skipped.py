"""What an archive or a dropped folder skipped: which of it counts as lost, and how much of it is named."""

from __future__ import annotations

from cytowatch.record.entries import Manifest, SkippedEntry

__all__ = ["capped", "is_loss", "losses"]

#: The first words of reasons for which a member of an archive counts as lost; any other was not an image anyway.
_LOST = ("damaged", "unsupported_format", "unsupported_packing", "nested_too_deep")
#: At most this many are named; the rest is counted.
_MOST_NAMED = 100


def is_loss(skipped: SkippedEntry) -> bool:
    """Whether what was skipped may have been a slide."""
    return skipped["reason"].partition(":")[0] in _LOST


def losses(manifest: Manifest) -> int:
    """How many members an archive lost: this, and nothing else, makes its success a partial one."""
    return sum(one.get("count", 1) for one in manifest["skipped"] if is_loss(one))


def capped(skipped: list[SkippedEntry]) -> list[SkippedEntry]:
    """Those that were lost first, by name as far as there is room, and the number of the others."""
    ordered = sorted(skipped, key=lambda one: not is_loss(one))
    named, rest = ordered[:_MOST_NAMED], ordered[_MOST_NAMED:]
    lost = sum(is_loss(one) for one in rest)
    counts = (
        ("damaged: and more, not named here", lost),
        ("and more, not named here", len(rest) - lost),
    )
    return [
        *named,
        *(SkippedEntry(name="", reason=reason, count=count) for reason, count in counts if count),
    ]
