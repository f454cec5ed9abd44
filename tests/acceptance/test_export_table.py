"""All manifests as one table, and the page about reading the storage from Python, whose code is run."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from cytowatch.cli.table import COLUMNS
from tests import builders
from tests.builders import others
from tests.lab.root import Root

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "how-to" / "python.md"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A native slide, one of 16 bits, an archive with two, one of two scenes, and one that failed."""
    made = tmp_path_factory.mktemp("made")
    root = Root(tmp_path_factory.mktemp("table"))
    project = root.path / "inbox" / "ann" / "@lung"
    project.mkdir(parents=True)
    zoned = "|Date = 09/07/16|Time = 15:17:46|Time Zone = GMT-07:00"
    builders.aperio_svs(project / "first; slide.svs", about=zoned)
    grey = (np.arange(600 * 700, dtype=np.uint16) * 3).reshape(600, 700)
    Image.fromarray(grey).save(made / "deep.png")
    others.czi(made / "two.czi", scenes=2)
    builders.jpeg(made / "cut.jpg", width=600, height=600)
    whole = (made / "cut.jpg").read_bytes()
    (made / "cut.jpg").write_bytes(whole[: len(whole) // 2] + b"\x55" * 4000 + whole[-2:])
    builders.jpeg(made / "a.jpg")
    builders.png(made / "b.png")
    with zipfile.ZipFile(made / "batch.zip", "w") as archive:
        archive.write(made / "a.jpg", "a.jpg")
        archive.write(made / "b.png", "b.png")
    for name in ("deep.png", "two.czi", "cut.jpg", "batch.zip"):
        root.drop(made / name)
    assert root.run_until_idle() == 1
    yield root


def export(root: Root, table: str, where: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*root.command("export"), "--table", table, "--root", str(root.path), "--config", str(root.config)],
        check=False, capture_output=True, text=True, cwd=where,
    )  # fmt: skip


def test_as_csv(filled: Root) -> None:
    """One row per pyramid, one for each uploaded file without one; sorted by id; unknown is empty."""
    done = export(filled, "-")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    counts = {name: len(found) for name, found in by_name.items()}
    assert counts == {
        "first; slide.svs": 1, "deep.png": 1, "two.czi": 2, "cut.jpg": 1, "batch.zip": 1, "a.jpg": 1, "b.png": 1,
    }  # fmt: skip
    [slide] = by_name["first; slide.svs"]
    assert (slide["status"], slide["projects"], slide["mpp_x"]) == ("DEPLOYED", "lung", "0.499")
    assert (slide["acquired_at"], slide["drop_path"]) == (
        "2016-09-07T22:17:46Z",
        "ann/@lung/first; slide.svs",
    )
    assert (filled.path / slide["image"]).is_file()
    [failed] = by_name["cut.jpg"]
    assert (failed["status"], failed["reason"], failed["image"]) == (
        "ERROR_CONVERSION", "damaged", "",
    )  # fmt: skip
    assert (filled.path / failed["source"]).is_file()
    assert by_name["a.jpg"][0]["parent_id"] == by_name["batch.zip"][0]["id"]
    assert {one["scene"] for one in by_name["two.czi"]} == {"0", "1"}
    assert {one["mpp_x"] for one in by_name["two.czi"]} == {"0.5"}
    assert by_name["deep.png"][0]["mpp_x"] == ""


def test_as_parquet(filled: Root, tmp_path: Path) -> None:
    """The same rows with types; unknown is null, several values are a list."""
    assert export(filled, "all.csv", tmp_path).returncode == 0
    assert export(filled, "all.parquet", tmp_path).returncode == 0
    found = parquet.read_table(tmp_path / "all.parquet")
    assert found.column_names == [column.name for column in COLUMNS]
    with open(tmp_path / "all.csv", encoding="utf-8", newline="") as file:
        plain = list(csv.DictReader(file))
    typed = found.to_pylist()
    assert [row["id"] for row in typed] == [row["id"] for row in plain]
    for one, other in zip(typed, plain, strict=True):
        for column in COLUMNS:
            assert (one[column.name] in (None, [])) == (other[column.name] == "")
    slide = next(row for row in typed if row["name"] == "first; slide.svs")
    assert slide["projects"] == ["lung"]
    assert slide["received_at"].tzinfo is not None
    assert slide["width"] == 1200
    # Nothing half-written is left beside them.
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "all.parquet"]


def test_what_is_not_possible(filled: Root, tmp_path: Path) -> None:
    """Another ending, and an ID beside --table, are errors of usage; a table from before is kept."""
    (tmp_path / "all.xlsx").write_text("before")
    for words in (["all.xlsx"], ["all.csv", "some-id"]):
        done = export(filled, words[0], tmp_path) if len(words) == 1 else subprocess.run(
            [*filled.command("export", words[1]), "--table", words[0], "--root", str(filled.path)],
            check=False, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
    assert (tmp_path / "all.xlsx").read_text() == "before"
    assert os.listdir(tmp_path) == ["all.xlsx"]


def test_a_damaged_manifest_costs_its_own_row_alone(filled: Root, tmp_path: Path) -> None:
    """It keeps its id and status, the command names it and exits 1, and all others are there."""
    whole = list(csv.DictReader(io.StringIO(export(filled, "-").stdout)))
    [path] = filled.path.glob("storage/ann/*first-slide/manifest.json")
    kept = path.read_bytes()
    try:
        path.write_bytes(kept[:100])
        done = export(filled, "-")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
    finally:
        path.write_bytes(kept)
    assert done.returncode == 1
    assert path.parent.name in done.stderr
    assert {row["id"] for row in rows} == {row["id"] for row in whole}
    [lost] = [row for row in rows if row["id"] == path.parent.name]
    assert lost["image"] == ""


def test_the_code_of_the_page_runs(filled: Root, tmp_path: Path) -> None:
    """Every block of docs/how-to/python.md, in its order, on a storage of this test's own."""
    for name in ("slides.csv", "slides.parquet"):
        assert export(filled, name, tmp_path).returncode == 0
    code = "".join(
        re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    )
    assert 'Path("/srv/cytowatch")' in code
    code = code.replace("/srv/cytowatch", str(filled.path))
    code += textwrap.dedent(
        """
        assert len(slides) == 6 and len(fine) == 3, (slides, fine)
        assert tile.mode == "RGB" and 0 < max(tile.size) <= 512 and pixels.dtype == "uint16", (tile, pixels)
        assert len(manifests) == 6 and len(project) == 1
        assert sorted(map(str, times)) == ["2016-09-07 22:17:46+00:00", *["None"] * 5], times
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
