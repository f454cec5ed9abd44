"""What a decoder that was taken over can do, tried from inside: `walls.DEEDS` says exactly that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cytowatch.decoder import landlock, sandbox, walls
from tests.acceptance import probe

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By the set of walls, by the deed: whether it was denied."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.probe", tmp_path_factory.mktemp("probe")],
        cwd=HOUSE, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, str]] = json.loads(done.stdout)
    return told


def test_every_deed_is_tried() -> None:
    """None is claimed that nobody tries, and none tried that is not claimed."""
    assert [deed.word for deed in walls.DEEDS] == list(probe.ATTEMPTS)


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_both_walls_deny_every_deed(found: dict[str, dict[str, str]]) -> None:
    """On this kernel nothing is left open, and `check` has nothing to name."""
    assert {word for word, came in found["both"].items() if came != "denied"} == set()
    assert walls.open_deeds(sandbox.enforced()) == []


def test_each_wall_denies_what_is_said_of_it(found: dict[str, dict[str, str]]) -> None:
    """The filter with no Landlock, and each version of Landlock with no filter.

    What this machine denies to everybody, to a container without privileges say, proves nothing and is
    left out; there must be little of that for root.
    """
    possible = {word for word, came in found["none"].items() if came == "allowed"}
    if os.geteuid() == 0:
        assert len(possible) > len(walls.DEEDS) // 2, found["none"]
    for name, came in found.items():
        kind, _, version = name.partition(" ")
        for deed in walls.DEEDS:
            claimed = {
                "none": False,
                "calls": deed.calls,
                "both": True,
                "landlock": deed.landlock is not None and int(version or 0) >= deed.landlock,
            }[kind]
            if claimed or deed.word in possible:
                assert came[deed.word] == ("denied" if claimed else "allowed"), (name, deed.word)


def test_check_names_what_is_open() -> None:
    """What an older kernel leaves open, and all of it where there is no wall."""
    nothing = {"landlock_abi": 0, "files": False, "calls": False}
    assert walls.open_deeds(nothing) == list(walls.DEEDS)
    old = {"landlock_abi": 1, "files": True, "calls": True}
    assert walls.open_deeds(old) == []
    without_filter = {"landlock_abi": 2, "files": True, "calls": False}
    left = {deed.word for deed in walls.open_deeds(without_filter)}
    assert {"truncate", "tcp_connect", "signal", "process"} <= left
    assert not {"read", "write", "program"} & left


def test_the_document_has_the_same_table() -> None:
    """docs/security.md shows `walls.table`."""
    assert walls.table() in (HOUSE / "docs" / "security.md").read_text()
