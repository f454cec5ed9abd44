"""A duplicate that is shown by links to the first uploaded file of the same content."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from cytowatch import durable
from cytowatch.config.keys import Hook
from cytowatch.durable.failpoints import reached
from cytowatch.record import manifest
from cytowatch.record.originals import named_as
from cytowatch.record.place import Place
from cytowatch.transitions.enter import enter
from cytowatch.tree.spool import Spool

__all__ = ["link"]


def link(
    spool: Spool, place: Place, first: Place, *, now: datetime, hooks: Sequence[Hook] = ()
) -> Place:
    """Publish it as relative links to `first`, which is in the storage of the same user.

    Its own copy of the same bytes is removed. Doing it twice changes nothing.
    """
    first_id = first.path.name
    graves = []
    for name in ("source", "derived"):
        own = place.path / name
        if own.is_symlink() or not (first.path / name).is_dir():
            continue
        if own.exists():
            graves.append(spool.bury(own))
        own.symlink_to(Path("..", first_id, name))
        reached("duplicate.linked")
    # Before its bytes are removed, or a power cut might bring back a source without them.
    durable.fsync_directory(place.path)
    for grave in graves:
        spool.discard(grave)
    shown = ("images", "conversion", "verification", "format", "sha256")
    same = {key: cast("dict[str, Any]", first.manifest)[key] for key in shown}
    said = f"the same content as {first_id}: linked"
    changed = manifest.evolve(
        place.manifest,
        **same,
        duplicate_of=first_id,
        files=named_as(first.manifest["files"], place.manifest),
        warnings=list(dict.fromkeys([*place.manifest["warnings"], said])),
    )
    return enter(spool, place, changed, first.status, now=now, attempts=0, hooks=hooks)
