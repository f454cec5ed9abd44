"""``/metrics`` and ``/healthz``, on loopback unless configured otherwise."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cytowatch import __version__, aside
from cytowatch.observe.metrics import Metrics
from cytowatch.record.errors import RootError

__all__ = ["Health", "Server", "serve"]

_PAUSE_S = 0.2


class Health:
    """What is wrong with the daemon of a tree now, by a word for each; nothing means healthy."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self._reasons: dict[str, str] = {}

    def fault(self, name: str, reason: str) -> None:
        """`name` is wrong, for `reason`."""
        self._reasons = {**self._reasons, name: reason}

    def clear(self, name: str) -> None:
        """`name` is right again."""
        if name in self._reasons:
            self._reasons = {key: text for key, text in self._reasons.items() if key != name}

    def reasons(self) -> dict[str, str]:
        """All that is wrong."""
        return dict(self._reasons)


class Server:
    """The listening server, in a thread of its own."""

    def __init__(self, http: ThreadingHTTPServer) -> None:
        self._http = http
        host, port = http.server_address[:2]
        shown = host if isinstance(host, str) else host.decode()
        self.address = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
        self._thread = threading.Thread(target=http.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop listening."""
        if self.alive:
            self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    """What goes wrong with one connection costs that connection only."""

    daemon_threads = True

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # With no descriptor left the connection stays in the queue: without a pause this thread
            # would ask for it again and again.
            time.sleep(_PAUSE_S)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: anyone who scrapes sees that no answer came, and asks again."""


def serve(listen: str, metrics: Metrics, health: Health) -> Server:
    """Listen on ``ADDRESS:PORT``; port 0 takes any free one.

    Raises
    ------
    RootError
        The address is not available.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version = "cytowatch"
        sys_version = ""

        def do_GET(self) -> None:
            page = 500, "text/plain", b"unexpected error: see the log\n"
            with aside.fence("part", "http"):
                page = _page(self.path, metrics, health)
            self._answer(*page)

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_arguments: Any) -> None:  # noqa: A002
            """Say nothing: a scrape every few seconds is not an event."""

    address, _, port = listen.rpartition(":")
    try:
        server = _Http((address.strip("[]"), int(port)), Handler)
    except (OSError, OverflowError, ValueError) as error:
        # A host that cannot be encoded is a ValueError.
        raise RootError(f"metrics.listen = {listen!r}: {error}") from error
    try:
        return Server(server)
    except RuntimeError as error:
        server.server_close()
        raise RootError(f"metrics.listen = {listen!r}: {error}") from error


def _page(path: str, metrics: Metrics, health: Health) -> tuple[int, str, bytes]:
    """What is answered to `path`: the code, the type and the body."""
    match path.split("?", maxsplit=1)[0]:
        case "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics.text()
        case "/healthz":
            reasons = health.reasons()
            # The process and the tree let `check` tell this daemon from another one on the same port.
            about = {"pid": os.getpid(), "root": health.root, "version": __version__}
            body = {"status": "failing" if reasons else "ok", "reasons": reasons, **about}
            return 503 if reasons else 200, "application/json", json.dumps(body).encode()
        case _:
            return 404, "text/plain", b"there are /metrics and /healthz\n"
