"""The rows of a manifest and the manifest itself, as types."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

__all__ = [
    "ErrorEntry",
    "FileEntry",
    "FormatEntry",
    "HistoryEntry",
    "ImageEntry",
    "LevelEntry",
    "Manifest",
    "SkippedEntry",
]


class HistoryEntry(TypedDict):
    """One status that was entered; `seconds` is how long it lasted, null while it lasts."""

    status: str
    at: str
    seconds: float | None
    attempt: int
    reason: str | None


class FormatEntry(TypedDict):
    """What was detected, and by which mark."""

    id: str
    name: str
    native: bool
    evidence: str
    openslide_vendor: str | None


class ErrorEntry(TypedDict):
    """Why it ended in an error; `stage` is the status in which it happened."""

    reason: str
    detail: str
    stage: str
    retryable: bool


class LevelEntry(TypedDict):
    """One level: sizes in pixels, `downsample` against level 0; tiles null where there are none."""

    width: int
    height: int
    downsample: float
    tile_width: int | None
    tile_height: int | None


class ImageEntry(TypedDict):
    """One deployed pyramid; mpp in micrometres per pixel, null where the source states none."""

    scene: int
    file: str
    width: int
    height: int
    samples_per_pixel: int
    bits_per_sample: int
    mpp_x: float | None
    mpp_y: float | None
    objective_power: float | None
    levels: list[LevelEntry]
    associated: list[str]
    icc_profile: bool
    acquired_at: str | None
    vendor: str | None
    properties: dict[str, str]


class _AsDropped(TypedDict, total=False):
    """What a file of a set was called where it was dropped, if its path does not say so."""

    dropped_as: str
    dropped_as_base64: str


class FileEntry(_AsDropped):
    """One file below ``<id>/``; role is source, sidecar, pyramid, thumbnail, label or macro."""

    role: str
    path: str
    size_bytes: int
    sha256: str | None
    status: str


class SkippedEntry(TypedDict):
    """A member of an archive that became nothing."""

    name: str
    reason: str
    count: NotRequired[int]


class Manifest(TypedDict):
    """Schema version 1; every key is present from the first write."""

    schema_version: int
    id: str
    parent_id: str | None
    root_id: str
    children: list[str]
    user: str
    projects: list[str]
    name: str
    name_base64: str | None
    drop_path: str
    size_bytes: int
    sha256: str | None
    received_at: str
    status: str
    status_code: int
    phase: str | None
    attempts: int
    history: list[HistoryEntry]
    format: FormatEntry | None
    error: ErrorEntry | None
    images: list[ImageEntry]
    files: list[FileEntry]
    skipped: list[SkippedEntry]
    conversion: dict[str, Any] | None
    verification: dict[str, Any] | None
    duplicate_of: str | None
    warnings: list[str]
    software: dict[str, str]
