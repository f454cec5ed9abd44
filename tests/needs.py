"""What some tests need that a newcomer's machine may lack: there they skip, by the name of what is missing.

Where CI is set, a missing tool is a failure: it would be a test that never runs.
"""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["CHROMIUM", "CI", "lacking", "needs", "unless"]

CI = bool(os.environ.get("CI"))
#: The browser that tests of the panel drive, if there is one.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

#: The package of Debian that has a program, where its name is another.
_PACKAGES = {
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext2": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mount": "mount",
    "umount": "mount",
    "losetup": "mount",
    "findmnt": "util-linux",
    "fsfreeze": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "useradd": "passwd",
    "gcc": "gcc libc6-dev",
    "musl-gcc": "musl-tools",
    "opj_compress": "libopenjp2-tools",
    "opj_decompress": "libopenjp2-tools",
    "promtool": "prometheus",
    "nginx": "nginx-light",
    "smbclient": "smbclient",
    "smbd": "samba",
    "testparm": "samba-common-bin",
    "smbpasswd": "samba",
    "systemd-analyze": "systemd",
}


def lacking(*programs: str, root: bool = False) -> str | None:
    """Why a test that starts `programs` cannot run here; None if it can."""
    if root and os.geteuid() != 0:
        return "it needs root"
    missing = [program for program in programs if not shutil.which(program)]
    if not missing:
        return None
    packages = sorted({_PACKAGES.get(program, program) for program in missing})
    return f"missing: {', '.join(missing)} (Debian: apt install {' '.join(packages)})"


def unless(why: str | None) -> pytest.MarkDecorator:
    """Skip a test for `why`; None runs it. Where CI is set it fails for `why`."""
    return pytest.mark.unless(why)


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Skip a test where one of `programs`, or root, is missing. Where CI is set it fails."""
    return unless(lacking(*programs, root=root))
