"""Index files of sets: INI texts that name the other files."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable

from cytowatch.formats.base import Probe
from cytowatch.formats.sets.group import LARGEST_INDEX
from cytowatch.formats.structure.places import pread

__all__ = ["is_plain", "parsed", "referred", "unsafe"]

_VMS_KEYS = ("imagefile", "mapfile", "optimisationfile", "macroimage")


def referred(probe: Probe) -> tuple[str, ...]:
    """The files that an index file names: of a VMS or VMU, or Slidedat.ini of an MRXS."""
    ini = parsed(probe)
    if ini is None:
        return ()
    found = (
        []
        if not ini.has_section("DATAFILE")
        else [ini.get("HIERARCHICAL", "INDEXFILE", fallback="Index.dat")]
    )
    for section in ini.sections():
        for key, value in ini.items(section):
            mirax = section == "DATAFILE" and re.fullmatch(r"file_\d+", key)
            if (mirax or key.startswith(_VMS_KEYS)) and value and value.strip():
                found.append(value.strip())
    return tuple(dict.fromkeys(found))


def is_plain(name: str) -> bool:
    """Whether a name that an index file gives stays in the index file's folder."""
    return not ({"/", "\\"} & set(name)) and name not in (".", "..") and name[1:2] != ":"


def unsafe(wanted: Iterable[str]) -> str | None:
    """The first of the names that leads out of the set."""
    return next((name for name in wanted if not is_plain(name)), None)


def parsed(probe: Probe) -> configparser.ConfigParser | None:
    if probe.size_bytes > LARGEST_INDEX:
        return None
    data = pread(probe.descriptor, LARGEST_INDEX, 0)
    text = data.decode("utf-8-sig", "surrogateescape")
    ini = configparser.ConfigParser(
        interpolation=None, strict=False, delimiters=("=",), allow_no_value=True
    )
    try:
        ini.read_string(text)
    except (configparser.Error, AttributeError):
        # Of a value that goes on where none began, configparser knows no better than the latter.
        return None
    for section in ini.sections():
        for key, value in ini.items(section):
            if value is None:
                # A line that was cut before its value.
                ini.set(section, key, "")
    return ini
