"""``/metrics`` and ``/healthz``, on loopback unless configured otherwise."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cytowatch.errors import RootError
from cytowatch.observe.metrics import Metrics

__all__ = ["Health", "Server", "serve"]


class Health:
    """What is wrong with the daemon now, by a word for each; nothing means healthy."""

    def __init__(self) -> None:
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
        threading.Thread(target=http.serve_forever, name="http", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()


def serve(listen: str, metrics: Metrics, health: Health) -> Server:
    """Listen on ``ADDRESS:PORT``; port 0 takes any free one.

    Raises
    ------
    RootError
        The address cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version = "cytowatch"
        sys_version = ""

        def do_GET(self) -> None:
            match self.path.split("?")[0]:
                case "/metrics":
                    self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics.text())
                case "/healthz":
                    reasons = health.reasons()
                    body = {"status": "failing" if reasons else "ok", "reasons": reasons}
                    code = 503 if reasons else 200
                    self._answer(code, "application/json", json.dumps(body).encode())
                case _:
                    self._answer(404, "text/plain", b"there are /metrics and /healthz\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_arguments: Any) -> None:  # noqa: A002
            """Say nothing: a scrape every few seconds is no event."""

    address, _, port = listen.rpartition(":")
    try:
        server = ThreadingHTTPServer((address.strip("[]"), int(port)), Handler)
    except (OSError, OverflowError) as error:
        raise RootError(f"metrics.listen = {listen!r}: {error}") from error
    server.daemon_threads = True
    return Server(server)
