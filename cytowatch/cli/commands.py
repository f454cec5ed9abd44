"""All commands, put together: importing a room adds its commands to the application."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

import typer

from cytowatch.cli.app import app

__all__ = ["ROOMS", "application"]

#: The modules with the commands that each has, in the order in which ``cytowatch --help`` shows them.
ROOMS = MappingProxyType(
    {
        "serve": ("run", "init", "check", "demo"),
        "read": ("status", "list", "show"),
        "watch": ("watch",),
        "change": ("retry", "return", "remove", "reindex"),
        "export": ("export",),
        "project": ("link", "unlink"),
        "hold": ("pause", "resume"),
        "verify": ("verify",),
        "hooks": ("hooks",),
        "detect": ("detect", "formats"),
        "schema": ("schema",),
        "panel": ("panel", "token"),
        "send": ("send",),
    }
)  # fmt: skip


def application(command: str | None = None) -> typer.Typer:
    """The application; for a quick start only the room of `command` is loaded, if it says one."""
    if command == "--version":
        return app
    rooms = [room for room, commands in ROOMS.items() if command in commands]
    for room in rooms or ROOMS:
        import_module(f"cytowatch.cli.{room}")
    return app
