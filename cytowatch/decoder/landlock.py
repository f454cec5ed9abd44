"""Landlock: a process gives up access to every file and every connection except those it names.

A small module of our own, because it must run in a forked process before anything else does.

Source: https://docs.kernel.org/userspace-api/landlock.html; linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

__all__ = ["abi", "restrict"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_V1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
#: MAKE_CHAR and MAKE_BLOCK: root could make a device that is the disk itself, in its own output.
_MAKE_DEVICES = 1 << 6 | 1 << 11
_NET_ALL = 3
_SCOPE_ALL = 3
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def abi() -> int:
    """The version of Landlock in this kernel; 0 if it has none."""
    try:
        return _call(_CREATE, None, 0, 1)
    except OSError:
        return 0


def restrict(read: Iterable[str], write: Iterable[str]) -> None:
    """Give up for good: all files except those below `read` and `write`, running programs, and the network.

    Files below `write` may be read as well. Paths that do not exist are skipped. The rules
    belong to the directories themselves, so they survive a rename.

    Raises
    ------
    OSError
        The kernel refused; nothing is restricted.
    """
    version = abi()
    handled = _ALL_V1
    handled |= _REFER if version >= 2 else 0
    handled |= _TRUNCATE if version >= 3 else 0
    handled |= _IOCTL_DEV if version >= 5 else 0
    network = _NET_ALL if version >= 4 else 0
    scope = _SCOPE_ALL if version >= 6 else 0
    attributes = struct.pack("QQQ", handled, network, scope)
    # Older kernels have a shorter structure.
    length = 8 if version < 4 else 16 if version < 6 else 24
    rules = _call(_CREATE, attributes, length, 0)
    try:
        for path in read:
            _allow(rules, path, _READ_FILE | _READ_DIR)
        for path in write:
            _allow(rules, path, handled & ~(_EXECUTE | _IOCTL_DEV | _MAKE_DEVICES))
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        _call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_A_FILE
        _call(_ADD, rules, 1, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)
