"""Reading a configuration from a file; all its problems are reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli

from cytowatch import outside
from cytowatch.config.keys import Config, Hook
from cytowatch.config.rules import DEPTH
from cytowatch.record import names
from cytowatch.record.errors import ConfigError

__all__ = ["from_mapping", "load", "to_mapping"]

_LONGEST_SHOWN = 200


def load(path: Path | None) -> Config:
    """The configuration in the TOML file at `path`; all defaults for None.

    Raises
    ------
    ConfigError
        The file cannot be read, is not TOML, or has problems; each is named.
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
    """A `Config` from nested dictionaries, as read from TOML or JSON.

    Raises
    ------
    ConfigError
        There are unknown keys, wrong types or values out of range; all are named at once.

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
    """The problems of `document` that could not even be shown or passed on: deep nesting, texts with a NUL."""
    level: list[tuple[str, Any]] = list(document.items())
    for _ in range(DEPTH):
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
    """`value` as text that fits into a line of a log; strings as they are written in TOML."""
    said = str(value) if isinstance(value, Exception) else repr(value)
    return outside.text(said, most=_LONGEST_SHOWN)


def _of_hooks(hooks: tuple[Hook, ...]) -> Iterator[str]:
    called = [hook.name for hook in hooks]
    for number, hook in enumerate(hooks):
        where = f"hooks[{number}]"
        if not hook.name:
            yield f"{where}: it needs a name"
        elif called.count(hook.name) > 1:
            yield f"{where}.name = {hook.name!r}: another hook has this name as well"
        if bool(hook.command) == bool(hook.url):
            yield f"{where}: expected either a command or a url"
        if hook.command and not hook.command[0].startswith("/"):
            yield f"{where}.command: {hook.command[0]!r} is not an absolute path"


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
            # The key is not set, as `to_mapping` writes it.
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
