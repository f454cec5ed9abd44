"""The way back into an inbox, as guarded as the way in.

Others write to an inbox, and may put a link, a pipe or a folder in the place of any name at any moment. So
what goes back goes relative to descriptors of folders, none of which was reached by a link, and never over
anything. The files of one slide go back together: under their own names if all of those are free, else under
one other stem that is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cytowatch import durable
from cytowatch.durable import owner
from cytowatch.formats.sets import groups
from cytowatch.record import names

__all__ = ["Unit", "begun", "forget", "give_back", "opened", "put"]

#: The file in ``<id>/`` whose name says under which number its files go back: a second try goes on with it.
_MARK = re.compile(r"back\.(\d+)")
_MOST_TRIES = 1000
#: The ending of a text that says why something was handed back, and the mark that it was written.
_WHY = ".why.txt"
_TOLD = "back.told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What goes back as one: each file by its path below ``<id>/``, and its path as it was dropped."""

    stem: str
    files: Sequence[tuple[str, str]]

    @property
    def is_set(self) -> bool:
        """Whether other files could be taken for parts of it: it is several, or is called like a part."""
        tops = {path.partition("/")[0] for _, path in self.files}
        return (
            len(self.files) > 1
            or any("/" in path for _, path in self.files)
            or any(groups.is_part(name) for name in tops)
        )

    def named(self, number: int) -> list[tuple[str, str]]:
        """The files with the paths that they get at the try of this `number`.

        A head and its folder change their stem together, as decoders find one by the other. What is named by
        an index file keeps its name, and goes into a folder of its own.
        """
        if number == 0:
            return list(self.files)
        again = f"{self.stem} ({number})"
        others = {f"_{self.stem}_": f"_{again}_"}
        found = []
        for source, path in self.files:
            top, slash, rest = path.partition("/")
            stem, ending = (top, "") if slash else os.path.splitext(top)
            if stem == self.stem:
                top = f"{again}{ending}"
            elif top in others:
                top = others[top]
            else:
                return [(source, f"{again}/{path}") for source, path in self.files]
            found.append((source, f"{top}{slash}{rest}"))
        return found


@contextmanager
def opened(inbox: Path, relative: str) -> Iterator[int]:
    """A descriptor of the folder `relative` below `inbox`; what is missing of it is made.

    Raises
    ------
    OSError
        A part of it is a link, a file or a pipe; nothing was followed.
    """
    with ExitStack() as stack:
        at = stack.enter_context(durable.directory(inbox))
        yield _inner(stack, at, relative)


def _inner(stack: ExitStack, at: int, relative: str) -> int:
    for part in relative.split("/") if relative else ():
        made = _made(part, at)
        above, at = at, stack.enter_context(durable.directory(part, at=at))
        if made:
            _pass_on_folder(at, above)
    return at


def _made(name: str, at: int) -> bool:
    """Make the folder `name` unless there is something; whether it was made."""
    try:
        os.mkdir(name, 0o777, dir_fd=at)
    except FileExistsError:
        return False
    # What is moved into it is as safe as its name.
    os.fsync(at)
    return True


def _pass_on_folder(folder: int, above: int) -> None:
    """A new folder belongs to the owner of the one above; anything else that took its place stays whose it is."""
    if os.fstat(folder).st_uid == os.geteuid() and not os.listdir(folder):
        owner.pass_on(folder, above)


