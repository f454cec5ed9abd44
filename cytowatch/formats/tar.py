"""Tar: an archive, as it is or compressed with gzip.

Source: POSIX.1-2001, pax interchange format; RFC 1952
"""

from __future__ import annotations

import zlib
from tarfile import BLOCKSIZE

from cytowatch.formats.base import Format, Probe
from cytowatch.formats.completeness.short import tar_mark

__all__ = ["FORMAT"]


def matches(probe: Probe) -> str | None:
    """The evidence that it is a tar."""
    if not probe.head.startswith(b"\x1f\x8b\x08"):
        return tar_mark(probe.head)
    mark = tar_mark(_unpacked(probe.head))
    return f"gzip with {mark}" if mark else None


def _unpacked(packed: bytes) -> bytes:
    """The first block of what is packed in one gzip or in several, one behind the other."""
    block = b""
    try:
        while packed and len(block) < BLOCKSIZE:
            one = zlib.decompressobj(wbits=31)
            block += one.decompress(packed, BLOCKSIZE - len(block))
            packed = one.unused_data
    except zlib.error:
        pass
    return block


FORMAT = Format(
    id="tar",
    name="Tar archive (tar, tar.gz)",
    samples="–",
    marker="ustar at 257 or the checksum of its first block, or gzip over it",
    treated="extracted",
    reader="Python's tarfile, guarded",
    extension="tar",
    oddities="Symbolic links, devices and names that lead out of the archive refuse it as a whole, as "
    "in a zip. A hard link to an earlier member is a copy of that member. Members of a second tar that was "
    "joined to it are not unpacked, and count as lost. A tar.gz counts as "
    "complete if the length stored at its end is a multiple of 512; about one truncated file "
    "in two hundred is detected only while it is unpacked.",
    source="POSIX.1-2001, pax interchange format; RFC 1952",
    matches=matches,
    extract=True,
)
