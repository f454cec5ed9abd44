"""Configuration: every key with its default, unit, rule and comment.

`keys`, `inbox` and `panel` hold the keys, `rules` checks their values, `load` reads a file, `reload` decides
what a running daemon takes over, `render` writes ``config/cytowatch.toml``.
"""

from __future__ import annotations

from cytowatch.config.keys import Config, Inbox, UserInbox
from cytowatch.config.load import from_mapping, load, to_mapping
from cytowatch.config.panel import Panel
from cytowatch.config.reload import RELOADABLE, reloaded
from cytowatch.config.render import render

__all__ = [
    "RELOADABLE",
    "Config",
    "Inbox",
    "Panel",
    "UserInbox",
    "from_mapping",
    "load",
    "reloaded",
    "render",
    "to_mapping",
]
