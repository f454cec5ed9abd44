"""The restrictions of a unit, where no systemd runs to apply them: namespaces, seccomp, capabilities.

``python unit_sandbox.py UNIT -- COMMAND`` reads the unit as systemd.exec(5) describes it, gives up
what it says, and becomes the command. Only what the unit of cytowatch uses is known; any other
key of that kind is an error, so that nothing is passed over in silence.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pyseccomp as seccomp

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_libc = ctypes.CDLL(None, use_errno=True)

#: Keys that say how it is started and ended, not what it may do.
_OF_LIFE = {
    "Type", "NotifyAccess", "ExecStart", "ExecReload", "Restart", "RestartSec", "WatchdogSec",
    "TimeoutStartSec", "TimeoutStopSec", "KillMode", "OOMPolicy", "TasksMax", "MemoryHigh", "MemoryMax",
}  # fmt: skip
#: What needs a cgroup, a device filter of BPF, or a kernel's own namespace that a container may lack.
_BEYOND = {"IPAddressDeny", "IPAddressAllow", "DevicePolicy", "RemoveIPC"}


def parsed(unit: Path) -> dict[str, list[str]]:
    """The keys of ``[Service]``; a key that stands there several times has several values."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def expanded(name: str) -> set[str]:
    """The system calls of a set such as ``@system-service``, as this systemd has it."""
    if not name.startswith("@"):
        return {name}
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = [line.strip() for line in told.stdout.splitlines()[1:]]
    return {call for word in words if word and not word.startswith("#") for call in expanded(word)}


def allowed_calls(lines: list[str]) -> set[str]:
    """What ``SystemCallFilter=`` lines leave, in their order."""
    found: set[str] = set()
    for line in lines:
        names = {call for word in line.removeprefix("~").split() for call in expanded(word)}
        found = found - names if line.startswith("~") else found | names
    return found


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def bind(path: str, *, options: str) -> None:
    mount("--bind", path, path)
    mount("-o", f"remount,bind,{options}", path)


def hide_files(unit: dict[str, list[str]]) -> None:
    """ProtectSystem=strict, ReadWritePaths, PrivateTmp, PrivateDevices, ProtectHome and the like."""
    os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else _libc.unshare(0x00020000)
    mount("--make-rprivate", "/")
    writable = [path for line in unit.get("ReadWritePaths", []) for path in line.split()]
    # What stays writable is bound to itself first, so that what is above can become read-only.
    for path in writable:
        mount("--bind", path, path)
    if unit.get("PrivateTmp") == ["yes"]:
        for path in ("/tmp", "/var/tmp"):
            mount("-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", path)
    if unit.get("PrivateDevices") == ["yes"]:
        private_devices()
    if unit.get("ProtectHome") == ["yes"]:
        for path in ("/home", "/root", "/run/user"):
            if Path(path).is_dir():
                mount("-t", "tmpfs", "-o", "mode=0000,ro", "tmpfs", path)
    if unit.get("ProtectSystem") == ["strict"]:
        keep = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp", "/home", "/root", *writable)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            where = line.split()[1].replace("\\040", " ")
            if not any(where == path or where.startswith(f"{path}/") for path in keep):
                subprocess.run(["mount", "-o", "remount,bind,ro", where], check=False,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    for key, path in (
        ("ProtectKernelTunables", "/proc/sys"),
        ("ProtectControlGroups", "/sys/fs/cgroup"),
    ):
        if unit.get(key) == ["yes"] and Path(path).is_dir():
            bind(path, options="ro")
    if unit.get("ProtectProc") == ["invisible"]:
        subset = ",subset=pid" if unit.get("ProcSubset") == ["pid"] else ""
        mount("-t", "proc", "-o", f"hidepid=invisible{subset}", "proc", "/proc")


def private_devices() -> None:
    devices = "/run/unit-dev"
    Path(devices).mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=0755,nosuid", "tmpfs", devices)
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        found = os.stat(f"/dev/{name}")
        os.mknod(f"{devices}/{name}", stat.S_IFCHR | 0o666, found.st_rdev)
        os.chmod(f"{devices}/{name}", 0o666)
    Path(f"{devices}/shm").mkdir(mode=0o1777)
    for link, target in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        os.symlink(target, f"{devices}/{link}")
    mount("--bind", devices, "/dev")


def deny(unit: dict[str, list[str]]) -> None:
    """The filters of system calls, each of which can only take away."""
    allow = seccomp.SyscallFilter(defaction=seccomp.ERRNO(1))
    for call in sorted(allowed_calls(unit["SystemCallFilter"])):
        try:
            allow.add_rule(seccomp.ALLOW, call)
        except (ValueError, RuntimeError, OSError):
            # It is a call of another architecture.
            continue
    # systemd itself needs it to become the command.
    allow.add_rule(seccomp.ALLOW, "execve")
    rest = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    families = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
    good = {families[name] for line in unit["RestrictAddressFamilies"] for name in line.split()}
    for family in set(range(46)) - good:
        rest.add_rule(seccomp.ERRNO(97), "socket", seccomp.Arg(0, seccomp.EQ, family))
    if unit.get("RestrictNamespaces") == ["yes"]:
        rest.add_rule(seccomp.ERRNO(1), "unshare")
        rest.add_rule(seccomp.ERRNO(1), "setns")
        for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000,
                     0x40000000):  # fmt: skip
            rest.add_rule(seccomp.ERRNO(1), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    if unit.get("RestrictSUIDSGID") == ["yes"]:
        for call, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1)):
            for bit in (0o4000, 0o2000):
                rest.add_rule(
                    seccomp.ERRNO(1), call, seccomp.Arg(argument, seccomp.MASKED_EQ, bit, bit)
                )
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        rest.add_rule(seccomp.ERRNO(1), "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, 6, 6))
        for call in ("mprotect", "pkey_mprotect"):
            rest.add_rule(seccomp.ERRNO(1), call, seccomp.Arg(2, seccomp.MASKED_EQ, 4, 4))
    if unit.get("LockPersonality") == ["yes"]:
        rest.add_rule(seccomp.ERRNO(1), "personality", seccomp.Arg(0, seccomp.NE, 0xFFFFFFFF))
    if unit.get("RestrictRealtime") == ["yes"]:
        for policy in (1, 2, 6):
            rest.add_rule(
                seccomp.ERRNO(1), "sched_setscheduler", seccomp.Arg(1, seccomp.EQ, policy)
            )
    rest.load()
    allow.load()


def main(unit_path: str, command: list[str]) -> None:
    unit = parsed(Path(unit_path))
    known = _OF_LIFE | _BEYOND | {
        "User", "Group", "UMask", "ReadWritePaths", "NoNewPrivileges", "CapabilityBoundingSet",
        "AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices",
        "PrivateIPC", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
        "ProtectControlGroups", "ProtectClock", "ProtectHostname", "ProtectProc", "ProcSubset",
        "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality",
        "MemoryDenyWriteExecute", "RestrictAddressFamilies", "SystemCallArchitectures",
        "SystemCallFilter", "SystemCallErrorNumber", "LimitCORE",
    }  # fmt: skip
    if unknown := set(unit) - known:
        sys.exit(f"unit_sandbox: these are not known: {sorted(unknown)}")
    user = pwd.getpwnam(unit["User"][0])
    hide_files(unit)
    os.umask(int(unit["UMask"][0], 8))
    core = int(unit["LimitCORE"][0])
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    for capability in range(41):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.chdir("/")
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    deny(unit)
    os.execve(command[0], command, dict(os.environ))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3:])
