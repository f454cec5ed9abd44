"""Which files belong together: the sets of files that are one slide, and what they still lack.

A name never decides a format, but it may make a file wait for what it comes with. The same rules
hold for loose files in an inbox, for a dropped folder and for the members of an archive.

Source: https://openslide.org/formats/mirax/, /hamamatsu/ and /dicom/;
https://bio-formats.readthedocs.io/en/latest/formats/cellsens-vsi.html
"""

from __future__ import annotations

import configparser
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from cytowatch.formats import dicom
from cytowatch.formats.base import Probe
from cytowatch.formats.marks import vendor
from cytowatch.formats.sets import identity
from cytowatch.record import names

__all__ = ["Group", "Look", "groups", "placed", "referred", "unsafe"]

T = TypeVar("T")


class Look(Protocol):
    """Opens the file of that path, shows it to a function, and gives what that makes of it."""

    def __call__(self, path: str, function: Callable[[Probe], T]) -> T:
        """What `function` makes of it."""


_SIDECARS = frozenset({".xml", ".ndpa", ".txt"})
#: An index file is small; nothing larger is read as one.
_LARGEST_INDEX = 1 << 20
_VMS_PART = re.compile(
    r"(?P<stem>.+?)(\(\d+,\d+(,\d+)?\)\.jpg|_macro\.jpg|_map2?\.jpg|\.opt)", re.IGNORECASE
)
_MIRAX_PART = re.compile(r"(Slidedat\.ini|Index\.dat|Data\d{4}\.dat)", re.IGNORECASE)
_CELLSENS_FOLDER = re.compile(r"_(?P<stem>.+)_")
_FRAME_TIFF = re.compile(r"stack\d+/frame_t.*\.tiff?", re.IGNORECASE)
_ETS = re.compile(r"stack\d+/frame_t.*\.ets", re.IGNORECASE)
#: Of names that are UIDs, as a PACS gives them, the last number looks like an extension.
_DICOM_ENDING = re.compile(r"(\.(dcm|dicom|\d+))?", re.IGNORECASE)
_VMS_KEYS = ("imagefile", "mapfile", "optimisationfile", "macroimage")
_SAFE = re.compile(r"[A-Za-z0-9_.(),][A-Za-z0-9 ._(),-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One slide or other thing to be ingested; paths are relative to where one looked.

    `kind` is the id of the set's format, None of a single file. The first of `members` is the
    head, by which it is opened; a set without one has `headless`. `missing` says what it lacks.
    `folder` is the folder that belongs to the set alone. `mixed` says which of its files bear the
    identity of another slide. `spelled` gives the name that its index has for a file, by path, where
    that differs in case.
    """

    kind: str | None
    members: tuple[str, ...]
    sidecars: tuple[str, ...] = ()
    missing: str | None = None
    headless: bool = False
    folder: str | None = None
    mixed: str | None = None
    spelled: tuple[tuple[str, str], ...] = ()

    @property
    def head(self) -> str:
        """The path that stands for it."""
        return self.members[0]

    @property
    def parts(self) -> str | None:
        """What a whole slide of its kind is made of, in words; None where it is a single file.

        >>> Group(kind="mirax-mrxs", members=("case/CMU-1.mrxs",)).parts
        'CMU-1.mrxs and the folder CMU-1 beside it'
        """
        name = _stem(os.path.basename(self.head))
        if self.folder is not None:
            name = os.path.basename(self.folder)
        match self.kind:
            case "mirax-mrxs":
                return f"{name}.mrxs and the folder {name} beside it"
            case "olympus-vsi":
                found = _CELLSENS_FOLDER.fullmatch(name) if self.folder is not None else None
                name = found["stem"] if found else name
                return f"{name}.vsi and the folder _{name}_ beside it"
            case "hamamatsu-vms" | "hamamatsu-vmu":
                index = os.path.basename(self.missing or "" if self.headless else self.head)
                return f"{index} and all the files that it names, in one folder"
            case _:
                return None

    @property
    def called(self) -> str:
        """The path that it is called by: of a set without its head nothing but the folder names it."""
        return self.folder if self.headless and self.folder else self.head

    def dropped_as(self, path: str) -> str | None:
        """The `path` of a file of it, from the folder in which its head lies; None of a lone image, which it names."""
        if self.kind is None and path == self.head:
            return None
        above = os.path.dirname(self.called)
        return path[len(above) + 1 :] if above else path


@dataclass(slots=True)
class _Folder:
    """One folder: its files by name, and its folders."""

    path: str
    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, _Folder] = field(default_factory=dict)

    def below(self) -> list[str]:
        """Every path in it and below it."""
        found: list[str] = []
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            found += folder.files.values()
            waiting += reversed(folder.folders.values())
        return found

    def inside(self) -> dict[str, str]:
        """Every path below it, by what it is relative to it."""
        cut = len(self.path) + 1 if self.path else 0
        return {path[cut:]: path for path in self.below()}


def groups(sizes: Mapping[str, int], look: Look) -> list[Group]:
    """Every group among files, given as path and size in bytes; each file is in exactly one."""
    top = _Folder("")
    for path in sizes:
        folder = top
        *parts, name = path.split("/")
        for part in parts:
            inner = f"{folder.path}/{part}" if folder.path else part
            folder = folder.folders.setdefault(part, _Folder(inner))
        folder.files[name] = path
    waiting = [top]
    found: list[list[Group]] = []
    while waiting:
        found.append(_in_folder(waiting.pop(), sizes, look, waiting))
    # What lies deepest comes first.
    return [group for groups in reversed(found) for group in groups]


def _in_folder(
    folder: _Folder, sizes: Mapping[str, int], look: Look, below: list[_Folder]
) -> list[Group]:
    """The groups of one folder; the folders in it that belong to none are added to `below`."""
    free = dict(folder.files)
    # Or every folder would be compared with every file.
    by_stem: dict[str, list[str]] = {}
    for name in free if folder.folders else ():
        by_stem.setdefault(_stem(name).lower(), []).append(name)
    alike = Counter(name.lower() for name in folder.folders)
    near = _Near(free=free, by_stem=by_stem, alike=alike)
    here: list[Group] = []
    for name, inner in folder.folders.items():
        made = _mirax(name, inner, near, look) or _cellsens(name, inner, near, look)
        if made is None:
            below.append(inner)
            continue
        here.append(made)
        if not made.headless:
            free.pop(os.path.basename(made.head), None)
    for name in list(free):
        lone = _lone(name, free[name], sizes, look)
        if lone is not None:
            del free[name]
            here.append(lone)
    here += _vms(free, sizes, look)
    here += _dicom(free, look)
    return _singles(here, free, look)


@dataclass(frozen=True, slots=True)
class _Near:
    """The files beside a folder that are free still, found by their stem; and the other folders."""

    free: Mapping[str, str]
    by_stem: Mapping[str, list[str]]
    alike: Mapping[str, int]

    def with_stem(self, folder: str, stem: str) -> list[tuple[str, str]]:
        """Name and path of those that differ from `stem`, of `folder`, at most by their extension.

        And in case, as Windows has it, where no other folder could be meant.
        """
        there = [name for name in self.by_stem.get(stem.lower(), ()) if name in self.free]
        exact = [name for name in there if _stem(name) == stem]
        if not exact and self.alike[folder.lower()] == 1:
            exact = there
        return [(name, self.free[name]) for name in exact]


def _mirax(name: str, folder: _Folder, near: _Near, look: Look) -> Group | None:
    own = f"{name}.mrxs"
    parts = [part for part in folder.files if _MIRAX_PART.fullmatch(part)]
    beside = near.with_stem(name, name)
    head = next((path for other, path in beside if other.lower() == own.lower()), None)
    if not parts and (head is None or not look(head, _is_jpeg)):
        return None
    if head is None:
        # Under another name: a JPEG that bears the folder's name.
        head = next((path for _, path in beside if look(path, _is_jpeg)), None)
    inside = folder.inside()
    spelled = _mirax_spelled(inside, look)
    named = {**inside, **{wanted: path for path, wanted in spelled}}
    missing = _mirax_missing(name, named, look)
    mixed = _mirax_mixed(name, named, look)
    members = sorted(inside.values())
    if head is None:
        missing = own
    elif mixed and missing is None:
        missing = f"{mixed} of this slide (the file of that name is of another slide)"
    return Group(
        kind="mirax-mrxs",
        members=tuple([head, *members] if head else members),
        missing=missing,
        headless=head is None,
        folder=folder.path,
        mixed=mixed,
        spelled=spelled,
    )


def _mirax_spelled(inside: Mapping[str, str], look: Look) -> tuple[tuple[str, str], ...]:
    """Path and wanted name of the files whose names differ from the index's in case alone."""
    lower: dict[str, list[str]] = {}
    for name in inside:
        lower.setdefault(name.lower(), []).append(name)

    def one(wanted: str) -> str | None:
        there = lower.get(wanted.lower(), [])
        return there[0] if wanted not in inside and len(there) == 1 else None

    ini = inside.get("Slidedat.ini") or inside.get(one("Slidedat.ini") or "")
    wanted = ("Slidedat.ini", *look(ini, referred)) if ini else ()
    return tuple((inside[there], name) for name in wanted if (there := one(name)))


def _mirax_mixed(name: str, inside: Mapping[str, str], look: Look) -> str | None:
    """The first file that bears the identity of another slide than Slidedat.ini does."""
    ini = look(inside["Slidedat.ini"], _ini) if "Slidedat.ini" in inside else None
    if ini is None:
        return None
    slide_id = (ini.get("GENERAL", "SLIDE_ID", fallback=None) or "").strip()
    wanted = look(inside["Slidedat.ini"], referred)
    return next(
        (
            f"{name}/{one}"
            for one in wanted
            if one in inside
            and identity.is_of_another(slide_id, look(inside[one], identity.header))
        ),
        None,
    )


def _mirax_missing(name: str, inside: Mapping[str, str], look: Look) -> str | None:
    if "Slidedat.ini" not in inside:
        return f"{name}/Slidedat.ini"
    ini = look(inside["Slidedat.ini"], _ini)
    if ini is None:
        return None
    if ini.get("GENERAL", "SLIDE_CREATION_FINISHED", fallback="True").strip().lower() == "false":
        return f"the end of {name} (its Slidedat.ini says that the scanner is still at work)"
    wanted = look(inside["Slidedat.ini"], referred)
    return next((f"{name}/{one}" for one in wanted if one not in inside and _plain(one)), None)


def _cellsens(name: str, folder: _Folder, near: _Near, look: Look) -> Group | None:
    found = _CELLSENS_FOLDER.fullmatch(name)
    if found is None:
        return None
    stem = found["stem"]
    inside = folder.inside()
    beside = near.with_stem(name, stem)
    head = next((path for other, path in beside if other.lower() == f"{stem}.vsi".lower()), None)
    frames = [path for relative, path in inside.items() if _ETS.fullmatch(relative)]
    if head is None and not frames:
        return None
    if not frames and any(_FRAME_TIFF.fullmatch(relative) for relative in inside):
        # Its pixels are TIFFs, each of which is an image by itself.
        return None
    if head is None:
        head = next((path for _, path in beside if look(path, _is_tiff)), None)
    missing = None if frames else f"{name}/stack1/frame_t.ets"
    missing = missing if head else f"{stem}.vsi"
    members = sorted(inside.values())
    return Group(
        kind="olympus-vsi",
        members=tuple([head, *members] if head else members),
        missing=missing,
        headless=head is None,
        folder=folder.path,
    )


def _lone(name: str, path: str, sizes: Mapping[str, int], look: Look) -> Group | None:
    """A head whose folder is not there yet."""
    stem = _stem(name)
    if name.lower().endswith(".mrxs") and look(path, _is_jpeg):
        return Group(kind="mirax-mrxs", members=(path,), missing=f"{stem}/Slidedat.ini")
    small = sizes[path] <= 64 * _LARGEST_INDEX
    if name.lower().endswith(".vsi") and small and look(path, _is_plain_tiff):
        return Group(kind="olympus-vsi", members=(path,), missing=f"_{stem}_/stack1/frame_t.ets")
    return None


def _vms(free: dict[str, str], sizes: Mapping[str, int], look: Look) -> list[Group]:
    parts = {name: found["stem"] for name in free if (found := _VMS_PART.fullmatch(name))}
    made = []
    for name, path in list(free.items()):
        named = name.lower().endswith((".vms", ".vmu"))
        if not (named or parts) or name in parts or sizes[path] > _LARGEST_INDEX:
            continue
        mark = look(path, vendor)
        if mark is None or mark[0] not in ("hamamatsu-vms", "hamamatsu-vmu"):
            continue
        wanted = [one for one in look(path, referred) if _plain(one)]
        del free[name]
        members = [free.pop(one) for one in wanted if one in free]
        there = {os.path.basename(member) for member in members}
        absent = [one for one in wanted if one not in there]
        made.append(
            Group(kind=mark[0], members=(path, *members), missing=absent[0] if absent else None)
        )
    # What no index names may belong to one that is still to come; a zip that was unpacked knows.
    waiting: dict[str, list[str]] = {}
    for name, stem in parts.items():
        if name in free:
            waiting.setdefault(stem, []).append(free.pop(name))
    for stem, some in waiting.items():
        # The first tile has no number, and is not a picture of its own beside the others.
        for name in (f"{stem}.jpg", f"{stem}.JPG"):
            if name in free and look(free[name], _is_jpeg):
                some.append(free.pop(name))
    made += [
        Group(
            kind="hamamatsu-vms", members=tuple(sorted(some)), missing=f"{stem}.vms", headless=True
        )
        for stem, some in waiting.items()
    ]
    return made


def referred(probe: Probe) -> tuple[str, ...]:
    """The files that an index file names: of a VMS or VMU, or Slidedat.ini of an MRXS."""
    ini = _ini(probe)
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


def _plain(name: str) -> bool:
    """Whether a name that an index file gives stays in the index file's folder."""
    return not ({"/", "\\"} & set(name)) and name not in (".", "..") and name[1:2] != ":"


def unsafe(wanted: Iterable[str]) -> str | None:
    """The first of the names that leads out of the set."""
    return next((name for name in wanted if not _plain(name)), None)


def _dicom(free: dict[str, str], look: Look) -> list[Group]:
    """The files of one series are one slide, each of its levels a file."""
    series: dict[str, list[str]] = {}
    for name, path in list(free.items()):
        if _DICOM_ENDING.fullmatch(os.path.splitext(name)[1]):
            uid = look(path, dicom.series)
            if uid is not None:
                series.setdefault(uid, []).append(free.pop(name))
    return [Group(kind="dicom", members=tuple(sorted(some))) for some in series.values()]


def _singles(sets: list[Group], free: dict[str, str], look: Look) -> list[Group]:
    """The sets, and whatever is left by itself; each with the sidecars that share its stem."""
    sidecars = {name for name in free if os.path.splitext(name)[1].lower() in _SIDECARS}
    heads = {os.path.basename(one.head): one.head for one in sets if not one.headless}
    slides = {**heads, **{name: free[name] for name in sorted(free.keys() - sidecars)}}
    by_stem: dict[str, list[str]] = {}
    for name, path in slides.items() if sidecars else ():
        by_stem.setdefault(_stem(name), []).append(path)
    joined: dict[str, list[str]] = {}
    of_sets = set(heads.values())
    alone = []
    for name in sorted(sidecars):
        base = _stem(name)
        slide = slides.get(base) or _likeliest(by_stem.get(base, []), of_sets, look)
        if slide is not None and look(free[name], _is_text):
            joined.setdefault(slide, []).append(free[name])
        else:
            alone.append(name)
    left = [Group(kind=None, members=(free[name],)) for name in free if name not in sidecars]
    return [
        *(replace(one, sidecars=tuple(joined.get(one.head, ()))) for one in [*sets, *left]),
        *(Group(kind=None, members=(free[name],)) for name in alone),
    ]


def _likeliest(paths: list[str], heads: set[str], look: Look) -> str | None:
    """Of those that share a stem the slide: a table of results beside it has no sidecars of its own."""
    if len(paths) < 2:
        return paths[0] if paths else None
    return next((path for path in paths if path in heads or not look(path, _is_text)), paths[0])


def _is_jpeg(probe: Probe) -> bool:
    return probe.head.startswith(b"\xff\xd8\xff")


def _is_tiff(probe: Probe) -> bool:
    return probe.tiff is not None


def _is_plain_tiff(probe: Probe) -> bool:
    return probe.tiff is not None and vendor(probe) is None


def _is_text(probe: Probe) -> bool:
    return b"\0" not in probe.head.removeprefix(b"\xff\xfe").replace(b"\0<", b"<").replace(
        b"<\0", b"<"
    ) or probe.head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _ini(probe: Probe) -> configparser.ConfigParser | None:
    if probe.size_bytes > _LARGEST_INDEX:
        return None
    data = os.pread(probe.descriptor, _LARGEST_INDEX, 0)
    text = data.decode("utf-8-sig", "surrogateescape")
    ini = configparser.ConfigParser(
        interpolation=None, strict=False, delimiters=("=",), allow_no_value=True
    )
    try:
        ini.read_string(text)
    except (configparser.Error, AttributeError):
        # Of a value that goes on where none began, configparser knows no better than the latter.
        return None
    return ini


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def placed(group: Group, name: str) -> dict[str, str]:
    """Where each file of `group` goes below ``source/``; `name` is what the head was called.

    Names stay where a decoder takes them as they are; else a tree of other names is made, in
    which head and folder of a set still agree.
    """
    taken: dict[str, int] = {}
    where: dict[str, str] = {}
    stem = _stem(name)
    safe = stem if _SAFE.fullmatch(stem) else names.slug(stem)
    extensions = {"mirax-mrxs": ".mrxs", "olympus-vsi": ".vsi", "hamamatsu-vms": ".vms"}
    extensions["hamamatsu-vmu"] = ".vmu"
    spelled = dict(group.spelled)
    for number, path in enumerate([*group.members, *group.sidecars]):
        own = os.path.basename(path)
        if group.kind is None and number == 0:
            inside = names.slug(name)
        elif number == 0 and group.kind in extensions and not group.headless:
            inside = f"{safe}{extensions[group.kind]}"
        elif group.folder is not None and path.startswith(f"{group.folder}/"):
            folder = os.path.basename(group.folder)
            base = folder if group.headless else f"_{safe}_" if folder.startswith("_") else safe
            parts = spelled.get(path, path[len(group.folder) + 1 :]).split("/")
            inside = "/".join([_safe(base), *(_safe(part) for part in parts)])
        elif group.kind in ("hamamatsu-vms", "hamamatsu-vmu") and own.isprintable():
            # The index names them so, and no decoder but OpenSlide's opens them.
            inside = own
        else:
            inside = _safe(own)
        where[path] = _unique(inside, taken)
    return where


def _safe(name: str) -> str:
    if _SAFE.fullmatch(name) and name not in (".", ".."):
        return name
    stem, ending = os.path.splitext(name)
    return names.slug(stem) + (ending if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", ending) else "")


def _unique(inside: str, taken: dict[str, int]) -> str:
    """`inside`, or what it becomes with a number; `taken` holds the last number of each."""
    stem, ending = os.path.splitext(inside)
    found, number = inside, taken.get(inside.lower(), 1)
    while found.lower() in taken:
        number += 1
        found = f"{stem}-{number}{ending}"
    taken[found.lower()] = 1
    taken[inside.lower()] = number
    return found
