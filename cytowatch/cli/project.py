"""Links from projects to what is deployed."""

from __future__ import annotations

from cytowatch.admin import projects
from cytowatch.cli.app import (
    ConfigOption,
    RootOption,
    app,
    one,
    spool_of,
)
from cytowatch.cli.export import _inside
from cytowatch.cli.options import (
    IdArgument,
    ProjectOption,
)
from cytowatch.cli.show import safe, say
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

__all__ = ["deployed"]


def deployed(spool: Spool, wanted: str) -> list[find.Entry]:
    """What `wanted` means: one uploaded file, or of an archive or a folder all that came out of it."""
    entry = one(spool, wanted)
    if entry.status is not Status.EXTRACTED:
        return [entry]
    good = (Status.DEPLOYED, Status.CONVERTED)
    return [other for other in _inside(spool, entry) if other.status in good]


@app.command()
def link(
    wanted: IdArgument,
    project: ProjectOption,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Show a deployed image in a project; for an archive or a folder, everything in it."""
    spool = spool_of(root, config)
    for entry in deployed(spool, wanted):
        name = projects.link(spool, entry.path, project)
        say(f"{safe(entry.manifest['name'])} is in the project {safe(name)}")


@app.command()
def unlink(
    wanted: IdArgument,
    project: ProjectOption,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Take an image out of a project; the image stays in storage."""
    spool = spool_of(root, config)
    for entry in deployed(spool, wanted):
        name = projects.unlink(spool, entry.path, project)
        say(f"{safe(entry.manifest['name'])} is no longer in the project {safe(name)}")
