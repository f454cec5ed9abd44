"""When a slide was scanned, as its file states it.

A time with an offset becomes UTC and ends in ``Z``. A scanner that states no offset gives the time of its own
clock: it has no ``Z``, because nothing in the file says which zone it means. A file that states only the
day gives only the day. Anything that is not such a time (removed by a de-identification, before scanners
existed, or in an unknown order) is None.

Source: https://openslide.org/properties/ (names of properties); "Aperio, Digital slides and third-party data
interchange" (Date, Time, Time Zone); DICOM PS3.3 C.7.6.16 and PS3.5, 6.2 (DT); OME.xsd (AcquisitionDate)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime

from cytowatch.pyramid.readers import ome_xml

__all__ = ["of_description", "of_slide", "of_text"]

#: Digital slides are newer than this. De-identified files often state 1970 or 1900.
_YEARS = range(1990, 2200)
_OFFSET = re.compile(r"^(?:GMT|UTC)?([+-])(\d\d):?(\d\d)$")
_DICOM = re.compile(r"^(\d{8})(\d{6})?(?:\.\d+)?([+-]\d{4})?$")
_ITEM = re.compile(r"\|\s*(Date|Time|Time Zone)\s*=\s*([^|]*)")
_HOURS = ("%H:%M:%S", "%I:%M:%S %p")


def of_slide(known: Mapping[str, str]) -> str | None:
    """When a slide was scanned, from its OpenSlide properties.

    >>> of_slide({"openslide.vendor": "leica", "leica.creation-date": "2012-05-14T09:50:03.17Z"})
    '2012-05-14T09:50:03Z'
    """
    find = _BY_VENDOR.get(known.get("openslide.vendor", ""))
    return find(known) if find else None


def of_description(description: str) -> str | None:
    """When an Aperio slide was scanned, from the ImageDescription of its first page.

    >>> of_description("Aperio v1|Date = 09/07/16|Time = 15:17:46|Time Zone = GMT-07:00")
    '2016-09-07T22:17:46Z'
    """
    return _aperio({f"aperio.{name}": value.strip() for name, value in _ITEM.findall(description)})


def of_text(text: object) -> str | None:
    """A time in ISO 8601, as CZI and OME-XML write it.

    >>> of_text("2016-10-03T11:55:07.1234567Z"), of_text("2013-08-28T12:08:20"), of_text("soon")
    ('2016-10-03T11:55:07Z', '2013-08-28T12:08:20', None)
    """
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        if len(text.strip()) <= len("2013-08-28"):
            return _day(date.fromisoformat(text.strip()))
        return _told(datetime.fromisoformat(text.strip()))
    except ValueError:
        return None


def _aperio(known: Mapping[str, str]) -> str | None:
    """Month first. Some GT 450 state an impossible offset: then the time is the scanner's own."""
    when = f"{known.get('aperio.Date', '')} {known.get('aperio.Time', '')}"
    return _read(when, ("%m/%d/%y", "%m/%d/%Y"), known.get("aperio.Time Zone", ""))


def _hamamatsu(known: Mapping[str, str]) -> str | None:
    """The day of ``Created``. The TIFF states a time, which counts if the file is as old as its scan."""
    written = _read(known.get("tiff.DateTime", ""), ("%Y:%m:%d", "%Y/%m/%d"))
    if "hamamatsu.Created" not in known:
        return written
    try:
        day = datetime.strptime(known["hamamatsu.Created"].strip(), "%Y/%m/%d").date()
    except ValueError:
        return None
    if written and written.startswith(day.isoformat()):
        return written
    return _day(day)


def _philips(known: Mapping[str, str]) -> str | None:
    return _dicom_time(known.get("philips.DICOM_ACQUISITION_DATETIME", ""))


def _dicom(known: Mapping[str, str]) -> str | None:
    offset = known.get("dicom.TimezoneOffsetFromUTC", "")
    return _dicom_time(known.get("dicom.AcquisitionDateTime", ""), offset)


def _dicom_time(text: str, offset: str = "") -> str | None:
    found = _DICOM.match(text.strip(' "'))
    if found is None:
        return None
    if found[2] is None:
        with suppress(ValueError):
            return _day(datetime.strptime(found[1], "%Y%m%d").date())
        return None
    try:
        local = datetime.strptime(found[1] + found[2], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return _told(_placed(local, found[3] or offset))


def _ventana(known: Mapping[str, str]) -> str | None:
    return _read(known.get("ventana.ScanDate", ""), ("%m/%d/%Y",))


def _mirax(known: Mapping[str, str]) -> str | None:
    return _read(known.get("mirax.GENERAL.SLIDE_CREATIONDATETIME", ""), ("%d/%m/%Y",))


def _leica(known: Mapping[str, str]) -> str | None:
    return of_text(known.get("leica.creation-date"))


def _ome(known: Mapping[str, str]) -> str | None:
    """Of a pyramidal OME-TIFF, which OpenSlide takes for a plain TIFF."""
    description = known.get("tiff.ImageDescription", "")
    if not description.rstrip().endswith("OME>"):
        return None
    return next((of_text(one.acquired_at) for one in ome_xml.images(description)), None)


_BY_VENDOR: dict[str, Callable[[Mapping[str, str]], str | None]] = {
    "aperio": _aperio,
    "dicom": _dicom,
    "generic-tiff": _ome,
    "hamamatsu": _hamamatsu,
    "leica": _leica,
    "mirax": _mirax,
    "philips": _philips,
    "ventana": _ventana,
}


def _read(when: str, days: tuple[str, ...], offset: str = "") -> str | None:
    """A day and a time of day, in one of the orders that the vendor writes."""
    for day in days:
        for hour in _HOURS:
            with suppress(ValueError):
                return _told(_placed(datetime.strptime(when.strip(), f"{day} {hour}"), offset))
    return None


def _placed(local: datetime, offset: str) -> datetime:
    found = _OFFSET.match(offset.strip())
    if found is None:
        return local
    return datetime.fromisoformat(f"{local.isoformat()}{found[1]}{found[2]}:{found[3]}")


def _told(when: datetime) -> str | None:
    if not _is_possible(when.date()):
        return None
    if when.tzinfo is None:
        return when.isoformat(timespec="seconds")
    return f"{when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _day(day: date) -> str | None:
    return day.isoformat() if _is_possible(day) else None


def _is_possible(day: date) -> bool:
    return day.year in _YEARS
