"""Every format that cytowatch knows, one module per row; the first bytes decide, never a name."""

from __future__ import annotations

from cytowatch.formats import (
    aperio_svs,
    bmp,
    dicom,
    directory,
    hamamatsu_ndpi,
    hamamatsu_vms,
    hamamatsu_vmu,
    huron_tiff,
    jp2,
    jpeg,
    leica_scn,
    mirax_mrxs,
    olympus_vsi,
    ome_tiff,
    pgm,
    philips_tiff,
    planar_tiff,
    png,
    pnm,
    pyramidal_tiff,
    sakura,
    tar,
    trestle,
    ventana_bif,
    zeiss_czi,
    zip,  # noqa: A004 - the module is named for its format
)
from cytowatch.formats.base import Format, Probe
from cytowatch.formats.doubles import is_whole_slide
from cytowatch.formats.looks import looks_like
from cytowatch.formats.strangers import in_zarr, is_foreign, known

__all__ = [
    "FORMATS",
    "Format",
    "Probe",
    "by_id",
    "in_zarr",
    "is_an_image",
    "is_foreign",
    "known",
    "looks_like",
    "matching",
]

#: The table; its order means nothing, because exactly one may match.
FORMATS: tuple[Format, ...] = (
    jpeg.FORMAT,
    png.FORMAT,
    planar_tiff.FORMAT,
    pyramidal_tiff.FORMAT,
    jp2.FORMAT,
    aperio_svs.FORMAT,
    hamamatsu_vms.FORMAT,
    hamamatsu_ndpi.FORMAT,
    leica_scn.FORMAT,
    mirax_mrxs.FORMAT,
    philips_tiff.FORMAT,
    ventana_bif.FORMAT,
    huron_tiff.FORMAT,
    olympus_vsi.FORMAT,
    ome_tiff.FORMAT,
    zeiss_czi.FORMAT,
    pgm.FORMAT,
    pnm.FORMAT,
    bmp.FORMAT,
    hamamatsu_vmu.FORMAT,
    trestle.FORMAT,
    sakura.FORMAT,
    dicom.FORMAT,
    zip.FORMAT,
    tar.FORMAT,
    directory.FORMAT,
)


def matching(probe: Probe) -> list[tuple[Format, str]]:
    """Every format that claims the probed file, each with its evidence."""
    # Its preamble may be the beginning of any other format.
    asked = (dicom.FORMAT,) if is_whole_slide(probe.head) else FORMATS
    found = ((one, one.matches(probe)) for one in asked)
    return [(one, evidence) for one, evidence in found if evidence is not None]


def is_an_image(probe: Probe) -> bool:
    """Whether a format claims the probed file, or it is an image of a kind that nothing here reads."""
    return bool(matching(probe)) or is_foreign(probe.head)


def by_id(id: str) -> Format:  # noqa: A002
    """The format of that id.

    Raises
    ------
    KeyError
        There is none.
    """
    for one in FORMATS:
        if one.id == id:
            return one
    raise KeyError(id)
