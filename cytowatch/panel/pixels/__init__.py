"""Pixels: tiles, the viewer and IIIF."""

from __future__ import annotations

from starlette.routing import Route

from cytowatch.panel.context import Context

__all__ = ["routes"]


def routes(context: Context) -> list[Route]:
    """The addresses that answer with pixels."""
    return []
