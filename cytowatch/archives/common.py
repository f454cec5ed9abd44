"""What holds for every kind of archive: names that stay inside, and a budget of real bytes."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from cytowatch.config.keys import Limits
from cytowatch.record.errors import ExtractionError

__all__ = ["Budget", "DamagedMember", "Names", "checked_path", "is_icon"]

#: Below this an archive may be as dense as it likes: an honest blank image packs a thousandfold, and
#: what it may take is soon unpacked. The text of `limits.archive_max_ratio` names it.
_RATIO_FROM_BYTES = 64 << 20

_DEEPEST = 64
_LONGEST_NAME_BYTES = 255
_RESERVED = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)))
)


#: The icon of a folder, and what a Mac notes of that file, which every zip of such a folder has.
_ICON = re.compile(r"(?:.*[/\\])?(?:\._)?Icon\r", re.DOTALL)


class DamagedMember(Exception):
    """One member cannot be unpacked; the others may be whole."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """Guards how much an archive of `archive_bytes` may unpack to, no matter what it states."""

    limits: Limits
    archive_bytes: int
    spent_bytes: int = 0

    def check(self, total: int) -> None:
        """Refuse `total` bytes.

        Raises
        ------
        ExtractionError
            `too_large` or `ratio`.
        """
        limits = self.limits
        if total > limits.archive_max_bytes:
            raise ExtractionError(
                "too_large",
                f"it unpacks to more than {limits.archive_max_bytes:,} bytes "
                "(limits.archive_max_bytes)",
            )
        if total > _RATIO_FROM_BYTES and total > limits.archive_max_ratio * self.archive_bytes:
            raise ExtractionError(
                "ratio",
                f"it unpacks to more than {limits.archive_max_ratio} times its size "
                "(limits.archive_max_ratio)",
            )

    def spend(self, count: int) -> None:
        """Take note of `count` bytes that were unpacked.

        Raises
        ------
        ExtractionError
            They are too many, together with those before.
        """
        self.spent_bytes += count
        self.check(self.spent_bytes)


class Names:
    """Guards that no two members of an archive could be meant for one file.

    Two names that differ by case or only by the composition of an accent are one name to Windows
    or macOS; a file whose name is another one's folder is two things at once.
    """

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str, *, is_folder: bool = False) -> None:
        """Take note of one more member; `path` is checked already.

        Raises
        ------
        ExtractionError
            `no_name`, `duplicate_names` or `file_against_folder`.
        """
        if not path:
            # "./" is the folder of the archive itself.
            if is_folder:
                return
            raise ExtractionError("no_name", "a member has no name")
        folded = unicodedata.normalize("NFC", path).casefold()
        parts = folded.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        shown = ascii(path)[1:-1][:200]
        if is_folder:
            above.append(folded)
        elif folded in self._files:
            other = ascii(self._files[folded])[1:-1][:200]
            said = f"two members are called {shown}"
            if other != shown:
                said = f"the members {other} and {shown} differ only by case or accents"
            raise ExtractionError("duplicate_names", said)
        else:
            self._files[folded] = path
        for folder in above:
            self._folders.setdefault(folder, shown)
        for name in (*above, folded):
            if name in self._files and name in self._folders:
                raise ExtractionError(
                    "file_against_folder",
                    f"the member {ascii(self._files[name])[1:-1][:200]} is a file, and the folder "
                    f"of {self._folders[name]}",
                )


def is_icon(stated: str) -> bool:
    """Whether a member is the icon of a folder of macOS: its name ends in a control character, and no slide is called so.

    >>> is_icon("case/Icon\\r"), is_icon("__MACOSX/case/._Icon\\r"), is_icon("Icon\\r.svs")
    (True, True, False)
    """
    return _ICON.fullmatch(stated) is not None


def checked_path(stated: str, *, guessed: bool = False) -> str:
    """The path of a member with ``/`` between its parts.

    Parameters
    ----------
    stated
        What could not be decoded may stand in it as lone surrogates, as `os.fsdecode` gives them.
    guessed
        It was in a code page, in which it is shorter than in UTF-8.

    Raises
    ------
    ExtractionError
        It leads out of the archive, is absolute, holds control characters, or is not a name that
        every system can have.
    """
    shown = ascii(stated)[1:-1][:200]
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in stated):
        raise ExtractionError("control_characters", f"the name {shown} holds control characters")
    path = _with_slashes(stated)
    if path.startswith(("/", "\\")) or path[1:2] == ":":
        raise ExtractionError("absolute_path", f"the member {shown} has an absolute path")
    if ".." in re.split(r"[/\\]", path):
        raise ExtractionError("path_traversal", f"the member {shown} leads out of the archive")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if len(parts) > _DEEPEST:
        raise ExtractionError(
            "nested_too_deep", f"the member {shown} lies {len(parts)} folders deep"
        )
    for part in parts:
        # Windows counts characters, of which Japanese ones have three bytes in UTF-8.
        length = len(part if guessed else part.encode("utf-8", "surrogateescape"))
        if length > _LONGEST_NAME_BYTES:
            raise ExtractionError("name_too_long", f"the name {shown} has more than 255 bytes")
        # Source: learn.microsoft.com, "Naming Files, Paths, and Namespaces". A colon is what a Mac writes for the
        # slash in S26/001, and nothing here takes it for a stream.
        if part.split(".")[0].rstrip(" ").upper() in _RESERVED:
            raise ExtractionError(
                "reserved_name", f"the name {shown} stands for a device on Windows"
            )
    return "/".join(parts)


def _with_slashes(stated: str) -> str:
    """`stated` with ``/`` for each backslash that separates parts, as programs of Windows write it."""
    try:
        stated.encode()
    except UnicodeEncodeError:
        # Bytes of an unknown encoding: a backslash may be the second byte of a character.
        return stated
    return stated.replace("\\", "/")
