"""Filesystems of their own for tests: images that are mounted for real."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.root import Root
from tests.needs import lacking, unless

MB = 1 << 20


def _lacking() -> str | None:
    if why := lacking("mkfs.ext4", "losetup", "mount", "umount", root=True):
        return why
    done = subprocess.run(["losetup", "-f"], check=False, capture_output=True)
    return None if done.returncode == 0 else "no loop device is free"


needs_mounts = unless(_lacking())


def skip_unless_direct(folder: Path) -> None:
    """Skip a test where the filesystem of `folder` writes nothing past the page cache."""
    path = folder / ".direct"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip(f"the filesystem of {folder} has no O_DIRECT")
    finally:
        path.unlink(missing_ok=True)


class Disk:
    """A filesystem (an ext4) on an image of its own, mounted while it is used."""

    def __init__(self, folder: Path, size: int, *make: str, options: str = "loop") -> None:
        self.options = options
        self.image = folder / "disk.img"
        self.place = folder / "disk"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size)
        make = make or ("mkfs.ext4", "-q", "-F", "-m", "0")
        subprocess.run([*make, self.image], check=True)
        self.mount()

    def mount(self, image: Path | None = None, place: Path | None = None) -> None:
        subprocess.run(
            ["mount", "-o", self.options, image or self.image, place or self.place], check=True
        )

    def unmount(self, place: Path | None = None) -> None:
        for _ in range(100):
            if subprocess.run(["umount", place or self.place], check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"{place or self.place} is still in use")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Anyone who writes to it meanwhile waits, and cannot be killed: fsfreeze(8)."""
        subprocess.run(["fsfreeze", "-f", self.place], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "-u", self.place], check=True)


@contextmanager
def rooted(disk: Disk) -> Iterator[Root]:
    """A tree on the disk, and at the end no process of it."""
    made = Root(disk.place / "root")
    made.config = disk.place.parent / "root.toml"
    made.log = disk.place.parent / "root.log"
    made.configure()
    made.create()
    try:
        yield made
    finally:
        made.end()
        for pid in made.children_of_processes():
            os.kill(pid, signal.SIGKILL)


def fill(disk: Disk, leave: int) -> Path:
    """A file that takes all but `leave` bytes of the disk."""
    path = disk.place / "filler"
    free = os.statvfs(disk.place)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - leave))
    return path
