"""What the rules of all kinds of sets have in common: a group of files, a folder, what lies near it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from cytowatch.formats.base import Probe

__all__ = [
    "CELLSENS_FOLDER",
    "LARGEST_INDEX",
    "Folder",
    "Group",
    "Look",
    "Near",
    "is_jpeg",
    "is_picture",
    "is_tiff",
    "plainly",
    "stem_of",
]

T = TypeVar("T")


class Look(Protocol):
    """Opens the file of that path, shows it to a function, and gives what that makes of it."""

    def __call__(self, path: str, function: Callable[[Probe], T]) -> T:
        """What `function` returns for it."""


#: An index file is small; nothing larger is read as one.
LARGEST_INDEX = 1 << 20


CELLSENS_FOLDER = re.compile(r"_(?P<stem>.+)_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One slide or other thing to be ingested; paths are relative to where one looked.

    `kind` is the id of the set's format, None of a single file. The first of `members` is the
    head, by which it is opened; a set without one has `headless`. `missing` says what it lacks.
    `folder` is the folder that belongs only to the set. `mixed` says which of its files bear the
    identity of another slide. `spelled` gives the name that its index has for a file, by path, where
    that differs in case. With `is_spare` the slide has its own pixels without what is missing. With
    `is_open_ended` nothing in its files says how many there are, so only time tells.
    """

    kind: str | None
    members: tuple[str, ...]
    sidecars: tuple[str, ...] = ()
    missing: str | None = None
    headless: bool = False
    folder: str | None = None
    mixed: str | None = None
    is_spare: bool = False
    is_open_ended: bool = False
    spelled: tuple[tuple[str, str], ...] = ()

    @property
    def head(self) -> str:
        """The path that stands for it."""
        return self.members[0]

    @property
    def parts(self) -> str | None:
        """What a whole slide of its kind is made of, in words; None where it is a single file.

        >>> Group(kind="mirax-mrxs", members=("case/CMU-1.mrxs",)).parts
        'CMU-1.mrxs and the folder CMU-1 beside it'
        """
        name = stem_of(os.path.basename(self.head))
        if self.folder is not None:
            name = os.path.basename(self.folder)
        match self.kind:
            case "mirax-mrxs":
                return f"{name}.mrxs and the folder {name} beside it"
            case "olympus-vsi":
                found = CELLSENS_FOLDER.fullmatch(name) if self.folder is not None else None
                name = found["stem"] if found else name
                return f"{name}.vsi and the folder _{name}_ beside it"
            case "hamamatsu-vms" | "hamamatsu-vmu":
                index = os.path.basename(self.missing or "" if self.headless else self.head)
                return f"{index} and all the files that it names, in one folder"
            case _:
                return None

    @property
    def called(self) -> str:
        """The path that it is called by: of a set without its head nothing but the folder names it."""
        return self.folder if self.headless and self.folder else self.head

    def dropped_as(self, path: str) -> str | None:
        """The `path` of a file of it, from the folder in which its head lies; None of a lone image, which it names."""
        if self.kind is None and path == self.head:
            return None
        above = os.path.dirname(self.called)
        return path[len(above) + 1 :] if above else path


@dataclass(slots=True)
class Folder:
    """One folder: its files by name, and its folders."""

    path: str
    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)

    def below(self) -> list[str]:
        """Every path in it and below it."""
        found: list[str] = []
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            found += folder.files.values()
            waiting += reversed(folder.folders.values())
        return found

    def inside(self) -> dict[str, str]:
        """Every path below it, by what it is relative to it."""
        cut = len(self.path) + 1 if self.path else 0
        return {path[cut:]: path for path in self.below()}


@dataclass(frozen=True, slots=True)
class Near:
    """The files beside a folder that no set has taken, found by their stem; and the other folders."""

    free: Mapping[str, str]
    by_stem: Mapping[str, list[str]]
    alike: Mapping[str, int]

    def with_stem(self, folder: str, stem: str) -> list[tuple[str, str]]:
        """Name and path of those that differ from `stem`, of `folder`, at most by their extension.

        And as `plainly` has it, where no other folder could be meant.
        """
        there = [name for name in self.by_stem.get(plainly(stem), ()) if name in self.free]
        exact = [name for name in there if stem_of(name) == stem]
        if not exact and self.alike[plainly(folder)] == 1:
            exact = there
        return [(name, self.free[name]) for name in exact]


def plainly(name: str) -> str:
    """`name` without regard to case, as for Windows, and to how its accents are composed, as for macOS.

    >>> plainly("Gr\u00f6\u00dfe.MRXS") == plainly("Gro\u0308\u00dfe.mrxs")
    True
    """
    return unicodedata.normalize("NFC", name).lower()


def stem_of(name: str) -> str:
    return os.path.splitext(name)[0]


def is_jpeg(probe: Probe) -> bool:
    return probe.head.startswith(b"\xff\xd8\xff")


def is_picture(probe: Probe) -> bool:
    """Whether it begins as a JPEG, PNG or TIFF."""
    return is_jpeg(probe) or is_tiff(probe) or probe.head.startswith(b"\x89PNG\r\n")


def is_tiff(probe: Probe) -> bool:
    return probe.tiff is not None
