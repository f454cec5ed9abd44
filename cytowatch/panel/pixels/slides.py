"""Slides that are being looked at: their manifests and open files, kept for anyone who may see them.

A viewer asks for a thousand tiles of one slide. Whether a person may see it, and what its manifest
says, is asked once in `_AGAIN_S` seconds and not a thousand times; so a slide that was removed, or
is no longer shared, is shown for so long at the most.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import stat
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cytowatch.panel.pixels import plain
from cytowatch.panel.pixels.plain import PlainLevel
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry, ImageEntry, Manifest
from cytowatch.tree.find import Entry

__all__ = ["ABSENT", "Image", "Kept", "NoSuchError", "Slide", "open_inside"]

_AGAIN_S = 5.0
_MOST_SEEN = 4096
_MOST_OPEN = 64
#: Raised whenever the same question would be answered with other bytes than before.
_DRAWN_AS = 1
#: Of a tile that is not in the page cache: the disk has to be waited for, in a thread.
ABSENT = "not in the page cache"
_FOLDERS = ("source", "derived")
Found = TypeVar("Found")


class NoSuchError(Exception):
    """There is no such slide, scene, level or tile, or nothing of it can be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level as it is served: its size, and that of its tiles."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    plain: PlainLevel | None

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def down(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile_height)

    def box(self, column: int, row: int) -> tuple[int, int, int, int]:
        """(x, y, width, height) of a tile, which is smaller at the edges.

        Raises
        ------
        NoSuchError
            There is no such tile.
        """
        if not (0 <= column < self.across and 0 <= row < self.down):
            raise NoSuchError
        x, y = column * self.tile_width, row * self.tile_height
        return x, y, min(self.tile_width, self.width - x), min(self.tile_height, self.height - y)


class Image:
    """One scene of a slide, its file open as long as anybody reads from it."""

    def __init__(self, entry: ImageEntry, directory: Path, tag: str) -> None:
        self.entry = entry
        self.descriptor = open_inside(directory, entry["file"])
        # The last one who reads from it closes it: its number is never another file's meanwhile.
        weakref.finalize(self, os.close, self.descriptor)
        self.tag = tag
        self.levels = _levels(self.descriptor, entry)
        #: What a decoder has to know to open it.
        self.facts: dict[str, Any] = {
            "file": entry["file"],
            "bits": entry["bits_per_sample"],
            "levels": [[one["width"], one["height"]] for one in entry["levels"]],
        }

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the largest level."""
        return self.levels[0].width, self.levels[0].height

    @property
    def windowed(self) -> bool:
        """Whether its samples have more than the eight bits that a screen shows."""
        return self.entry["bits_per_sample"] > 8

    def at_once(self, count: int, offset: int) -> bytes:
        """Read from it without waiting for the disk.

        Raises
        ------
        BlockingIOError
            It has to be waited for, as `waiting` does.
        OSError
            This filesystem or kernel knows no such read (EOPNOTSUPP), or the disk fails.
        """
        data = bytearray(count)
        got = os.preadv(self.descriptor, [data], offset, os.RWF_NOWAIT)
        if got < count:
            # Half of it is there; or it is the end of the file, which the other way finds out.
            raise BlockingIOError(ABSENT)
        return bytes(data)

    def waiting(self, count: int, offset: int) -> bytes:
        """Read from it, however long that takes."""
        return os.pread(self.descriptor, count, offset)


class Slide:
    """One deployed uploaded file: what its manifest said when it was opened."""

    def __init__(self, entry: Entry) -> None:
        self.id: str = entry.manifest["id"]
        self.manifest: Manifest = entry.manifest
        self.directory = entry.path
        entries = entry.manifest["images"]
        by_number = {one["scene"]: one for one in entries}
        # An address names a scene as the manifest does, where those names differ.
        self._entries = by_number if len(by_number) == len(entries) else dict(enumerate(entries))
        self._images: dict[int, Image] = {}

    @property
    def scenes(self) -> list[int]:
        """The numbers of its scenes, as addresses name them; there is at least one."""
        return list(self._entries)

    def opened(self, scene: int) -> Image | None:
        """The scene with that number, if it is open already."""
        return self._images.get(scene)

    def image(self, scene: int) -> Image:
        """The scene with that number, opened when it is first asked for.

        Raises
        ------
        NoSuchError
            There is none, or its file is not there.
        """
        found = self._images.get(scene)
        if found is None:
            entry = self._entries.get(scene)
            if entry is None:
                raise NoSuchError
            try:
                found = Image(entry, self.directory, _tag(self.manifest, entry))
            except (OSError, ValueError) as error:
                raise NoSuchError from error
            self._images[scene] = found
        return found

    def file(self, role: str) -> FileEntry | None:
        """Its file of that role, such as ``label``."""
        return next((one for one in self.manifest["files"] if one["role"] == role), None)


class Kept:
    """Guards what is kept: no more than `_MOST_OPEN` slides, nothing longer than `_AGAIN_S` unasked.

    All its methods run in one event loop; what reads the disk is done in threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[Hashable, str], tuple[float, Slide]] = OrderedDict()
        self._open: OrderedDict[str, tuple[tuple[int, ...], Slide]] = OrderedDict()

    def at_once(self, person: Hashable, id: str) -> Slide | None:  # noqa: A002
        """The slide `id`, if `person` was found to be allowed to see it a moment ago."""
        found = self._seen.get((person, id))
        return found[1] if found is not None and self._clock() < found[0] else None

    async def slide(self, person: Hashable, id: str, ask: Callable[[], Entry]) -> Slide:  # noqa: A002
        """The slide `id`; `ask` gives its entry, or raises that this person may not see it.

        Raises
        ------
        NoSuchError
            It is not deployed, or has no images.
        """
        found = self.at_once(person, id)
        if found is not None:
            return found
        entry, key = await asyncio.to_thread(_asked, ask)
        held = self._open.get(id)
        slide = held[1] if held is not None and held[0] == key else Slide(entry)
        self._open[id] = (key, slide)
        self._open.move_to_end(id)
        self._seen[person, id] = (self._clock() + _AGAIN_S, slide)
        self._seen.move_to_end((person, id))
        while len(self._open) > _MOST_OPEN:
            self._forget(next(iter(self._open)))
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return slide

    def _forget(self, id: str) -> None:  # noqa: A002
        del self._open[id]
        for one in [key for key in self._seen if key[1] == id]:
            del self._seen[one]


