"""Seccomp: a decoder process may make the system calls that decoders make, and no others.

Our own filter of some hundred instructions, because it must be installed in a forked process before anything
else runs there, using only what is already loaded. A call that is not on the list returns ENOSYS, as on a
kernel that lacks it, and libraries work without it. A call on the list whose arguments would reach beyond
this process returns EPERM.

Source: seccomp(2), linux/seccomp.h, linux/bpf_common.h; the numbers stand in the kernel's unistd.h and
are compared with it by a test.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import stat
import struct
from collections.abc import Mapping

__all__ = ["ALLOWED", "CHECKED", "can", "prepare", "program", "restrict"]

# fmt: off
#: Allowed with any arguments: (number on x86-64, number on arm64), None where it has none.
ALLOWED: Mapping[str, tuple[int | None, int | None]] = {
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216),
    "mprotect": (10, 226), "madvise": (28, 233), "membarrier": (324, 283), "read": (0, 63),
    "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286),
    "pwritev2": (328, 287), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None),
    "pipe2": (293, 59), "eventfd2": (290, 19), "stat": (4, None), "lstat": (6, None),
    "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17),
    "chdir": (80, 49), "fchdir": (81, 50), "statfs": (137, 43), "fstatfs": (138, 44),
    "umask": (95, 166), "ftruncate": (77, 46), "fsync": (74, 82),
    "fdatasync": (75, 83), "sync_file_range": (277, 84), "fadvise64": (221, 223),
    "sendfile": (40, 71), "copy_file_range": (326, 285), "mkdir": (83, None),
    "mkdirat": (258, 34), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "set_robust_list": (273, 99),
    "get_robust_list": (274, 100), "rseq": (334, 293), "set_tid_address": (218, 96),
    "futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
    "getpriority": (140, 141), "gettid": (186, 178), "getpid": (39, 172), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156), "getrusage": (98, 165),
    "times": (100, 153), "sysinfo": (99, 179), "uname": (63, 160), "getcpu": (309, 168),
    "getrandom": (318, 278), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169),
    "time": (201, None), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "exit": (60, 93),
    "exit_group": (231, 94), "restart_syscall": (219, 128), "sendto": (44, 206),
    "recvfrom": (45, 207), "getsockopt": (55, 209),
    "getsockname": (51, 204),
}
#: Allowed with some arguments only.
CHECKED: Mapping[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "fcntl": (72, 25), "ioctl": (16, 29),
    "clone": (56, 220), "prctl": (157, 167), "prlimit64": (302, 261), "kill": (62, 129),
    "tgkill": (234, 131), "renameat2": (316, 276), "mknod": (133, None),
    "mknodat": (259, 33),
}
# fmt: on

#: AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 (linux/audit.h), and the column of each above.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000

_LOAD, _JUMP, _EQUAL, _GREATER, _AT_LEAST, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_SET_MODE_FILTER, _FLAG_SPEC_ALLOW, _GET_ACTION_AVAIL = 1, 1 << 2, 2
_SECCOMP = {"x86_64": 317, "aarch64": 277}

#: Stands for the process's own id; no other number in the filter is equal to it.
_ANYBODY = 0x70696421
#: A new file without a name. The same on both processors (include/uapi/asm-generic/fcntl.h).
_O_TMPFILE = 0o20000000
_RENAME_NOREPLACE = 1
_O_ACCMODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
#: A new thread of this very process: CLONE_VM, FS, FILES, SIGHAND, THREAD.
_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
#: CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, and CLONE_VFORK.
_NOT_A_THREAD = (
    0x80
    | 0x20000
    | 0x2000000
    | 0x4000000
    | 0x8000000
    | 0x10000000
    | 0x20000000
    | 0x40000000
    | 0x4000
)
#: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_OFD_*, F_DUPFD_CLOEXEC: neither
#: leases nor owners of signals.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)
#: TCGETS, FIONREAD, FIONCLEX, FIOCLEX: whether it is a terminal, how much waits, close on exec.
_IOCTL = (0x5401, 0x541B, 0x5450, 0x5451)
#: PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory.
_PRCTL = (15, 16, 0x53564D41)

_libc = ctypes.CDLL(None, use_errno=True)


def _one(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF)


def _end(action: int) -> bytes:
    return _one(_RETURN, action)


_YES = _end(_ALLOW)
_DENIED = _end(_ERRNO | errno.EPERM)
_UNKNOWN = _end(_ERRNO | errno.ENOSYS)


def can() -> bool:
    """Whether this kernel and this kind of processor have such filters."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    action = ctypes.c_uint32(_ERRNO)
    number = _SECCOMP[machine]
    return int(_libc.syscall(number, _GET_ACTION_AVAIL, 0, ctypes.byref(action))) == 0


def prepare() -> None:
    """Make the filter in the process that forks, so that forked processes need not."""
    if can():
        program(platform.machine(), 0)


def restrict() -> None:
    """Give up, for good and for all later threads, every system call except those on the list.

    The process has one thread, and no_new_privs is set.

    Raises
    ------
    OSError
        The kernel refused; nothing is restricted.
    """
    machine = platform.machine()
    code = program(machine, os.getpid())
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog. Without SPEC_ALLOW, kernels before 5.16 would slow the whole process down.
    filter_ = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    number = _SECCOMP[machine]
    if _libc.syscall(number, _SET_MODE_FILTER, _FLAG_SPEC_ALLOW, filter_) != 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"seccomp: {os.strerror(failed)}")


