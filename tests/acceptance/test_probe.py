"""What a decoder that was taken over can do, tried from inside: `walls.DEEDS` says exactly that."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cytowatch.decoder import landlock, sandbox, seccomp, walls
from tests.acceptance import probe

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By the set of walls, by the deed: whether it was denied."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.probe", tmp_path_factory.mktemp("probe")],
        cwd=HOUSE, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, str]] = json.loads(done.stdout)
    return told


def test_every_deed_is_tried() -> None:
    """None is claimed that nobody tries, and none tried that is not claimed."""
    assert [deed.word for deed in walls.DEEDS] == list(probe.ATTEMPTS)


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_both_walls_deny_every_deed(found: dict[str, dict[str, str]]) -> None:
    """On this kernel nothing is left open, on one with an older Landlock neither, and `check` has nothing to name."""
    for name in ("both", *(f"both {version}" for version in range(1, landlock.abi() + 1))):
        assert {word for word, came in found[name].items() if came != "denied"} == set(), name
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
        at_least = int(version or (landlock.abi() if kind == "both" else 0))
        for deed in walls.DEEDS:
            of_files = deed.landlock is not None and at_least >= deed.landlock
            claimed = {
                "none": False,
                "calls": deed.calls,
                "both": deed.calls or of_files,
                "landlock": of_files,
            }[kind]
            if claimed or deed.word in possible:
                assert came[deed.word] == ("denied" if claimed else "allowed"), (name, deed.word)


@pytest.mark.skipif(not seccomp.can(), reason="this kernel has no filter of system calls")
def test_every_call_that_is_not_listed_is_unknown() -> None:
    """As the kernel answers, by the numbers of all calls that it has and more."""
    column = ["x86_64", "aarch64"].index(platform.machine())
    listed = {numbers[column] for numbers in (*seccomp.ALLOWED.values(), *seccomp.CHECKED.values())}
    # The kernel ends a process at once that calls uretprobe(2) or uprobe(2) by itself, on x86-64 only.
    others = [n for n in range(1, 1000) if n not in listed and n not in (335, 336)]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            libc.prctl(38, 1, 0, 0, 0)
            seccomp.restrict()
            known = []
            for number in others:
                if libc.syscall(number, -1, -1, -1, -1, -1, -1) != -1 or ctypes.get_errno() != 38:
                    known.append(number)
            os.write(writer, json.dumps(known).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        assert json.loads(file.read()) == []
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_a_decoder_of_root_has_no_privilege() -> None:
    """But to read and write files of any mode, which Landlock limits."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sandbox.drop_capabilities()
            lines = Path("/proc/self/status").read_text().splitlines()
            held = dict(line.split(":\t") for line in lines if line.startswith("Cap"))
            if {held["CapPrm"], held["CapEff"]} == {f"{0b110:016x}"}:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


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
