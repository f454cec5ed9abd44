"""Readers of what libvips does not read, by the id of their format; of slides, where OpenSlide does not."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from cytowatch.config import Config
from cytowatch.pyramid.readers.bmp import open_bmp
from cytowatch.pyramid.readers.czi import open_czi
from cytowatch.pyramid.readers.dicom import open_dicom
from cytowatch.pyramid.readers.jp2 import open_jp2
from cytowatch.pyramid.readers.ome import open_ome
from cytowatch.pyramid.readers.pnm import open_pnm
from cytowatch.pyramid.readers.svs import open_svs
from cytowatch.pyramid.readers.vsi import open_vsi
from cytowatch.pyramid.regions import Opened

__all__ = ["READERS"]

READERS: MappingProxyType[str, Callable[[str, Config], Opened]] = MappingProxyType(
    {
        "jp2": open_jp2,
        "bmp": open_bmp,
        "pgm": open_pnm,
        "pnm": open_pnm,
        "zeiss-czi": open_czi,
        "olympus-vsi": open_vsi,
        "ome-tiff": open_ome,
        "dicom": open_dicom,
        "aperio-svs": open_svs,
    }
)
