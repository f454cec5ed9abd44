"""The configuration: TOML into frozen dataclasses, every problem reported at once.

Each key is one dataclass field: its default, unit and rule stand here and nowhere else.
``config/cytowatch.toml`` is `render()` written down.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import tomli

from cytowatch import outside
from cytowatch.record import names
from cytowatch.record.errors import ConfigError
from cytowatch.record.status import Status

__all__ = [
    "RELOADABLE",
    "reloaded",
    "Config",
    "Inbox",
    "UserInbox",
    "from_mapping",
    "load",
    "render",
    "to_mapping",
]

#: Answers what was expected, or None when the value is fine.
Rule = Callable[[Any], str | None]


#: No value of a configuration is nested more deeply than a list in a section in a list of sections.
_DEPTH = 8
#: The largest whole number: all that is counted or measured here fits into 64 bits.
_LARGEST = (1 << 63) - 1
_LONGEST_SHOWN = 200


def _key(default: Any, doc: str, rule: Rule) -> Any:
    metadata = {"doc": doc, "rule": rule}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _number(least: float, most: float = 1e9) -> Rule:
    wanted = f"a number from {least:g}" + ("" if most == 1e9 else f" to {most:g}")

    def rule(value: Any) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        return None if good and least <= value <= most else wanted

    return rule


def _whole(least: int, most: int = _LARGEST) -> Rule:
    wanted = f"a whole number from {least}" + ("" if most == _LARGEST else f" to {most}")

    def rule(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool)
        return None if good and least <= value <= most else wanted

    return rule


def _one_of(*choices: str) -> Rule:
    wanted = " or ".join(f'"{choice}"' for choice in choices)
    return lambda value: None if value in choices and isinstance(value, str) else wanted


def _text(pattern: str, wanted: str) -> Rule:
    return lambda value: None if isinstance(value, str) and re.fullmatch(pattern, value) else wanted


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _names(value: Any) -> str | None:
    good = isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)
    return None if good else "a list of name patterns"


def _auto(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024
    return None if value == "auto" or good else '"auto" or a whole number from 1 to 1024'


#: Encodings of ASCII that spell other characters with it.
_SPELLED = frozenset(("hz", "idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"))


def _encoding(value: Any) -> str | None:
    """Whether in an encoding every character of ASCII is itself."""
    ascii_ = bytes(range(32, 127))
    try:
        good = value == "auto" or (
            codecs.lookup(value).name not in _SPELLED and ascii_.decode(value) == ascii_.decode()
        )
    except (LookupError, UnicodeError, TypeError, ValueError):
        good = False
    return None if good else '"auto", or an encoding such as "cp932", "gbk" or "cp850"'


# What the daemon itself could not read or enter would hold up every drop, and each try leave a claim.
_FILE_MODE = _text(
    "0[4-7][0-7]{2}", 'an octal mode in quotes, which lets its owner read, such as "0640"'
)
_DIR_MODE = _text(
    "07[0-7]{2}", 'an octal mode in quotes, which lets its owner do everything, such as "0750"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInbox:
    """What is different for one user, or one scanner; what is not set is as in [inbox]."""

    quiet_s: float | None = _key(None, "as inbox.quiet_s", _number(0.05))
    fallback_quiet_s: float | None = _key(None, "as inbox.fallback_quiet_s", _number(0.05))
    folder_quiet_s: float | None = _key(None, "as inbox.folder_quiet_s", _number(0.05))
    incomplete_after_s: float | None = _key(None, "as inbox.incomplete_after_s", _number(0.05))
    done_marker: str | None = _key(
        None,
        'as inbox.done_marker; "": claim when quiet, although [inbox] has a marker',
        _text(r"(\.[A-Za-z0-9_-]+)?", 'an ending such as ".done", or ""'),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """When a drop is taken."""

    quiet_s: float = _key(
        10.0, "s without any change, on our own clock, before a drop may be claimed", _number(0.05)
    )
    fallback_quiet_s: float = _key(
        60.0, "s instead, where the filesystem grants no leases", _number(0.05)
    )
    folder_quiet_s: float = _key(
        60.0, "s after which a dropped folder counts as finished", _number(0.05)
    )
    rescan_s: float = _key(30.0, "s between full scans; events only make it sooner", _number(0.05))
    incomplete_after_s: float = _key(
        86400.0, "s a drop may wait for what is missing", _number(0.05)
    )
    done_marker: str = _key(
        "",
        '".done": claim NAME only when NAME.done is there; "": claim when quiet',
        _text(r"(\.[A-Za-z0-9_-]+)?", 'an ending such as ".done", or ""'),
    )
    watch: str = _key("auto", '"auto", "inotify", "polling"', _one_of("auto", "inotify", "polling"))
    ignore: tuple[str, ...] = _key(
        ("*.part", "~$*"), "name patterns, added to the built-in list", _names
    )
    users: dict[str, UserInbox] = field(default_factory=dict, metadata={"named": UserInbox})

    def of(self, user: str) -> Inbox:
        """What holds for `user`, whose name is compared casefolded and in NFC.

        >>> Inbox(users={"Scanner2": UserInbox(quiet_s=120.0)}).of("scanner2").quiet_s
        120.0
        """
        own = next((self.users[name] for name in names.alike(self.users, user)), None)
        if own is None:
            return self
        stated = {one.name: getattr(own, one.name) for one in fields(own)}
        return dataclasses.replace(self, **{k: v for k, v in stated.items() if v is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """What becomes of archives."""

    keep_archive: bool = _key(True, "keep the archive beside its manifest in storage", _flag)
    names: str = _key(
        "auto",
        '"auto" (UTF-8 if valid, else a guess), or "cp932", "cp437", …: how names in a zip are read that state no encoding',
        _encoding,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Convert:
    """How a pyramid is derived."""

    derive: str = _key(
        "always",
        '"always", or "large": flat images up to 1024 px stay as they are',
        _one_of("always", "large"),
    )
    compression: str = _key(
        "jpeg", '"jpeg" or "lossless" for 8-bit samples', _one_of("jpeg", "lossless")
    )
    quality: int = _key(
        90, "from 90 on no chroma subsampling: about 2.7 x the bytes of 89", _whole(1, 100)
    )
    colour: str = _key(
        "rgb",
        '"rgb", or "ycbcr": half the bytes, one to five dB less; below 90 it is always "ycbcr"',
        _one_of("rgb", "ycbcr"),
    )
    tile: int = _key(
        256,
        "px, a multiple of 16",
        lambda value: (
            None
            if isinstance(value, int) and value in range(64, 4097, 16)
            else "a multiple of 16 from 64 to 4096"
        ),
    )
    copy_tiles: bool = _key(
        True,
        "JPEG tiles of a source stay as they are where they fit; false: all are encoded anew",
        _flag,
    )
    keep_source: bool = _key(True, "keep the original beside the derived pyramid", _flag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Who does the work, and how long it may take."""

    kind: str = _key("local", '"local" or "dask"', _one_of("local", "dask"))
    scheduler: str = _key(
        "",
        '"tcp://host:8786" with "dask"',
        _text(r"((tcp|tls)://[^\s]+)?", 'an address such as "tcp://host:8786", or ""'),
    )
    workers: str | int = _key("auto", "uploaded files in work at a time", _auto)
    threads_per_worker: str | int = _key("auto", "threads for one conversion", _auto)
    max_attempts: int = _key(3, "after so many crashes on one file it is shelved", _whole(1, 1000))
    stage_timeout_s: float = _key(14400.0, "s that one stage of one file may take", _number(0.05))
    no_progress_s: float = _key(
        1800.0, "s that a stage may go on without any progress", _number(0.05)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused, told from headers before a pixel is decoded."""

    max_pixels: int = _key(100_000_000_000, "pixels of one image", _whole(1))
    max_side: int = _key(2_000_000, "pixels of a side of one image", _whole(1))
    max_samples: int = _key(64, "samples of a pixel", _whole(1))
    max_pages: int = _key(10_000, "directories of a TIFF", _whole(1))
    max_tags: int = _key(1_000, "tags of one directory of a TIFF", _whole(1))
    max_expansion: int = _key(
        10_000, "bytes of pixels for a byte of the file, of images above 1 GiB", _whole(1)
    )
    archive_max_bytes: int = _key(1_099_511_627_776, "bytes of an archive, unpacked", _whole(1))
    archive_max_entries: int = _key(100_000, "members of an archive", _whole(1))
    # The Finder's deflate packs a picture of one grey 229 times, so 200 refused a slide of a Mac.
    archive_max_ratio: int = _key(
        250, "unpacked bytes for a packed one, of archives above 64 MiB unpacked", _whole(1)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How results are kept."""

    duplicates: str = _key("keep", '"keep", "link", "reject"', _one_of("keep", "link", "reject"))
    reserve_bytes: int = _key(
        1_073_741_824, "bytes that stay free: below it nothing new is started", _whole(0)
    )
    reserve_inodes: int = _key(
        1000,
        "inodes that stay free, at most a tenth of all: below it nothing new is started",
        _whole(0),
    )
    keep_errors_days: float = _key(0, "days; 0: for ever", _number(0))
    hash: str = _key(
        "before",
        '"before" deploying, or "after": published first, hashed in the background',
        _one_of("before", "after"),
    )
    group: str = _key(
        "",
        "group that may read what is deployed",
        _text(r"[A-Za-z0-9_.-]*", 'the name of a group, or ""'),
    )
    file_mode: str = _key("0640", "octal mode of what is deployed", _FILE_MODE)
    dir_mode: str = _key("0750", "octal mode of its directories", _DIR_MODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What holds a decoder in."""

    require: bool = _key(False, "refuse to run where the kernel cannot sandbox a decoder", _flag)
    memory_bytes: int = _key(
        4_294_967_296, "bytes of address space for one decoder", _whole(268_435_456)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What those see who have only the share."""

    dir: str = _key(
        "status",
        '"status": <root>/status/<user>/; "inbox": inbox/<user>/_status/; "": none',
        _one_of("status", "inbox", ""),
    )
    status_days: float = _key(7, "days that a note stays", _number(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where Prometheus reads."""

    listen: str = _key(
        "127.0.0.1:9755",
        'address and port; "" for none',
        _text(r"(.*:[0-9]{1,5})?", 'ADDRESS:PORT, or ""'),
    )


_FINAL = tuple(status.name for status in Status if status.is_final)


def _finals(value: Any) -> str | None:
    good = isinstance(value, tuple) and value and all(item in _FINAL for item in value)
    return None if good else f"a list of {', '.join(_FINAL)}"


def _argv(value: Any) -> str | None:
    good = isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)
    return None if good else "a list of words, the program first, with its absolute path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Who is told when an uploaded file comes to its end: a program, or an address."""

    name: str = _key(
        "",
        "its name, in logs and metrics",
        _text(r"[a-z0-9-]{1,32}", "a short name of a-z, 0-9 and -"),
    )
    on: tuple[str, ...] = _key(
        ("DEPLOYED", "CONVERTED"), "the statuses that it is told of", _finals
    )
    command: tuple[str, ...] = _key(
        (), "a program and its words, never a shell; the manifest is its standard input", _argv
    )
    url: str = _key(
        "",
        "or where the manifest is posted to, as a CloudEvent",
        _text(r"(https?://[^\s]+)?", 'an http or https address, or ""'),
    )
    secret_file: str = _key(
        "",
        "a file that holds whsec_..., to sign what is posted",
        _text(r"(/.*)?", 'an absolute path, or ""'),
    )
    timeout_s: float = _key(30.0, "s that one delivery may take", _number(0.1, 3600))
    max_attempts: int = _key(
        12, "then it is a dead letter, which `cytowatch status` shows", _whole(1, 1000)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is told, and how."""

    level: str = _key(
        "info",
        '"debug", "info", "warning", "error"',
        _one_of("debug", "info", "warning", "error"),
    )
    format: str = _key(
        "auto",
        '"auto" (JSON unless on a terminal), "json", "console"',
        _one_of("auto", "json", "console"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; without any file, all of its defaults."""

    root: str = _key(
        "/srv/cytowatch",
        "the tree: inboxes, stages and storage, on one filesystem",
        _text(r"/.*", "an absolute path"),
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
    log: Log = field(default_factory=Log)
    hooks: tuple[Hook, ...] = field(default=(), metadata={"many": Hook})


def load(path: Path | None) -> Config:
    """The configuration in the TOML file at `path`; all defaults for None.

    Raises
    ------
    ConfigError
        The file cannot be read, is not TOML, or has problems: each is named.
    """
    if path is None:
        return Config()
    try:
        data = outside.read_file(path, most_bytes=outside.SMALL_BYTES, follow=True)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}: cannot be read as a configuration: {error}"]) from error
    try:
        document = tomli.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        said = f"{path}: not UTF-8: save it as UTF-8 (byte {error.start})"
        raise ConfigError([said]) from error
    except ValueError as error:
        raise ConfigError([f"{path}: not TOML: {_shown(error)}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: it is nested too deeply"]) from error
    return from_mapping(document)


def from_mapping(document: dict[str, Any]) -> Config:
    """A `Config` from nested dictionaries, as TOML and JSON give them.

    Raises
    ------
    ConfigError
        Unknown keys, wrong types, values out of range: all of them at once.

    Examples
    --------
    >>> from_mapping({"convert": {"quality": 80}}).convert.quality
    80
    """
    problems = _unusable(document)
    if problems:
        raise ConfigError(problems)
    config = _section(Config, document, "", problems)
    if not problems and config.engine.kind == "dask" and not config.engine.scheduler:
        problems.append('engine.scheduler = "": expected an address, because engine.kind is "dask"')
    if not problems:
        problems += _of_hooks(config.hooks)
    if problems:
        raise ConfigError(problems)
    return config  # type: ignore[no-any-return]


def _unusable(document: dict[str, Any]) -> list[str]:
    """What of `document` could not even be shown or passed on: values nested deeply, texts with a NUL."""
    level: list[tuple[str, Any]] = list(document.items())
    for _ in range(_DEPTH):
        below: list[tuple[str, Any]] = []
        for name, value in level:
            match value:
                case dict():
                    below += [(name, key) for key in value]
                    below += [(f"{name}.{key}", inner) for key, inner in value.items()]
                case list() | tuple():
                    below += [(name, inner) for inner in value]
                case str() if "\0" in value:
                    return [f"{_shown(name)}: expected a text without the character NUL"]
                case _:
                    pass
        level = below
    return [f"{_shown(level[0][0])}: it is nested too deeply"] if level else []


def _shown(value: object) -> str:
    """`value` in words that fit into a line of a log; texts as they are written in TOML."""
    said = str(value) if isinstance(value, Exception) else repr(value)
    return outside.text(said, most=_LONGEST_SHOWN)


def _of_hooks(hooks: tuple[Hook, ...]) -> Iterator[str]:
    called = [hook.name for hook in hooks]
    for number, hook in enumerate(hooks):
        where = f"hooks[{number}]"
        if not hook.name:
            yield f"{where}: it needs a name"
        elif called.count(hook.name) > 1:
            yield f"{where}.name = {hook.name!r}: another hook is called so too"
        if bool(hook.command) == bool(hook.url):
            yield f"{where}: expected either a command or a url"
        if hook.command and not hook.command[0].startswith("/"):
            yield f"{where}.command: {hook.command[0]!r} is no absolute path"


def _many(cls: Any, value: Any, name: str, problems: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, dict) for one in value):
        problems.append(f"{name} = {_shown(value)}: expected sections [[{name}]]")
        return ()
    return tuple(
        _section(cls, one, f"{name}[{number}].", problems) for number, one in enumerate(value)
    )


def _named(cls: Any, value: Any, name: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        problems.append(f"{name} = {value!r}: expected sections [{name}.NAME]")
        return {}
    for one in value:
        if not one or len(names.alike(value, one)) > 1:
            problems.append(f"{name}.{one}: expected one section for each user")
    return {one: _section(cls, inner, f"{name}.{one}.", problems) for one, inner in value.items()}


def _section(cls: Any, document: dict[str, Any], prefix: str, problems: list[str]) -> Any:
    fields = {item.name: item for item in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in fields:
            known = ", ".join(sorted(fields))
            line = f"{prefix}{outside.text(name, most=80)} = {_shown(value)}"
            problems.append(f"{line}: unknown key, expected one of {known}")
        elif value is None and fields[name].default is None:
            # Not stated, as `to_mapping` writes it.
            continue
        elif "rule" in fields[name].metadata:
            given = tuple(value) if isinstance(value, list) else value
            if wanted := fields[name].metadata["rule"](given):
                problems.append(f"{prefix}{name} = {_shown(value)}: expected {wanted}")
            values[name] = given
        elif "named" in fields[name].metadata:
            values[name] = _named(
                fields[name].metadata["named"], value, f"{prefix}{name}", problems
            )
        elif "many" in fields[name].metadata:
            values[name] = _many(fields[name].metadata["many"], value, name, problems)
        elif isinstance(value, dict):
            section = fields[name].default_factory
            values[name] = _section(section, value, f"{prefix}{name}.", problems)
        else:
            problems.append(f"{prefix}{name} = {_shown(value)}: expected a section [{name}]")
    return cls() if problems else cls(**values)


def to_mapping(config: Config) -> dict[str, Any]:
    """The reverse of `from_mapping`, ready for JSON."""
    return dataclasses.asdict(config)


#: What SIGHUP may change while the daemon runs; of the rest a start decides.
RELOADABLE = frozenset(
    {
        *(f"inbox.{key}" for key in ("quiet_s", "fallback_quiet_s", "folder_quiet_s", "rescan_s")),
        *(f"inbox.{key}" for key in ("incomplete_after_s", "ignore", "done_marker", "users")),
        *(f"convert.{one.name}" for one in fields(Convert)),
        *(f"extract.{one.name}" for one in fields(Extract)),
        *(f"limits.{one.name}" for one in fields(Limits)),
        *(f"storage.{key}" for key in ("duplicates", "reserve_bytes", "reserve_inodes")),
        "storage.keep_errors_days",
        *(f"engine.{key}" for key in ("max_attempts", "stage_timeout_s", "no_progress_s")),
        "log.level",
        "hooks",
    }
)


def reloaded(old: Config, new: Config) -> tuple[Config, list[str], list[str]]:
    """(`old` with what of `new` may change, the keys that did, the keys that may not)."""
    before, after = to_mapping(old), to_mapping(new)
    changed: list[str] = []
    refused: list[str] = []
    for section, values in after.items():
        if not isinstance(values, dict):
            if values != before[section]:
                (changed if section in RELOADABLE else refused).append(section)
            if section in RELOADABLE:
                before[section] = values
            continue
        for key, value in values.items():
            name = f"{section}.{key}"
            if value == before[section][key]:
                continue
            if name in RELOADABLE:
                before[section][key] = value
                changed.append(name)
            else:
                refused.append(name)
    return from_mapping(before), changed, refused


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case int() if abs(value) >= 1_000_000:
            return f"{value:_}"
        case _:
            return str(value)


def _rendered(name: str, cls: Any) -> Iterator[str]:
    """The keys of a section that bears a name of its own, as comments."""
    yield ""
    yield f"# {cls.__doc__}"
    yield f"# As many [{name}.NAME] as you like:"
    yield f"# [{name}.scanner2]"
    for key in dataclasses.fields(cls):
        value = getattr(Inbox(), key.name)
        yield f"# {key.name} = {_toml(value)}  # {key.metadata['doc']}"


def _stated(name: str, sections: dict[str, Any]) -> Iterator[str]:
    """The sections that are there, with what each states."""
    for one, section in sections.items():
        yield f"[{name}.{json.dumps(one, ensure_ascii=False)}]"
        for key in dataclasses.fields(section):
            if getattr(section, key.name) is not None:
                yield f"{key.name} = {_toml(getattr(section, key.name))}"


def render(config: Config | None = None) -> str:
    """`config` (the defaults) as a TOML file that explains every key."""
    config = config or Config()
    lines = [
        "# The configuration of cytowatch: every key, its default and its unit.",
        "# No file at all is a valid configuration; unknown keys are errors.",
        "",
    ]
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if "many" in item.metadata:
            lines += [
                "",
                f"# {item.metadata['many'].__doc__}",
                f"# As many [[{item.name}]] as you like:",
            ]
            lines += [f"# [[{item.name}]]"]
            lines += [
                f"# {key.name} = {_toml(getattr(Hook(), key.name))}  # {key.metadata['doc']}"
                for key in dataclasses.fields(Hook)
            ]
            continue
        if "rule" in item.metadata:
            lines.append(f"{item.name} = {_toml(value)}  # {item.metadata['doc']}")
            continue
        lines += ["", f"# {value.__doc__}", f"[{item.name}]"]
        lines += [
            f"{key.name} = {_toml(getattr(value, key.name))}  # {key.metadata['doc']}"
            for key in dataclasses.fields(value)
            if "rule" in key.metadata
        ]
        for key in dataclasses.fields(value):
            if "named" in key.metadata:
                lines += _rendered(f"{item.name}.{key.name}", key.metadata["named"])
                lines += _stated(f"{item.name}.{key.name}", getattr(value, key.name))
    return "\n".join(lines) + "\n"
