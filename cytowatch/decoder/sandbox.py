"""The first thing a decoder process does, before it sees a byte of a slide: give up all rights it does not need."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from cytowatch.config import Config
from cytowatch.decoder import landlock, seccomp

__all__ = [
    "NICE",
    "RUNTIME",
    "adopt_orphans",
    "die_with_parent",
    "drop_capabilities",
    "enforced",
    "enter",
]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_SET_CHILD_SUBREAPER = 36
#: Of nineteen levels of niceness: with all of them, a decoder on a busy machine would never end.
NICE = 10
_PR_SET_MDWE, _PR_GET_MDWE, _REFUSE_EXEC_GAIN = 65, 66, 1
_CAPABILITY_VERSION_3 = 0x20080522
#: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
_KEPT = 1 << 1 | 1 << 2
_libc = ctypes.CDLL(None, use_errno=True)

#: Files that Python and the decoders may still load while they run.
RUNTIME = (
    sys.prefix,
    sys.base_prefix,
    str(Path(__file__).resolve().parents[1]),
    *(path for path in sys.path if path.startswith("/") and "site-packages" in path),
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/sys/devices/system/cpu",
)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill us when the thread that forked us ends; at once if it has already ended.

    Raises
    ------
    OSError
        The kernel refused.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that it can be ended as well.

    Raises
    ------
    OSError
        The kernel refused.
    """
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def enter(config: Config, out: str, *, parent: int, nice: int = NICE) -> bool:
    """Restrict this process, which works in ``<id>/``; return whether both walls hold it.

    Landlock limits the files, seccomp the system calls. If this kernel or this processor lacks one, the
    other is still used.

    Raises
    ------
    OSError
        The kernel refused something that it supports: the process must not continue.
    """
    os.setpgid(0, 0)
    die_with_parent(parent)
    # The share, the daemon and everyone else who works here come first. The kernel derives the I/O
    # priority from this one as well: ioprio_set(2).
    os.nice(nice)
    cores = len(os.sched_getaffinity(0))
    seconds = int(config.engine.stage_timeout_s * cores) + 1
    for kind, limit in (
        (resource.RLIMIT_AS, config.sandbox.memory_bytes),
        (resource.RLIMIT_CPU, 4 * seconds),
        (resource.RLIMIT_FSIZE, config.limits.archive_max_bytes),
        # At 0, a core dump still goes to a program that the system may have for it; at 1 it does not: fs/coredump.c.
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_NOFILE, 1024),
    ):
        _, hard = resource.getrlimit(kind)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (least, least))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    # Written memory is never executed. Kernels before 6.3 lack this; every decoder works with it.
    _libc.prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)
    drop_capabilities()
    files, calls = landlock.abi() > 0, seccomp.can()
    if not files:
        # This keeps other decoders from looking into it, where Landlock does not. With Landlock it is left out, so that the
        # daemon can count its threads and see its end in a /proc that hides what may not be traced (hidepid).
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if files:
        landlock.restrict(read=["source", "derived", *RUNTIME], write=[out, "/dev/null"])
    if calls:
        seccomp.restrict()
    return files and calls


def drop_capabilities() -> None:
    """Give up the rights of root, except reading and writing files of any mode, which Landlock limits.

    Raises
    ------
    OSError
        The kernel refused.
    """
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)
    if _libc.capget(header, held) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    effective, permitted, _, _, above, _ = struct.unpack("6I", held.raw)
    if not permitted & ~_KEPT and not above:
        # Nothing to give up, as in the unit, whose filter does not allow the call either.
        return
    kept = struct.pack("6I", effective & _KEPT, permitted & _KEPT, 0, 0, 0, 0)
    if _libc.capset(header, kept) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def enforced() -> dict[str, bool | int]:
    """What this kernel really enforces, tested in a process of its own.

    `files` is Landlock's wall, `calls` is seccomp's; `holds` says that both stand.
    """
    version = landlock.abi()
    files = bool(version) and _tried(_without_files)
    calls = seccomp.can() and _tried(_without_calls)
    return {
        "landlock_abi": version,
        "files": files,
        "calls": calls,
        "holds": files and calls,
        "write_xor_execute": _libc.prctl(_PR_GET_MDWE, 0, 0, 0, 0) >= 0,
    }


def _without_files() -> None:
    landlock.restrict(read=["/dev/null"], write=[])
    os.close(os.open("/proc/self/status", os.O_RDONLY))


def _without_calls() -> None:
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.restrict()
    try:
        os.setsid()
    except OSError as error:
        raise PermissionError from error


def _tried(forbidden: Callable[[], None]) -> bool:
    """Whether a restricted process can really no longer do what it could before."""
    forked = os.fork()
    if forked == 0:
        try:
            forbidden()
        except PermissionError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the probe may end in no other way
            os._exit(2)
        os._exit(1)
    return os.waitpid(forked, 0)[1] == 0
