"""Bytes at the end of a file: whichever way they go, all of them are there, in order."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytowatch.panel.uploads import appending
from cytowatch.panel.uploads.appending import Appending, Disk
from tests.lab import disks

LARGE = 1 << 30
MIB = 1 << 20


@contextmanager
def appended(path: Path, disk: Disk | None = None, size: int = LARGE) -> Iterator[Appending]:
    at = path.stat().st_size if path.exists() else 0
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        yield Appending(descriptor, at, size, disk or Disk())
    finally:
        os.close(descriptor)


def in_memory(data: bytes, at: int) -> memoryview:
    """`data` in a buffer of whole pages, from `at` on."""
    buffer = memoryview(mmap.mmap(-1, len(data) + at + 1))
    buffer[at : at + len(data)] = data
    return buffer[at : at + len(data)]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each write past the page cache took."""
    found: list[int] = []
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        written = real(descriptor, data)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            found.append(written)
        return written

    monkeypatch.setattr(os, "write", write)
    return found


def test_whole_blocks_of_a_large_file_pass(tmp_path: Path, passed: list[int]) -> None:
    """What is before and behind them does not; of a small file nothing does."""
    disks.skip_unless_direct(tmp_path)
    data = os.urandom(MIB)
    for size, expected in ((LARGE, [MIB - 8192, MIB]), (MIB, [])):
        passed.clear()
        path = tmp_path / str(size)
        with appended(path, size=size) as end:
            end.add([b"ab", in_memory(data[2:-1], 2)])
            end.add([data[-1:], in_memory(data, 0)])
        assert path.read_bytes() == b"ab" + data[2:] + data
        assert passed == expected
    with appended(tmp_path / "another place in memory") as end:
        end.add([in_memory(data, 7)])
    assert passed == []


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([0, 1, 4095, 4096, 20_000, 262_144, 300_001]), st.integers(0, 5000), st.booleans())
    )
)  # fmt: skip
def test_any_parts(parts: list[tuple[int, int, bool]]) -> None:
    """In any order, at any place in memory, in one call or in several."""
    with tempfile.TemporaryDirectory() as folder:
        path, expected, waiting = Path(folder) / "a", b"", []
        with appended(path) as end:
            for size, at, now in parts:
                data = os.urandom(size)
                expected += data
                # Now and then just where the file goes on.
                here = (len(expected) - size) % 4096 if at % 2 else at
                waiting.append(in_memory(data, here) if at % 3 else data)
                if now:
                    end.add(waiting)
                    waiting = []
            end.add(waiting)
        assert path.read_bytes() == expected


@disks.needs_mounts
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """It says so, and what it took is the beginning of what was given."""
    disk = disks.Disk(tmp_path, 20 * disks.MB)
    try:
        data = os.urandom(MIB)
        with appended(disk.place / "a") as end, pytest.raises(OSError, match="No space left"):
            for _ in range(30):
                end.add([in_memory(data, 0)])
        taken = (disk.place / "a").read_bytes()
        assert len(taken) > 5 * MIB
        assert taken == (data * 30)[: len(taken)]
    finally:
        disk.unmount()


def refuse_flag(_descriptor: int, command: int, flags: int = 0) -> int:
    if command == fcntl.F_SETFL and flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, "Invalid argument")
    return os.O_APPEND


@pytest.mark.parametrize("how", ["flag", "write"])
def test_where_nothing_can_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A filesystem that refuses it, at once or only with the first bytes: the page cache takes them all."""
    data = os.urandom(MIB)
    if how == "flag":
        monkeypatch.setattr(fcntl, "fcntl", refuse_flag)
    else:
        monkeypatch.setattr(os, "write", _refuse(errno.EINVAL))
    with appended(tmp_path / "a") as end:
        end.add([in_memory(data, 0)])
        assert not end.takes_blocks
        end.add([in_memory(data, 0)])
    assert (tmp_path / "a").read_bytes() == data + data


def _refuse(code: int) -> Callable[..., int]:
    def write(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return write


def test_a_fault_of_the_disk_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way is not tried then."""
    monkeypatch.setattr(os, "write", _refuse(errno.EIO))
    with appended(tmp_path / "a") as end, pytest.raises(OSError, match="Input/output"):
        end.add([in_memory(bytes(MIB), 0)])


def test_a_disk_that_is_slow_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed: list[int]
) -> None:
    """For a minute, by all who write to it; then it is tried again."""
    disks.skip_unless_direct(tmp_path)
    disk, data, now = Disk(), os.urandom(MIB), [1000.0]
    monkeypatch.setattr(appending.time, "monotonic", lambda: now[0])
    seen, most_s = appending._SEEN_BYTES, appending._SEEN_BYTES / appending._SLOW_BYTES_PER_S
    with disk.takes(seen // 2), disk.takes(seen // 2):
        # Two at a time share a disk that is fast enough.
        now[0] += most_s - 0.1
    assert disk.is_fast()
    with disk.takes(seen):
        now[0] += most_s + 0.1
    with appended(tmp_path / "a", disk) as end:
        assert not end.takes_blocks
        end.add([in_memory(data, 0)])
        assert passed == []
        now[0] += appending._PAUSE_S
        assert end.takes_blocks
        end.add([in_memory(data, 0)])
    assert passed == [MIB]
    assert (tmp_path / "a").read_bytes() == data + data
