"""Bytes that never came, over a real smbd: not one success with wrong pixels, in any of the formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from tests.integration.test_gaps import ROWS, Row, places
from tests.lab import samba
from tests.lab.root import Root
from tests.lab.samba import Samba
from tests.needs import unless

pytestmark = [
    unless(samba.missing()),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

#: Of each format of the table one kind of file.
_FORMATS = [row for row in ROWS if " " not in row.id]
_MOST_S = 3600


@pytest.fixture
def share(root: Root, tmp_path: Path) -> Iterator[Samba]:
    for part in ("inbox", "status", "storage"):
        (root.path / part / samba.getpass.getuser()).mkdir(exist_ok=True, mode=0o770)
    tmp_path.chmod(0o755)
    made = Samba(tmp_path / "samba", root.path)
    yield made
    made.stop()


def _put(share: Samba, name: str, data: bytes, gap: tuple[int, int] | None, *, hole: bool) -> None:
    with share.open(name) as file:
        if gap is None:
            file.write(data)
            return
        begin, end = gap
        file.write(data[:begin] if hole else data[:begin] + bytes(end - begin))
        file.seek(end)
        file.write(data[end:])


def _drop(share: Samba, row: Row, folder: Path) -> None:
    """A whole slide, and one for each place of a gap: holes and zeros in turn, each in a folder of its own."""
    import smbclient

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    gaps = [None, *places(largest.stat().st_size)]
    for number, gap in enumerate(gaps):
        top = f"{row.id} {number}"
        for inner in sorted({top, *(f"{top}/{path.parent.relative_to(folder)}" for path in files)}):
            smbclient.makedirs(share.path(inner.removesuffix("/.")), exist_ok=True, **share.session)
        for path in files:
            own = gap if path == largest else None
            name = f"{top}/{path.relative_to(folder)}"
            _put(share, name, path.read_bytes(), own, hole=number % 2 == 1)


def _shown(document: dict[str, Any]) -> list[np.ndarray]:
    """The pixels that a viewer is shown, of every level."""
    rows = document["files"]
    pyramids = [row["path"] for row in rows if row["role"] == "pyramid"]
    if pyramids:
        return [tifffile.imread(document["_path"] / path) for path in pyramids]
    with openslide.OpenSlide(document["_path"] / rows[0]["path"]) as slide:
        return [
            np.asarray(slide.read_region((0, 0), level, size))
            for level, size in enumerate(slide.level_dimensions)
        ]


@pytest.mark.slow
def test_no_success_with_wrong_pixels_over_smb(root: Root, share: Samba, tmp_path: Path) -> None:
    """Every format with gaps at 20 places, written through the share; a whole one of each comes through."""
    for row in _FORMATS:
        made = tmp_path / "made" / row.id
        made.mkdir(parents=True)
        row.make(made)
        _drop(share, row, made)
    root.run_until_idle(_MOST_S)
    found: dict[str, dict[str, Any]] = {}
    for document in root.manifests().values():
        if document["status"] in ("DEPLOYED", "CONVERTED"):
            found[document["drop_path"].split("/")[1]] = document
    wrong = []
    for row in _FORMATS:
        right = _shown(found.pop(f"{row.id} 0"))
        for name in [name for name in found if name.rpartition(" ")[0] == row.id]:
            shown = _shown(found.pop(name))
            same = len(shown) == len(right) and all(map(np.array_equal, shown, right))
            # Zeros in plain pixels are black ones: docs/formats.md.
            if not same and (row.packed or int(name.rpartition(" ")[2]) % 2 == 1):
                wrong.append(name)
    assert found == {}
    assert wrong == []
