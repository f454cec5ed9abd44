"""What those see who have only the share: one small file each, whose name says it all.

`CMU-1.svs - CONVERTING 40%.txt`, `! batch.zip - EXTRACTED 58 of 60, 2 FAILED.txt`. Notes that are no longer
wanted go. Anything else stays: in an inbox its users may put a folder with slides in the place of the notes'.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.record import names

__all__ = ["Note", "Notes"]

_LONGEST_NAME_BYTES = 255
_MODE = 0o644
_ENDING = ".txt"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
#: What another of our own runs may have left: a note, or one that was being written.
_OURS = re.compile(r".* - [A-Z]{4,}[^/]*\.txt|\.note-[0-9a-f]{8}", re.DOTALL)
#: What needs a person is sorted before everything else, by any program that shows the folder.
_FIRST = "! "
#: With more notes than the second, the slides that ended well move to a folder for their day, until there
#: are fewer than the first: what comes and goes about one number must not move them all each time.
_BESIDE = (60, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One file: whose it is, what it is about, what its name ends with, and its text.

    `first` of what needs a person; `day` (ISO 8601) of what ended well.
    """

    user: str
    about: str
    says: str
    text: str
    first: bool = False
    day: str | None = None


class Notes:
    """Guards that in each user's folder there is one file for each note, and no note that is not wanted."""

    def __init__(self, root: Path, kind: str) -> None:
        self._root = root
        self._kind = kind
        #: By user the name of each note and the hash of its text; None of what another run has left.
        self._written: dict[str, dict[str, int | None]] = {}
        #: The users whose notes are sorted by day.
        self._by_day: set[str] = set()
        self._wanted: dict[str, dict[str, str]] = {}
        #: The user whose notes were being written when the time was up.
        self._left_at = ""
        #: Whether the time was up before all was written: `go_on` does more of it.
        self.is_behind = False

    def _folder(self, user: str) -> str:
        """Relative to the root, so that no part of it is followed if it is a link."""
        return f"inbox/{user}/_status" if self._kind == "inbox" else f"status/{user}"

    def show(self, notes: Mapping[str, Note], *, until: float = math.inf) -> None:
        """Let exactly these be seen, given by what they are about, such as an id.

        What is not done at `until` (on the monotonic clock) is done by `go_on`.

        Raises
        ------
        OSError
            A file cannot be written.
        """
        if not self._kind:
            return
        wanted: dict[str, dict[str, str]] = {user: {} for user in self._written}
        counts = Counter(note.user for note in notes.values())
        self._by_day = {
            user for user, count in counts.items() if count > _BESIDE[user not in self._by_day]
        }
        # In the order of their ids, so that of two with one name always the same has the number.
        for key, note in sorted(notes.items(), key=lambda one: one[0]):
            with aside.fence("note", key):
                day = note.day if note.user in self._by_day else None
                name = self._name(note, key, wanted.get(note.user, {}), f"{day}/" if day else "")
                wanted.setdefault(note.user, {})[name] = note.text
        self._wanted = wanted
        self.go_on(until=until)

    def go_on(self, *, until: float = math.inf) -> None:
        """Write more of what is to be shown, each time from another user on: one user's many notes do not hold up another's few.

        Raises
        ------
        OSError
            A file cannot be written.
        """
        self.is_behind = False
        fault: OSError | None = None
        for user in sorted(self._wanted, key=lambda user: (user <= self._left_at, user)):
            with aside.fence("note", user):
                met, done = self._shown(user, until)
                # A folder of one user, or a disk that is full: the others have their notes first.
                fault = fault or met
                if not done:
                    self._left_at, self.is_behind = user, True
                    break
        if fault is not None:
            # It is tried again with what is shown next.
            self.is_behind = False
        if not self.is_behind:
            self._wanted = {}
        if fault is not None:
            raise fault

    def _shown(self, user: str, until: float) -> tuple[OSError | None, bool]:
        """A fault of the machine that was met at the notes of `user`, and whether there was time for all."""
        try:
            return None, self._write(user, self._wanted[user], until)
        except OSError as error:
            if self._kind == "inbox" and error.errno in (errno.ENOTDIR, errno.ELOOP):
                # In an inbox its user put a link or a file there: no fault of the machine.
                raise
            return error, True

    def _name(self, note: Note, key: str, taken: Mapping[str, str], folder: str) -> str:
        about = (_FIRST if note.first else "") + names.printable(names.file_name(note.about))
        tail = f" - {names.file_name(note.says)}{_ENDING}"
        name = _cut(about, tail) + tail
        if f"{folder}{name}" in taken:
            tail = f" ({key.split('-')[2] if key.count('-') >= 3 else len(taken)}){tail}"
            name = _cut(about, tail) + tail
        return f"{folder}{name}"

    def _write(self, user: str, files: Mapping[str, str], until: float) -> bool:
        """Whether all of them were written before `until`."""
        above, _, own = self._folder(user).rpartition("/")
        with ExitStack() as opened:
            try:
                at = opened.enter_context(durable.beneath(self._root, above))
            except FileNotFoundError:
                if self._kind == "inbox":
                    # An inbox that is gone gets no notes.
                    return True
                raise
            with suppress(FileExistsError):
                os.mkdir(own, 0o755, dir_fd=at)
            folder = opened.enter_context(durable.directory(own, at=at))
            if user not in self._written:
                # What another run left.
                self._written[user] = dict.fromkeys(_there(folder))
            before = self._written[user]
            fault, done = None, True
            for name in sorted(before.keys() - files.keys(), reverse=True):
                if time.monotonic() >= until:
                    return False
                with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
                    _unlink(folder, name)
                del before[name]
                aside.clear("note", f"{user}/{name}")
            for name, text in files.items():
                if before.get(name) != hash(text):
                    if time.monotonic() >= until:
                        done = False
                        break
                    met: OSError | None = None
                    with aside.fence("note", f"{user}/{name}") as fenced:
                        # A note of another run mostly says the same, and reading is cheaper than writing.
                        if before.get(name, 0) is not None or not _says(folder, name, text):
                            met = _tried(folder, name, text)
                    fault = fault or met
                    if met is None and not fenced.failed:
                        before[name] = hash(text)
            if fault is not None:
                raise fault
            return done