def program(machine: str, pid: int) -> bytes:
    """The filter for a process `pid` on `machine`, as the kernel takes it.

    Raises
    ------
    KeyError
        The system calls of such a processor are not known here.
    """
    return _template(machine).replace(struct.pack("=I", _ANYBODY), struct.pack("=I", pid))


@functools.cache
def _template(machine: str) -> bytes:
    """The filter for any process: making it costs half a millisecond in a process that was just forked."""
    architecture, column = _ARCHITECTURES[machine]
    code = [
        _one(_LOAD, _ARCHITECTURE),
        _one(_EQUAL, architecture, 1, 0),
        _end(_KILL_PROCESS),
        _one(_LOAD, _NUMBER),
        # The same calls by other numbers, for programs of 32 bits.
        _one(_GREATER, _X32 - 1, 0, 1),
        _end(_KILL_PROCESS),
    ]
    return b"".join([*code, *_bisected(_answers(column))])


def _answers(column: int) -> list[tuple[int, list[bytes]]]:
    """The answers in order, each with the number of the first call that it applies to."""
    looks = _looks()
    known = {n: [_YES] for one in ALLOWED.values() if (n := one[column]) is not None}
    known |= {n: looks[name] for name, one in CHECKED.items() if (n := one[column]) is not None}
    found: list[tuple[int, list[bytes]]] = []
    for number in range(max(known) + 2):
        answer = known.get(number, [_UNKNOWN])
        if not found or found[-1][1] != answer:
            found.append((number, answer))
    return found


def _bisected(answers: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """A binary search; the kernel evaluates all of it for each number when it is installed."""
    if len(answers) == 1:
        return answers[0][1]
    half = len(answers) // 2
    below, above = _bisected(answers[:half]), _bisected(answers[half:])
    return [
        _one(_AT_LEAST, answers[half][0], 0, 1),
        _one(_JUMP, len(below)),
        *below,
        *above,
    ]


def _looks() -> dict[str, list[bytes]]:
    """The checks for each call; every path through them ends in an answer."""
    return {
        "open": _opens(1),
        "openat": _opens(2),
        "clone": [
            *_flags(0, must=_THREAD, must_not=_NOT_A_THREAD),
            _DENIED,
        ],
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prctl": _one_of(0, _PRCTL),
        # Its limits may be read; new ones, and those of others, are in the third and first argument.
        "prlimit64": [*_is_zero(0), *_is_zero(2), _YES],
        # As abort(3) does it: only to itself, and never to a group.
        "kill": _one_of(0, (_ANYBODY,)),
        "tgkill": _one_of(0, (_ANYBODY,)),
        "mknod": _makes(1),
        "mknodat": _makes(2),
        # A replaced file would no longer have a name, and take space that cannot be seen.
        "renameat2": _one_of(4, (_RENAME_NOREPLACE,)),
    }


def _low(argument: int) -> bytes:
    """Load the lower half of an argument; both processors store that first."""
    return _one(_LOAD, _ARGUMENTS + 8 * argument)


def _opens(argument: int) -> list[bytes]:
    """Allow any way to open a file except three, against which Landlock does not help.

    One makes a file without a name. One is for neither reading nor writing (an access mode of 3, open(2)), so
    that Landlock, which asks for the right to read or to write, lets it open anything. And one empties a file that it may only
    read, which Landlock only knows from its third version on.
    """
    return [
        _low(argument),
        _one(_AND, _O_TMPFILE),
        _one(_EQUAL, 0, 1, 0),
        _DENIED,
        _low(argument),
        _one(_AND, _O_ACCMODE),
        _one(_EQUAL, _O_ACCMODE, 0, 1),
        _DENIED,
        _low(argument),
        _one(_AND, os.O_TRUNC | _O_ACCMODE),
        _one(_EQUAL, os.O_TRUNC | os.O_RDONLY, 0, 1),
        _DENIED,
        _YES,
    ]


def _makes(argument: int) -> list[bytes]:
    """Pipes and sockets, but no device: root could make one that is the disk itself, in its own output."""
    tests = [
        part
        for kind in (stat.S_IFCHR, stat.S_IFBLK)
        for part in (_one(_EQUAL, kind, 0, 1), _DENIED)
    ]
    return [_low(argument), _one(_AND, 0o170000), *tests, _YES]


def _flags(argument: int, *, must: int, must_not: int) -> list[bytes]:
    return [
        _low(argument),
        _one(_AND, must | must_not),
        _one(_EQUAL, must, 0, 1),
        _YES,
    ]


def _one_of(argument: int, values: tuple[int, ...]) -> list[bytes]:
    tests = [part for value in values for part in (_one(_EQUAL, value, 0, 1), _YES)]
    return [_low(argument), *tests, _DENIED]


def _is_zero(argument: int) -> list[bytes]:
    """Continue if both halves of an argument are zero."""
    place = _ARGUMENTS + 8 * argument
    return [
        _one(_LOAD, place),
        _one(_EQUAL, 0, 1, 0),
        _DENIED,
        _one(_LOAD, place + 4),
        _one(_EQUAL, 0, 1, 0),
        _DENIED,
    ]
