"""Who may see what: each way of being known, against each thing that somebody owns."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cytowatch.panel import sessions, tokens
from cytowatch.panel.sessions import Slowed
from cytowatch.tree.spool import Spool
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.lab.samba import PASSWORD, Samba, missing
from tests.needs import unless

_PROXY = """auth = "proxy"
admins = ["Root"]
projects = { "trial 7" = ["carl"] }
"""


@pytest.fixture(scope="module")
def panel(serve: Callable[..., Served]) -> Served:
    """Behind a proxy on this machine."""
    return serve(more=_PROXY)


#: Each address about one uploaded file.
OF_ONE = (
    "/files/{id}", "/live/files/{id}", "/files/{id}/thumbnail", "/files/{id}/download/original",
    "/files/{id}/download/pyramid", "/files/{id}/download/manifest", "/api/v1/files/{id}",
)  # fmt: skip


@pytest.mark.parametrize(
    ("user", "name", "sees"),
    [
        ("ann", "photo.jpg", True),
        ("ANN", "photo.jpg", True),
        ("bob", "photo.jpg", False),
        ("ann", "bob.tif", False),
        ("ann", "shared.jpg", False),
        ("carl", "shared.jpg", True),
        ("carl", "bob.tif", False),
        ("carl", "photo.jpg", False),
        ("root", "photo.jpg", True),
        ("root", "bob.tif", True),
        ("nobody", "shared.jpg", False),
    ],
)
def test_whose_is_it(panel: Served, ids: dict[str, str], user: str, name: str, sees: bool) -> None:
    """Owner, member of a project and admin see it at every address; for anyone else there is nothing."""
    for path in OF_ONE:
        found = panel.as_user(user, path.format(id=ids[name]))
        assert (found.code == 200) == sees, path
        if not sees:
            assert found.code == 404, path
            never = path.format(id="20200101-000000-aaaa-never")
            # What is somebody else's, and what never was, cannot be told apart.
            assert panel.as_user(user, never).body == found.body
    for path in ("/", "/files", "/api/v1/files?limit=500", f"/files?name={name}"):
        assert (ids[name] in panel.as_user(user, path).text) == sees, path


def test_lists_and_counts_are_of_the_own(panel: Served, ids: dict[str, str]) -> None:
    """Counts, groups by reason, projects and the state of the machine say nothing of others."""
    bob = panel.as_user("bob", "/").text
    assert ">1</b> aborted" not in bob
    assert "Needs attention" not in bob or "broken.jpg" not in bob
    assert "free</span>" not in bob
    assert "Trial 7" in panel.as_user("bob", "/projects").text
    assert "Trial 7" not in panel.as_user("ann", "/projects").text
    assert panel.as_user("ann", "/projects/Trial%207").code == 404
    assert panel.as_user("ann", "/projects/Nothing").code == 404
    assert panel.as_user("carl", "/projects/trial%207").code == 200
    status = panel.as_user("bob", "/api/v1/status").json
    assert sum(status["files"].values()) == 2
    assert status["root"] == ""
    assert panel.as_user("root", "/api/v1/status").json["root"] != ""
    # A filter by another user's name is not a way around.
    assert panel.as_user("bob", "/api/v1/files?user=ann").json == []
    assert panel.as_user("bob", f"/api/v1/files?parent={ids['scans.zip']}").json == []
    assert panel.as_user("bob", "/api/v1/files?project=Trial+7").json != []
    assert panel.as_user("ann", "/api/v1/files?project=Trial+7").json == []


def test_a_name_is_taken_from_trusted_proxies_only(
    serve: Callable[..., Served], panel: Served
) -> None:
    """From anyone else it is refused, not ignored; without a name nobody is known."""
    assert panel.ask("/").code == 401
    assert panel.ask("/api/v1/files").json.keys() == {"error"}
    far = serve(more='auth = "proxy"\ntrusted_proxies = ["10.1.2.3"]\n')
    assert far.as_user("root", "/").code == 403
    assert far.ask("/").code == 401
    for name in ("", "  ", "../ann", "a/b", "a\\b", ".hidden", "@project", "_returned", "x" * 101):
        assert panel.as_user(name, "/").code == 401, name
    other = serve(more='auth = "proxy"\nuser_header = "Remote-User"\n')
    assert other.ask("/", Remote_User="ann").code == 200
    assert other.as_user("ann", "/").code == 401


def test_a_name_in_any_script(own: Root) -> None:
    """As proxies write it, in UTF-8, or in Latin-1 as old ones do: its inbox is the one of that name."""
    panel = Served(own.path, more='auth = "proxy"\nadmins = ["Žofie"]\n')
    try:
        for name, raw in (("René", b"Ren\xe9"), ("René", "René".encode()), ("李", "李".encode())):
            found = panel.ask("/", X_Forwarded_User=raw.decode("latin-1"))
            assert found.code == 200
            assert name in found.text
        admin = panel.ask("/api/v1/files", X_Forwarded_User="žofie".encode().decode("latin-1"))
        assert len(admin.json) > 5
        assert panel.line("request", path="/api/v1/files")["user"] == "žofie"
        # What no name can hold stays refused, however it is written.
        for evil in ("a\u202eb", "a\u0085b", "é/x"):
            answer = panel.ask("/", X_Forwarded_User=evil.encode().decode("latin-1"))
            assert answer.code in (400, 401), ascii(evil)
    finally:
        panel.stop()


def test_a_name_that_is_there_twice_is_refused(panel: Served) -> None:
    """Which one would the proxy have meant?"""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", panel.port)
    connection.putrequest("GET", "/")
    connection.putheader("X-Forwarded-User", "ann")
    connection.putheader("X-Forwarded-User", "root")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("auth", ["none", "proxy", "share"])
def test_tokens_work_with_every_auth(own: Root, ids: dict[str, str], auth: str) -> None:
    """Each is its user's; one that is revoked, expired or made up opens nothing."""
    panel = Served(own.path, more=f'auth = "{auth}"\n')
    try:
        secret = panel.token("script", "ann")
        assert panel.ask(f"/files/{ids['photo.jpg']}", Authorization=f"Bearer {secret}").code == 200
        assert panel.ask(f"/files/{ids['bob.tif']}", Authorization=f"Bearer {secret}").code == 404
        stored = own.path / "state" / "tokens.json"
        assert stored.stat().st_mode & 0o777 == 0o600
        assert secret not in stored.read_text()
        assert json.loads(stored.read_text())["tokens"][0]["used_at"] is not None
        for wrong in (f"{secret}x", "cyt_", "cyt_" + "a" * 43):
            assert panel.ask("/api/v1/files", Authorization=f"Bearer {wrong}").code == 401
        short = panel.token("short", "bob", "--days", "0.001")
        document = json.loads(stored.read_text())
        document["tokens"][1]["ends_at"] = "2020-01-01T00:00:00.000Z"
        stored.write_text(json.dumps(document))
        assert panel.ask("/api/v1/files", Authorization=f"Bearer {short}").code == 401
        subprocess.run(
            own.command("token", "revoke", "script", "--root", str(own.path)), check=True
        )
        assert panel.ask("/api/v1/files", Authorization=f"Bearer {secret}").code == 401
        # A file that is damaged opens nothing, and names itself to the command.
        stored.write_text("{")
        assert panel.ask("/api/v1/files", Authorization=f"Bearer {short}").code == 401
    finally:
        panel.stop()
    told = subprocess.run(
        own.command("token", "list", "--root", str(own.path)), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert told.returncode == 2
    assert "tokens.json" in told.stderr


def test_tokens_are_listed_without_their_hashes(own: Root) -> None:
    """Name, user, and when they were made, end and were used; a name is taken once."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            own.command("token", *words, "--root", str(own.path)), capture_output=True, text=True, check=False
        )  # fmt: skip

    assert run("list").stdout == "there are no tokens\n"
    made = run("add", "viewer", "--user", "ann", "--days", "30")
    assert made.stdout.splitlines()[-1].startswith("cyt_")
    assert run("add", "viewer", "--user", "bob").returncode == 2
    assert run("add", "other", "--user", "../bob").returncode == 2
    [row] = json.loads(run("list", "--json").stdout)
    assert set(row) == {"name", "user", "made_at", "ends_at", "used_at"}
    assert "viewer" in run("list").stdout
    assert run("revoke", "viewer").returncode == 0
    assert run("revoke", "viewer").returncode == 2


def test_without_a_log_in_it_stays_on_this_machine(made: Root, tmp_path: Path) -> None:
    """It refuses to start where others could reach it, with exit code 2 and what to do."""
    for listen in ("0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:9780"):
        told = subprocess.run(
            [sys.executable, "-m", "cytowatch", "panel", "--root", str(made.path), "--listen", listen],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert told.returncode == 2, listen
        assert "panel.auth" in told.stderr


def test_panels_that_start_together_have_one_key(tree: Root) -> None:
    """Or each of them would refuse who has logged in at another one."""
    path, together = tree.path / "state" / "panel.key", threading.Barrier(8)

    def key(_: int) -> bytes:
        together.wait()
        return sessions._key(path)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(key, range(8))) == {path.read_bytes()}


def test_a_guesser_is_slowed_by_name_and_by_address() -> None:
    """Five tries are free, then each costs twice the last pause; a right one clears the name."""
    now = [0.0]
    slowed = Slowed(lambda: now[0])
    for _ in range(4):
        slowed.failed("name ann", "address a")
        assert slowed.wait_s("name ann", "address a") == 0
    slowed.failed("name ann", "address a")
    assert slowed.wait_s("name Ann", "address b") == 2
    assert slowed.wait_s("name bob", "address a") == 2
    now[0] += 2
    assert slowed.wait_s("name ann", "address a") == 0
    slowed.failed("name ann", "address a")
    assert slowed.wait_s("name ann") == 4
    for _ in range(30):
        slowed.failed("name ann", "address a")
    assert slowed.wait_s("name ann") == 600
    slowed.succeeded("name ann", "address a")
    assert slowed.wait_s("name ann", "address a") == 0


def test_as_many_tokens_as_there_may_be(tree: Root) -> None:
    """All of them open, and none more can be made."""
    spool = Spool(tree.path)
    rows = [
        {
            "name": f"a scanner with a long name {number}", "user": "ann", "sha256": f"{number:064x}",
            "made_at": "2026-11-23T14:15:02.000Z", "ends_at": None, "used_at": None,
        }
        for number in range(9_999)
    ]  # fmt: skip
    (spool.state / "tokens.json").write_text(json.dumps({"tokens": rows}, indent=1))
    panel = Served(tree.path, more='auth = "proxy"\n')
    try:
        secret = panel.token("the last one", "ann")
        assert len(tokens.listed(spool)) == 10_000
        assert panel.ask("/api/v1/status", Authorization=f"Bearer {secret}").code == 200
    finally:
        panel.stop()


def test_tries_at_once_are_not_all_free(tree: Root) -> None:
    """Forty passwords for one name at the same time: the file server is asked for one; of one address for five."""
    asked: list[socket.socket] = []
    begun, over = threading.Event(), threading.Event()
    server = socket.create_server(("127.0.0.1", 0), backlog=100)

    def accept() -> None:
        with suppress(OSError):
            while True:
                one, _ = server.accept()
                asked.append(one)
                begun.set()
                if over.is_set():
                    one.close()

    accepting = threading.Thread(target=accept)
    accepting.start()
    port = server.getsockname()[1]
    panel = Served(tree.path, more=f'auth = "share"\nsmb_server = "127.0.0.1:{port}"\n')

    def guess(name: str, password: int) -> int:
        form = {"user": name, "password": f"p{password}"}
        return panel.ask("/login", "POST", form=form, X_Forwarded_For=f"10.0.0.{password}").code

    try:
        with ThreadPoolExecutor(41) as pool:
            first = pool.submit(guess, "ann", 0)
            assert begun.wait(30)
            others = list(pool.map(lambda number: guess("ann", number), range(1, 41)))
            assert others == [429] * 40
            assert len(asked) == 1
            names = [pool.submit(guess, f"user{number}", 77) for number in range(20)]
            end = time.monotonic() + HANGS_S
            while sum(one.done() for one in names) < 15:
                assert time.monotonic() < end
                time.sleep(0.05)
            assert len(asked) <= 6
            over.set()
            for one in asked:
                one.close()
            # The server does not answer: that is not a wrong password, and nobody is slowed for it.
            assert first.result(60) == 503
            assert sorted(one.result(60) for one in names) == [429] * 15 + [503] * 5
        assert guess("ann", 0) == 503
    finally:
        panel.stop()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        accepting.join(30)


@unless(missing())
def test_the_password_of_the_share_logs_in(own: Root, tmp_path: Path) -> None:
    """A real smbd: right, wrong and unknown; the cookie is the browser's only; guesses are slowed."""
    samba = Samba(tmp_path / "samba", own.path)
    panel = Served(own.path, more=f'auth = "share"\nsmb_server = "127.0.0.1:{samba.port}"\n')
    try:
        home = panel.ask("/files?name=x", Accept="text/html")
        assert home.code == 303
        assert home.headers["location"] == "/login?next=%2Ffiles%3Fname%3Dx"
        assert panel.ask("/files").code == 401
        assert "<form" in panel.ask("/login").text
        right = {"user": samba.user, "password": PASSWORD, "next": "/files?name=x"}
        good = panel.ask("/login", "POST", form=right)
        assert good.code == 303, good.text
        assert good.headers["location"] == "/files?name=x"
        cookie = good.headers["set-cookie"]
        assert {"httponly", "samesite=strict"} <= {
            part.strip().lower() for part in cookie.split(";")
        }
        assert "secure" not in cookie.lower()
        behind = panel.ask("/login", "POST", form=right, X_Forwarded_Proto="https")
        assert "secure" in behind.headers["set-cookie"].lower()
        value = cookie.partition(";")[0]
        assert panel.ask("/", Cookie=value).code == 200
        # One letter of it changed, it is nobody's.
        assert (
            panel.ask("/", Cookie=value[:9] + ("A" if value[9] != "A" else "B") + value[10:]).code
            == 401
        )
        for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example"):
            to = panel.ask("/login", "POST", form={**right, "next": elsewhere}).headers["location"]
            assert to == "/"
        # A page elsewhere cannot log anybody in.
        assert panel.ask("/login", "POST", form=right, origin="https://evil.example").code == 403
        assert panel.ask("/login", "POST", form={**right, "password": ""}).code == 401
        assert panel.ask("/login", "POST", form={**right, "user": "no such user"}).code == 401
        for _ in range(3):
            wrong = panel.ask("/login", "POST", form={**right, "password": "wrong"})
            assert wrong.code == 401
        assert panel.ask("/login", "POST", form=right).code == 429
        samba.stop()
        other = {**right, "user": "someone"}
        gone = panel.ask("/login", "POST", form=other, X_Forwarded_For="10.0.0.5")
        assert gone.code == 503
        assert "does not answer" in gone.text
        out = panel.ask("/logout", "POST", Cookie=value)
        assert 'cytowatch_panel=""' in out.headers["set-cookie"]
        assert panel.stop() == 0
        # A restart logs nobody out; the password is in no line and in no file.
        panel.start()
        assert panel.ask("/", Cookie=value).code == 200
        assert PASSWORD not in panel.log.read_text()
        assert {line["result"] for line in panel.lines("login")} == {
            "good",
            "wrong",
            "slowed",
            "unreachable",
        }
    finally:
        panel.stop()
        if samba.process.poll() is None:
            samba.stop()
