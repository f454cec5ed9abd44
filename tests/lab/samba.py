"""A real smbd on a loopback port, with the shares of config/samba/cytowatch.conf."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import smbclient

from tests.lab.root import HANGS_S
from tests.lab.told import free_port
from tests.needs import lacking

HOUSE = Path(__file__).resolve().parents[2]
PASSWORD = "a password of the tests"
#: An account of every Debian that is not the one who drops: a researcher's.
RESEARCHER = "games"


def missing() -> str | None:
    """Why no smbd can be started here."""
    return lacking("smbd", "smbpasswd", "testparm", root=True)


class Samba:
    """One smbd, and a client of it; the user is anyone who runs the tests."""

    def __init__(self, folder: Path, root: Path, *, encrypt: bool = False) -> None:
        self.port = free_port()
        self.user = getpass.getuser()
        self.folder = folder
        self._local = threading.local()
        folder.mkdir()
        shares = (HOUSE / "config/samba/cytowatch.conf").read_text()
        shares = shares.replace("/srv/cytowatch", str(root))
        shares = re.sub(r"force user = \w+", f"force user = {self.user}", shares)
        shares = re.sub(r"force group = \w+", "force group = root", shares)
        shares = shares.replace("@cytowatch-researchers", RESEARCHER)
        if encrypt:
            shares = shares.replace("# smb encrypt", "smb encrypt")
        own = "".join(
            f"   {name} directory = {folder / name}\n"
            for name in ("private", "lock", "state", "cache", "pid")
        )
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "log"):
            (folder / name).mkdir(mode=0o755)
        self.config = folder / "smb.conf"
        self.config.write_text(
            "[global]\n   workgroup = TEST\n   server role = standalone server\n"
            f"   netbios name = TEST\n   disable netbios = yes\n   smb ports = {self.port}\n"
            "   interfaces = 127.0.0.1\n   bind interfaces only = yes\n"
            f"   ncalrpc dir = {folder / 'ncalrpc'}\n   log file = {folder / 'log' / 'log.%m'}\n"
            f"   passdb backend = tdbsam:{folder / 'private' / 'passdb.tdb'}\n{own}"
            "   load printers = no\n   printing = bsd\n   printcap name = /dev/null\n"
            "   disable spoolss = yes\n"
            "   rpc start on demand helpers = yes\n   map to guest = never\n\n" + shares
        )
        #: What Samba itself says of the configuration.
        self.said = subprocess.run(
            ["testparm", "-s", self.config], check=True, capture_output=True, text=True
        ).stderr
        for user in (self.user, RESEARCHER):
            subprocess.run(
                ["smbpasswd", "-c", self.config, "-s", "-a", user],
                input=f"{PASSWORD}\n{PASSWORD}\n".encode(), check=True, capture_output=True,
            )  # fmt: skip
        self.process = subprocess.Popen(
            ["smbd", "--foreground", "--no-process-group", "-s", str(self.config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._await()

    def _await(self) -> None:
        end = time.monotonic() + HANGS_S
        while time.monotonic() < end:
            with socket.socket() as found:
                if found.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("smbd does not come up")

    def path(self, name: str, share: str = "cytowatch-inbox") -> str:
        return f"\\\\127.0.0.1\\{share}\\" + name.replace("/", "\\")

    @property
    def session(self) -> dict[str, object]:
        """How to log on; each thread but the main one with a connection of its own."""
        found = {"username": self.user, "password": PASSWORD, "port": self.port}
        if threading.current_thread() is threading.main_thread():
            return found
        if not hasattr(self._local, "connections"):
            self._local.connections = {}
        return {**found, "connection_cache": self._local.connections}

    def as_researcher(self) -> dict[str, object]:
        """How the second account logs on, by a connection of its own; `leave` ends it."""
        if not hasattr(self._local, "connections"):
            self._local.connections = {}
        kept = self._local.connections
        return {**self.session, "username": RESEARCHER, "connection_cache": kept}

    def leave(self) -> None:
        """What a thread that used `session` does at its end."""
        for connection in getattr(self._local, "connections", {}).values():
            connection.disconnect(close=False)

    def open(self, name: str, mode: str = "wb", **options: object) -> object:
        return smbclient.open_file(self.path(name), mode=mode, **options, **self.session)

    def put(self, name: str, data: bytes) -> None:
        with self.open(name) as file:
            file.write(data)

    def cut(self) -> None:
        """The cable is pulled: no close, no goodbye."""
        for connection in smbclient._pool._SMB_CONNECTIONS.values():
            connection.transport._sock.shutdown(socket.SHUT_RDWR)
        smbclient._pool._SMB_CONNECTIONS.clear()

    def stop(self) -> None:
        """End the smbd that was started here, with the processes of its own group."""
        smbclient._pool._SMB_CONNECTIONS.clear()
        os.killpg(self.process.pid, 15)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait(HANGS_S)
