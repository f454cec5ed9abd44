"""What an upload announces, and which announcements are refused, with the reason in words.

Source: https://tus.io/protocols/resumable-upload (``Upload-Metadata``)
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from cytowatch.inbox.scan import DEEPEST
from cytowatch.record import names
from cytowatch.record.names import printable

__all__ = ["Announced", "announced", "check_once", "metadata", "noted", "place_of"]

_MOST_METADATA = 16 << 10
_LONGEST_PART_BYTES = 240
_LONGEST_BYTES = 2_000
#: Files of one folder that are published together.
_MOST_FILES = 50_000
_GROUP = re.compile(r"[A-Za-z0-9_-]{8,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What a client wants to send.

    `path` is its place below the inbox. The files of one `group` (a folder) are published together,
    when all `files` of them are whole.
    """

    path: str
    size: int
    project: str = ""
    user: str = ""
    group: str = ""
    files: int = 1
    sha256: str = ""

    @property
    def top(self) -> str:
        """The name in the inbox."""
        return self.path.partition("/")[0]


def noted(note: object) -> Announced | None:
    """What a note on disk announces; None if it is not one that the panel writes.

    >>> noted({"path": "../a.svs", "size": 1}), noted({"path": "a.svs", "size": "1"}), noted([])
    (None, None, None)
    """
    try:
        found = Announced(**note)  # type: ignore[arg-type]
        texts = (found.path, found.project, found.user, found.group, found.sha256)
        numbers = (found.size, found.files)
        good = all(isinstance(one, str) for one in texts) and all(
            type(one) is int and one >= 0 for one in numbers
        )
        inside = all("/" not in one and one not in (".", "..") for one in texts[1:3])
        return found if good and inside and place_of(found.path, ()) else None
    except (TypeError, HTTPException):
        return None


def metadata(header: str) -> dict[str, str]:
    """The pairs of ``Upload-Metadata``.

    Raises
    ------
    HTTPException
        400: it cannot be read.

    Examples
    --------
    >>> metadata("filename YS5zdnM=,is_public")
    {'filename': 'a.svs', 'is_public': ''}
    """
    found: dict[str, str] = {}
    if len(header) > _MOST_METADATA:
        raise HTTPException(400, "Upload-Metadata is too long.")
    for pair in header.split(",") if header.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if key in found:
            shown = printable(key[:40])
            raise HTTPException(400, f"{shown!r} is in Upload-Metadata more than once.")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except ValueError:
            raise HTTPException(
                400,
                f"The value of {printable(key[:40])!r} in Upload-Metadata is not UTF-8 in base64.",
            ) from None
    return found


def place_of(given: str, ignore: Sequence[str]) -> str:
    """`given`, if it can be a path in an inbox: with names that a drop may have, and not leading elsewhere.

    Raises
    ------
    HTTPException
        400: it cannot, with the reason.

    Examples
    --------
    >>> place_of("CMU-1/Data0000.dat", [])
    'CMU-1/Data0000.dat'
    """
    shown = names.shortened(given[:400])
    if not given:
        raise HTTPException(400, "The upload has no name: send filename in Upload-Metadata.")
    parts = given.split("/")
    if given.startswith("/") or "\\" in given or {"", ".", ".."} & set(parts):
        raise HTTPException(400, f"{shown} leads elsewhere: send the path inside the folder.")
    if len(parts) >= DEEPEST or len(given.encode("utf-8", "replace")) > _LONGEST_BYTES:
        raise HTTPException(400, f"{shown} lies too deep: send a folder nearer to the files.")
    for part in parts:
        if not part.isprintable():
            raise HTTPException(400, f"{shown} holds characters that cannot be shown: rename it.")
        if len(part.encode()) > _LONGEST_PART_BYTES:
            raise HTTPException(
                400, f"{shown} is longer than {_LONGEST_PART_BYTES} bytes: give it a shorter name."
            )
        if names.ignored(part, ignore):
            raise HTTPException(400, f"{shown} is not taken: its name is that of a temporary file.")
    if parts[0].startswith((".", "@")):
        raise HTTPException(400, f"{shown} begins with a dot or @: rename it.")
    return given


#: Of these a proxy and this server might each take another one.
_ONCE = (
    "tus-resumable", "upload-length", "upload-offset", "upload-metadata", "upload-checksum", "upload-defer-length",
    "upload-concat", "content-type", "content-encoding", "x-http-method-override",
)  # fmt: skip


def check_once(headers: Headers) -> None:
    """Refuse what is stated twice.

    Raises
    ------
    HTTPException
        400: one of the headers of the protocol is there more than once.
    """
    for name in _ONCE:
        if len(headers.getlist(name)) > 1:
            raise HTTPException(400, f"{name.title()} is there more than once.")


def announced(
    length: str | None, header: str, *, ignore: Sequence[str], most_bytes: int
) -> Announced:
    """What a request for a new upload announces.

    Raises
    ------
    HTTPException
        400: it is not usable; 413: it is larger than `most_bytes`.
    """
    if length is None or not (length.isascii() and length.isdigit() and len(length) < 20):
        raise HTTPException(400, "Upload-Length must be the number of bytes.")
    size = int(length)
    if size > most_bytes:
        raise HTTPException(
            413,
            f"It has {size:,} bytes; at most {most_bytes:,} are allowed (panel.max_upload_bytes).",
        )
    found = metadata(header)
    if size == 0 and not found.get("group"):
        raise HTTPException(400, "It is empty: there is nothing to convert.")
    given = found.get("relativePath") or found.get("filename") or found.get("name", "")
    path = place_of(given, ignore)
    # A Mac writes letters and their accents apart.
    project = unicodedata.normalize("NFC", found.get("project", ""))
    if project and (project != names.file_name(project) or project.startswith(".")):
        raise HTTPException(400, "This cannot be the name of a project.")
    sha256 = found.get("sha256", "")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise HTTPException(400, "sha256 must be 64 hexadecimal digits in small letters.")
    group, files = found.get("group", ""), found.get("groupFiles", "1")
    if group and not _GROUP.fullmatch(group):
        raise HTTPException(400, "group must be 8 to 64 letters, digits, - or _.")
    if not (
        files.isascii() and files.isdigit() and len(files) < 9 and 0 < int(files) <= _MOST_FILES
    ):
        raise HTTPException(400, f"groupFiles must be a number from 1 to {_MOST_FILES:,}.")
    return Announced(
        path=path, size=size, project=project, user=found.get("user", ""), group=group,
        files=int(files) if group else 1, sha256=sha256,
    )  # fmt: skip
