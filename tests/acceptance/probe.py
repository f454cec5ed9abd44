"""A decoder that was taken over: each deed of `walls.DEEDS`, really tried, each in a process of its own.

``python -m tests.acceptance.probe FOLDER`` prints as JSON what each set of walls denies.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cytowatch import durable
from cytowatch.config import Config
from cytowatch.decoder import landlock, sandbox, seccomp

_libc = ctypes.CDLL(None, use_errno=True)
_ALLOWED, _DENIED = 10, 11
_ON_ARM = platform.machine() == "aarch64"
_TRUE = "/usr/bin/true"
_SIGNALLED = """
import pathlib, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: pathlib.Path(sys.argv[1]).touch())
print("ready", flush=True)
time.sleep(1000)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a deed may be done to: a process, servers that listen, an ``<id>/``."""

    folder: Path
    victim: int
    signalled: Path
    tcp_port: int
    udp_port: int
    unix: str
    abstract: str
    channel: socket.socket


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _call(number_x86: int, number_arm: int, *arguments: object) -> int:
    return _checked(int(_libc.syscall(number_arm if _ON_ARM else number_x86, *arguments)))


def _libc_call(name: str, *arguments: object) -> int:
    return _checked(int(getattr(_libc, name)(*arguments)))


def _process(_: Ground) -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _memory_program(_: Ground) -> None:
    descriptor = os.memfd_create("program")
    os.write(descriptor, Path(_TRUE).read_bytes())
    os.execve(descriptor, ["true"], {})


def _signal_by_file(on: Ground) -> None:
    """The kernel drops the signal in silence where it may not be sent, so the victim is asked."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, on.victim)
    fcntl.fcntl(reading, 10, int(signal.SIGUSR1))  # F_SETSIG
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writing, b"x")
    for _ in range(50):
        with suppress(OSError):
            os.stat(on.signalled)
            return
        time.sleep(0.01)
    raise PermissionError("no signal came")


def _tcp_connect(on: Ground) -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", on.tcp_port))


def _tcp_listen(_: Ground) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()


def _udp(on: Ground) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", on.udp_port))


def _unix(on: Ground) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(on.unix)


def _abstract(on: Ground) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(on.abstract)


def _lease(_: Ground) -> None:
    fcntl.fcntl(os.open("source/slide", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)


def _own_limits(_: Ground) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def _reserved(_: Ground) -> None:
    """Behind the end of a file: FALLOC_FL_KEEP_SIZE."""
    descriptor = os.open("out.1/made", os.O_WRONLY)
    _call(285, 47, descriptor, 1, ctypes.c_long(1 << 20), ctypes.c_long(1 << 20))


def _perf(_: Ground) -> None:
    attributes = bytearray(128)
    attributes[0], attributes[4] = 1, 128  # PERF_TYPE_SOFTWARE, and the size
    _call(298, 241, (ctypes.c_char * 128).from_buffer(attributes), 0, -1, -1, 0)


def _bpf(_: Ground) -> None:
    array = bytearray(128)
    array[0:16:4] = bytes((2, 4, 4, 1))  # BPF_MAP_TYPE_ARRAY, sizes of key and value, entries
    _call(321, 280, 0, (ctypes.c_char * 128).from_buffer(array), 128)


ATTEMPTS: dict[str, Callable[[Ground], object]] = {
    "read": lambda _: Path("/etc/passwd").read_bytes(),
    "list": lambda _: os.listdir(".."),
    "write": lambda _: Path("../escaped").write_text("x"),
    "remove": lambda _: os.unlink("source/slide"),
    "move": lambda _: durable.rename("source/slide", "out.1/slide"),
    "truncate": lambda _: os.truncate("source/slide", 0),
    "open_truncate": lambda _: os.open("source/slide", os.O_RDONLY | os.O_TRUNC),
    "open_any": lambda _: os.open("../outside", 3),
    "empty_any": lambda _: os.open("source/slide", 3 | os.O_TRUNC),
    "device": lambda _: os.mknod("out.1/disk", stat.S_IFBLK | 0o600, os.makedev(7, 255)),
    "nameless": lambda _: os.close(os.open("out.1", os.O_TMPFILE | os.O_WRONLY)),
    "unlinked": lambda _: os.unlink("out.1/made"),
    "replaced": lambda _: os.rename("out.1/other", "out.1/made"),
    "reserved": _reserved,
    "mode": lambda _: os.chmod("source/slide", 0o666),
    "times": lambda _: os.utime("source/slide", (1, 1)),
    "attributes": lambda _: os.setxattr("source/slide", "user.x", b"y"),
    "process": _process,
    "group": lambda on: os.setpgid(0, os.getpgid(on.victim)),
    "program": lambda _: os.execv(_TRUE, ["true"]),
    "memory_program": _memory_program,
    "memory_file": lambda _: os.memfd_create("file"),
    "own_limits": _own_limits,
    "outlive": lambda _: _libc_call("prctl", 1, 0, 0, 0, 0),  # PR_SET_PDEATHSIG
    "signal": lambda on: os.kill(on.victim, 0),
    "signal_by_file": _signal_by_file,
    "limits": lambda on: resource.prlimit(on.victim, resource.RLIMIT_CORE, (0, 0)),
    "priority": lambda on: os.setpriority(os.PRIO_PROCESS, on.victim, 19),
    "affinity": lambda on: os.sched_setaffinity(on.victim, os.sched_getaffinity(on.victim)),
    "trace": lambda on: _libc_call("ptrace", 0x4206, on.victim, 0, 0),  # PTRACE_SEIZE
    "memory": lambda on: _read_memory(on.victim),
    "memory_by_file": lambda on: os.close(os.open(f"/proc/{on.victim}/mem", os.O_RDONLY)),
    "descriptors": lambda on: socket.send_fds(on.channel, [b"x"], [0]),
    "tcp_connect": _tcp_connect,
    "tcp_listen": _tcp_listen,
    "udp": _udp,
    "unix": _unix,
    "abstract": _abstract,
    "netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "inotify": lambda _: _libc_call("inotify_add_watch", _libc_call("inotify_init"), b"..", 0x100),
    "lease": _lease,
    "shared_memory": lambda _: _libc_call("shmget", 0, 4096, 0o600),
    "io_uring": lambda _: _call(425, 425, 1, (ctypes.c_char * 120)()),
    "userfaultfd": lambda _: _call(323, 282, 1),
    "keys": lambda _: _call(250, 219, 0, -3, 1),  # KEYCTL_GET_KEYRING_ID of the session
    "bpf": _bpf,
    "perf": _perf,
    "namespace": lambda _: _libc_call("unshare", 0x04000000 if os.geteuid() == 0 else 0x10000000),
    "mount": lambda _: _libc_call("mount", b"none", b"source", b"tmpfs", 0, None),
}


def _read_memory(pid: int) -> None:
    """By process_vm_readv(2), which needs no file of ``/proc``."""
    held = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(held), 8)
    with (
        open(f"/proc/{pid}/maps")
        if os.access(f"/proc/{pid}/maps", os.R_OK)
        else open(os.devnull) as file
    ):
        start = int((file.readline() or "0-").partition("-")[0], 16)
    remote = (ctypes.c_void_p * 2)(start, 8)
    _call(310, 270, pid, local, 1, remote, 1, 0)


