"""The stacks of a CellSens VSI: as many as its .vsi announces, and none of another slide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytowatch.formats.structure import vsi
from tests.builders.cellsens import cellsens
from tests.unit.test_companions import grouped, only

SLIDE, OVERVIEW, LABEL = (20_000, 15_000, 0), (3000, 2000, 1), (700, 650, 1)
REAL = Path(__file__).resolve().parents[2].parent / "shared/samples/vsi/vsi-ets-test-jpg2k"


def test_all_of_its_stacks_are_there() -> None:
    """In any order of their folders; where nothing was scanned a stack has no tiles."""
    for files in ([SLIDE, OVERVIEW, LABEL], [LABEL, (19_000, 14_000), OVERVIEW]):
        found = only(cellsens("A1", [SLIDE, OVERVIEW, LABEL], [one[:2] for one in files]))
        assert (found.kind, found.missing, found.sidecars) == ("olympus-vsi", None, ())
        assert len(found.members) == 4


@pytest.mark.parametrize(
    ("files", "spare"),
    [([OVERVIEW], False), ([LABEL, OVERVIEW], False), ([SLIDE], True), ([OVERVIEW, SLIDE], True)],
)
def test_it_waits_for_a_stack(files: list[tuple[int, int, int]], spare: bool) -> None:
    """Which one is missing is known by its size: without an overview or a label the slide is whole in the end."""
    found = only(cellsens("A1", [SLIDE, OVERVIEW, LABEL], [one[:2] for one in files]))
    assert found.missing is not None
    assert f"announces 3, and {len(files)} came" in found.missing
    assert found.is_spare is spare


def test_a_stack_of_another_slide_is_no_part_of_it() -> None:
    """It is larger than any that the .vsi announces: it takes no other one's place, and is kept beside them."""
    found = only(cellsens("A1", [SLIDE, LABEL], [LABEL[:2], (40_000, 30_000)]))
    assert found.missing is not None
    assert not found.is_spare
    found = only(cellsens("A1", [SLIDE, LABEL], [LABEL[:2], SLIDE[:2], (40_000, 30_000)]))
    assert found.missing is None
    assert found.sidecars == ("_A1_/stack3/frame_t.ets",)


def test_a_vsi_that_says_nothing_of_its_stacks_is_taken_with_those_that_came() -> None:
    """As before: a TIFF without such tags, or with tags that cannot be read."""
    files = cellsens("A1", [SLIDE], [OVERVIEW[:2], LABEL[:2]])
    head = bytearray(files["A1.vsi"])
    head[8:12] = bytes(4)
    found = only({**files, "A1.vsi": bytes(head)})
    assert (found.missing, len(found.members)) == (None, 3)


@given(st.integers(8, 400), st.binary(min_size=1, max_size=8))
def test_no_vsi_holds_up_what_waits(at: int, junk: bytes) -> None:
    """Anything may stand in its tags."""
    files = cellsens("A1", [SLIDE, LABEL], [SLIDE[:2]])
    head = files["A1.vsi"]
    at = min(at, len(head) - len(junk))
    grouped({**files, "A1.vsi": head[:at] + junk + head[at + len(junk) :]})


@pytest.mark.skipif(not REAL.is_dir(), reason="the real VSI is beside the repository only")
def test_a_real_one() -> None:
    """One stack, as large as the .vsi says."""
    descriptor = os.open(REAL / "vsi-ets-test-jpg2k.vsi", os.O_RDONLY)
    assert vsi.stacks(descriptor) == [vsi.Stack(width=1645, height=1682)]
    os.close(descriptor)
    files = {
        str(path.relative_to(REAL)): path.read_bytes() for path in REAL.rglob("*") if path.is_file()
    }
    assert only(files).missing is None
