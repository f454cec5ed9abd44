"""The way back into an inbox, as guarded as the way in.

Others can write to an inbox, and can put a link, a pipe or a folder in the place of any name at any moment. So
files go back relative to descriptors of folders, none of which was reached through a link, and never replace
anything. The files of one slide go back together: under their own names if all of them are free, else under
another stem that is free.
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
from cytowatch.formats.sets.group import CELLSENS_FOLDER
from cytowatch.record import names

__all__ = ["Unit", "begun", "forget", "give_back", "opened", "put"]

#: The file in ``<id>/`` whose name states the number under which its files go back; a second try continues with it.
_MARK = re.compile(r"back\.(\d+)")
_MOST_TRIES = 1000
#: The ending of the text that says why something was handed back, and the mark that it was written.
_WHY = ".why.txt"
_TOLD = "back.told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The files that go back as one slide: each by its path below ``<id>/``, and its path as it was dropped."""

    stem: str
    files: Sequence[tuple[str, str]]

    @property
    def is_set(self) -> bool:
        """Whether other files could be taken for parts of it: it has several files, or a name like a part."""
        tops = {path.partition("/")[0] for _, path in self.files}
        return (
            len(self.files) > 1
            or any("/" in path for _, path in self.files)
            or any(groups.is_part(name) for name in tops)
        )

    @property
    def _own_stem(self) -> str:
        """The stem; of the folder of a VSI without its head, what stands between its marks."""
        folder = CELLSENS_FOLDER.fullmatch(self.stem)
        is_folder = all(path.startswith(f"{self.stem}/") for _, path in self.files)
        return folder["stem"] if folder is not None and is_folder else self.stem

    def named(self, number: int) -> list[tuple[str, str]]:
        """The files with the paths that they get under this `number`.

        A head and its folder change their stem together, because decoders find one by the other. Files that an
        index file names keep their names, and go into a folder of their own.
        """
        if number == 0:
            return list(self.files)
        own = self._own_stem
        again = f"{own} ({number})"
        others = {f"_{own}_": f"_{again}_"}
        found = []
        for source, path in self.files:
            top, slash, rest = path.partition("/")
            stem, ending = (top, "") if slash else os.path.splitext(top)
            if stem == own:
                top = f"{again}{ending}"
            elif top in others:
                top = others[top]
            else:
                return [(source, f"{again}/{path}") for source, path in self.files]
            found.append((source, f"{top}{slash}{rest}"))
        return found


@contextmanager
def opened(inbox: Path, relative: str) -> Iterator[int]:
    """A descriptor of the folder `relative` below `inbox`; its missing parts are made.

    Raises
    ------
    OSError
        A part of it is a link, a file or a pipe; no link was followed.
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
    """Make the folder `name` if nothing is there; return whether it was made."""
    try:
        os.mkdir(name, 0o777, dir_fd=at)
    except FileExistsError:
        return False
    # A file that is moved into it is only as safe as its name.
    os.fsync(at)
    return True


def _pass_on_folder(folder: int, above: int) -> None:
    """Give a new folder to the owner of the one above; anything else that took its place keeps its owner."""
    if os.fstat(folder).st_uid == os.geteuid() and not os.listdir(folder):
        owner.pass_on(folder, above)


def _pass_on(path: Path, folder: int) -> None:
    """Give it back to its user, because at the claim it became the daemon's own."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        # Its owner has a lease on it, so it was never taken from him.
        return
    try:
        owner.pass_on(descriptor, folder)
    finally:
        os.close(descriptor)


def put(source: Path, name: str, at: int) -> str:
    """Rename the file `source` to `name` in the folder `at`, or to a free name beside it; return its name.

    Raises
    ------
    OSError
        It cannot be renamed; it is where it was.
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

    After a crash, a second call continues where the first one stopped.

    Parameters
    ----------
    why
        A text to put beside them, as ``NAME.why.txt``; no file if it is empty.

    Raises
    ------
    OSError
        A folder on the way is not a folder, or the machine has a fault; files that have not moved are where they were.
    """
    left = [one for one in unit.files if _is_file(place / one[0])]
    with opened(inbox, folder) as at:
        number = begun(place)
        if number is None:
            number = _free(unit, at)
            # For a second try. If a power cut loses it, the rest goes back under another number.
            (place / f"back.{number}").touch()
        paths = dict(unit.named(number))
        for source, _ in left:
            above, _, name = paths[source].rpartition("/")
            with ExitStack() as stack:
                inner = _inner(stack, at, above)
                _pass_on(place / source, inner)
                put(place / source, name, inner)
                # Its old name is removed with its directory.
                os.fsync(inner)
        if why and paths and not _is_file(place / _TOLD):
            top = next(iter(paths.values())).partition("/")[0]
            written = place / f"{_TOLD}.new"
            written.write_text(why, "utf-8", "replace")
            written.chmod(0o660)
            put(written, _beside(top), at)
            (place / _TOLD).touch()


def _beside(name: str) -> str:
    """The name of the text beside `name`, shortened if it would be too long for a file system."""
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
    """The first number under which all names of the unit are free; its folder is made at once.

    Nothing may lie there that could be taken for a part of the same set, because it is of another drop.
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
    # A single image could only be taken for the head of a folder.
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
            # Somebody was faster; these files do not go into another drop's folder.
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
