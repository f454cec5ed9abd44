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

from cytowatch import __version__
from cytowatch.config import Config, Panel, reloaded
from cytowatch.observe import logs
from cytowatch.observe.systemd import notify
from cytowatch.panel.app import make_app
from cytowatch.panel.connection import MOST_CONNECTIONS, Patient
from cytowatch.panel.context import Context
from cytowatch.record.errors import ConfigError, RootError

__all__ = ["check", "run"]

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
    made.listen(MOST_CONNECTIONS)
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
        http=Patient,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_S,
    )
