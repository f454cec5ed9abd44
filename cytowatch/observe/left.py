"""What a drop held beside its slides and images: lines of its note, with what to do about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cytowatch.record import reasons

__all__ = ["EMPTY", "lines"]

#: How `formats.looks_like` calls a file without content.
EMPTY = "an empty file"
_BROKE_OFF = "Empty, because the copy broke off. Copy again:"
_WAITS = (
    "Not taken, and still in the inbox. As long as it is there, it has a note that says what to do:"
)
_NO_IMAGE = "Not taken, because it is not a slide or an image. Nothing to do:"


def lines(skipped: Iterable[tuple[str, str, int]], most: int) -> Iterator[str]:
    """At most `most` of each kind of `skipped`, which are (name, reason, count)."""
    kinds: dict[str, list[str]] = {_BROKE_OFF: [], _WAITS: [], _NO_IMAGE: []}
    for name, reason, count in skipped:
        if reason != "ignored":
            said = reason.partition(": ")[2] or reason
            kinds[_kind(reason)].append(f"  {name}: {said}" if name else f"  {count:,} more")
    for title, entries in kinds.items():
        if entries:
            yield from ("", title, *entries[:most])


def _kind(reason: str) -> str:
    word = reason.partition(": ")[0]
    if EMPTY in reason:
        return _BROKE_OFF
    waits = reasons.WAITING.get(word)
    return _WAITS if waits and waits.by_hand and word != "not_an_image" else _NO_IMAGE
