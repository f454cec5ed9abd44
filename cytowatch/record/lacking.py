"""What a file that is not whole lacks: sentences that the details of errors hold and that notes read again.

A detail goes through JSON, a decoder's wire and a manifest, so it is text. These few phrases are made
and recognised here only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "PART_OF_ARCHIVE",
    "SELF_EXTRACTING",
    "amount",
    "is_of_unnamed",
    "is_part_of_archive",
    "kind",
    "layout",
    "of_kind",
    "of_layout",
    "size",
    "stopped",
    "unnamed",
]

#: What a part of a split archive is, and what to do with it: no part is whole, however often it is copied.
PART_OF_ARCHIVE = (
    "a part of a split archive",
    "pack the slides again as one zip that is not split",
)

#: What has the directory of a zip at its end and begins with something else.
SELF_EXTRACTING = (
    "a self-extracting archive, or another file with a zip behind it",
    "pack the slides again as a plain zip",
)

_AMOUNT = re.compile(r"it has ([\d,]{1,25}) of at least ([\d,]{1,25}) bytes")
_LAYOUT = re.compile(r"; a whole slide is (.{1,400}?)(?:;|$)")
_KIND = re.compile(r"it is (.{1,120}?), which is not supported(?:: (.{1,300}))?$")
#: The names that 7-Zip, WinZip, WinRAR and `split` give to the parts of an archive.
_PART = re.compile(
    r"\.(?:(?:zip|7z|rar|tar|tgz|gz)\.(?:\d{3}|a[a-z])|z\d\d|r\d\d|part\d+\.rar)$", re.IGNORECASE
)
_UNNAMED = "the slide's folder holds files that its index does not name: "
#: So many of them are named.
_MOST_UNNAMED = 5
_UNITS = ("B", "kB", "MB", "GB", "TB")


def amount(there: int, need: int) -> str:
    """How many bytes there are, of how many at least.

    >>> amount(970_000, 1_275_952)
    'it has 970,000 of at least 1,275,952 bytes'
    """
    return f"it has {there:,} of at least {need:,} bytes"


def stopped(detail: str) -> str | None:
    """Where the copy stopped, from a detail with an `amount` in it; None for any other.

    >>> stopped("missing its first directory (it has 970,000 of at least 1,275,952 bytes)")
    '0.97 of at least 1.28 MB'
    >>> stopped("missing its end (it has 1,049,288 of at least 1,051,968 bytes)")
    '1.05 MB, 2.68 kB before the end'
    >>> stopped("missing its end") is None
    True
    """
    found = _AMOUNT.search(detail)
    if found is None:
        return None
    there, need = (int(one.replace(",", "")) for one in found.groups())
    unit, power = _unit(need)
    has, needs = _digits(there / power), _digits(need / power)
    if has == needs:
        # In three digits they are the same: so little is missing.
        return f"{size(there)}, {size(need - there)} before the end"
    return f"{has} of at least {needs} {unit}"


def layout(parts: str) -> str:
    """What a slide of several files is made of, to be added to a detail.

    >>> layout("CMU-1.mrxs and the folder CMU-1 beside it")
    '; a whole slide is CMU-1.mrxs and the folder CMU-1 beside it'
    """
    return f"; a whole slide is {parts}"


def of_layout(detail: str) -> str | None:
    """The parts of a slide, from a detail with a `layout` in it; None for any other.

    >>> of_layout("missing CMU-1.mrxs" + layout("CMU-1.mrxs and the folder CMU-1 beside it"))
    'CMU-1.mrxs and the folder CMU-1 beside it'
    """
    found = _LAYOUT.search(detail)
    return found[1] if found else None


def is_part_of_archive(name: str) -> bool:
    """Whether a file is called like a part of an archive that was split when it was packed.

    >>> [is_part_of_archive(one) for one in ("a.zip.001", "A.Z01", "a.tar.ab", "a.zip", "a.tar.gz")]
    [True, True, True, False, False]
    """
    return _PART.search(name) is not None


def kind(what: str, how: str = "") -> str:
    """What a file is that is not taken, and how it could be.

    >>> kind("a text file"), kind("a PDF document", "save the pictures in it as TIFF")
    ('it is a text file, which is not supported', 'it is a PDF document, which is not supported: save the pictures in it as TIFF')
    """
    return f"it is {what}, which is not supported" + (f": {how}" if how else "")


def of_kind(detail: str) -> tuple[str, str] | None:
    """What a file is and how it could be taken, from a detail that is a `kind`; None for any other.

    >>> of_kind(kind("a PDF document", "save the pictures in it as TIFF"))
    ('a PDF document', 'save the pictures in it as TIFF')
    >>> of_kind(kind("a text file"))
    ('a text file', '')
    """
    found = _KIND.match(detail)
    return (found[1], found[2] or "") if found else None


def size(count: float) -> str:
    """A number of bytes for a person, in three digits.

    >>> size(999), size(1_275_952), size(43_000_000_000)
    ('999 B', '1.28 MB', '43 GB')
    """
    unit, power = _unit(count)
    return f"{_digits(count / power)} {unit}"


def _unit(count: float) -> tuple[str, float]:
    power = 1.0
    for unit in _UNITS[:-1]:
        # What would be rounded up to 1000 belongs to the next unit.
        if count / power < 999.5:
            return unit, power
        power *= 1000
    return _UNITS[-1], power


def _digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def unnamed(paths: Sequence[str]) -> str:
    """What there is to say about files in the folder of a slide that the slide's index does not name."""
    further = len(paths) - _MOST_UNNAMED
    which = ", ".join(paths[:_MOST_UNNAMED]) + (f" and {further:,} more" if further > 0 else "")
    return (
        f"{_UNNAMED}{which}. They are kept with the slide, and are not shown. To have a picture of its own, drop it "
        "outside of that folder"
    )


def is_of_unnamed(warning: str) -> bool:
    """Whether a warning is of that kind.

    >>> is_of_unnamed(unnamed(["notes.jpg"]))
    True
    """
    return warning.startswith(_UNNAMED)
