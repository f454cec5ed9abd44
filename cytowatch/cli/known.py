"""Words on a command line that must name something that exists: a user, a project, a status, a format, a reason.

A typing error must not read as "there are none": it is an error that names the nearest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import MappingProxyType

from cytowatch.record import names
from cytowatch.record.errors import RootError
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

__all__ = ["GROUPS", "WAITING", "format_id", "project", "reason", "statuses", "unknown", "user"]

#: Words for several statuses at once.
GROUPS = MappingProxyType(
    {
        "error": tuple(one for one in Status if one.is_error),
        "done": tuple(one for one in Status if one.is_success),
        "in-progress": tuple(one for one in Status if not one.is_final),
    }
)
#: What has no status yet, since it lies in an inbox.
WAITING = "waiting"
_MOST_NAMED = 12


def unknown(kind: str, wanted: str, known: Iterable[str]) -> RootError:
    """The error for a `kind` of thing that is not there: it names the nearest, or some that there are.

    >>> str(unknown("user", "anm", ["ann", "bob"])), str(unknown("user", "x", []))
    ("there is no user 'anm': did you mean 'ann'?", "there is no user 'x', and no other either")
    """
    # Imported here: only a mistake needs it.
    import difflib

    shown = sorted({names.printable(one) for one in known})
    folded = {names.fold(one): one for one in shown}
    near = difflib.get_close_matches(names.fold(wanted), folded, n=1, cutoff=0.5)
    said = f"there is no {kind} {wanted!r}"
    if near:
        return RootError(f"{said}: did you mean {folded[near[0]]!r}?")
    if not shown:
        return RootError(f"{said}, and no other either")
    more = f" and {len(shown) - _MOST_NAMED:,} more" if len(shown) > _MOST_NAMED else ""
    return RootError(f"{said}: there are {', '.join(shown[:_MOST_NAMED])}{more}")


def statuses(wanted: str) -> tuple[Status, ...]:
    """What `wanted` spells, in any case, with spaces, dashes or underscores: a status or a group.

    Raises
    ------
    RootError
        Nothing has that name.

    Examples
    --------
    >>> statuses("error format"), len(statuses("ERROR"))
    ((<Status.ERROR_FORMAT: (11, 'error-format')>,), 4)
    """
    name = wanted.strip().lower().replace(" ", "-").replace("_", "-")
    if name in GROUPS:
        return GROUPS[name]
    of_one = {one.name.lower().replace("_", "-"): one for one in Status}
    if name not in of_one:
        raise unknown("status", wanted, [*GROUPS, WAITING, *of_one])
    return (of_one[name],)


def user(spool: Spool, wanted: str) -> list[str]:
    """How the folders of a user are spelled who has an inbox or has uploaded something.

    Raises
    ------
    RootError
        No user has that name.
    """
    found = find.spellings(spool, wanted)
    folders = {*_folders(spool.inbox), *_folders(spool.storage)}
    if names.alike(folders, wanted):
        return found
    with find.indexed(spool) as index:
        if index.select(where={"user": found}, limit=1):
            return found
        raise unknown("user", wanted, {*folders, *index.distinct("user", "", 1000)})


def project(spool: Spool, wanted: str) -> list[str]:
    """The ids of all that a project shows.

    Raises
    ------
    RootError
        There is no such project, nor a folder in any inbox that would begin it.
    """
    known = _folders(spool.projects)
    if names.alike(known, wanted):
        return find.project_ids(spool, wanted)
    begun = [path.name[1:] for path in spool.inbox.glob("*/@*")]
    if names.alike(begun, wanted):
        return []
    raise unknown("project", wanted, [*known, *begun])


def format_id(spool: Spool, wanted: str) -> str:
    """The id of a format, which this version knows or something uploaded has.

    Raises
    ------
    RootError
        There is none.
    """
    # Imported here: the formats take longer to load than a list takes to print.
    from cytowatch.formats import FORMATS

    with find.indexed(spool) as index:
        known = {*(one.id for one in FORMATS), *index.distinct("format", "", 1000)}
    if wanted.lower() not in known:
        raise unknown("format", wanted, known)
    return wanted.lower()


def reason(spool: Spool, wanted: str) -> str:
    """A reason of an error, which this version knows or something uploaded has.

    Raises
    ------
    RootError
        There is none.
    """
    from cytowatch.record import reasons

    with find.indexed(spool) as index:
        known = {*(one.word for one in reasons.REASONS), *index.distinct("reason", "", 1000)}
    word = wanted.lower().replace("-", "_").replace(" ", "_")
    if word not in known:
        raise unknown("reason", wanted, known)
    return word


def _folders(where: os.PathLike[str]) -> list[str]:
    with os.scandir(where) as found:
        return [one.name for one in found if one.is_dir() and not one.name.startswith(".")]
