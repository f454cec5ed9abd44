"""The command that prints the JSON Schema of what another command prints with ``--json``."""

from __future__ import annotations

import importlib.resources
import json
from typing import Annotated, Any

import typer

from cytowatch.cli.app import app, print_json
from cytowatch.cli.show import say
from cytowatch.record.errors import RootError

__all__ = ["schema_of"]


def _read(*names: str) -> dict[str, Any]:
    path = importlib.resources.files("cytowatch").joinpath(*names)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def schema_of(name: str) -> dict[str, Any]:
    """The schema of the manifest, or of what the command `name` prints with ``--json``.

    It stands for itself: all that it refers to is in it.

    Raises
    ------
    KeyError
        There is no such schema.
    """
    manifest = _read("record", "manifest.schema.json")
    if name == "manifest":
        return manifest
    commands = _read("cli", "commands.schema.json")
    return {
        "$schema": commands["$schema"],
        "$id": f"urn:cytowatch:command:{name}:1",
        **commands["commands"][name],
        "$defs": {**commands["$defs"], "manifest": {**manifest, "$id": "urn:cytowatch:manifest:1"}},
    }


@app.command()
def schema(name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None) -> None:
    """Print the JSON Schema of the manifest, or of what a command prints with --json; without NAME, list the names."""
    names = ["manifest", *sorted(_read("cli", "commands.schema.json")["commands"])]
    if name is None:
        say("\n".join(names))
    elif name in names:
        print_json(schema_of(name))
    else:
        raise RootError(f"there is no schema of {name!r}, only of {', '.join(names)}")
