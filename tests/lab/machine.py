"""A machine of its own for the commands of the documents: namespaces, and a disk that is forgotten.

Run as ``unshare --mount --net --pid --fork --mount-proc python -m tests.lab.machine SCRIPT``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

#: What the commands may change is memory; everything else is the machine's own.
_FORGOTTEN = ("/opt", "/srv", "/mnt", "/run", "/usr/local", "/var/backups", "/var/lib/samba",
              "/var/cache/samba", "/var/log")  # fmt: skip


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def forget_cytowatch(etc: Path) -> None:
    """Take what an installed cytowatch has left in a copy of ``/etc``: its user, unit and configuration."""
    for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"):
        path = etc / name
        if not path.exists():
            continue
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("cytowatch:")))
    shutil.rmtree(etc / "cytowatch", ignore_errors=True)
    for path in [*(etc / "systemd/system").glob("**/cytowatch.service*")]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def prepare(house: Path) -> None:
    """Let everything that is changed be forgotten; `systemctl` is the stand-in."""
    mount("--make-rprivate", "/")
    etc = house / "etc"
    subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
    forget_cytowatch(etc)
    mount("--bind", str(etc), "/etc")
    for path in _FORGOTTEN:
        Path(path).mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
    for path in ("/usr/local/bin", "/var/log/samba", "/run/samba", "/var/lib/samba/private"):
        Path(path).mkdir(parents=True, exist_ok=True)
    stand_in = Path("/run/bin/systemctl")
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("systemctl.py")} "$@"\n'
    )
    stand_in.chmod(0o755)
    # A namespace begins with its loopback down. Source: netdevice(7).
    with socket.socket() as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sH", b"lo", 0x1 | 0x40))


def main(script: str) -> int:
    path = Path(script)
    prepare(path.parent)
    environment = {
        "PATH": "/run/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
        "LANG": "C.UTF-8", "TMPDIR": str(path.parent), "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(path.parent / "wheels"), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore", "PIP_QUIET": "1",
    }  # fmt: skip
    return subprocess.run(
        ["bash", script], cwd=path.parent / "wheels", env=environment, check=False
    ).returncode


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1]))
