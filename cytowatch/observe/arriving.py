"""The notes of what still lies in the inboxes: one for each file, set or folder that was dropped there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from cytowatch import aside
from cytowatch.observe import wording
from cytowatch.observe.drops import Drops
from cytowatch.observe.feedback import Note
from cytowatch.observe.seen import Seen
from cytowatch.record import lacking, reasons
from cytowatch.record.reasons import Wait

__all__ = ["notes", "story"]

_RECEIVING = frozenset({"settling", "open_for_writing", "no_lease"})
#: Their details add nothing to their sentences.
_SAID = frozenset({"settling", "paused", "temporary_name"})
_MOST_LINES = 1000


def notes(waiting: Iterable[Mapping[str, Any]], drops: Drops) -> dict[str, Note]:
    """By path below ``inbox/``; `waiting` are rows as ``state/live.json`` has them.

    What lies in a folder is reported in one note for the folder. What is not an image and was left in a folder
    that is finished is reported in the note of that folder, by `drops`.
    """
    by_drop: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in waiting:
        with aside.fence("note", str(row["path"]), clears=False):
            user, _, path = row["path"].partition("/")
            if row["user"] == user:
                by_drop.setdefault((user, _dropped(path) or user), []).append(row)
    made: dict[str, Note] = {}
    for (user, path), rows in by_drop.items():
        with aside.fence("note", f"{user}/{path}", clears=False):
            if not _is_told(drops.folder(user, path), rows):
                made[f"{user}/{path}"] = _note(user, path, rows)
    return made


def _is_told(folder: Seen | None, rows: list[Mapping[str, Any]]) -> bool:
    """Whether the note of the folder says all that there is to say of what lies in it."""
    if folder is None:
        return False
    if folder.status.is_final:
        return all(row["why"] == "not_an_image" for row in rows)
    return not any(map(_needs_a_hand, rows))


def _dropped(path: str) -> str:
    """What was dropped: the file, the folder in which it lies, or that in the folder of a project."""
    parts = path.split("/")
    return "/".join(parts[: 2 if parts[0].startswith("@") else 1])


def _note(user: str, path: str, rows: list[Mapping[str, Any]]) -> Note:
    if len(rows) == 1 and rows[0]["path"].partition("/")[2] in (path, ""):
        row = rows[0]
        return _made(user, path, rows, [path, *_story(row), *_detail(row)])
    lines = [path, *([] if _is_settled(rows) else ["It is still arriving."]), ""]
    lines += _of_folder(path, rows)
    return _made(user, path, rows, lines)


def _made(user: str, path: str, rows: list[Mapping[str, Any]], lines: list[str]) -> Note:
    return Note(
        user=user,
        about=wording.about(path),
        says=_says(rows),
        text=wording.text(lines),
        first=any(map(_needs_a_hand, rows)),
    )


def _needs_a_hand(row: Mapping[str, Any]) -> bool:
    return _wait(row).by_hand and row["why"] != "not_an_image"


def _is_settled(rows: list[Mapping[str, Any]]) -> bool:
    return not any(row["why"] in _RECEIVING for row in rows)


def _says(rows: list[Mapping[str, Any]]) -> str:
    """By what needs a person's hand, else by what is still arriving."""
    whys = [_wait(row) for row in rows]
    hand = next((_wait(row) for row in rows if _needs_a_hand(row)), None)
    if hand is None and not _is_settled(rows):
        size = lacking.size(sum(row["size_bytes"] for row in rows))
        return f"RECEIVING {size}" if len(rows) == 1 else f"RECEIVING {len(rows):,} FILES, {size}"
    if all(row["why"] == "not_an_image" for row in rows):
        return "NO IMAGE IN IT"
    wait = hand or next(
        wait for row, wait in zip(rows, whys, strict=True) if row["why"] != "not_an_image"
    )
    return f"WAITING, {wait.says}" if wait.says else "WAITING"


def _wait(row: Mapping[str, Any]) -> Wait:
    return reasons.WAITING.get(row["why"], reasons.WAITING["other"])


def _story(row: Mapping[str, Any]) -> list[str]:
    means, to_do = story(row)
    return [means, f"What to do: {to_do}"]


def story(row: Mapping[str, Any]) -> tuple[str, str]:
    """What is the matter with a drop that waits, and what to do until when, in two sentences."""
    wait = _wait(row)
    if row["why"] == "not_an_image" and wording.EMPTY in row["detail"]:
        return wording.BROKE_OFF, f"{wording.COPY_AGAIN}, or delete it."
    if row["why"] != "incomplete":
        return wait.means, wait.technician
    if lacking.is_part_of_archive(row["path"]):
        what, how = lacking.PART_OF_ARCHIVE
        return (
            f"It is {what}, which cannot be taken as it is.",
            f"{wording.sentence_of(how)}. Delete all parts.",
        )
    size = lacking.size(row["size_bytes"])
    stopped = f"The copy stopped after {size}, before the end of the file."
    if not row["size_bytes"]:
        stopped = wording.BROKE_OFF
    return wording.incomplete(row["detail"]) or stopped, _until(row)


def _until(row: Mapping[str, Any]) -> str:
    parts = lacking.of_layout(row["detail"])
    to_do = "Copy what is missing" if parts else wording.COPY_AGAIN
    if row.get("until"):
        to_do += f" before {wording.local(datetime.fromisoformat(row['until']))}"
    return f"{to_do}: a whole slide is {parts}." if parts else f"{to_do}."


def _detail(row: Mapping[str, Any]) -> list[str]:
    if not row["detail"] or row["why"] in _SAID:
        return []
    return ["", f"Technical detail: {row['detail']} ({row['why']})"]


def _of_folder(path: str, rows: list[Mapping[str, Any]]) -> list[str]:
    """A line for each of its files, first those that need a person's hand."""
    lines = []
    ordered = sorted(rows, key=lambda row: (not _wait(row).by_hand, row["path"]))
    for row in ordered[:_MOST_LINES]:
        inside = row["path"].partition("/")[2].removeprefix(f"{path}/")
        lines.append(f"{inside}: {' '.join(_story(row))}")
    if len(ordered) > _MOST_LINES:
        lines.append(f"… and {len(ordered) - _MOST_LINES:,} more")
    return lines
