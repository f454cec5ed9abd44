"""The decoder process of one open slide: it answers one question after the other with a JPEG.

It is forked by the zygote as a stage's process is, stands in the slide's ``<id>/``, may read that and
the libraries only, and writes nothing. What it is asked and what it answers is bounded by `pool`.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from cytowatch.config import Config
from cytowatch.decoder import wire
from cytowatch.panel.pixels import drawing
from cytowatch.panel.pixels.answers import ERROR, PICTURE, WINDOW
from cytowatch.panel.pixels.drawing import Drawing, DrawingError, Facts, Window

__all__ = ["LARGEST_QUESTION_BYTES", "serve"]

LARGEST_QUESTION_BYTES = 1 << 20
_MOST_OPEN = 4


def serve(channel: socket.socket, _out: str, _config: Config) -> None:
    """Answer questions until the panel closes its end."""
    known: dict[str, Drawing] = {}
    while True:
        asked = wire.receive(channel, most_bytes=LARGEST_QUESTION_BYTES)
        if asked is None:
            return
        answer = _answer(asked, known)
        channel.sendall(struct.pack("<I", len(answer)) + answer)


def _answer(asked: dict[str, Any], known: dict[str, Drawing]) -> bytes:
    file = str(asked["file"])
    try:
        found = known.get(file)
        if found is None:
            if len(known) >= _MOST_OPEN:
                known.clear()
            levels = tuple((int(width), int(height)) for width, height in asked["levels"])
            facts = Facts(file=file, bits=int(asked["bits"]), levels=levels)
            found = known[file] = drawing.open_image(facts)
        if "box" not in asked:
            default = found.window
            return WINDOW + json.dumps({"low": default.low, "high": default.high}).encode()
        x, y, width, height = asked["box"]
        held = asked.get("window")
        window = Window(low=held[0], high=held[1]) if held else None
        picture = found.draw(asked["level"], (x, y, width, height), tuple(asked["size"]), window)
        return PICTURE + drawing.jpeg(picture)
    except DrawingError as error:
        return ERROR + str(error).encode()[:500]
    except Exception as error:  # noqa: BLE001 - anything that a library raises costs this picture only
        # After an error OpenSlide reads nothing more through the same handle.
        known.pop(file, None)
        return ERROR + f"{type(error).__name__}: {error}".encode()[:500]