def _there(folder: int) -> Iterator[str]:
    """The notes that lie in a user's folder, and in the folders of its days, with those folders."""
    for name in os.listdir(folder):
        if _OURS.fullmatch(name):
            yield name
        elif _DAY.fullmatch(name):
            yield name
            with suppress(OSError), durable.directory(name, at=folder) as day:
                inner = (inside for inside in os.listdir(day) if _OURS.fullmatch(inside))
                yield from (f"{name}/{inside}" for inside in inner)


def _unlink(folder: int, name: str) -> None:
    """Remove a note; the folder of a day goes with its last one."""
    day, slash, inside = name.rpartition("/")
    if not slash:
        with suppress(OSError):
            if _DAY.fullmatch(name):
                os.rmdir(name, dir_fd=folder)
                return
        os.unlink(name, dir_fd=folder)
        return
    with durable.directory(day, at=folder) as at:
        os.unlink(inside, dir_fd=at)
    with suppress(OSError):
        os.rmdir(day, dir_fd=folder)


def _says(folder: int, name: str, text: str) -> bool:
    """Whether the note `name` is there and is what would be written."""
    day, slash, inside = name.rpartition("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    wanted = text.encode("utf-8", "replace")
    try:
        with durable.directory(day, at=folder) if slash else nullcontext(folder) as at:
            descriptor = os.open(inside, flags, dir_fd=at)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            same = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == _MODE
            return same and found.st_size == len(wanted) and file.read(len(wanted) + 1) == wanted
    except OSError:
        return False


def _tried(folder: int, name: str, text: str) -> OSError | None:
    """Write a note; gives a fault of the machine, which does not concern this note."""
    day, slash, inside = name.rpartition("/")
    try:
        if not slash:
            _put(folder, name, text)
            return None
        with suppress(FileExistsError):
            os.mkdir(day, 0o755, dir_fd=folder)
        with durable.directory(day, at=folder) as at:
            _put(at, inside, text)
    except OSError as error:
        if not durable.is_transient(error):
            raise
        return error
    return None


def _put(folder: int, name: str, text: str) -> None:
    """Write a file into the folder, in place of what has that name; no matter what that is, it is not followed."""
    temporary = f".note-{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, _MODE, dir_fd=folder)
    try:
        try:
            os.fchmod(descriptor, _MODE)
            durable.write_all(descriptor, text.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
        try:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            # Nothing else belongs here: it is moved out of the way.
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
