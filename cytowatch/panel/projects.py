"""``/projects`` and ``/projects/<p>``: what is linked to a project, as a grid of thumbnails."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cytowatch.panel.context import Context, person_of
from cytowatch.panel.rendering import page
from cytowatch.record import names
from cytowatch.tree import find
from cytowatch.tree.index.index import Row

__all__ = ["Project", "allowed", "every_name", "project_rows", "routes", "visible_projects"]

_PAGE = 60
_COVER = 4
_KEPT_S = 3.0
_MOST_PROJECTS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project, the images in it that the person who asks may see, and the first few of them."""

    name: str
    files: int
    cover: list[Row]


def _folders(context: Context) -> dict[str, list[str]]:
    """Every project with the ids of all that it shows."""

    def look() -> dict[str, list[str]]:
        home = context.spool.projects
        found: dict[str, list[str]] = {}
        with suppress(OSError):
            for name in context.names_in(home):
                if (home / name).is_dir():
                    found[name] = find.project_ids(context.spool, name)
        return found

    kept: dict[str, list[str]] = context.kept("projects", _KEPT_S, look)
    return kept


def every_name(context: Context) -> list[str]:
    """Every project that there is, no matter who sees it."""
    return list(_folders(context))


def project_rows(context: Context, request: Request, ids: list[str]) -> list[Row]:
    """The rows of `ids` that the person who asks may see, newest first."""
    seen = context.may_see(request)
    with context.index() as index:
        rows = index.select(ids=ids) if ids else []
    return [row for row in rows if seen.covers(row)]


def visible_projects(context: Context, request: Request) -> list[Project]:
    """The projects that the person who asks is named for, or has own files in."""
    who = person_of(request)
    found: list[Project] = []
    for name, ids in _folders(context).items():
        rows = project_rows(context, request, ids)
        if rows or who.sees_all or names.alike(who.projects, name):
            found.append(Project(name=name, files=len(rows), cover=rows[:_COVER]))
        if len(found) == _MOST_PROJECTS:
            break
    known = [one.name for one in found]
    found += [
        Project(name=one, files=0, cover=[]) for one in who.projects if not names.alike(known, one)
    ]
    return found


def allowed(context: Context, request: Request, project: str) -> str:
    """`project`, if this person may show something in it.

    Raises
    ------
    HTTPException
        400: it cannot be a name; 403: only others are members.
    """
    if not project or project != names.file_name(project):
        raise HTTPException(400, "This cannot be the name of a project.")
    who = person_of(request)
    there = names.alike(every_name(context), project)
    mine = [one.name for one in visible_projects(context, request)]
    if there and not who.sees_all and not names.alike(mine, project):
        raise HTTPException(403, "You are not a member of this project. Ask its administrator.")
    return project


def routes(context: Context) -> list[Route]:
    """The list of projects, and one project."""

    def every(request: Request) -> Response:
        return page(context, request, "projects.html", projects=visible_projects(context, request))

    def one(request: Request) -> Response:
        wanted = request.path_params["project"]
        who = person_of(request)
        spelled = names.alike(_folders(context), wanted)
        rows = project_rows(
            context, request, [id_ for one in spelled for id_ in _folders(context)[one]]
        )
        named = names.alike(who.projects, wanted)
        # One that only others see is not there for this person.
        if not rows and not named and not (spelled and who.sees_all):
            raise HTTPException(404)
        number = request.query_params.get("page", "1")
        at = int(number) if number.isascii() and number.isdigit() and 0 < len(number) < 7 else 1
        at = max(1, at)
        shown = rows[(at - 1) * _PAGE : at * _PAGE]
        told: dict[str, Any] = {"name": (spelled or named)[0], "rows": shown, "total": len(rows)}
        return page(
            context, request, "project.html", **told, number=at, more=len(rows) > at * _PAGE
        )

    return [
        Route("/projects", every, name="projects"),
        Route("/projects/{project}", one, name="projects"),
    ]
