"""What treating needs besides the uploaded file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cytowatch.decoder.decoding import Decoders
from cytowatch.engine.doubts import Doubts
from cytowatch.engine.firsts import Contents
from cytowatch.transitions.moves import Transitions
from cytowatch.tree.room import Room

__all__ = ["Treatment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What treating needs besides the uploaded file; `between_stages` may take its thread a while."""

    transitions: Transitions
    decoders: Decoders
    contents: Contents
    room: Room
    stop: threading.Event
    between_stages: Callable[[], None] = lambda: None
    #: What is counted per uploaded file while this process runs.
    doubts: Doubts = field(default_factory=Doubts)
