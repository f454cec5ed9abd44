"""A manifest, or any small file of our own, that is damaged: one of each kind that once stopped somebody."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["FILES", "KEYS", "MANIFESTS", "damaged"]


def _gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _written(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _socket(path: Path) -> None:
    # Its address has a length of 108 bytes at most, so it is made where it is short.
    with socket.socket(socket.AF_UNIX) as one:
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(before)


#: What may lie in the place of any file of our own.
FILES: dict[str, Callable[[Path], None]] = {
    "deep": _written(b"[" * 200_000 + b"]" * 200_000),
    "deep objects": _written(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "huge integer": _written(b'{"schema_version": 1' + b"0" * 5000 + b"}"),
    "many values": _written(b"[" + b"[]," * 5_000_000 + b"[]]"),
    "huge": _huge,
    "torn": _written(b'{"schema_version": 1, "id"'),
    "empty": _written(b""),
    "no object": _written(b"[]"),
    "not UTF-8": _written(b'{"schema_version": 1, "name": "\xff\xfe"}'),
    "fifo": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to another": lambda path: path.symlink_to("/etc/hostname"),
}

#: A key of a manifest, and what it must not be.
KEYS: dict[str, tuple[str, Any]] = {
    "id is a number": ("id", 5),
    "id leads out": ("id", "../../x"),
    "parent is a list": ("parent_id", []),
    "root is null": ("root_id", None),
    "children is a number": ("children", 7),
    "children holds lists": ("children", [["x"]]),
    "user leads out": ("user", "../x"),
    "user is empty": ("user", ""),
    "user is a number": ("user", 1),
    "user has a zero byte": ("user", "a\0b"),
    "projects is a text": ("projects", "x"),
    "projects leads out": ("projects", [".."]),
    "name is null": ("name", None),
    "name is not base64": ("name_base64", "\u00e4?"),
    "size is huge": ("size_bytes", 1 << 70),
    "size is negative": ("size_bytes", -1),
    "size is a text": ("size_bytes", "5"),
    "size is true": ("size_bytes", True),
    "hash is a list": ("sha256", []),
    "received is a number": ("received_at", 5),
    "received is not a time": ("received_at", "yesterday"),
    "received has no zone": ("received_at", "2026-11-23T14:15:02"),
    "received before any clock": ("received_at", "0001-01-01T00:00:00Z"),
    "status is unknown": ("status", "LOST"),
    "status is a list": ("status", ["DEPLOYED"]),
    "attempts is huge": ("attempts", 10**30),
    "history is an object": ("history", {"a": 1}),
    "history is empty": ("history", []),
    "history holds numbers": ("history", [5]),
    "history lacks keys": ("history", [{}]),
    "history at no time": ("history", [{"status": "DEPLOYED", "at": "x", "seconds": 0, "attempt": 0, "reason": None}]),
    "history for ever": ("history", [{"status": "DEPLOYED", "at": "2026-11-23T14:15:02Z", "seconds": 1e999, "attempt": 0, "reason": None}]),
    "format is a text": ("format", "jpeg"),
    "format lacks keys": ("format", {}),
    "error is a text": ("error", "x"),
    "error of no stage": ("error", {"reason": "x", "detail": "x", "stage": "x", "retryable": False}),
    "images is null": ("images", None),
    "images holds texts": ("images", ["x"]),
    "images lacks keys": ("images", [{"width": 1}]),
    "files is an object": ("files", {}),
    "files lead out": ("files", [{"role": "source", "path": "source/../../../x", "size_bytes": 1, "sha256": None, "status": "DEPLOYED"}]),
    "files begin at the root": ("files", [{"role": "source", "path": "/etc/hostname", "size_bytes": 1, "sha256": None, "status": "DEPLOYED"}]),
    "files in no status": ("files", [{"role": "source", "path": "source/a", "size_bytes": 1, "sha256": None, "status": "x"}]),
    "skipped holds numbers": ("skipped", [1]),
    "conversion is a list": ("conversion", [1]),
    "conversion without a reader": ("conversion", {}),
    "verification is deep": ("verification", {"a": json.loads("[" * 60 + "]" * 60)}),
    "duplicate is a number": ("duplicate_of", 3),
    "warnings is a number": ("warnings", 3),
    "warnings holds numbers": ("warnings", [3]),
    "software is a list": ("software", []),
    "software holds lists": ("software", {"a": []}),
    "version is another": ("schema_version", 2),
    "version is true": ("schema_version", True),
    "more, not finite": ("later", {"a": [1e999]}),
    "more, and deep": ("later", json.loads("[" * 60 + "]" * 60)),
}  # fmt: skip


def _key(key: str, value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({**damaged.sound, key: value}))

    return write


def _without(key: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({k: v for k, v in damaged.sound.items() if k != key}))

    return write


class _Damaged:
    """Puts damage of a kind in the place of a manifest."""

    sound: dict[str, Any]

    def __call__(self, path: Path, kind: str) -> None:
        """Let `path`, which is a sound manifest, be damaged as `kind` says."""
        with suppress(FileNotFoundError):
            self.sound = json.loads(path.read_bytes())
        _gone(path)
        MANIFESTS[kind](path)


damaged = _Damaged()

#: Every way in which a manifest may be damaged.
MANIFESTS: dict[str, Callable[[Path], None]] = {
    **FILES,
    **{kind: _key(key, value) for kind, (key, value) in KEYS.items()},
    "no history": _without("history"),
    "no user": _without("user"),
    "missing": lambda path: None,
}
