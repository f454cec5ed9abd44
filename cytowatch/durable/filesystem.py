"""What a filesystem is and promises: whether it is local, copies on write, keeps renames, leaves holes."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from cytowatch.durable.calls import _libc

__all__ = ["copies_on_write", "is_local", "keeps_renames", "leaves_holes", "mount_of"]

#: Filesystems to which other machines write without this kernel seeing it, as ``mountinfo`` names them.
_DEAF = frozenset({"cifs", "smb3", "smbfs", "nfs", "nfs4", "9p", "afs", "ceph", "virtiofs"})
_COPYING = frozenset({"btrfs", "zfs", "bcachefs"})
_WITHOUT_JOURNAL = frozenset({"ext2", "vfat", "exfat", "msdos", "tmpfs", "ramfs", "minix"})
#: f_type of ext2 to ext4, XFS, btrfs, F2FS, tmpfs and overlayfs (statfs(2)).
_LEAVES_HOLES = frozenset(
    {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994, 0x794C7630}
)  # fmt: skip
_STATFS_BYTES = 256
_WITH_JOURNAL = frozenset({"xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs"})


def is_local(path: Path) -> bool:
    """Whether this kernel sees everyone who writes to the filesystem of `path`.

    If not (cifs, nfs, 9p and anything that a program serves, fuse), events are missed, and a lease that
    is granted proves nothing about writers on other machines.
    """
    kind = _kind(path)
    return kind not in _DEAF and not kind.startswith("fuse")


def copies_on_write(path: Path) -> bool:
    """Whether the filesystem of `path` needs free space to overwrite existing bytes."""
    return _kind(path) in _COPYING


def _kind(path: Path) -> str:
    """The kind of the filesystem of `path`, as ``mountinfo`` names it; empty if it is not listed there."""
    try:
        return _filesystem(mount_of(path)[1])[0]
    except FileNotFoundError:
        return ""


def mount_of(path: Path) -> tuple[int, int]:
    """(device, mount) of `path`: a rename between two mounts is impossible.

    Source: proc(5), ``/proc/[pid]/fdinfo``; statx(2) would show it too, but Python lacks it.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return os.fstat(descriptor).st_dev, _mount(descriptor)
    finally:
        os.close(descriptor)


def _mount(descriptor: int) -> int:
    told = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return next(int(line.split()[1]) for line in told.splitlines() if "mnt_id" in line)


def keeps_renames(path: Path) -> bool | None:
    """Whether a rename on the filesystem of `path` stays atomic through a power cut; None if unknown.

    Source: proc(5), ``mountinfo``; ext4 shows its journal in ``/proc/fs/jbd2/``.
    """
    kind, source = _filesystem(mount_of(path)[1])
    if kind in _WITHOUT_JOURNAL:
        return False
    if kind not in ("ext3", "ext4"):
        return True if kind in _WITH_JOURNAL else None
    name = os.path.basename(os.path.realpath(source))
    if not Path(f"/proc/fs/ext4/{name}").exists():
        return None
    journals = Path("/proc/fs/jbd2")
    return any(one.name.startswith(f"{name}-") for one in journals.iterdir())


def leaves_holes(descriptor: int) -> bool:
    """Whether a hole in a file means that nothing was written there. ZFS turns zeros into holes; a server may do anything."""
    # Not through /proc, which a sandboxed process does not see.
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, found) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF in _LEAVES_HOLES


def _filesystem(mount: int) -> tuple[str, str]:
    """(kind, source) of what is mounted, by the number of the mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ", 1)[0] == str(mount):
            kind, source = after.split(" ")[:2]
            return kind, source
    return "", ""
