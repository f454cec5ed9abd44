"""Calls that survive a power cut, and what the filesystem under them promises."""

from __future__ import annotations

from cytowatch.durable.calls import (
    beneath,
    can_rename,
    directory,
    empty,
    fsync_directory,
    fsync_file,
    fsync_tree,
    is_directory,
    make_directory,
    move_over,
    remove_empty,
    rename,
    walk,
    write_fresh,
    write_note,
)
from cytowatch.durable.faults import is_transient, why_of
from cytowatch.durable.filesystem import (
    copies_on_write,
    is_local,
    keeps_renames,
    leaves_holes,
    mount_of,
)

__all__ = [
    "beneath",
    "can_rename",
    "copies_on_write",
    "directory",
    "empty",
    "fsync_directory",
    "fsync_file",
    "fsync_tree",
    "is_directory",
    "is_local",
    "is_transient",
    "keeps_renames",
    "leaves_holes",
    "make_directory",
    "mount_of",
    "move_over",
    "remove_empty",
    "rename",
    "walk",
    "why_of",
    "write_fresh",
    "write_note",
]
