"""The words of the notes on the share: what happened, what to do, and last the technical detail.

They are read by technicians who have nothing but the share, so they name no command and no other page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from cytowatch.observe import left
from cytowatch.observe.feedback import Note
from cytowatch.observe.left import EMPTY
from cytowatch.observe.seen import Seen, Sum
from cytowatch.record import lacking, reasons
from cytowatch.record.names import printable

__all__ = [
    "BROKE_OFF",
    "COPY_AGAIN",
    "EMPTY",
    "about",
    "advice",
    "local",
    "of_many",
    "of_one",
    "sentence_of",
    "text",
]

#: How many members have a line in the note of their archive or folder.
_MOST_LINES = 1000
_LONGEST_DETAIL = 2000
_ASK = reasons.ASK
#: About a file that waits, and about one that has failed: the next one of that name takes its place.
COPY_AGAIN = "Copy it again under the same name"
BROKE_OFF = "It is empty: the copy broke off before anything arrived."
_KEPT = "The file that you sent is kept, unchanged."


def local(when: datetime) -> str:
    """A time as the clock on the wall shows it where the server stands, with its zone."""
    return f"{when.astimezone():%Y-%m-%d %H:%M %Z}"


def about(path: str) -> str:
    """A path for the name of a note: the file first, then where it lay.

    >>> about("case-101/HE.svs"), about("a/b/c/d/batch.zip/x/y/CMU-1.mrxs")
    ('HE.svs in case-101', 'CMU-1.mrxs in y in x in batch.zip in d in c in b in a')
    """
    parts = path.split("/")[::-1]
    text = " in ".join(parts)
    if len(text.encode()) <= 150 or len(parts) < 3:
        return text
    # Its name and what was dropped are shown in any case.
    return f"{parts[0]} in … in {parts[-1]}"


def of_one(one: Seen, root: Seen | None) -> Note:
    """The note of an uploaded file by itself; of a member that failed, `root` is what was dropped."""
    lines = [one.path]
    if root is not None:
        lines.append(f"came in {root.path}, dropped {dropped(root)}")
    elif one.status.is_final:
        lines.append(f"dropped {dropped(one)}")
    lines.append("")
    if one.reason is not None:
        lines += of_error(one, root)
    elif one.status.is_final:
        lines += [f"It is done, and can be used ({one.status.label})."]
        if one.same_as:
            lines += [f"It has the same content as {one.same_as}."]
    elif wait := _held(one):
        lines += [f"It waits ({one.status.label}). {wait.means}", f"What to do: {wait.technician}"]
    else:
        lines += [f"It is being processed ({one.status.label}). Nothing to do."]
    lines += _notes(one)
    lines += ["", f"id: {one.id}"]
    same = f" (same as {one.same_as})" if one.same_as and one.status.is_success else ""
    return Note(
        user=one.user,
        about=about(one.path) + same,
        says=_says(one),
        text=text(lines),
        first=one.reason is not None,
        day=_day(one) if one.status.is_success else None,
    )


def of_many(root: Seen, total: Sum) -> Note:
    """The note that sums up an archive or a folder."""
    lines = [root.path, f"dropped {dropped(root)}", ""]
    lines.append(_sentence(root, total))
    if total.bad:
        lines += [
            "The failed ones come first. The note of each, or its line here, says what to do.",
            "",
        ]
    lines += _table(root, total)
    lines += left.lines(
        ((name, reason, count) for name, reason, count, _ in total.left), _MOST_LINES
    )
    # Of lost members the lines above say all.
    lines += [] if total.lost else _notes(root)
    lines += ["", f"id: {root.id}"]
    finished = root.status.is_final and not total.pending
    return Note(
        user=root.user,
        about=about(root.path),
        says=_counted(root, total),
        text=text(lines),
        first=total.bad > 0,
        day=_day(root) if finished and not total.bad else None,
    )


def _says(one: Seen) -> str:
    if one.reason is not None:
        known = reasons.of(one.reason)
        if one.reason == "no_image" and lacking.of_layout(one.detail):
            return "FAILED, not a whole slide"
        if found := lacking.of_kind(one.detail):
            return "FAILED, empty" if found[0] == EMPTY else f"FAILED, {found[0]}"
        return f"FAILED, {known.says if known else one.reason.replace('_', ' ')}"
    if one.status.is_final:
        return one.status.label
    if wait := _held(one):
        return f"{one.status.label}, {wait.says}"
    step = int(one.share * 10) * 10
    return one.status.label + (f" {step}%" if step else "")


def _held(one: Seen) -> reasons.Wait | None:
    """What an uploaded file in work waits for, if people are to know it."""
    found = reasons.WAITING.get(one.held or "")
    return found if found is not None and found.says else None


def _counted(root: Seen, total: Sum) -> str:
    failed = f", {total.bad:,} FAILED" if total.bad else ""
    if not root.status.is_final:
        return f"RECEIVING, {total.usable:,} DONE{failed}"
    if total.pending:
        step = int(10 * (total.total - total.pending) / max(1, total.total)) * 10
        return f"EXTRACTED {total.total:,}, {step}% DONE{failed}"
    return f"EXTRACTED {total.usable:,} of {total.total:,}{failed}"


def _sentence(root: Seen, total: Sum) -> str:
    of = f"{total.usable:,} of {total.total:,} slides and images can be used"
    failed = f", {total.bad:,} failed" if total.bad else ""
    if not total.total and not root.status.is_final:
        return "It is being processed: nothing of it is done yet."
    if total.pending or not root.status.is_final:
        return (
            f"It is being processed: {of} up to now{failed}.{'' if failed else ' Nothing to do.'}"
        )
    return f"It is done: {of}{failed}."


def _table(root: Seen, total: Sum) -> Iterator[str]:
    def inside(one: Seen) -> str:
        return one.path.removeprefix(f"{root.path}/")

    lines = [
        *(_line("FAILED", inside(one), _why(one)) for one in _sorted(total.failed)),
        *(_line("FAILED", name or "others", _lost(reason, count)) for name, reason, count, _ in total.lost),
        *(_line(one.status.label, inside(one), _why(one)) for one in _sorted(total.in_work)),
        *(_line("DONE", inside(one), _remark(one)) for one in _sorted(total.done)),
    ]  # fmt: skip
    yield from lines[:_MOST_LINES]
    others = max(0, len(lines) - _MOST_LINES) + total.more
    if others:
        yield f"… and {others:,} more"


def _sorted(some: Iterable[Seen]) -> Sequence[Seen]:
    return sorted(some, key=lambda one: one.path)


def _line(word: str, path: str, why: str) -> str:
    return f"{word:<10} {path}{f': {why}' if why else ''}"


def _remark(one: Seen) -> str:
    if one.reason is not None:
        return "failed at first, then it was sent again"
    same = f"the same content as {one.same_as}" if one.same_as else ""
    return same or next(filter(lacking.is_of_unnamed, one.warnings), "")


def _why(one: Seen) -> str:
    return _says(one).partition(", ")[2]


def _lost(reason: str, count: int) -> str:
    word, _, said = reason.partition(": ")
    said = said or reason
    if word == "unsupported_format":
        what, _, how = said.partition("; ")
        return f"{what}, which cannot be taken as it is" + (f". {sentence_of(how)}" if how else "")
    if word == "nested_too_deep":
        return f"{said}. Pack the slides themselves into one zip, and drop it"
    number = f"{count:,} files could not be unpacked" if count > 1 else "could not be unpacked"
    return f"{number} ({said}). Pack it again and drop the new zip"


def of_error(one: Seen, root: Seen | None, *, kept: str = _KEPT) -> list[str]:
    """What went wrong, what to do, where the file is, and last the technical detail."""
    in_archive = root is not None and not root.is_folder
    means, to_do = advice(one.reason, one.detail, same_as=one.same_as, in_archive=in_archive)
    if means == BROKE_OFF:
        kept = ""
    return [
        means,
        f"What to do: {to_do}",
        *([kept] if kept else []),
        "",
        f"Technical detail: {one.detail[:_LONGEST_DETAIL]} ({one.reason})",
    ]


def advice(
    reason: str | None, detail: str, *, same_as: str | None = None, in_archive: bool = False
) -> tuple[str, str]:
    """What an error means, and what a technician does about it, each in a sentence or two; `in_archive` if it came in one.

    The note, the command line and the panel say the same.
    """
    known = reasons.of(reason or "")
    means = known.means if known else "It could not be taken."
    to_do = known.technician if known else _ASK
    if reason == "duplicate" and same_as:
        means = f"The same slide is there already: {same_as}."
    if reason == "incomplete":
        means = incomplete(detail) or means
    if reason == "no_image" and lacking.of_layout(detail):
        means = "It holds files of a slide, but not the whole slide."
    if found := lacking.of_kind(detail):
        what, how = found
        if what == EMPTY:
            return BROKE_OFF, f"{COPY_AGAIN}."
        if how:
            return f"It is {what}, which cannot be taken as it is.", f"{sentence_of(how)}."
        return f"It is {what}. Only slides and images can be taken.", to_do
    parts = lacking.of_layout(detail)
    if parts and (in_archive or reason == "no_image"):
        return means, f"Put {parts} into one zip, and drop it."
    return means, f"Send all of it again: {parts}." if parts else to_do


def sentence_of(how: str) -> str:
    """What to do with a file of that kind, as a sentence without its full stop."""
    # Where it says already what is to be dropped, "that" would be something else.
    end = "" if how.startswith(("drop", "copy")) else ", and drop that"
    return f"{how[0].upper()}{how[1:]}{end}"


def incomplete(detail: str) -> str | None:
    """What is missing, in words for a technician; None if the detail does not say it in numbers."""
    amount = lacking.stopped(detail)
    if amount:
        return f"The copy stopped after {amount}."
    if lacking.of_layout(detail):
        return "A part of the slide is missing."
    return None


def _notes(one: Seen) -> list[str]:
    return ["", *(f"Note: {warning}" for warning in one.warnings)] if one.warnings else []


def dropped(one: Seen) -> str:
    """When it was received, for people."""
    return local(datetime.fromisoformat(one.received_at))


def _day(one: Seen) -> str:
    return f"{one.at.astimezone():%Y-%m-%d}"


def text(lines: Iterable[str]) -> str:
    return "".join(f"{printable(line)}\n" for line in lines)
