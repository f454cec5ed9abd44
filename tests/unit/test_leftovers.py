"""The temporary names of copiers are never claimed, and names of slides are never taken for one."""

from __future__ import annotations

import pytest

from cytowatch.record import leftovers, names

#: As each program calls ``a.svs`` while it is on its way, or its notes about it.
ON_THE_WAY = [
    "a.svs.aspx", "a.svs.aspera-ckpt", "a.svs.partial", "a.svs.1a2b3c4d.partial", "a.svs.filepart",
    "a.svs.aria2", "a.svs.lftp-pget-status", "~syncthing~a.svs.tmp", ".syncthing.a.svs.tmp",
    "a.svs.!ut", "a.svs.!qB", "a.svs.!sync", "a.svs.opdownload", "a.svs.crdownload",
    "a.svs.download", ".a.svs.Ab3dE6", "a.svs.ocTransferId2042135.part", "a.svs.cyberduckpart",
    ".a.svs.~1a2b", "a.svs.12ab.ffs_tmp", "a.svs_.gstmp", "~$a.svs", "._a.svs", "desktop.ini",
    "a.svs.sb-1a2b3c4d-AbCdEf", "A.SVS.PARTIAL", "a.svs.nextcloud", "Icon\r", "Icon\uf00d",
]  # fmt: skip
#: Files that hold a slide under another name until its copy is done: one that stays so is a copy that broke off.
TOLD = [
    "a.svs.partial", "a.svs.1a2b3c4d.partial", "a.svs.filepart", "~syncthing~a.svs.tmp", "a.svs.!ut", "a.svs.!sync",
    "a.svs.crdownload", "a.svs.download", "a.svs.ocTransferId2042135.part", "a.svs.cyberduckpart", "a.svs.12ab.ffs_tmp",
    "a.svs_.gstmp", "A.SVS.PARTIAL", "~word.tmp",
]  # fmt: skip
NOT_TOLD = [
    "Thumbs.db",
    ".a.svs.Ab3dE6",
    "~$a.docx",
    "a.svs.aria2",
    "a.svs.ffs_lock",
    "a.svs",
    "_returned",
]
SLIDES = [
    "a.svs", "Icon", "Icon1", "a.part.svs", "a.partial.tif", "tmp.svs", "a.ome.tif", "1.2.840.10008.20231201",
    "@case 7", "aspx", "download", "a~syncthing~.svs", "#1.svs", "a (1).ndpi", "~a.svs",
]  # fmt: skip


@pytest.mark.parametrize("name", ON_THE_WAY)
def test_what_is_on_its_way_is_not_taken(name: str) -> None:
    """Under any name that its copier writes it."""
    assert names.ignored(name, [])


@pytest.mark.parametrize("name", SLIDES)
def test_a_slide_is_no_leftover(name: str) -> None:
    """Only the end of a name counts, or its very beginning."""
    assert not names.ignored(name, [])


def test_a_copy_that_broke_off_is_told_and_notes_of_programs_are_not() -> None:
    """Everything told is ignored as well, and a pattern of one's own keeps it quiet; the default patterns do not."""
    assert all(names.is_temporary(name, ["*.part", "~$*"]) for name in TOLD)
    assert all(names.ignored(name, []) for name in TOLD)
    assert not any(names.is_temporary(name, []) for name in NOT_TOLD)
    assert not names.is_temporary("index.tmp", ["*dex.tmp"])


def test_each_pattern_stands_once_and_has_a_source() -> None:
    """The table is the only place where they stand."""
    assert len(set(leftovers.PATTERNS)) == len(leftovers.PATTERNS)
    assert all(one.source and one.by for one in leftovers.LEFTOVERS)
