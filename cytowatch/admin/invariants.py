"""What must hold of a tree at any time: one function, for ``check --deep`` and for every test."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.record import manifest, names, schema
from cytowatch.record.entries import Manifest
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.tree import places
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["broken"]

_CHUNK_BYTES = 4 << 20


def broken(spool: Spool, *, at_rest: bool, hashes: bool = True) -> Iterator[str]:
    """Every way in which the tree is not as it must be, in words; nothing if all is well.

    Parameters
    ----------
    at_rest
        No daemon runs and all its work is finished: nothing half-done may be left.
    hashes
        Compare the bytes of every file with the hash in its manifest as well.
    """
    seen: dict[str, Path] = {}
    known: dict[str, Manifest] = {}
    for status, path in places.everything(spool):
        if path.name in seen and at_rest:
            yield f"{path.name} is in {seen[path.name].parent} and in {path.parent}"
        seen[path.name] = path
        yield from _fenced(path.name, path, _all_of_one(status, path, known, at_rest, hashes))
    yield from _fenced("children", spool.root, _children(known, at_rest=at_rest))
    yield from _fenced("projects", spool.projects, _links(spool, known, at_rest=at_rest))
    yield from _fenced("missing", spool.root, _missing(spool))
    if at_rest:
        yield from _fenced("leftovers", spool.root, _leftovers(spool))
        yield from _fenced("index", spool.root, _index(spool))
    yield from _fenced("storage", spool.root, _storages(spool))
    yield from _fenced("stages", spool.root, _strangers(spool))


def _fenced(which: str, path: Path, problems: Iterator[str]) -> Iterator[str]:
    """All of `problems`; what cannot be looked at is one itself, and the others are looked at all the same."""
    with aside.fence("uploaded_file", which) as fenced:
        yield from problems
    if fenced.failed:
        # It is reported here, and this looks once.
        aside.clear("uploaded_file", which)
        yield f"{path} cannot be looked at: {fenced.why}"


def _all_of_one(
    status: Status | None, path: Path, known: dict[str, Manifest], at_rest: bool, hashes: bool
) -> Iterator[str]:
    """Every way in which one uploaded file is not as it must be; it is `known` from now on."""
    try:
        found = manifest.read(path, strictly=True)
    except FileNotFoundError:
        if path.exists() and at_rest:
            yield f"{path} has no manifest"
        return
    except ManifestError as error:
        yield f"torn: {error}"
        return
    known[path.name] = found
    yield from _one(status, path, found, at_rest=at_rest)
    if at_rest:
        yield from _unnamed(path, found)
    if hashes:
        yield from _hashes(path, found)


def _storages(spool: Spool) -> Iterator[str]:
    """What lies in storage itself and is not the folder of a user."""
    for entry in os.scandir(spool.storage):
        shown = names.printable(entry.path)
        if entry.is_symlink():
            yield f"{shown} is a link, and is not followed: make it a folder, on the same filesystem"
        elif not entry.is_dir(follow_symlinks=False):
            yield f"{shown} is not the folder of a user, and nothing is done with it"
        elif not os.access(entry.path, os.R_OK | os.X_OK):
            yield f"{shown} cannot be looked into: run this as root, or as the user of cytowatch"


def _one(status: Status | None, path: Path, found: Manifest, *, at_rest: bool) -> Iterator[str]:
    if found["id"] != path.name:
        yield f"{path} holds the manifest of {found['id']}"
    if problem := schema.problem(found):
        yield f"{path}: {problem}"
    told = manifest.status_of(found)
    if status is None and not told.is_success:
        yield f"{path} is in storage, and its manifest says {told.name}"
    if status is not None and at_rest and told is not status:
        yield f"{path}: its manifest says {told.name}"
    if status is None and path.parent.name != found["user"]:
        yield f"{path} belongs to {found['user']}"
    if status is not None and not status.is_final and at_rest:
        yield f"{path} is still in work"
    for row in found["files"]:
        # That it leads nowhere else was looked at when the manifest was read.
        file = path / row["path"]
        if not file.is_file():
            if at_rest or status is None:
                yield f"{file} is not there"
        elif file.stat().st_size != row["size_bytes"]:
            yield f"{file} has {file.stat().st_size:,} bytes, {row['size_bytes']:,} were noted"


def _unnamed(path: Path, found: Manifest) -> Iterator[str]:
    named = {row["path"] for row in found["files"]}
    for top in ("source", "derived"):
        # A link leads to another one's files, which that one's manifest names.
        if (path / top).is_symlink():
            continue
        for folder, _, files in durable.walk(path / top):
            for file in files:
                if os.path.relpath(os.path.join(folder, file), path) not in named:
                    yield f"{os.path.join(folder, file)} is named by no manifest"


def _hashes(path: Path, found: Manifest) -> Iterator[str]:
    for row in found["files"]:
        if row["sha256"] is None or not (path / row["path"]).is_file():
            continue
        with open(path / row["path"], "rb", buffering=0) as file:
            digest = durable.sha256(file.read)
        if digest != row["sha256"]:
            yield f"{path / row['path']} has other bytes than when it was hashed"


def _children(known: dict[str, Manifest], *, at_rest: bool) -> Iterator[str]:
    named = {child for found in known.values() for child in found["children"]}
    for id_, found in known.items():
        parent = found["parent_id"]
        if parent in known and at_rest and id_ not in known[parent]["children"]:
            yield f"{id_} came out of {parent}, which does not name it"
    for child in named & known.keys():
        parent = known[child]["parent_id"]
        if parent is None or (parent in known and child not in known[parent]["children"]):
            yield f"{child} is named as a child and knows of no parent"


def _links(spool: Spool, known: dict[str, Manifest], *, at_rest: bool) -> Iterator[str]:
    for link in sorted(spool.projects.glob("*/*")):
        yield from _fenced(link.name, link, _link(link, known, at_rest=at_rest))
    if not at_rest:
        # The manifest says so a moment before the link is made.
        return
    for id_, found in known.items():
        if found["status"] not in (Status.DEPLOYED.name, Status.CONVERTED.name):
            continue
        for project in found["projects"]:
            if not list((spool.projects / project).glob(f"*~{id_.split('-')[2]}")):
                yield f"{id_} is not shown in its project {project}"


def _link(link: Path, known: dict[str, Manifest], *, at_rest: bool) -> Iterator[str]:
    target = Path(os.path.normpath(link.parent / os.readlink(link))) if link.is_symlink() else None
    if target is None:
        id_ = next((one for one in known if link.name.endswith(f"~{one.split('-')[2]}")), "ID")
        yield (
            f"{link} is not a link, as after a copy that follows links: delete it, then run "
            f"`cytowatch link {id_} --project {shlex.quote(link.parent.name)}`"
        )
    elif not target.is_dir():
        # The link is made a moment before what it shows is published.
        if target.name not in known or at_rest:
            yield f"{link} leads nowhere"
    elif target.name in known and link.parent.name not in known[target.name]["projects"]:
        yield f"{link}: the manifest does not name that project"


def _index(spool: Spool) -> Iterator[str]:
    """In what the index differs from one that is made of the tree as it is."""
    told = Index.read(spool)
    if told is None:
        return
    right = Index(spool, memory=True)
    right.reconcile()
    try:
        rows, wanted = set(told.every()), set(right.every())
    finally:
        told.close()
        right.close()
    for row in sorted(rows ^ wanted, key=str):
        where = "tree" if row in wanted else "index"
        yield f"index and tree differ, only the {where} says {row}: see `cytowatch reindex`"


def _missing(spool: Spool) -> Iterator[str]:
    """What the index knows to be in storage and storage no longer has."""
    told = Index.read(spool)
    if told is None:
        return
    try:
        gone = {one.id: (one.user, one.name) for one in told.missing()}
        for row in told.held():
            if not (spool.storage / row.user / row.id).is_dir():
                gone[row.id] = (row.user, row.name)
    finally:
        told.close()
    for id_, (user, name) in sorted(gone.items()):
        # It may have been published, or removed, since the index was read.
        if next(places.of(spool, UploadedFileId(id_)), None) is None:
            yield (
                f"{id_} ({names.printable(name)} of {names.printable(user)}) vanished from storage: "
                "restore it from a backup, or forget it with `cytowatch remove`"
            )


def _strangers(spool: Spool) -> Iterator[str]:
    """What somebody put into a stage directory by hand: nothing treats it."""
    for status in STAGE_STATUSES:
        # In one look: an uploaded file may come or go between two.
        for entry in os.scandir(spool.stage(status)):
            if not (entry.is_dir(follow_symlinks=False) and names.ID_PATTERN.fullmatch(entry.name)):
                yield f"{entry.path} is not an uploaded file, and nothing is done with it"


def _in_each(spool: Spool, pattern: str) -> Iterator[Path]:
    """What is called so in any ``<id>/``; no link is followed to one."""
    yield from spool.stages.glob(f"*/*/{pattern}")
    for path in spool.stored():
        if not path.is_symlink():
            yield from path.glob(pattern)


def _leftovers(spool: Spool) -> Iterator[str]:
    looks: tuple[tuple[str, Callable[[], Iterator[Path]]], ...] = (
        ("a claim was not finished", spool.tmp.iterdir),
        ("something was not deleted", spool.trash.iterdir),
        ("output was left behind", lambda: _in_each(spool, "out.*")),
        ("a temporary manifest was left behind", lambda: _in_each(spool, ".manifest*")),
        ("a journal was left behind", lambda: _in_each(spool, "claim.json")),
        ("a second copy was set aside", lambda: spool.state.glob("aside/*")),
        ("a source was to be given up", lambda: spool.requests.glob("*.lighten")),
    )
    for what, look in looks:
        for path in look():
            yield f"{what}: {path}"
