"""What a decoder that was taken over might try, and which wall prevents it: for `check` and docs/security.md.

A test tries each of them from inside, with each wall by itself and with every version of Landlock, so
every claim here is proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEEDS", "Deed", "open_deeds", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that no decoder needs to do.

    `says` completes "a decoder can …". `calls` says whether the filter of system calls denies it,
    `landlock` from which version (ABI) on Landlock does, None where it never does.
    """

    word: str
    says: str
    calls: bool
    landlock: int | None


DEEDS = (
    Deed(word="read", says="read a file that is not its source", calls=False, landlock=1),
    Deed(word="list", says="list a directory that is not its source", calls=False, landlock=1),
    Deed(word="write", says="write outside of its output", calls=False, landlock=1),
    Deed(word="remove", says="remove its source", calls=True, landlock=1),
    Deed(word="move", says="move its source into its output", calls=False, landlock=1),
    Deed(word="truncate", says="empty its source by truncate(2)", calls=True, landlock=3),
    Deed(word="open_truncate", says="empty its source by opening it", calls=True, landlock=3),
    Deed(word="open_any", says="open any file for nothing", calls=True, landlock=None),
    Deed(word="empty_any", says="empty any file by opening it for nothing", calls=True, landlock=3),
    Deed(word="device", says="make a device that is a disk", calls=True, landlock=1),
    Deed(word="nameless", says="fill the disk by a file without a name", calls=True, landlock=None),
    Deed(
        word="unlinked", says="fill the disk by a file that it removed", calls=True, landlock=None
    ),
    Deed(
        word="replaced", says="fill the disk by a file that it replaced", calls=True, landlock=None
    ),
    Deed(
        word="reserved", says="fill the disk by room that no size shows", calls=True, landlock=None
    ),
    Deed(word="mode", says="change the mode of a file", calls=True, landlock=None),
    Deed(word="times", says="change the times of a file", calls=True, landlock=None),
    Deed(word="attributes", says="change the attributes of a file", calls=True, landlock=None),
    Deed(word="process", says="start another process", calls=True, landlock=None),
    Deed(word="group", says="leave its process group", calls=True, landlock=None),
    Deed(word="program", says="run a program", calls=True, landlock=1),
    Deed(word="memory_program", says="run a program from memory", calls=True, landlock=1),
    Deed(word="memory_file", says="use memory beyond its limit", calls=True, landlock=None),
    Deed(word="own_limits", says="change its own limits", calls=True, landlock=None),
    Deed(word="outlive", says="outlive the daemon", calls=True, landlock=None),
    Deed(word="signal", says="signal the daemon", calls=True, landlock=6),
    Deed(word="signal_by_file", says="signal the daemon by way of a file", calls=True, landlock=6),
    Deed(word="limits", says="change the daemon's limits", calls=True, landlock=None),
    Deed(word="priority", says="change the daemon's priority", calls=True, landlock=None),
    Deed(word="affinity", says="bind the daemon to a processor", calls=True, landlock=None),
    Deed(word="trace", says="trace the daemon", calls=True, landlock=1),
    Deed(word="memory", says="read the daemon's memory by a call", calls=True, landlock=1),
    Deed(word="memory_by_file", says="read the daemon's memory by a file", calls=False, landlock=1),
    Deed(word="descriptors", says="hand descriptors to the daemon", calls=True, landlock=None),
    Deed(word="tcp_connect", says="connect by TCP", calls=True, landlock=4),
    Deed(word="tcp_listen", says="listen on TCP", calls=True, landlock=4),
    Deed(word="udp", says="send by UDP", calls=True, landlock=None),
    Deed(word="unix", says="connect to a UNIX socket by its path", calls=True, landlock=None),
    Deed(word="abstract", says="connect to an abstract UNIX socket", calls=True, landlock=6),
    Deed(word="netlink", says="ask the kernel by netlink", calls=True, landlock=None),
    Deed(word="inotify", says="watch the names in a directory", calls=True, landlock=None),
    Deed(word="lease", says="take a lease on its source", calls=True, landlock=None),
    Deed(word="shared_memory", says="use shared memory of System V", calls=True, landlock=None),
    Deed(word="io_uring", says="use io_uring", calls=True, landlock=None),
    Deed(word="userfaultfd", says="use userfaultfd", calls=True, landlock=None),
    Deed(word="keys", says="use the kernel's keys", calls=True, landlock=None),
    Deed(word="bpf", says="load a BPF program", calls=True, landlock=None),
    Deed(word="perf", says="use performance counters", calls=True, landlock=None),
    Deed(word="namespace", says="make a namespace", calls=True, landlock=None),
    Deed(word="mount", says="mount a filesystem", calls=True, landlock=1),
)


def open_deeds(held: Mapping[str, bool | int]) -> list[Deed]:
    """What a decoder could do on this machine; `held` is what `sandbox.enforced` found."""
    version = int(held["landlock_abi"]) if held["files"] else 0
    return [
        deed
        for deed in DEEDS
        if not (deed.calls and held["calls"])
        and not (deed.landlock is not None and version >= deed.landlock)
    ]


def table() -> str:
    """The table of docs/security.md: one attempt per line, and which wall prevents it."""
    lines = [
        "| a decoder that was taken over cannot | filter of system calls | Landlock |",
        "|---|---|---|",
    ]
    for deed in DEEDS:
        version = f"from ABI {deed.landlock} on" if deed.landlock is not None else "no"
        lines.append(f"| {deed.says} | {'yes' if deed.calls else 'no'} | {version} |")
    return "\n".join(lines)
