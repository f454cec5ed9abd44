"""Every key of the daemon's configuration, section by section; those of [inbox] are in `inbox`."""

from __future__ import annotations

from dataclasses import dataclass, field

from cytowatch.config.inbox import Inbox, UserInbox
from cytowatch.config.panel import Panel
from cytowatch.config.rules import (
    DIR_MODE,
    FILE_MODE,
    argv,
    auto,
    encoding,
    finals,
    flag,
    key,
    listen,
    number,
    one_of,
    text,
    whole,
)

__all__ = ["Config", "Convert", "Extract", "Hook", "Inbox", "Limits", "UserInbox"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """How archives are unpacked."""

    keep_archive: bool = key(
        True, "keep the archive beside its manifest in storage", flag, reloadable=True
    )
    names: str = key(
        "auto",
        'encoding of names in a zip that does not state it: "auto" (UTF-8 if valid, else a guess), "cp932", "cp437", …',
        encoding,
        reloadable=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Convert:
    """How a pyramid is derived."""

    derive: str = key(
        "always",
        '"always", or "large": flat images up to 1024 px stay as they are',
        one_of("always", "large"),
        reloadable=True,
    )
    compression: str = key(
        "jpeg",
        '"jpeg" or "lossless" for 8-bit samples',
        one_of("jpeg", "lossless"),
        reloadable=True,
    )
    quality: int = key(
        90,
        "JPEG quality; from 90 on without chroma subsampling, with about 2.7 x the bytes of 89",
        whole(1, 100),
        reloadable=True,
    )
    colour: str = key(
        "rgb",
        '"rgb", or "ycbcr": half the bytes at one to five dB less; below quality 90 it is always "ycbcr"',
        one_of("rgb", "ycbcr"),
        reloadable=True,
    )
    tile: int = key(
        256,
        "px, a multiple of 16",
        lambda value: (
            None
            if isinstance(value, int) and value in range(64, 4097, 16)
            else "a multiple of 16 from 64 to 4096"
        ),
        reloadable=True,
    )
    copy_tiles: bool = key(
        True,
        "copy the JPEG tiles of a source as they are if they fit; false: encode all of them again",
        flag,
        reloadable=True,
    )
    keep_source: bool = key(
        True, "keep the original beside the derived pyramid", flag, reloadable=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Who does the work, and how long it may take."""

    kind: str = key("local", '"local" or "dask"', one_of("local", "dask"))
    scheduler: str = key(
        "",
        '"tcp://host:8786" with "dask"',
        text(r"((tcp|tls)://[^\s]+)?", 'an address such as "tcp://host:8786", or ""'),
    )
    workers: str | int = key(
        "auto",
        'uploaded files in progress at the same time, and one more if all are held up; "auto": one per core',
        auto,
    )
    threads_per_worker: str | int = key("auto", "threads per conversion", auto)
    max_attempts: int = key(
        3, "crashes on one file until it ends in an error", whole(1, 1000), reloadable=True
    )
    stage_timeout_s: float = key(
        14400.0, "s that a stage of one file may take", number(0.05), reloadable=True
    )
    no_progress_s: float = key(
        1800.0, "s that a stage may run without any progress", number(0.05), reloadable=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Files above these limits are refused, by their headers, before a pixel is decoded."""

    max_pixels: int = key(100_000_000_000, "pixels of one image", whole(1), reloadable=True)
    max_side: int = key(2_000_000, "pixels per side of one image", whole(1), reloadable=True)
    max_samples: int = key(64, "samples per pixel", whole(1), reloadable=True)
    max_pages: int = key(10_000, "directories in a TIFF", whole(1), reloadable=True)
    max_tags: int = key(1_000, "tags in one directory of a TIFF", whole(1), reloadable=True)
    max_expansion: int = key(
        10_000,
        "bytes of pixels per byte of the file, for images above 1 GiB",
        whole(1),
        reloadable=True,
    )
    archive_max_bytes: int = key(
        1_099_511_627_776, "unpacked bytes of an archive", whole(1), reloadable=True
    )
    archive_max_entries: int = key(100_000, "members of an archive", whole(1), reloadable=True)
    # The Finder packs a picture of one grey by a factor of 229, so a limit of 200 refused a slide from a Mac.
    archive_max_ratio: int = key(
        250,
        "unpacked bytes per packed byte, for archives above 64 MiB unpacked",
        whole(1),
        reloadable=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How results are kept."""

    duplicates: str = key(
        "keep", '"keep", "link", "reject"', one_of("keep", "link", "reject"), reloadable=True
    )
    reserve_bytes: int = key(
        1_073_741_824,
        "bytes to keep free: with less, nothing new is started",
        whole(0),
        reloadable=True,
    )
    reserve_inodes: int = key(
        1000,
        "inodes to keep free, at most a tenth of all: with fewer, nothing new is started",
        whole(0),
        reloadable=True,
    )
    keep_errors_days: float = key(
        0, "days after which an error is removed; 0: never", number(0), reloadable=True
    )
    hash: str = key(
        "before",
        '"before" deploying, or "after": publish first, hash in the background',
        one_of("before", "after"),
    )
    group: str = key(
        "",
        "group that may read deployed files",
        text(r"[A-Za-z0-9_.-]*", 'the name of a group, or ""'),
    )
    file_mode: str = key("0640", "octal mode of deployed files", FILE_MODE)
    dir_mode: str = key("0750", "octal mode of its directories", DIR_MODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """How decoders are confined."""

    require: bool = key(False, "refuse to run if the kernel cannot sandbox a decoder", flag)
    memory_bytes: int = key(4_294_967_296, "bytes of address space per decoder", whole(268_435_456))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """Notes for people who only have the share."""

    dir: str = key(
        "status",
        '"status": <root>/status/<user>/; "inbox": inbox/<user>/_status/; "": none',
        one_of("status", "inbox", ""),
    )
    status_days: float = key(7, "days until a note is removed", number(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where Prometheus reads metrics."""

    listen: str = key(
        "127.0.0.1:9755",
        'address and port; "" for none',
        listen,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program or an address to notify when an uploaded file is finished."""

    name: str = key(
        "",
        "its name, in logs and metrics",
        text(r"[a-z0-9-]{1,32}", "a short name of a-z, 0-9 and -"),
    )
    on: tuple[str, ...] = key(("DEPLOYED", "CONVERTED"), "the statuses to notify it of", finals)
    command: tuple[str, ...] = key(
        (), "a program and its arguments, without a shell; the manifest is its standard input", argv
    )
    url: str = key(
        "",
        "or an address to post the manifest to, as a CloudEvent",
        text(r"(https?://[^\s]+)?", 'an http or https address, or ""'),
    )
    secret_file: str = key(
        "",
        "a file with whsec_..., to sign each post",
        text(r"(/.*)?", 'an absolute path, or ""'),
    )
    timeout_s: float = key(30.0, "s that one delivery may take", number(0.1, 3600))
    max_attempts: int = key(
        12,
        "attempts until the notification becomes a dead letter, which `cytowatch status` shows",
        whole(1, 1000),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log contains, and how."""

    level: str = key(
        "info",
        '"debug", "info", "warning", "error"',
        one_of("debug", "info", "warning", "error"),
        reloadable=True,
    )
    format: str = key(
        "auto",
        '"auto" (JSON unless on a terminal), "json", "console"',
        one_of("auto", "json", "console"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; without any file, all of its defaults."""

    root: str = key(
        "/srv/cytowatch",
        "the tree: inboxes, stages and storage, on one filesystem",
        text(r"/.*", "an absolute path"),
    )
    inbox: Inbox = field(default_factory=Inbox)
    extract: Extract = field(default_factory=Extract)
    convert: Convert = field(default_factory=Convert)
    engine: Engine = field(default_factory=Engine)
    limits: Limits = field(default_factory=Limits)
    storage: Storage = field(default_factory=Storage)
    sandbox: Sandbox = field(default_factory=Sandbox)
    feedback: Feedback = field(default_factory=Feedback)
    metrics: Metrics = field(default_factory=Metrics)
    panel: Panel = field(default_factory=Panel)
    log: Log = field(default_factory=Log)
    hooks: tuple[Hook, ...] = field(default=(), metadata={"many": Hook, "reloadable": True})
