"""Serve the panel: one process, one address, and no client that can hold it up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cytowatch import __version__
from cytowatch.config import Config, Panel, reloaded
from cytowatch.observe import logs
from cytowatch.observe.systemd import notify
from cytowatch.panel.app import make_app
from cytowatch.panel.context import Context
from cytowatch.record.errors import ConfigError, RootError

__all__ = ["check", "run"]

#: A client that has not sent the head of its request by then is let go.
_HEAD_S = 10.0
_MOST_HEAD_BYTES = 32 << 10
_MOST_CONNECTIONS = 512
_KEEP_ALIVE_S = 15
_STOP_S = 10


def check(panel: Panel) -> None:
    """Refuse what would show slides to a whole network.

    Raises
    ------
    ConfigError
        No login is needed, and other machines can reach the address.
    """
    if panel.auth != "none" or panel.listen.startswith("unix:"):
        return
    host = panel.listen.rpartition(":")[0].strip("[]")
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(
            [
                f'panel.listen = "{panel.listen}": with panel.auth = "none" only this machine may reach '
                'the panel, such as "127.0.0.1:9780"; set panel.auth to "share" or "proxy"'
            ]
        )


class _Parts:
    """Stands where uvicorn has a bytearray: parts of a body, joined when they are asked for, and one part not at all."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def __iadd__(self, part: bytes) -> _Parts:
        self._parts.append(part)
        self._size += len(part)
        return self

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class _Patient(HttpToolsProtocol):
    """Guards that the head of a request comes soon and is small: slow clients cost one timer each."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    #: Whether a line is one of the head of a request, and no trailer behind its body.
    _reads_head = False
    #: Whether a part of a body has come with the bytes at hand, and how many came since the last one.
    _got_body = False
    _beside_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.close()
            return
        self._begin()

    def _begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_S, self._late)

    def _late(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _stop(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES and b"\r\n\r\n" not in data:
                self._stop()
                self.transport.close()
                return
        self._got_body = False
        super().data_received(data)
        if self._in_head or self._got_body or self.cycle is None or not self.cycle.more_body:
            self._beside_bytes = 0
        else:
            # Trailers, or what extends the size of a chunk: the parser keeps all of it until it ends.
            self._beside_bytes += len(data)
            if self._beside_bytes > _MOST_HEAD_BYTES:
                self.transport.close()
                return
        # Empty lines between two requests begin none, and put off uvicorn's own time limit.
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._begin()

    def on_message_begin(self) -> None:
        """The first bytes of a request came."""
        self._begin()
        self._reads_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a head came. A trailer is dropped: uvicorn would take it for a line that a proxy has set."""
        if self._reads_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of a body came; it is passed on as it is, where uvicorn would copy it twice."""
        self._got_body = True
        if not self.cycle.body:
            self.cycle.body = _Parts()  # type: ignore[assignment]
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._reads_head = False
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._stop()
        super().connection_lost(exc)


def _socket(listen: str) -> socket.socket:
    """The socket to listen at.

    Raises
    ------
    RootError
        The address is not available.
    """
    try:
        if listen.startswith("unix:"):
            return _unix(Path(listen.removeprefix("unix:")))
        host, _, port = listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio answers without a delay (TCP_NODELAY) only where the protocol is named; else
        # the body of an answer waits 40 ms for the other end to acknowledge its head.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host.strip("[]"), int(port)))
    except (OSError, OverflowError, ValueError) as error:
        raise RootError(f"panel.listen = {listen!r}: {error}") from error
    return made


def _unix(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(os.fspath(path))
    # Its folder decides who may connect.
    os.chmod(path, 0o660)
    return made


def _address(made: socket.socket) -> str:
    if made.family == socket.AF_UNIX:
        return f"unix:{made.getsockname()}"
    host, port = made.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Guards the signals: SIGTERM ends it, SIGHUP reads the configuration again."""

    def __init__(self, config: uvicorn.Config, context: Context, began: Callable[[], None]) -> None:
        super().__init__(config)
        self._context = context
        self._began = began

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        self._began()

    def handle_exit(self, sig: int, frame: object) -> None:
        """End; uvicorn would raise the signal once more at the end, and the last line would be lost."""
        self.should_exit = True

    def _reload(self) -> None:
        log = logs.get()
        if self._context.reload is None:
            return
        try:
            found, changed, refused = reloaded(self._context.config, self._context.reload())
        except ConfigError as error:
            log.error("reload_refused", detail="; ".join(error.problems))
            return
        self._context.config = found
        mine = [one for one in refused if one.startswith("panel.")]
        log.info("reloaded", changed=changed, needs_a_restart=mine)


def run(
    root: Path, config: Config, *, actions: bool = False, reload: Callable[[], Config] | None = None
) -> int:
    """Serve until a signal comes; gives the exit code.

    Raises
    ------
    ConfigError
        `panel.listen` and `panel.auth` do not go together.
    RootError
        There is no tree, or the address is not available.
    """
    check(config.panel)
    logs.configure(config.log.level, config.log.format)
    log = logs.get()
    app = make_app(root, config, actions=actions, reload=reload)
    made = _socket(config.panel.listen)
    # Who comes before the server is ready waits a moment, and is not turned away.
    made.listen(_MOST_CONNECTIONS)
    address = _address(made) + config.panel.base_path

    def began() -> None:
        notify("READY=1")
        log.info(
            "panel_listening",
            address=address,
            root=str(root),
            auth=config.panel.auth,
            version=__version__,
        )

    server = _Server(_settings(app), app.state.context, began)
    try:
        server.run(sockets=[made])
    finally:
        made.close()
    log.info("panel_stopped")
    return 0


def _settings(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Patient,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_S,
    )
