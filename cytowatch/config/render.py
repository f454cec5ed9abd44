"""A configuration as a commented TOML file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from cytowatch.config.keys import Config, Hook, Inbox

__all__ = ["render"]


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case tuple() | list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case dict():
            rows = [f"{json.dumps(key, ensure_ascii=False)} = {_toml(value[key])}" for key in value]
            return f"{{ {', '.join(rows)} }}" if rows else "{}"
        case int() if abs(value) >= 1_000_000:
            return f"{value:_}"
        case _:
            return str(value)


def _rendered(name: str, cls: Any) -> Iterator[str]:
    """The keys of a section for one name, as comments."""
    yield ""
    yield f"# {cls.__doc__}"
    yield f"# As many [{name}.NAME] as you like:"
    yield f"# [{name}.scanner2]"
    for key in dataclasses.fields(cls):
        value = getattr(Inbox(), key.name)
        yield f"# {key.name} = {_toml(value)}  # {key.metadata['doc']}"


def _stated(name: str, sections: dict[str, Any]) -> Iterator[str]:
    """The sections that exist, with the keys that each sets."""
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
