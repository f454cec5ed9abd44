"""The proxies of docs/how-to/panel.md, as they are written there: uploads go through them, forged names do not."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.lab.told import free_port
from tests.needs import needs
from tests.panel.tus import OFFSETS, said

PAGE = (Path(__file__).parents[2] / "docs/how-to/panel.md").read_text()
SHARE = 'auth = "share"\nhosts = ["slides.lab.example"]\n'


def documented(begins: str, holding: str) -> str:
    """The block of the page that begins so and has this in it."""
    [found] = [
        block
        for block in re.findall(r"```[a-z]*\n(.*?)```", PAGE, re.DOTALL)
        if block.startswith(begins) and holding in block
    ]
    return str(found)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "slides.lab.example")])
    now = datetime.now(UTC)
    names = [x509.DNSName("slides.lab.example"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "slides.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "slides.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "slides.crt", folder / "slides.key"


@contextmanager
def running(words: list[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environment}
        )  # fmt: skip
    try:
        end = time.monotonic() + HANGS_S
        while True:
            assert process.poll() is None, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def nginx(folder: Path, port: int, servers: str) -> Iterator[None]:
    """nginx with these servers, and nothing of the machine's own."""
    folder.mkdir()
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{servers}\n}}\n"
    )
    words = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", f"{folder}/error.log"]  # fmt: skip
    with running(words, port, folder / "out.log"):
        yield


@contextmanager
def caddy(folder: Path, port: int, block: str) -> Iterator[Path]:
    """Caddy with this site at `port`; gives the certificate that it is trusted by."""
    folder.mkdir()
    site = block.replace("slides.lab.example", f"https://127.0.0.1:{port}")
    (folder / "Caddyfile").write_text(
        "{\nadmin off\nauto_https disable_redirects\nlocal_certs\nskip_install_trust\ndefault_sni 127.0.0.1\n"
        f"storage file_system {folder}/data\n}}\n{site}"
    )
    words = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with running(words, port, folder / "out.log", **home):
        root = folder / "data/pki/authorities/local/root.crt"
        end = time.monotonic() + HANGS_S
        # Its own certificate comes a moment after the root's.
        while not root.exists() or not _shakes_hands(port, root):
            assert time.monotonic() < end, (folder / "out.log").read_text()
            time.sleep(0.05)
        yield root


def users(panel: Served) -> list[tuple[str, str]]:
    """Who asked for what, as the panel logged it."""
    return [(one["path"], one["user"]) for one in panel.lines("request")]


def _shakes_hands(port: int, trust: Path) -> bool:
    context = ssl.create_default_context(cafile=trust)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1"),
        ):
            return True
    except ssl.SSLError:
        return False