def tried(word: str, on: Ground, *, files: int, calls: bool) -> str:
    """``denied``, ``allowed``, or what else came of it.

    Parameters
    ----------
    files
        The version of Landlock that there seems to be; 0 for none.
    calls
        Whether system calls are filtered.
    """
    _lay_out(on)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.chdir(on.folder)
            landlock.abi = lambda: files
            seccomp.can = lambda: calls
            # What root may not do without them is not a wall's doing.
            sandbox.drop_capabilities = lambda: None
            sandbox.enter(Config(root="/"), "out.1", parent=os.getppid())
            code = _DENIED
            ATTEMPTS[word](on)
            code = _ALLOWED
        except OSError:
            pass
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # A program that was run ends with 0.
    return {_ALLOWED: "allowed", 0: "allowed", _DENIED: "denied"}.get(code, f"ended with {code}")


def _lay_out(on: Ground) -> None:
    # What the deed before may have mounted there: umount2(2), MNT_DETACH.
    _libc.umount2(os.fsencode(on.folder / "source"), 2)
    for name in ("source", "out.1"):
        (on.folder / name).mkdir(exist_ok=True)
    for name in ("slide", "disk"):
        (on.folder / "out.1" / name).unlink(missing_ok=True)
    (on.folder / "source" / "slide").write_bytes(b"slide")
    for name in ("made", "other"):
        (on.folder / "out.1" / name).write_bytes(b"made")
    (on.folder.parent / "outside").write_bytes(b"outside")
    on.signalled.unlink(missing_ok=True)


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """Everything that a deed may be done to, on loopback and in `folder`."""
    with ExitStack() as stack:
        signalled = folder / "signalled"
        victim = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", _SIGNALLED, signalled], stdout=subprocess.PIPE)
        )
        stack.callback(victim.kill)
        assert victim.stdout
        victim.stdout.readline()
        tcp, udp, unix, abstract = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
            )
        )
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "socket"))
        channel, other = socket.socketpair()
        stack.enter_context(channel)
        stack.enter_context(other)
        name = f"\0cytowatch-{os.getpid()}"
        abstract.bind(name)
        for one in (tcp, unix, abstract):
            one.listen(100)
        id_ = folder / "id"
        id_.mkdir()
        yield Ground(
            folder=id_, victim=victim.pid, signalled=signalled, tcp_port=tcp.getsockname()[1],
            udp_port=udp.getsockname()[1], unix=str(folder / "socket"), abstract=name,
            channel=channel,
        )  # fmt: skip


def main(folder: Path) -> None:
    """What is denied: for no wall, for each version of Landlock by itself and behind the filter, for the filter, for both."""
    newest = landlock.abi()
    sets = {"none": (0, False), "calls": (0, True), "both": (newest, True)}
    for version in range(1, newest + 1):
        sets |= {f"landlock {version}": (version, False), f"both {version}": (version, True)}
    with ground(folder) as on:
        found = {
            name: {word: tried(word, on, files=files, calls=calls) for word in ATTEMPTS}
            for name, (files, calls) in sets.items()
        }
        _lay_out(on)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