def open_inside(directory: Path, path: str) -> int:
    """A descriptor of the regular file `path` below ``<id>/``; nothing of it is a link.

    Raises
    ------
    ValueError
        The path leads elsewhere, or to something else.
    OSError
        It is not there, or cannot be read.
    """
    first, *between, name = path.split("/") if "/" in path else ("", path)
    if first not in _FOLDERS or any(part in ("", ".", "..") for part in (*between, name)):
        raise ValueError("not a file of an uploaded file")
    folder = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    # The directory itself may be a link: to the first one of the same content.
    at = os.open(directory, folder)
    try:
        for part in (first, *between):
            below = os.open(part, folder | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        found = os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise ValueError("not a regular file")
    return found


def _asked(ask: Callable[[], Entry]) -> tuple[Entry, tuple[int, ...]]:
    """The entry, and by what it is known that its manifest is still the same one."""
    entry = ask()
    if not entry.status.is_success or not entry.manifest["images"]:
        raise NoSuchError
    try:
        found = os.stat(entry.path / manifest.FILE_NAME)
    except OSError as error:
        raise NoSuchError from error
    return entry, (found.st_dev, found.st_ino, found.st_mtime_ns)


def _levels(descriptor: int, entry: ImageEntry) -> list[Level]:
    as_they_lie = plain.levels(descriptor, entry)
    found = []
    for level, one in zip(entry["levels"], as_they_lie, strict=True):
        tile = one.tile if one is not None else _tile(level["tile_width"], level["tile_height"])
        found.append(
            Level(
                width=level["width"],
                height=level["height"],
                tile_width=tile[0],
                tile_height=tile[1],
                plain=one,
            )
        )
    return found


def _tile(width: int | None, height: int | None) -> tuple[int, int]:
    """The tiles of a level that is decoded: its own where they are of a good size.

    >>> _tile(256, 256), _tile(2000, 8), _tile(None, None)
    ((256, 256), (512, 512), (512, 512))
    """
    own = all(side is not None and 200 <= side <= 1024 for side in (width, height))
    return (width or 512, height or 512) if own else (512, 512)


@functools.lru_cache(maxsize=256)
def _digest(*hashes: str) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def _tag(manifest: Manifest, entry: ImageEntry) -> str:
    """What names the pixels of an image for good: a hash of its file's hash, or of all files of its set.

    Where a hash is not known yet, the id and the size stand in its place.
    """
    rows = [one for one in manifest["files"] if one["path"] == entry["file"]]
    if not rows or rows[0]["role"] == "source":
        rows = [one for one in manifest["files"] if one["role"] == "source"]
    hashes = [one["sha256"] or f"{manifest['id']}:{one['size_bytes']}" for one in rows]
    return _digest(str(_DRAWN_AS), entry["file"], *hashes)
