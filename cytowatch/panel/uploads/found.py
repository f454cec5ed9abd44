"""One upload as it lies on disk: how much of it is here, whether it is whole, and which drop it became."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cytowatch.panel.uploads.rules import Announced

__all__ = ["EXPIRES_S", "Found", "latest"]

#: An upload that gets no new bytes for this long is removed.
EXPIRES_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One upload: where it lies and what was announced."""

    token: str
    home: Path
    member: str
    announced: Announced

    @property
    def bytes_at(self) -> Path:
        """The file that grows."""
        return self.home / "tree" / self.announced.path

    @property
    def offset(self) -> int:
        """How many bytes are here: the size of the file, or all of them once it is published."""
        try:
            return os.lstat(self.bytes_at).st_size
        except (FileNotFoundError, NotADirectoryError):
            return self.announced.size

    @property
    def is_gone(self) -> bool:
        """Whether its file was removed from a folder that is not published, or something else is in its place."""
        try:
            return not stat.S_ISREG(os.lstat(self.bytes_at).st_mode)
        except FileNotFoundError:
            inside = self.announced.path != self.announced.top
            return inside and os.path.lexists(self.home / "tree" / self.announced.top)
        except NotADirectoryError:
            return True

    @property
    def is_whole(self) -> bool:
        """Whether every byte is here and was compared."""
        return (self.home / "done" / self.member).exists()

    @property
    def drop(self) -> str | None:
        """The path below ``inbox/`` of the drop that it became; None before that."""
        for note in ("published", "publishing"):
            # If a kill came right after the rename, the second note says where it led.
            if note == "publishing" and os.path.lexists(self.home / "tree" / self.announced.top):
                return None
            with suppress(OSError):
                return (self.home / note).read_text() or self._meant
        return self._meant if self.is_whole else None

    @property
    def _meant(self) -> str:
        """The drop that it was to become; used if no note says which one it became."""
        project = self.announced.project
        parts = (self.announced.user, f"@{project}" if project else "", self.announced.top)
        return "/".join(part for part in parts if part)

    @property
    def began_at(self) -> float:
        """When it began, in seconds since 1970: the older of its note and the folder that holds it."""
        found = []
        for path in (self.home / "notes" / f"{self.member}.json", self.home):
            with suppress(OSError):
                found.append(os.lstat(path).st_mtime)
        return min(found, default=0.0)

    @property
    def ends_at(self) -> float:
        """When it expires, in seconds since 1970."""
        seen = [self.home / "notes" / f"{self.member}.json", self.bytes_at, self.home / "done"]
        return latest(seen) + EXPIRES_S


def latest(paths: list[Path]) -> float:
    """When the last one of them changed."""
    found = [0.0]
    for path in paths:
        with suppress(OSError):
            found.append(os.lstat(path).st_mtime)
    return max(found)
