"""The filter of system calls, run by an interpreter of the tests on both kinds of processor."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import struct
from pathlib import Path

import pytest

from cytowatch.decoder import seccomp

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_PID = 4711
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter answers; an interpreter of the classic BPF that it is made of."""
    code = seccomp.program(machine, _PID)
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    wide = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack(
        "=iIQ6Q", number, audit or _AUDIT[machine], 0, *(one & (1 << 64) - 1 for one in wide)
    )
    held = at = 0
    while True:
        operation, yes, no, value = steps[at]
        at += 1
        match operation:
            case 0x20:
                held = struct.unpack_from("=I", data, value)[0]
            case 0x05:
                at += value
            case 0x54:
                held &= value
            case 0x15 | 0x25 | 0x35:
                true = {0x15: held == value, 0x25: held > value, 0x35: held >= value}[operation]
                at += yes if true else no
            case 0x06:
                return value
            case _:
                raise AssertionError(f"an unknown instruction {operation:#x}")


def column(machine: str) -> dict[str, int]:
    """The calls that there are on `machine`."""
    place = ["x86_64", "aarch64"].index(machine)
    both = {**seccomp.ALLOWED, **seccomp.CHECKED}
    return {name: n for name, numbers in both.items() if (n := numbers[place]) is not None}


@pytest.mark.parametrize("machine", list(_AUDIT))
def test_what_is_listed_is_allowed_and_nothing_else(machine: str) -> None:
    """Every number from 0 to 1,000: of the list, allowed; else as on a kernel that lacks it."""
    numbers = column(machine)
    free = {numbers[name] for name in seccomp.ALLOWED if name in numbers}
    looked_at = {numbers[name] for name in seccomp.CHECKED if name in numbers}
    for number in range(1000):
        if number not in looked_at:
            wanted = _ALLOW if number in free else _ERRNO | errno.ENOSYS
            assert answer(machine, number) == wanted, number


@pytest.mark.parametrize("machine", list(_AUDIT))
def test_arguments_are_looked_at(machine: str) -> None:
    """Threads but no processes, its own signals but no others', limits to read but not to set."""
    numbers = column(machine)
    denied = _ERRNO | errno.EPERM
    # As glibc and as musl start one (pthread_create.c of each).
    thread, of_musl = 0x3D0F00, 0x7D0F00
    for name, arguments, wanted in (
        ("clone", (thread,), _ALLOW),
        ("clone", (of_musl,), _ALLOW),
        ("clone", (signal.SIGCHLD,), denied),
        ("clone", (thread | 0x10000000,), denied),
        ("clone", (0x4111,), denied),
        ("openat", (0, 0, os.O_RDONLY), _ALLOW),
        ("openat", (0, 0, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), _ALLOW),
        ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC), denied),
        ("openat", (0, 0, os.O_TMPFILE | os.O_RDWR), denied),
        ("openat", (0, 0, 3), denied),
        ("openat", (0, 0, 3 | os.O_TRUNC), denied),
        ("openat", (0, 0, 3 | os.O_CREAT | os.O_CLOEXEC), denied),
        ("renameat2", (0, 0, 0, 0, 1), _ALLOW),  # RENAME_NOREPLACE
        ("renameat2", (0, 0, 0, 0, 0), denied),
        ("renameat2", (0, 0, 0, 0, 4), denied),  # RENAME_WHITEOUT
        ("mknodat", (0, 0, stat.S_IFIFO | 0o600, 0), _ALLOW),
        ("mknodat", (0, 0, stat.S_IFBLK | 0o600, 0x800), denied),
        ("mknodat", (0, 0, stat.S_IFCHR | 0o600, 0x103), denied),
        ("fcntl", (3, 1), _ALLOW),
        ("fcntl", (3, 1024), denied),  # F_SETLEASE
        ("fcntl", (3, 8), denied),  # F_SETOWN
        ("ioctl", (3, 0x5401), _ALLOW),
        ("ioctl", (3, 0x40086602), denied),  # FS_IOC_SETFLAGS
        ("prctl", (15,), _ALLOW),
        ("prctl", (1, 0), denied),  # PR_SET_PDEATHSIG
        ("prctl", (4, 1), denied),  # PR_SET_DUMPABLE
        ("prlimit64", (0, 7, 0), _ALLOW),
        ("prlimit64", (0, 7, 1 << 32), denied),
        ("prlimit64", (_PID, 7, 0), denied),
        ("kill", (_PID, 6), _ALLOW),
        ("kill", (1, 0), denied),
        ("kill", (0, 9), denied),
        ("kill", (-1, 9), denied),
        ("tgkill", (_PID, _PID, 6), _ALLOW),
        ("tgkill", (_PID + 1, 1, 6), denied),
    ):
        assert answer(machine, numbers[name], *arguments) == wanted, (name, arguments)


def test_another_set_of_numbers_ends_the_process() -> None:
    """A call of 32 bits has other numbers, and would pass for another call."""
    assert answer("x86_64", 20, audit=0x40000003) == _KILL
    assert answer("x86_64", 0x40000000 + 57) == _KILL
    assert answer("aarch64", 20, audit=0x40000028) == _KILL


@pytest.mark.parametrize("machine", list(_AUDIT))
def test_the_numbers_are_those_of_the_kernel(machine: str) -> None:
    """Each as the kernel's own header has it; arm64 uses the generic one."""
    header = _HEADERS[machine]
    if not header.exists() and not os.environ.get("CI"):
        pytest.skip(f"{header} is missing (Debian: apt install linux-libc-dev)")
    text = header.read_text()
    known: dict[str, int] = {}
    for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text):
        # Some stand there twice, for 32 bits at last.
        known.setdefault(name, int(number))
    for name, other in re.findall(r"#define __NR_(\w+)\s+__NR3264_(\w+)", text):
        known.setdefault(name, known.get(other, -1))
    wrong = {
        name: (n, known.get(name)) for name, n in column(machine).items() if known.get(name) != n
    }
    assert wrong == {}


def test_the_document_counts_them() -> None:
    """docs/security.md says how many calls are allowed."""
    page = Path(__file__).resolve().parents[2] / "docs" / "security.md"
    count = len(seccomp.ALLOWED) + len(seccomp.CHECKED)
    assert f"the {count} calls that decoders make" in page.read_text()
