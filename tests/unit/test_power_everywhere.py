"""Power that is cut in any other step that makes something durable: archives, folders, links, notes, requests of an admin.

Each case says what is there, what is done, and what must hold of every state that a cut may leave, once the
daemon's own recovery has been at it. Then each fsync is left out in turn, as for a claim (`test_power`).
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import cytowatch
from cytowatch.tree.spool import Spool
from tests.lab.power import Disk, losses, recorded
from tests.unit.power_cuts import CASES, Case
from tests.unit.test_power import DROPS, claimed
from tests.unit.test_power import published as on_the_way


@pytest.fixture(params=CASES)
def recording(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Case, Disk]:
    found = CASES[request.param]
    spool = Spool.create(folder / "root")
    found.before(spool)
    return found, recorded(spool.root, lambda: found.do(spool), monkeypatch)


def lost(found: Case, disk: Disk, place: Path, left_out: int | None, *, first: bool) -> list[str]:
    def check(root: Path, _where: dict[int, Path], end: bool) -> str | None:
        return found.holds(Spool(root), end)

    dirty = {inode for inode, (data, _) in disk.files.items() if data == found.dirty}
    return losses(
        disk, place, check, unsure=lambda end: disk.born | dirty if end else disk.born - dirty, left_out=left_out, atomic=True, first=first
    )  # fmt: skip


def test_nothing_is_lost(recording: tuple[Case, Disk], tmp_path: Path) -> None:
    """In every state that a cut may leave."""
    found, disk = recording
    assert lost(found, disk, tmp_path / "at", None, first=False) == []


def test_every_fsync_is_needed(recording: tuple[Case, Disk], tmp_path: Path) -> None:
    """Without it some state is a loss."""
    found, disk = recording
    needless = [
        f"{number} {disk.makers[number]}"
        for number in range(len(disk.syncs))
        if disk.makers[number] not in found.elsewhere
        and not lost(found, disk, tmp_path / "at", number, first=True)
    ]
    assert needless == []


def test_every_place_that_syncs_has_a_case(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So none is made for nothing: every function that asks for an fsync is in what is tried here, or in `test_power`."""
    tried = set(on_the_way(folder / "way", monkeypatch)[0].makers)
    for kind, names in DROPS.items():
        tried |= set(claimed(names, folder / kind, monkeypatch).makers)
    for name, found in CASES.items():
        spool = Spool.create(folder / name / "root")
        found.before(spool)
        do = functools.partial(found.do, spool)
        tried |= set(recorded(spool.root, do, monkeypatch).makers)
    package = Path(cytowatch.__file__).parent
    there = {
        f"{path.stem}.{function.name}"
        for path in package.rglob("*.py")
        if path.parent.name != "durable"
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Attribute)
        and (
            call.attr.startswith("fsync")
            or call.attr in ("make_directory", "write_note", "replace_durably")
        )
    }
    assert there == tried