def asked(
    port: int, path: str, method: str = "GET", *, trust: Path, body: bytes | None = None, **headers: str
) -> http.client.HTTPResponse:  # fmt: skip
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=60, context=ssl.create_default_context(cafile=trust)
    )
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=told)
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def check_uploads(tree: Root, panel: Served, port: int, trust: Path, tmp_path: Path) -> None:
    """Bytes reach the disk while more of the same request are still to come; `send` brings the rest."""
    token = panel.token("scanner", "ann")
    bearer = f"Bearer {token}"
    size = 24 << 20
    data = os.urandom(size)
    made = asked(
        port, "/uploads", "POST", trust=trust, Authorization=bearer, Tus_Resumable="1.0.0",
        Upload_Length=str(size), Upload_Metadata=said(filename="a.svs"),
    )  # fmt: skip
    assert made.status == 201, made.body  # type: ignore[attr-defined]
    at = made.headers["Location"]
    [growing] = (tree.path / "inbox/.uploads").glob("*/tree/a.svs")
    context = ssl.create_default_context(cafile=trust)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        wire.sendall(
            f"PATCH {at} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {bearer}\r\n"
            f"Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: {OFFSETS}\r\n"
            f"Content-Length: {size}\r\n\r\n".encode()
        )
        wire.sendall(data[: 16 << 20])
        tree.wait(lambda: growing.stat().st_size >= 8 << 20)
        wire.sendall(data[16 << 20 :])
        assert b" 204 " in wire.recv(65_536)
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == data
    big = tmp_path / "big.svs"
    big.write_bytes(data * 3)
    told = subprocess.run(
        [sys.executable, "-m", "cytowatch", "send", str(big), "--to", f"https://127.0.0.1:{port}"],
        env={**os.environ, "CYTOWATCH_TOKEN": token, "SSL_CERT_FILE": str(trust)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert (tree.path / "inbox/ann/big.svs").read_bytes() == data * 3


@needs("nginx")
def test_behind_nginx(tree: Root, tmp_path: Path) -> None:
    """TLS, uploads without a buffer, and no name that a browser states of itself."""
    panel = Served(tree.path, more=SHARE)
    # The same panel where the proxy states the name: what a browser sends of it must not get there.
    named = Served(tree.path, more='auth = "proxy"\nhosts = ["slides.lab.example"]\n')
    port, other = free_port(), free_port()
    crt, key = certificate(tmp_path)
    block = documented("server {", "ssl_certificate").replace("/etc/ssl/slides.crt", str(crt))
    block = block.replace("/etc/ssl/slides.key", str(key)).replace("slides.lab.example", "_")
    servers = "".join(
        block.replace("443 ssl", f"127.0.0.1:{at} ssl").replace("9780", str(to.port))
        for at, to in ((port, panel), (other, named))
    )
    try:
        with nginx(tmp_path / "nginx", port, servers):
            assert asked(port, "/login", trust=crt).status == 200
            for header in ("X-Forwarded-User", "x-forwarded-user"):
                forged = asked(other, "/api/v1/files", trust=crt, **{header: "ann"})
                assert forged.status == 401, header
            # A change from a page of this panel, at any port the proxy listens.
            here = f"https://127.0.0.1:{port}"
            changed = asked(
                port, "/login", "POST", trust=crt, body=b"name=x&password=y", Origin=here,
                Content_Type="application/x-www-form-urlencoded",
            )  # fmt: skip
            assert changed.status not in (400, 403), changed.body  # type: ignore[attr-defined]
            away = asked(port, "/login", "POST", trust=crt, body=b"", Origin="https://evil.example")
            assert away.status == 403
            check_uploads(tree, panel, port, crt, tmp_path)
    finally:
        panel.stop()
        named.stop()


@needs("caddy")
def test_behind_caddy(tree: Root, tmp_path: Path) -> None:
    """The three documented lines: TLS and uploads."""
    panel = Served(tree.path, more=SHARE)
    port = free_port()
    block = documented("slides.lab.example {\n    reverse_proxy", "9780")
    try:
        with caddy(tmp_path / "caddy", port, block.replace("9780", str(panel.port))) as trust:
            assert asked(port, "/login", trust=trust).status == 200
            check_uploads(tree, panel, port, trust, tmp_path)
    finally:
        panel.stop()


@pytest.mark.parametrize("lets_through", [False, True])
@needs("caddy", "nginx")
def test_a_log_in_behind_caddy(tree: Root, tmp_path: Path, lets_through: bool) -> None:
    """A real log-in asks for a name and a password; a name that a browser states of itself never reaches the panel."""
    panel = Served(
        tree.path,
        more='auth = "proxy"\nuser_header = "Remote-User"\nhosts = ["slides.lab.example"]\n',
    )
    port, door = free_port(), free_port()
    # As Authelia answers: 401, or 200 with the name. Where a rule lets everyone through it names nobody.
    (tmp_path / "users").write_text("ann:{PLAIN}secret\n")
    (tmp_path / "empty").write_text("")
    asks = f'auth_basic "lab";\nauth_basic_user_file {tmp_path}/users;\nadd_header Remote-User $remote_user always;\n'
    servers = (
        f"server {{ listen 127.0.0.1:{door};\nlocation = /api/authz/forward-auth {{\n"
        f"{'' if lets_through else asks}alias {tmp_path}/empty;\n}} }}"
    )
    block = documented("slides.lab.example {\n    route", "forward_auth")
    block = block.replace("9780", str(panel.port)).replace("9091", str(door))
    if os.geteuid() == 0:
        shutil.chown(tmp_path / "users", 0)
    try:
        with (
            nginx(tmp_path / "nginx", door, servers),
            caddy(tmp_path / "caddy", port, block) as trust,
        ):
            right = "Basic YW5uOnNlY3JldA=="
            assert asked(port, "/api/v1/files", trust=trust, Remote_User="bob").status == 401
            if not lets_through:
                good = asked(port, "/api/v1/files", trust=trust, Authorization=right)
                assert good.status == 200
                both = asked(port, "/", trust=trust, Authorization=right, Remote_User="bob")
                assert both.status == 200
                # The line is written once the answer is sent.
                tree.wait(lambda: [u for p, u in users(panel) if p == "/"] == ["ann"])
    finally:
        panel.stop()
