"""Projects: relative symlinks to what is deployed; one image may be in many, nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cytowatch.record import manifest, names
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool

__all__ = ["link", "unlink"]

_LINKABLE = frozenset({Status.DEPLOYED, Status.CONVERTED})


@contextmanager
def _held(path: Path) -> Iterator[Manifest]:
    """The manifest of a published ``<id>/``, while nobody else changes it."""
    with ExitStack() as held:
        try:
            found = held.enter_context(manifest.held(path))
        except FileNotFoundError as error:
            raise RootError(f"{path.name} is gone: it was removed meanwhile") from error
        except ManifestError as error:
            raise RootError(
                f"the manifest of {path.name} is damaged: restore its manifest.json from a backup ({error})"
            ) from error
        yield found


def _spelled(spool: Spool, project: str) -> str:
    """The project as it is spelled already: names are compared casefolded and in NFC."""
    if not project or project != names.file_name(project):
        raise RootError(f"{names.printable(project)!r} cannot be the name of a project")
    return spool.spelled(project)


def link(spool: Spool, path: Path, project: str) -> str:
    """Show the published uploaded file at `path` in `project`; gives the project as it is spelled.

    Raises
    ------
    RootError
        It is not deployed or gone, or the project's name cannot be a folder's.
    """
    project = _spelled(spool, project)
    with _held(path) as found:
        if manifest.status_of(found) not in _LINKABLE:
            raise RootError(f"{path.name} is not deployed, so no project can show it")
        shown = names.link_name(found["drop_path"], found["name"])
        # The link first: with a crash between the two it is made again, never forgotten.
        spool.link(project, shown, found["user"], UploadedFileId(found["id"]))
        if project not in found["projects"]:
            manifest.write(path, manifest.evolve(found, projects=[*found["projects"], project]))
    return project


def unlink(spool: Spool, path: Path, project: str) -> str:
    """Take the uploaded file at `path` out of `project`; the image itself stays.

    Raises
    ------
    RootError
        It is not in that project, or gone.
    """
    project = _spelled(spool, project)
    with _held(path) as found:
        if project not in found["projects"]:
            raise RootError(f"{path.name} is not in the project {project}")
        left = [one for one in found["projects"] if one != project]
        shown = names.link_name(found["drop_path"], found["name"])
        spool.unlink(project, shown, UploadedFileId(found["id"]))
        manifest.write(path, manifest.evolve(found, projects=left))
    return project