def _pass_on(path: Path, folder: int) -> None:
    """Its user can use it again: at the claim it became the daemon's own."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        owner.pass_on(descriptor, folder)
    finally:
        os.close(descriptor)


def put(source: Path, name: str, at: int) -> str:
    """Rename the file `source` to `name` in the folder `at`, or beside what has that name; gives its name.

    Raises
    ------
    OSError
        It cannot be; it is where it was.
    """
    stem, dot, ending = name.rpartition(".")
    for number in range(_MOST_TRIES):
        other = f"{stem if dot else name} (kept {number}){dot}{ending if dot else ''}"
        wanted = name if number == 0 else other
        with suppress(FileExistsError):
            durable.rename(source, wanted, target_fd=at)
            return wanted
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def give_back(place: Path, unit: Unit, inbox: Path, folder: str, *, why: str = "") -> None:
    """Rename the files of `unit` from the ``<id>/`` at `place` into `folder` of the inboxes.

    After a crash it goes on where it was if it is called again.

    Parameters
    ----------
    why
        A text that is put beside them, as ``NAME.why.txt``; none if it is empty.

    Raises
    ------
    OSError
        A folder on the way is not one, or the machine has a fault; what has not moved is where it was.
    """
    left = [one for one in unit.files if _is_file(place / one[0])]
    with opened(inbox, folder) as at:
        number = begun(place)
        if number is None:
            number = _free(unit, at)
            # For a second try. A power cut may take it: then the rest goes back under another number.
            (place / f"back.{number}").touch()
        paths = dict(unit.named(number))
        for source, _ in left:
            above, _, name = paths[source].rpartition("/")
            with ExitStack() as stack:
                inner = _inner(stack, at, above)
                _pass_on(place / source, inner)
                put(place / source, name, inner)
                # Its old name goes with its directory.
                os.fsync(inner)
        if why and paths and not _is_file(place / _TOLD):
            top = next(iter(paths.values())).partition("/")[0]
            written = place / f"{_TOLD}.new"
            written.write_text(why, "utf-8", "replace")
            written.chmod(0o660)
            put(written, _beside(top), at)
            (place / _TOLD).touch()


def _beside(name: str) -> str:
    """The name of the text beside `name`, cut where it would be too long for a file system."""
    return os.fsdecode(os.fsencode(name)[: 255 - len(_WHY)]) + _WHY


def _is_file(path: Path) -> bool:
    try:
        os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def begun(place: Path) -> int | None:
    """The number under which files of the ``<id>/`` at `place` began to go back; None if none did."""
    found = (_MARK.fullmatch(name) for name in os.listdir(place))
    return next((int(one[1]) for one in found if one), None)


def forget(place: Path) -> None:
    """Let what stays after all begin again if it goes back later."""
    number = begun(place)
    if number is not None:
        (place / f"back.{number}").unlink(missing_ok=True)


def _free(unit: Unit, at: int) -> int:
    """The first number under which no name of the unit is taken; its folder is made at once.

    Nor may anything lie there that could be taken for a part of the same set: it is of another drop.
    """
    own_tops = [path.partition("/")[0] for _, path in unit.files]
    begins = {names.fold(unit.stem), *(stem for top in own_tops for stem in groups.stems(top))}
    # With any number that it gets, only what begins like it can be in its way: of very many nothing else is looked at.
    likely = tuple({*begins, *(f"_{stem}" for stem in begins)} - {""})
    with os.scandir(at) as entries:
        there = {
            entry.name: entry.is_dir(follow_symlinks=False)
            for entry in entries
            if names.fold(entry.name).startswith(likely)
        }
    # A lone image could only be taken for the head of a folder.
    stems = {
        stem
        for name, is_folder in there.items()
        if is_folder or unit.is_set
        for stem in groups.stems(name)
    }
    folded = {names.fold(name) for name in there}
    for number in range(_MOST_TRIES):
        tops = {path.partition("/")[::2] for _, path in unit.named(number)}
        own = {top for top, _ in tops}
        own_stems = {stem for name in own for stem in groups.stems(name)}
        if folded & {names.fold(name) for name in own} or own_stems & stems:
            continue
        if any(_taken(name, at) for name in own):
            continue
        made: list[str] = []
        try:
            for name in sorted({top for top, rest in tops if rest}):
                os.mkdir(name, 0o777, dir_fd=at)
                made.append(name)
                with durable.directory(name, at=at) as folder:
                    _pass_on_folder(folder, at)
        except FileExistsError:
            # Somebody was faster: another one's folder is not a place for these.
            for name in made:
                with suppress(OSError):
                    os.rmdir(name, dir_fd=at)
            continue
        return number
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), unit.stem)


def _taken(name: str, at: int) -> bool:
    try:
        os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
