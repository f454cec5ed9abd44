"""What those see who have only the share: one small file each, whose name says it all.

`CMU-1.svs - CONVERTING 40%.txt`. The folder is for nobody else to write in, so whatever lies in it
and is not wanted goes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.record import names, reasons
from cytowatch.record.manifest import Manifest, losses
from cytowatch.record.status import Status

__all__ = ["Note", "Notes", "bytes_text", "of_drop", "of_uploaded"]

_LONGEST_NAME_BYTES = 255
_ENDING = ".txt"
_ASK = "Ask the administrator, who can look with `cytowatch show` and try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One file: whose it is, what it is about, what its name ends with, and its text."""

    user: str
    about: str
    says: str
    text: str


def bytes_text(count: float) -> str:
    """A size for a name, in steps of two digits.

    >>> bytes_text(999), bytes_text(1_234_567), bytes_text(43_000_000_000)
    ('999 B', '1.2 MB', '43 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.0f} TB" if count >= 10 else f"{count:.1f} TB"


def of_drop(user: str, path: str, why: str, detail: str, size_bytes: int) -> Note:
    """Of something that lies in the inbox still."""
    name = path.split("/", 1)[-1]
    receiving = why in ("settling", "open_for_writing", "no_lease")
    says = f"RECEIVING {bytes_text(size_bytes)}" if receiving else "WAITING"
    text = f"{name}\nis in the inbox still: {detail or why}\n"
    return Note(user=user, about=name.replace("/", " in "), says=says, text=text)


def of_uploaded(found: Manifest, status: Status, share: float) -> Note:
    """Of an uploaded file; `share` of its stage is done."""
    step = int(share * 10) * 10
    says = status.label + (f" {step}%" if step and not status.is_final else "")
    if status is Status.EXTRACTED and (lost := losses(found)):
        says += f", {lost:,} LOST"
    lines = [found["name"], f"is {status.label}.", f"id: {found['id']}"]
    if found["error"] is not None:
        reason = found["error"]["reason"]
        lines += ["", f"Why: {found['error']['detail']}", f"({reason})", ""]
        known = reasons.of(reason)
        to_do = known.technician if known else _ASK
        lines += [f"What to do: {to_do}", "The file itself is kept, unchanged."]
    lines += [f"Note: {warning}" for warning in found["warnings"]]
    lines += [f"Left out: {one['name']}: {one['reason']}" for one in found["skipped"]]
    return Note(user=found["user"], about=found["name"], says=says, text="\n".join(lines) + "\n")


class Notes:
    """Guards that in each user's folder there is one file a note, and nothing else."""

    def __init__(self, root: Path, kind: str) -> None:
        self._root = root
        self._kind = kind
        self._written: dict[str, dict[str, str]] = {}

    def _folder(self, user: str) -> str:
        """Relative to the root, so that no part of it is followed if it is a link."""
        return f"inbox/{user}/_status" if self._kind == "inbox" else f"status/{user}"

    def show(self, notes: Mapping[str, Note]) -> None:
        """Let exactly these be seen, given by what they are about, such as an id.

        Raises
        ------
        OSError
            A file cannot be written.
        """
        if not self._kind:
            return
        wanted: dict[str, dict[str, str]] = {user: {} for user in self._written}
        # In the order of their ids, so that of two with one name always the same has the number.
        for key, note in sorted(notes.items(), key=lambda one: one[0]):
            with aside.fence("note", key):
                wanted.setdefault(note.user, {})[self._name(note, key, wanted)] = note.text
        fault: OSError | None = None
        for user, files in wanted.items():
            with aside.fence("note", user):
                try:
                    self._write(user, files)
                except OSError as error:
                    if self._kind == "inbox" and error.errno in (errno.ENOTDIR, errno.ELOOP):
                        # In an inbox its user put a link or a file there: no fault of the machine.
                        raise
                    # A folder of one user, or a disk that is full: the others have their notes first.
                    fault = fault or error
        if fault is not None:
            raise fault

    def _name(self, note: Note, key: str, wanted: Mapping[str, Mapping[str, str]]) -> str:
        about = names.printable(names.file_name(note.about))
        taken = wanted.get(note.user, {})
        tail = f" - {note.says}{_ENDING}"
        name = _cut(about, tail) + tail
        if name in taken:
            tail = f" ({key.split('-')[2] if key.count('-') >= 3 else len(taken)}){tail}"
            name = _cut(about, tail) + tail
        return name

    def _write(self, user: str, files: Mapping[str, str]) -> None:
        above, _, own = self._folder(user).rpartition("/")
        with ExitStack() as opened:
            try:
                at = opened.enter_context(durable.beneath(self._root, above))
            except FileNotFoundError:
                if self._kind == "inbox":
                    # An inbox that is gone gets no notes.
                    return
                raise
            with suppress(FileExistsError):
                os.mkdir(own, 0o755, dir_fd=at)
            folder = opened.enter_context(durable.directory(own, at=at))
            if user not in self._written:
                # What another run left: nobody else writes here.
                self._written[user] = dict.fromkeys(os.listdir(folder), "")
            before = self._written[user]
            fault: OSError | None = None
            for name in before.keys() - files.keys():
                with suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=folder)
                del before[name]
                aside.clear("note", f"{user}/{name}")
            for name, text in files.items():
                if before.get(name) != text:
                    met: OSError | None = None
                    with aside.fence("note", f"{user}/{name}") as fenced:
                        met = _tried(folder, name, text)
                    fault = fault or met
                    if met is None and not fenced.failed:
                        before[name] = text
            if fault is not None:
                raise fault


def _tried(folder: int, name: str, text: str) -> OSError | None:
    """Write a note; gives a fault of the machine, which is no matter of this note."""
    try:
        _put(folder, name, text)
    except OSError as error:
        if not durable.is_transient(error):
            raise
        return error
    return None


def _put(folder: int, name: str, text: str) -> None:
    """Write a file into the folder, in place of what has that name; whatever that is, it is not followed."""
    temporary = f".note-{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644, dir_fd=folder)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
        try:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            # Nobody else has anything to look for here: out of the way with it.
            aside_name = f"{name[:200]}.{os.urandom(4).hex()}"
            os.rename(name, aside_name, src_dir_fd=folder, dst_dir_fd=folder)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _cut(about: str, tail: str) -> str:
    """`about`, so short that with `tail` it is a name that every file system takes."""
    room = _LONGEST_NAME_BYTES - len(tail.encode())
    return about.encode()[:room].decode("utf-8", "ignore").rstrip(" .")
