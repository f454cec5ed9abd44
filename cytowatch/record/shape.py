"""The shape of a manifest: the types and ranges that the code relies on, checked where one is read.

By hand, not by the JSON Schema, which is stricter and takes 20 ms to load: every command reads
manifests, and a rebuild of the index reads a million.

Source: docs/decisions/004-the-manifest-is-a-document.md, docs/decisions/019-bulkheads.md
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from operator import itemgetter
from types import NoneType
from typing import Any

from cytowatch import outside
from cytowatch.outside import LARGEST, OutsideError
from cytowatch.record.names import ID_PATTERN
from cytowatch.record.status import Status

__all__ = ["check"]

_TEXT = (str,)
_MAYBE_TEXT = (str, NoneType)
_WHOLE = (int,)
_MAYBE_WHOLE = (int, NoneType)
_NUMBER = (int, float)
_MAYBE_NUMBER = (int, float, NoneType)
_FLAG = (bool,)
_LIST = (list,)
_OBJECT = (dict,)
_WORDS: Mapping[type, str] = {
    NoneType: "null", bool: "true or false", str: "a text", list: "a list", dict: "an object",
}  # fmt: skip
_MAYBE_OBJECT = (dict, NoneType)


class _Table:
    """Guards what each key of one kind of row may hold; quickly, because nearly all rows are alike."""

    def __init__(self, keys: Mapping[str, tuple[type, ...]]) -> None:
        self._keys = keys
        self._values = itemgetter(*keys)
        self._numbers = [key for key, kinds in keys.items() if int in kinds]
        #: The types that rows were found to be right with, in the order of the keys.
        self._right: set[tuple[type, ...]] = set()

    def check(self, row: Any, where: str) -> None:
        """Raise OutsideError if `row` is not of this kind."""
        if type(row) is not dict:
            raise OutsideError(f"{where.rstrip('/')} is {_kind(row)} where an object belongs")
        try:
            types = tuple(map(type, self._values(row)))
        except KeyError as error:
            raise OutsideError(f"{where}{error.args[0]} is missing") from None
        if types not in self._right:
            self._check_types(types, where)
        for key in self._numbers:
            value = row[key]
            # A float that is not finite, or not a number at all, is not in this range either.
            if value is not None and not 0 <= value <= LARGEST:
                raise OutsideError(f"{where}{key} is a number out of range")
        if len(row) > len(types):
            # Written by a newer version: it is kept, and written again.
            more = {key: value for key, value in row.items() if key not in self._keys}
            outside.check(more, most=None)

    def _check_types(self, types: tuple[type, ...], where: str) -> None:
        for (key, kinds), found in zip(self._keys.items(), types, strict=True):
            if found not in kinds:
                raise OutsideError(f"{where}{key} is {_WORDS.get(found, 'a number')}")
        self._right.add(types)


_MANIFEST = _Table({
    "schema_version": _WHOLE, "id": _TEXT, "parent_id": _MAYBE_TEXT, "root_id": _TEXT,
    "children": _LIST, "user": _TEXT, "projects": _LIST, "name": _TEXT, "name_base64": _MAYBE_TEXT,
    "drop_path": _TEXT, "size_bytes": _WHOLE, "sha256": _MAYBE_TEXT, "received_at": _TEXT,
    "status": _TEXT, "status_code": _WHOLE, "phase": _MAYBE_TEXT, "attempts": _WHOLE,
    "history": _LIST, "format": _MAYBE_OBJECT, "error": _MAYBE_OBJECT, "images": _LIST,
    "files": _LIST, "skipped": _LIST, "conversion": _MAYBE_OBJECT, "verification": _MAYBE_OBJECT,
    "duplicate_of": _MAYBE_TEXT, "warnings": _LIST, "software": _OBJECT,
})  # fmt: skip
_HISTORY = _Table({
    "status": _TEXT, "at": _TEXT, "seconds": _MAYBE_NUMBER, "attempt": _WHOLE, "reason": _MAYBE_TEXT,
})  # fmt: skip
_FORMAT = _Table({
    "id": _TEXT, "name": _TEXT, "native": _FLAG, "evidence": _TEXT, "openslide_vendor": _MAYBE_TEXT,
})  # fmt: skip
_ERROR = _Table({"reason": _TEXT, "detail": _TEXT, "stage": _TEXT, "retryable": _FLAG})
_FILE = _Table({
    "role": _TEXT, "path": _TEXT, "size_bytes": _WHOLE, "sha256": _MAYBE_TEXT, "status": _TEXT,
})  # fmt: skip
_IMAGE = _Table({
    "scene": _WHOLE, "file": _TEXT, "width": _WHOLE, "height": _WHOLE, "samples_per_pixel": _WHOLE,
    "bits_per_sample": _WHOLE, "mpp_x": _MAYBE_NUMBER, "mpp_y": _MAYBE_NUMBER,
    "objective_power": _MAYBE_NUMBER, "levels": _LIST, "associated": _LIST, "icc_profile": _FLAG,
    "acquired_at": _MAYBE_TEXT, "vendor": _MAYBE_TEXT, "properties": _OBJECT,
})  # fmt: skip
_LEVEL = _Table({
    "width": _WHOLE, "height": _WHOLE, "downsample": _NUMBER, "tile_width": _MAYBE_WHOLE,
    "tile_height": _MAYBE_WHOLE,
})  # fmt: skip
_SKIPPED = _Table({"name": _TEXT, "reason": _TEXT})
_CONVERSION = _Table({"reader": _MAYBE_TEXT, "why": _MAYBE_TEXT})


def check(document: dict[str, Any]) -> None:
    """Check that the code can rely on `document`, a manifest; keys that it does not know are bounded only.

    Raises
    ------
    OutsideError
        A key is missing or of another type, a number is negative, not finite or does not fit into
        64 bits, a status or a time is none, or a name or a path would lead elsewhere.
    """
    _MANIFEST.check(document, "")
    for row in document["history"]:
        _HISTORY.check(row, "history/")
        _status(row["status"], "history/status")
        _time(row["at"], "history/at")
    for row in document["files"]:
        _FILE.check(row, "files/")
        _status(row["status"], "files/status")
        _inside(row["path"], "files/path")
        _texts((row[key] for key in ("dropped_as", "dropped_as_base64") if key in row), "files")
    for row in document["images"]:
        _image(row)
    for row in document["skipped"]:
        _SKIPPED.check(row, "skipped/")
    _optional(document, "format", _FORMAT)
    _optional(document, "conversion", _CONVERSION)
    if (error := document["error"]) is not None:
        _ERROR.check(error, "error/")
        _status(error["stage"], "error/stage")
    if document["verification"]:
        outside.check(document["verification"], most=None)
    _texts(document["software"].values(), "software")
    _texts(document["warnings"], "warnings")
    _identity(document)


def _identity(document: dict[str, Any]) -> None:
    """What names other uploaded files, folders and moments."""
    if not document["history"]:
        raise OutsideError("history is empty")
    _status(document["status"], "status")
    _time(document["received_at"], "received_at")
    _folder(document["user"], "user")
    _texts(document["projects"], "projects")
    for project in document["projects"]:
        _folder(project, "projects")
    _id(document["id"], "id")
    _id(document["root_id"], "root_id")
    if (coded := document["name_base64"]) is not None:
        try:
            base64.b64decode(coded, validate=True)
        except ValueError as error:
            raise OutsideError("name_base64 is not base64") from error
    for key in ("parent_id", "duplicate_of"):
        if document[key] is not None:
            _id(document[key], key)
    _texts(document["children"], "children")
    for child in document["children"]:
        _id(child, "children")


def _image(row: Any) -> None:
    _IMAGE.check(row, "images/")
    _inside(row["file"], "images/file")
    for level in row["levels"]:
        _LEVEL.check(level, "images/levels/")
    _texts(row["associated"], "images/associated")
    _texts(row["properties"].values(), "images/properties")


def _optional(document: dict[str, Any], key: str, table: _Table) -> None:
    if document[key] is not None:
        table.check(document[key], f"{key}/")


def _kind(value: object) -> str:
    return _WORDS.get(type(value), "a number")


def _texts(values: Iterable[object], where: str) -> None:
    for value in values:
        if type(value) is not str:
            raise OutsideError(f"{where} holds {_kind(value)}")


def _status(value: str, where: str, known: Collection[str] = Status.__members__) -> None:
    if value not in known:
        raise OutsideError(f"{where} is not a status: {outside.text(value, most=40)}")


def _time(value: str, where: str) -> None:
    try:
        # Years that can be compared and shown in any time zone.
        if "1970" <= value[:4] < "9999" and datetime.fromisoformat(value).tzinfo is not None:
            return
    except ValueError:
        pass
    raise OutsideError(f"{where} is not a time in UTC: {outside.text(value, most=40)}")


def _id(value: str, where: str) -> None:
    if not ID_PATTERN.fullmatch(value):
        raise OutsideError(f"{where} is not an id: {outside.text(value, most=100)}")


def _folder(value: str, where: str) -> None:
    if not value or value in (".", "..") or "/" in value or "\0" in value:
        raise OutsideError(f"{where} cannot name a folder: {outside.text(value, most=100)}")


def _inside(value: str, where: str) -> None:
    if (
        not value
        or value[0] == "/"
        or "\0" in value
        or (".." in value and ".." in value.split("/"))
    ):
        raise OutsideError(
            f"{where} leads out of the uploaded file: {outside.text(value, most=100)}"
        )
