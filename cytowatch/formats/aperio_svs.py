"""Aperio SVS: a TIFF whose first ImageDescription starts with ``Aperio``.

Source: https://openslide.org/formats/aperio/
"""

from __future__ import annotations

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.marks import vendor

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is an Aperio slide."""
    match vendor(probe):
        case ("aperio-svs", evidence):
            return evidence
        case _:
            return None


FORMAT = Format(
    id="aperio-svs",
    name="Aperio / Leica SVS",
    samples="8 bit, 3",
    marker="description starts with Aperio",
    treated="native",
    reader="OpenSlide",
    extension="svs",
    matches=matches,
    native=True,
)
