"""Sources that the configuration does not keep: removed once their uploaded file is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cytowatch import aside, durable
from cytowatch.durable.failpoints import reached
from cytowatch.record import manifest
from cytowatch.record.place import Place
from cytowatch.transitions import notes
from cytowatch.tree.spool import Spool

__all__ = ["lighten", "lighten_the_rest", "plan_to_lighten"]

_LIGHTEN = ".lighten"


def _note_of(spool: Spool, id_: str) -> Path:
    return spool.requests / f"{id_}{_LIGHTEN}"


def plan_to_lighten(spool: Spool, place: Place) -> None:
    """Note, before it is published, that its source is to be removed afterwards."""
    # Without it a power cut would leave a source that nothing removes later.
    durable.write_note(_note_of(spool, place.manifest["id"]), place.manifest["user"])


def lighten(spool: Spool, place: Place) -> Place:
    """Remove the source of a published uploaded file, which the configuration does not keep.

    The manifest stops naming it first, so a crash between the two leaves a file too many, never one
    too few, and leaves the note of `plan_to_lighten` for `lighten_the_rest`. Doing it twice changes nothing.
    """
    # It is published, so a command may be linking it to a project.
    with manifest.held(place.path) as before:
        files = [row for row in before["files"] if row["role"] != "source"]
        changed = manifest.evolve(before, files=files)
        if changed != before:
            manifest.write(place.path, changed)
    reached("source.given_up")
    kept = {row["path"] for row in files}
    for folder, _, found in durable.walk(place.path / "source"):
        for name in found:
            path = Path(folder, name)
            if str(path.relative_to(place.path)) not in kept:
                path.unlink()
        # Before the note is removed: only the note records that something may be left here.
        durable.fsync_directory(Path(folder))
    spool.discard(_note_of(spool, place.manifest["id"]))
    return Place(status=place.status, path=place.path, manifest=changed)


def lighten_the_rest(spool: Spool) -> Iterator[str]:
    """Remove the sources that a crash or a fault left, by the notes of `plan_to_lighten`.

    Returns the ids whose manifest may have changed. Nothing may be in work meanwhile.
    """
    for note, id_ in notes.there(spool, _LIGHTEN):
        with aside.fence("request", note.name) as fenced:
            path = notes.place_of(spool, note, id_)
            if path is not None and not (path / "source").is_symlink():
                lighten(spool, Place.read(path))
            else:
                # It ended in an error, was removed, or is still in work and is noted again at its end.
                spool.discard(note)
        if not fenced.failed and path is not None:
            yield id_
