"""3DHistech MRXS: a JPEG beside a folder of its name, which is the slide.

Source: https://openslide.org/formats/mirax/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from configparser import ConfigParser

from cytowatch.formats.base import Probe
from cytowatch.formats.sets import identity
from cytowatch.formats.sets.group import Folder, Group, Look, Near, is_jpeg, plainly
from cytowatch.formats.sets.index_file import is_plain, parsed, referred
from cytowatch.formats.structure import mirax as mirax_structure
from cytowatch.record import lacking

__all__ = ["MIRAX_PART", "mirax"]

MIRAX_PART = re.compile(r"(Slidedat\.ini|Index\.dat|Data\d{4}\.dat)", re.IGNORECASE)
_DATA = re.compile(r"Data\d+\.dat", re.IGNORECASE)
#: Four million tiles, in about a second; a larger index is not read here, where others wait.
_LARGEST_INDEX = 64 << 20


def mirax(name: str, folder: Folder, near: Near, look: Look) -> Group | None:
    """The slide that `folder`, called `name`, is or is a part of; None if it is not one."""
    own = f"{name}.mrxs"
    parts = [part for part in folder.files if MIRAX_PART.fullmatch(part)]
    beside = near.with_stem(name, name)
    heads = {other: path for other, path in beside if plainly(other) == plainly(own)}
    # Of two whose names differ from the folder's only in case or accents either may be meant.
    head = heads.get(own) or (next(iter(heads.values())) if len(heads) == 1 else None)
    if not parts and (head is None or not look(head, is_jpeg)):
        return None
    if head is None and not heads:
        # Under another name: a JPEG with the folder's name.
        head = next((path for _, path in beside if look(path, is_jpeg)), None)
    inside = folder.inside()
    spelled = _spelled(inside, look)
    names_by_path = dict(spelled)
    named = {names_by_path.get(path, own_name): path for own_name, path in inside.items()}
    missing, is_spare = _missing(name, named, look)
    strays = [] if missing else _strays(named, look)
    mixed = _mixed(name, named, strays, look)
    # What is of another slide is refused with the set, and does not go along with it.
    strays = [] if mixed else strays
    others = [] if missing or mixed else _others(named, strays, look)
    members = sorted(set(inside.values()) - {named[one] for one in (*strays, *others)})
    if head is None:
        missing, is_spare = own, False
    elif mixed and (missing is None or is_spare):
        missing = f"{mixed} of this slide (the file of that name is of another slide)"
        is_spare = False
    return Group(
        kind="mirax-mrxs",
        members=tuple([head, *members] if head else members),
        sidecars=tuple(named[one] for one in (*strays, *others)),
        missing=missing,
        is_spare=is_spare,
        headless=head is None,
        folder=folder.path,
        mixed=mixed,
        spelled=spelled,
    )


def _spelled(inside: Mapping[str, str], look: Look) -> tuple[tuple[str, str], ...]:
    """Path and wanted name of the files whose names differ from the index's only in case or accents."""
    lower: dict[str, list[str]] = {}
    for name in inside:
        lower.setdefault(plainly(name), []).append(name)

    def one(wanted: str) -> str | None:
        there = lower.get(plainly(wanted), [])
        return there[0] if wanted not in inside and len(there) == 1 else None

    ini = inside.get("Slidedat.ini") or inside.get(one("Slidedat.ini") or "")
    wanted = ("Slidedat.ini", *look(ini, referred)) if ini else ()
    return tuple((inside[there], name) for name in wanted if (there := one(name)))


def _strays(inside: Mapping[str, str], look: Look) -> list[str]:
    """The data files that Slidedat.ini does not name."""
    wanted = set(look(inside["Slidedat.ini"], referred))
    return sorted(name for name in inside if _DATA.fullmatch(name) and name not in wanted)


def _others(inside: Mapping[str, str], strays: list[str], look: Look) -> list[str]:
    """What else lies in the folder, as pictures and notes that somebody put there."""
    named = look(inside["Slidedat.ini"], referred)
    if not named:
        # It does not say what belongs to the slide, which is for OpenSlide to report.
        return []
    own = {inside[one] for one in ("Slidedat.ini", *named, *strays) if one in inside}
    return sorted(name for name, path in inside.items() if path not in own)


def _mixed(name: str, inside: Mapping[str, str], strays: list[str], look: Look) -> str | None:
    """The first file whose identity is not that of Slidedat.ini, so that it is of another slide."""
    ini = look(inside["Slidedat.ini"], parsed) if "Slidedat.ini" in inside else None
    if ini is None:
        return None
    slide_id = (ini.get("GENERAL", "SLIDE_ID", fallback=None) or "").strip()
    wanted = (*look(inside["Slidedat.ini"], referred), *strays)
    return next(
        (
            f"{name}/{one}"
            for one in wanted
            if one in inside
            and identity.is_of_another(slide_id, look(inside[one], identity.header))
        ),
        None,
    )


def _missing(name: str, inside: Mapping[str, str], look: Look) -> tuple[str | None, bool]:
    """What is not there yet, and whether the slide has all of its own pixels without it."""
    if "Slidedat.ini" not in inside:
        return f"{name}/Slidedat.ini", False
    ini = look(inside["Slidedat.ini"], parsed)
    if ini is None:
        return None, False
    if ini.get("GENERAL", "SLIDE_CREATION_FINISHED", fallback="True").strip().lower() == "false":
        said = f"the end of {name} (its Slidedat.ini says that the scanner is still at work)"
        return said, False
    wanted = look(inside["Slidedat.ini"], referred)
    absent = next((one for one in wanted if one not in inside and is_plain(one)), None)
    return (f"{name}/{absent}", False) if absent else _short(name, ini, inside, look)


def _short(
    name: str, ini: ConfigParser, inside: Mapping[str, str], look: Look
) -> tuple[str | None, bool]:
    """The first data file that ends before what the index places in it."""
    index = inside.get(ini.get("HIERARCHICAL", "INDEXFILE", fallback="Index.dat") or "")
    try:
        data = mirax_structure.data_files(ini)
        both = look(index, _Lengths(ini)) if index is not None else ()
    except ValueError:
        # It is not a number: OpenSlide reports that.
        return None, False
    for is_spare, lengths in enumerate(both):
        for number, one in enumerate(data):
            wanted = lengths.get(number, 0)
            there = look(inside[one], _size) if one in inside else wanted
            if there < wanted:
                said = f"the end of {name}/{one} ({lacking.amount(there, wanted)})"
                return said, bool(is_spare)
    return None, False


class _Lengths:
    """A look into an index, as Slidedat.ini says how to read it; what is seen is remembered by that."""

    def __init__(self, ini: ConfigParser) -> None:
        self._ini = ini
        # One that is being written may not have come so far.
        there = ini.items("HIERARCHICAL") if ini.has_section("HIERARCHICAL") else ()
        said = sorted((key, value or "") for key, value in there if "count" in key)
        identity = len(ini.get("GENERAL", "SLIDE_ID", fallback=""))
        self.__qualname__ = f"{type(self).__qualname__}({identity}, {said})"

    def __call__(self, probe: Probe) -> tuple[dict[int, int], ...]:
        if probe.size_bytes > _LARGEST_INDEX:
            return ()
        return mirax_structure.lengths(self._ini, probe.descriptor)


def _size(probe: Probe) -> int:
    return probe.size_bytes
