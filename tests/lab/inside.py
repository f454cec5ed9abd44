"""A panel in the process of the test, whose patience and threads can be changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from cytowatch.config import Config, Panel
from cytowatch.panel import serve
from cytowatch.panel.app import make_app
from tests.lab.root import HANGS_S

__all__ = ["panel_inside"]


@contextmanager
def panel_inside(root: Path, panel: Panel | None = None) -> Iterator[tuple[int, uvicorn.Server]]:
    """Serve the tree at `root`: (the port, the server)."""
    app = make_app(root, Config(panel=panel or Panel()))
    server = uvicorn.Server(serve._settings(app))
    listening = serve._socket("127.0.0.1:0")
    listening.listen(100)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(HANGS_S)
        listening.close()
