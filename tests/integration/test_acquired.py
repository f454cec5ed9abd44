"""When a slide was scanned: each format states it in its own way, with a time zone or without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openslide
import pytest

from cytowatch.config import Config
from cytowatch.pyramid import acquired, describe
from cytowatch.pyramid.readers.czi import open_czi
from cytowatch.pyramid.readers.dicom import open_dicom
from cytowatch.pyramid.readers.ome import open_ome
from cytowatch.pyramid.readers.svs import open_svs
from tests import builders
from tests.builders import others, vendors

CONFIG = Config()


def _aperio(path: Path) -> Path:
    return builders.aperio_svs(
        path / "a.svs", about="|Date = 09/07/16|Time = 15:17:46|Time Zone = GMT-07:00"
    )


def _aperio_local(path: Path) -> Path:
    return builders.aperio_svs(path / "a.svs", about="|Date = 12/29/09|Time = 09:59:15")


def _hamamatsu(path: Path) -> Path:
    """Copied years later: the day of the scan is known, its time is not."""
    return vendors.ndpi(
        path / "h.ndpi", written="2017:02:07 13:06:43", about="Created=2011/05/23\r\nUpdated=2017/01/27\r\n"
    )  # fmt: skip


def _hamamatsu_same_day(path: Path) -> Path:
    return vendors.ndpi(
        path / "h.ndpi", written="2011:05:23 13:06:43", about="Created=2011/05/23\r\n"
    )


def _hamamatsu_old(path: Path) -> Path:
    return vendors.ndpi(path / "h.ndpi", written="2009/12/31 09:11:46")


def _dicom(path: Path) -> Path:
    return vendors.dicom_wsi(path / "d", AcquisitionDateTime="20200307142201.123456+0100")


def _dicom_with_offset(path: Path) -> Path:
    return vendors.dicom_wsi(
        path / "d", AcquisitionDateTime="20200307142201", TimezoneOffsetFromUTC="-0500"
    )


@pytest.mark.parametrize(
    ("build", "stated"),
    [
        (_aperio, "2016-09-07T22:17:46Z"),
        (_aperio_local, "2009-12-29T09:59:15"),
        (lambda path: builders.aperio_svs(path / "a.svs"), None),
        (_hamamatsu, "2011-05-23"),
        (_hamamatsu_same_day, "2011-05-23T13:06:43"),
        (_hamamatsu_old, "2009-12-31T09:11:46"),
        (lambda path: vendors.leica_scn(path / "l.scn"), "2013-01-01T00:00:00Z"),
        (
            lambda path: vendors.philips_tiff(path / "p.tiff", acquired="20160718122300.000000"),
            "2016-07-18T12:23:00",
        ),
        (
            lambda path: vendors.ventana_bif(path / "v.bif", scanned="8/30/2017 12:04:52 PM"),
            "2017-08-30T12:04:52",
        ),
        (
            lambda path: vendors.mirax_mrxs(path / "m", created="17/02/2011 16:49:45"),
            "2011-02-17T16:49:45",
        ),
        (_dicom, "2020-03-07T13:22:01Z"),
        (_dicom_with_offset, "2020-03-07T19:22:01Z"),
        (lambda path: vendors.trestle(path / "t.tif"), None),
    ],
)  # fmt: skip
def test_native_slides(build: Callable[[Path], Path], stated: str | None, tmp_path: Path) -> None:
    """A slide that is deployed as it is: an offset leads to UTC and a Z, no offset to no Z."""
    path = str(build(tmp_path))
    with openslide.OpenSlide(path) as slide:
        assert describe.by_openslide(slide, path)["acquired_at"] == stated


def test_converted_slides(tmp_path: Path) -> None:
    """A pyramid that is derived states what its source stated."""
    czi = others.acquired(others.czi(tmp_path / "z.czi"), "2016-10-03T11:55:07.1234567Z")
    opened = [open_czi(str(czi), CONFIG)]
    ome = others.ome_pyramid(tmp_path / "o.ome.tiff", AcquisitionDate="2013-08-28T12:08:20")
    opened.append(open_ome(str(ome), CONFIG))
    opened.append(open_svs(str(_aperio(tmp_path)), CONFIG))
    opened.append(open_dicom(str(_dicom(tmp_path)), CONFIG))
    found = [one.scenes[0].acquired_at for one in opened]
    for one in opened:
        one.close()
    assert found == [
        "2016-10-03T11:55:07Z", "2013-08-28T12:08:20", "2016-09-07T22:17:46Z",
        "2020-03-07T13:22:01Z",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("known", "stated"),
    [
        ({"aperio.Date": "12/12/2013", "aperio.Time": "03:21:44 PM"}, "2013-12-12T15:21:44"),
        (
            {
                "aperio.Date": "04/12/2023",
                "aperio.Time": "08:01:26",
                "aperio.Time Zone": "GMT+0900",
            },
            "2023-04-11T23:01:26Z",
        ),
        (
            {
                "aperio.Date": "04/12/2023",
                "aperio.Time": "08:01:26",
                "aperio.Time Zone": "GMT+429496729200",
            },
            "2023-04-12T08:01:26",
        ),
        ({"aperio.Date": "29/12/09", "aperio.Time": "09:59:15"}, None),
        ({"aperio.Date": "01/01/1970", "aperio.Time": "00:00:00"}, None),
        ({"aperio.Date": "00/00/00", "aperio.Time": "00:00:00"}, None),
        ({"aperio.Date": "12/29/09"}, None),
    ],
)
def test_odd_times_of_aperio(known: dict[str, str], stated: str | None) -> None:
    """Impossible offsets count as none; impossible days, and days before scanners existed, are null."""
    assert acquired.of_slide({"openslide.vendor": "aperio", **known}) == stated


@pytest.mark.parametrize(
    "known",
    [
        {"openslide.vendor": "mirax", "mirax.GENERAL.SLIDE_CREATIONDATETIME": "XXXXXXXX"},
        {"openslide.vendor": "philips", "philips.DICOM_ACQUISITION_DATETIME": "19000101000000"},
        {"openslide.vendor": "dicom", "dicom.AcquisitionDateTime": "20201345999999"},
        {"openslide.vendor": "leica", "leica.creation-date": "0001-01-01T00:00:00Z"},
        {"openslide.vendor": "leica", "leica.creation-date": "9999-12-31T23:59:59-14:00"},
        {"openslide.vendor": "leica", "leica.creation-date": "1900-01-01"},
        {"openslide.vendor": "hamamatsu", "hamamatsu.Created": "0000/00/00"},
        {"openslide.vendor": "generic-tiff", "tiff.DateTime": "2017:02:07 13:06:43"},
        {"openslide.vendor": "ventana", "ventana.ScanDate": "30/8/2017 12:04:52"},
    ],
)
def test_what_is_no_time_is_null(known: dict[str, str]) -> None:
    """Nothing is guessed: what de-identification left, and a TIFF that only states when it was written."""
    assert acquired.of_slide(known) is None
