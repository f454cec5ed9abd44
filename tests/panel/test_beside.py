"""The panel beside the daemon: no matter what ends one, the other and every slide go on."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import builders
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root


def test_a_kill_of_the_panel_changes_nothing(
    own: Root, ids: dict[str, str], tmp_path: Path
) -> None:
    """It is killed (-9) again and again while it is asked and acted upon, and slides come in meanwhile."""
    own.start()
    source = builders.jpeg(tmp_path / "more.jpg")
    chance = random.Random(21)
    for number in range(4):
        panel = Served(own.path, words=("--actions",))
        own.drop(source, f"more-{number}.jpg", user="bob")
        body = b"project=Killed"
        # An action that nobody waits for, and pages, at the moment of its end.
        asked = []
        for path in (
            f"/files/{ids['photo.jpg']}/link",
            "/files",
            f"/files/{ids['photo.jpg']}/thumbnail",
        ):
            one = http.client.HTTPConnection("127.0.0.1", panel.port)
            method = "POST" if path.endswith("link") else "GET"
            one.request(
                method, path, body if method == "POST" else None,
                {"Origin": f"http://{panel.address}", "Content-Type": "application/x-www-form-urlencoded"},
            )  # fmt: skip
            asked.append(one)
        time.sleep(chance.random() * 0.15)
        assert panel.process
        panel.process.kill()
        panel.process.wait(HANGS_S)
        for one in asked:
            one.close()
    own.wait(
        lambda: all(
            own.by_name().get(f"more-{n}.jpg", {}).get("status") == "CONVERTED" for n in range(4)
        )
    )
    assert own.stop() in (0, 1)
    own.assert_clean()
    own.check_hashes()
    assert not [line for line in own.log.read_text().splitlines() if '"unexpected"' in line]


def test_the_daemon_may_come_and_go(own: Root) -> None:
    """The panel says whether it runs; what is asked for without it is refused in words, and not done later."""
    panel = Served(own.path, words=("--actions",))
    try:
        assert "No daemon runs" in panel.ask("/").text
        refused = panel.ask("/api/v1/pause", "POST", form={})
        assert refused.code == 503
        assert "Nothing was done" in refused.json["error"]
        own.start()
        own.wait(lambda: "No daemon runs" not in panel.ask("/live/storage").text)
        assert not (own.path / "state" / "paused.json").exists()
        assert panel.ask("/api/v1/pause", "POST", form={"user": "bob"}).json == {"said": "bob"}
        assert "bob paused" in panel.ask("/").text
        assert panel.ask("/api/v1/resume", "POST", form={"user": "bob"}).json == {"said": ""}
        own.kill()
        assert "No daemon runs" in panel.ask("/").text
    finally:
        panel.stop()


@pytest.mark.parametrize("version", ["0.0.1", "99.0.0"])
def test_another_version_beside_it_is_said(own: Root, version: str) -> None:
    """An older or a newer daemon, as it writes its version into the tree while it runs."""
    own.start()
    live = own.path / "state" / "live.json"
    own.wait(live.exists)
    # Stopped, it holds its lock and no longer writes: what lies there is what another version had written.
    assert own.process
    own.process.send_signal(signal.SIGSTOP)
    try:
        said = json.loads(live.read_text())
        live.write_text(json.dumps({**said, "version": version}))
        panel = Served(own.path)
        try:
            text = panel.ask("/").text
            assert "different versions" in text
            assert version in text
        finally:
            panel.stop()
    finally:
        own.process.send_signal(signal.SIGCONT)


def test_a_configuration_is_read_again(own: Root) -> None:
    """At SIGHUP: users, projects and words are taken over; a wrong file is refused and the old one holds."""
    panel = Served(own.path, more='auth = "proxy"\n')
    try:
        assert panel.as_user("carl", "/api/v1/files").json == []
        text = panel.config.read_text()

        def reload(more: str) -> None:
            before = len(panel.lines("reloaded")) + len(panel.lines("reload_refused"))
            panel.config.write_text(text + more)
            assert panel.process
            panel.process.send_signal(1)
            end = time.monotonic() + HANGS_S
            while len(panel.lines("reloaded")) + len(panel.lines("reload_refused")) == before:
                assert time.monotonic() < end
                time.sleep(0.05)

        reload('admins = ["carl"]\ntitle = "Lab 7"\n')
        assert panel.as_user("carl", "/api/v1/files").json != []
        assert "Lab 7" in panel.as_user("carl", "/").text
        reload("nonsense = 1\n")
        assert panel.lines("reload_refused")
        assert "Lab 7" in panel.as_user("carl", "/").text
        reload('base_path = "/x"\n')
        assert panel.lines("reloaded")[-1]["needs_a_restart"] == ["panel.base_path"]
    finally:
        panel.stop()


def test_at_a_socket(own: Root, serve: Callable[..., Served], tmp_path: Path) -> None:
    """A Unix socket, for a proxy on this machine; who may open it is trusted to say who asks."""
    place = tmp_path / "panel.sock"
    config = tmp_path / "socket.toml"
    config.write_text(f'root = "{own.path}"\n[panel]\nauth = "proxy"\n')
    with (tmp_path / "socket.log").open("wb") as log:
        process = subprocess.Popen(
            own.command("panel", "--config", str(config), "--listen", f"unix:{place}"),
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + HANGS_S
        while not place.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)

        def ask(header: str = "") -> bytes:
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(place))
                raw.sendall(f"GET / HTTP/1.1\r\nHost: panel\r\n{header}\r\n".encode())
                return raw.recv(64)

        assert b" 401 " in ask()
        assert b" 200 " in ask("X-Forwarded-User: ann\r\n")
        assert place.stat().st_mode & 0o777 == 0o660
    finally:
        process.terminate()
        process.wait(HANGS_S)
