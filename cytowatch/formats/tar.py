"""Tar: an archive, as it is or compressed with gzip.

Source: POSIX.1-2001, pax interchange format; RFC 1952
"""

from __future__ import annotations

import zlib

from cytowatch.formats.base import Format, Probe

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a tar."""
    if probe.head[257:262] == b"ustar":
        return "ustar at 257"
    if probe.head.startswith(b"\x1f\x8b\x08"):
        try:
            inner = zlib.decompressobj(wbits=31).decompress(probe.head, 512)
        except zlib.error:
            return None
        return "gzip with ustar at 257" if inner[257:262] == b"ustar" else None
    return None


FORMAT = Format(
    id="tar",
    name="Tar archive (tar, tar.gz)",
    samples="–",
    marker="ustar at 257, or gzip over it",
    treated="extracted",
    reader="Python's tarfile, guarded",
    extension="tar",
    oddities="Links, devices and names that lead out refuse the whole archive, as in a zip. "
    "Whether a tar.gz is whole is told by the length that stands at its end, a multiple of 512: one cut "
    "in some two hundred is not seen before it is unpacked.",
    source="POSIX.1-2001, pax interchange format; RFC 1952",
    matches=matches,
    extract=True,
)
