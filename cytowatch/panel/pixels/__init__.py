"""Pixels: tiles, the viewer and IIIF."""

from __future__ import annotations

from starlette.routing import Route

from cytowatch.panel.pixels import iiif_web, web
from cytowatch.panel.pixels.room import Room

__all__ = ["Room", "routes"]


def routes(room: Room) -> list[Route]:
    """The addresses that answer with pixels; anyone who asks for them closes `room` at the end."""
    return [*web.routes(room), *iiif_web.routes(room)]
