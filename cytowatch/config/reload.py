"""The part of a changed configuration that a running daemon takes over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from cytowatch.config.keys import Config
from cytowatch.config.load import from_mapping, to_mapping

__all__ = ["RELOADABLE", "reloaded"]


def _reloadable() -> Iterator[str]:
    """Every key that is marked as reloadable, as ``section.key``; a key outside all sections by its name only."""
    for section in fields(Config):
        if section.metadata.get("reloadable"):
            yield section.name
        default = getattr(Config(), section.name)
        if is_dataclass(default):
            marked = (key for key in fields(default) if key.metadata.get("reloadable"))
            yield from (f"{section.name}.{key.name}" for key in marked)


#: The keys that SIGHUP can change while the daemon or the panel runs; all others need a restart.
RELOADABLE = frozenset(_reloadable())


def reloaded(old: Config, new: Config) -> tuple[Config, list[str], list[str]]:
    """(`old` with the reloadable keys of `new`, the keys that changed, the changed keys that need a restart)."""
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
