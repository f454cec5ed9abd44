"""All commands, put together: importing a room adds its commands to the application."""

from __future__ import annotations

# In the order in which `cytowatch --help` shows them.
from cytowatch.cli import serve, read, watch, change, verify, hooks, detect, schema  # isort: skip
from cytowatch.cli.app import app

__all__ = ["app", "change", "detect", "hooks", "read", "schema", "serve", "verify", "watch"]
