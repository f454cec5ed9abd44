"""Calls that survive a power cut, and what the filesystem under them promises."""

from __future__ import annotations

from cytowatch.durable.calls import (
    beneath,
    can_rename,
    directory,
    fsync_directory,
    fsync_file,
    fsync_tree,
    is_directory,
    make_directory,
    remove_empty,
    rename,
    walk,
)
from cytowatch.durable.faults import is_full, is_transient, says_full, says_no_thread, why_of
from cytowatch.durable.filesystem import (
    copies_on_write,
    is_local,
    keeps_renames,
    leaves_holes,
    mount_of,
)
from cytowatch.durable.hashes import sha256
from cytowatch.durable.locks import lock, locked
from cytowatch.durable.small_files import (
    empty,
    move_over,
    replace_durably,
    replace_file,
    write_all,
    write_new,
    write_note,
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
    "is_full",
    "is_local",
    "is_transient",
    "keeps_renames",
    "leaves_holes",
    "lock",
    "locked",
    "make_directory",
    "mount_of",
    "move_over",
    "remove_empty",
    "rename",
    "replace_durably",
    "replace_file",
    "says_full",
    "says_no_thread",
    "sha256",
    "walk",
    "why_of",
    "write_all",
    "write_new",
    "write_note",
]
