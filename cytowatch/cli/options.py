"""Arguments and options that several commands share, with what the shell offers for them."""

from __future__ import annotations

from typing import Annotated

import typer

from cytowatch.cli import complete

__all__ = [
    "FormatOption",
    "IdArgument",
    "IdArguments",
    "IdToExport",
    "IdsOrNone",
    "ProjectFilter",
    "ProjectOption",
    "ReasonOption",
    "StatusFilter",
    "StatusOption",
    "UserOption",
]

_AN_ID = "An id, its four characters, or the name or the path as dropped."

IdArgument = Annotated[str, typer.Argument(metavar="ID", help=_AN_ID, autocompletion=complete.ids)]
IdArguments = Annotated[
    list[str], typer.Argument(metavar="ID...", help=_AN_ID, autocompletion=complete.ids)
]
IdsOrNone = Annotated[
    list[str] | None, typer.Argument(metavar="[ID...]", help=_AN_ID, autocompletion=complete.ids)
]
IdToExport = Annotated[
    str | None, typer.Argument(metavar="[ID]", help=_AN_ID, autocompletion=complete.ids)
]
UserOption = Annotated[
    str | None,
    typer.Option(
        "--user", help="Only this user; by default everyone.", autocompletion=complete.users
    ),
]
ProjectOption = Annotated[
    str, typer.Option("--project", help="The project.", autocompletion=complete.projects)
]
ProjectFilter = Annotated[
    str | None,
    typer.Option("--project", help="Only in this project.", autocompletion=complete.projects),
]
StatusOption = Annotated[
    str | None,
    typer.Option(
        "--status",
        help="Only in this status; error means all errors.",
        autocompletion=complete.errors,
    ),
]
StatusFilter = Annotated[
    str | None,
    typer.Option(
        "--status",
        help="Only in this status; also error, done, in-progress, or waiting for drops still in an inbox.",
        autocompletion=complete.statuses,
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="Only in this format, by its id.", autocompletion=complete.formats
    ),
]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", help="Only with this reason.", autocompletion=complete.reason_words),
]
