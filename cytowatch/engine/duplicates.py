"""What becomes of an uploaded file whose content its user has sent before.

With ``storage.duplicates = "link"`` it is shown by links to the first one, which may be in work still.
`decide` says what is to be done now, before a decoder process is forked for it.

A hash is what a decoder says, and one that was taken over may state another slide's. So before a slide is
linked to the first one, or refused for it, the bytes of both are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from cytowatch.decoder import unchanged
from cytowatch.decoder.ends import Stopped
from cytowatch.engine.treatment import Treatment
from cytowatch.model import Outcome
from cytowatch.record.content import content_key
from cytowatch.record.entries import FileEntry
from cytowatch.record.errors import DeploymentError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place, is_linked
from cytowatch.record.status import Status

__all__ = [
    "GONE",
    "Decision",
    "Go",
    "Gone",
    "Linked",
    "Wait",
    "decide",
    "lacks_pyramid",
    "of",
    "proven",
    "register",
]

GONE = DeploymentError(
    "first_gone", "the one of the same content that it was to be linked to is gone", retryable=True
)


#: The first one of a content may move on, or get its name, while it is looked for.
_LOOKS_FOR_FIRST = 10
_BETWEEN_LOOKS_S = 0.05


@dataclass(frozen=True, slots=True)
class Go:
    """It is treated as any other."""


@dataclass(frozen=True, slots=True)
class Wait:
    """`first` has the same content and is still in work."""

    first: str


@dataclass(frozen=True, slots=True)
class Linked:
    """It is to be shown by links to `first`."""

    first: Place


@dataclass(frozen=True, slots=True)
class Gone:
    """The first one is gone, and nothing was derived of this one because of it."""


Decision = Go | Wait | Linked | Gone


def register(with_: Treatment, place: Place) -> None:
    """The first of its content before a restart, or a retry, still is."""
    key = content_key(place.manifest["files"])
    if key is not None and place.manifest["duplicate_of"] is None:
        with_.contents.first(place.manifest["user"], key, place.manifest["id"])


def of(with_: Treatment, place: Place, outcome: Outcome) -> str | None:
    """The id of the first uploaded file of the user with the same content, in storage or in work."""
    detecting = place.status is Status.DETECTING_FORMAT
    known = None if detecting else place.manifest["duplicate_of"]
    files: list[FileEntry] = outcome.changes.get("files", place.manifest["files"])
    key = content_key(files)
    if key is None:
        return known
    user, id_ = place.manifest["user"], place.manifest["id"]
    # In this order: one that is not in work any more is in the index by then.
    in_work = known or with_.contents.first(user, key, id_)
    first = with_.transitions.index.first(user, key) or in_work
    if first == id_:
        first = in_work
    if first == id_ or with_.doubts.is_different(id_):
        return None
    # A slide is refused on the word of two decoders, unless both are read; what is to be linked is read later.
    refuses = with_.transitions.config.storage.duplicates == "reject" and detecting
    return None if refuses and not _has_same_bytes(with_, place, files, first) else first


def decide(with_: Treatment, place: Place) -> Decision:
    """What is to be done with `place` now, as far as its content is known."""
    if not _is_to_be_linked(with_, place):
        return Go()
    first_id = place.manifest["duplicate_of"] or "-"
    # In this order: it may be published between the two looks, and never goes back.
    found = with_.transitions.spool.find(UploadedFileId(first_id))
    if found is not None and not found[0].is_final:
        return Wait(first_id)
    first = _published(with_, place, first_id)
    if first is not None:
        return Linked(first)
    return Gone() if lacks_pyramid(place) else Go()


def _is_to_be_linked(with_: Treatment, place: Place) -> bool:
    """Whether it is to be shown by links to the first one of its content, and nothing is derived."""
    fresh = (
        with_.transitions.config.storage.duplicates == "link"
        and place.manifest["conversion"] is None
    )
    late = place.status in (Status.CONVERTING, Status.DEPLOYING)
    duplicate = late and place.manifest["duplicate_of"] is not None
    return is_linked(place) or (duplicate and fresh)


def lacks_pyramid(place: Place) -> bool:
    """Whether its conversion was passed over for a first one that is gone since."""
    form = place.manifest["format"]
    flat = form is not None and not form["native"]
    deploying = place.status is Status.DEPLOYING and place.manifest["conversion"] is None
    return flat and deploying and not is_linked(place)


def _published(with_: Treatment, place: Place, id_: str) -> Place | None:
    """The uploaded file `id_` of the same user, if it is in storage with all its bytes."""
    path = with_.transitions.spool.storage / place.manifest["user"] / id_
    try:
        found = Place.read(path)
    except (OSError, ManifestError):
        return None
    for row in found.manifest["files"]:
        file = path / row["path"]
        if not file.is_file() or file.stat().st_size != row["size_bytes"]:
            return None
    has_source = any(row["role"] == "source" for row in found.manifest["files"])
    return found if has_source else None


def _has_same_bytes(with_: Treatment, place: Place, files: list[FileEntry], first: str) -> bool:
    """Whether the sources of `place`, listed in `files`, have the bytes of those of the uploaded file `first`.

    Raises
    ------
    IngestError
        `output_refused`: the hashes in `files` are not those of its bytes.
    """

    def look() -> None:
        if with_.stop.is_set():
            raise Stopped("the daemon stops")

    def sources(rows: list[FileEntry]) -> list[str]:
        given = [row for row in rows if row["role"] == "source"]
        return [row["path"] for row in sorted(given, key=lambda row: row["sha256"] or "")]

    for _ in range(_LOOKS_FOR_FIRST):
        there = _published(with_, place, first) or _in_work(with_, first)
        if there is None:
            # It moves on just now, or has ended in an error.
            with_.stop.wait(_BETWEEN_LOOKS_S)
            continue
        own, others = sources(files), sources(there.manifest["files"])
        # It may be one that is shown by links itself; they are ours.
        top = (there.path / "source").resolve().parent
        try:
            if len(own) == len(others) and unchanged.same_bytes(
                place.path, top, list(zip(own, others, strict=True)), look=look
            ):
                return True
        except FileNotFoundError:
            # It has moved on, or its source has got its name.
            with_.stop.wait(_BETWEEN_LOOKS_S)
            continue
        break
    else:
        return False
    structlog.get_logger().warning("not_the_same", id=place.manifest["id"], first=first)
    unchanged.check_hashes(place.status, place.path, files, look=look)
    return False


def _in_work(with_: Treatment, id_: str) -> Place | None:
    found = with_.transitions.spool.find(UploadedFileId(id_))
    if found is None or found[0].is_final:
        return None
    try:
        return Place.read(found[1], found[0])
    except (OSError, ManifestError):
        return None


def proven(with_: Treatment, place: Place, first: Place) -> bool:
    """Whether both have the same bytes; one that has begun to be linked was read before.

    Raises
    ------
    IngestError
        `output_refused`: the hashes of `place` are not those of its bytes.
    """
    if is_linked(place):
        return True
    same = _has_same_bytes(with_, place, place.manifest["files"], first.manifest["id"])
    if not same:
        with_.doubts.differs(place.manifest["id"])
    return same
