"""`cytowatch send`: what it refuses to send, whom it does not take for a panel, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cytowatch.cli import send
from cytowatch.cli.parcels import SendError, item_of, pieces
from cytowatch.cli.tus import Server
from tests import builders
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.panel.tus import sending

PROXY = 'auth = "proxy"\nadmins = ["boss"]\n'
#: More than the buffers between client and panel hold.
BIG = 24 << 20


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """One that takes two MB a second of each user, so that something can happen meanwhile."""
    served = Served(tree.path, more=f"{PROXY}upload_bytes_per_s = {2 << 20}\n")
    yield served
    served.stop()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=HANGS_S)
    return process.returncode, said


def test_what_has_no_end_is_no_file(tmp_path: Path) -> None:
    """A pipe and a device, named or by a link, are refused before they are read; in a folder they are left out."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(SendError, match="neither a file nor a folder"):
            item_of(path)
    (tmp_path / "a.svs").write_bytes(b"abc")
    found = item_of(tmp_path)
    assert [part.path for part in found.parts] == [f"{tmp_path.name}/a.svs"]
    assert len(found.skipped) == 2


def test_names_are_as_they_arrive(tmp_path: Path) -> None:
    """A path with `..` goes by the folder that it leads to; one that is not UTF-8 would arrive under another name."""
    (tmp_path / "case" / "inner").mkdir(parents=True)
    (tmp_path / "case" / "a.svs").write_bytes(b"abc")
    assert item_of(tmp_path / "case" / "inner" / "..").parts[0].path == "case/a.svs"
    with pytest.raises(SendError, match="it has no name"):
        item_of(Path("/"))
    odd = os.fsencode(tmp_path / "case") + b"/caf\xe9.svs"
    with open(odd, "wb") as file:
        file.write(b"abc")
    for path in (Path(os.fsdecode(odd)), tmp_path / "case"):
        with pytest.raises(SendError, match="is not in UTF-8: rename it"):
            item_of(path)


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder with its path in it: a technician must know which one."""
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "a.svs").write_bytes(b"abc")

    def denied(path: Path, *_args: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SendError, match=r"^a\.svs: Permission denied$"):
        item_of(tmp_path / "case")


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
def test_a_file_that_changes_is_never_whole_at_the_server(tmp_path: Path, change: str) -> None:
    """After it was hashed: its last bytes are not handed out, so nothing is published of a scan that still grows."""
    path = tmp_path / "a.svs"
    path.write_bytes(os.urandom(3 << 20))
    [part] = item_of(path).parts
    assert sum(map(len, pieces(part, 0, part.size))) == part.size
    came = pieces(part, 0, part.size)
    sent = len(next(came))
    match change:
        case "longer":
            with path.open("ab") as file:
                file.write(b"more")
        case "shorter":
            os.truncate(path, 2 << 20)
        case "other":
            with path.open("r+b") as file:
                file.write(b"other")
            os.utime(path, ns=(1, 1))
        case _:
            path.unlink()
            assert sum(map(len, came)) == part.size - sent
            with pytest.raises(SendError, match="it can no longer be read"):
                next(pieces(part, 0, part.size))
            return
    with pytest.raises(SendError, match="somebody writes to it"):
        while True:
            sent += len(next(came))
    assert sent < part.size


def half_sent(tree: Root, panel: Served, path: Path) -> subprocess.Popen[str]:
    """A scan is made at `path`, and a part of it has arrived."""
    path.write_bytes(os.urandom(BIG))
    process = sending(panel, path, token=panel.token("scanner", "ann"))
    uploads = tree.path / "inbox/.uploads"
    tree.wait(lambda: any(one.stat().st_size for one in uploads.glob(f"*/tree/{path.name}")))
    return process


def test_a_scan_that_grows_while_it_is_sent_is_no_drop(
    tree: Root, panel: Served, tmp_path: Path
) -> None:
    """It ends with 1 and says what to do; nothing is in the inbox."""
    path = tmp_path / "scan.svs"
    process = half_sent(tree, panel, path)
    with path.open("ab") as file:
        file.write(b"more")
    code, said = ended(process)
    assert code == 1
    assert "somebody writes to it: send it again when it is complete" in said
    assert not (tree.path / "inbox/ann/scan.svs").exists()


def test_an_interruption_ends_it(tree: Root, panel: Served, tmp_path: Path) -> None:
    """Ctrl-C: nothing more is sent, of none of the files, and a second call goes on."""
    # Without a byte on this disk, and more than is sent before the signal comes.
    for name in ("a.svs", "b.svs", "c.svs"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(40 * BIG)
    process = sending(
        panel, *tmp_path.glob("*.svs"), "--parallel", "1", token=panel.token("pc", "ann")
    )
    uploads = tree.path / "inbox/.uploads"
    tree.wait(lambda: any(one.stat().st_size for one in uploads.glob("*/tree/*.svs")))
    process.send_signal(signal.SIGINT)
    code, _ = ended(process)
    assert code != 0
    assert list((tree.path / "inbox").glob("ann/*")) == []
    assert len(list(uploads.glob("*/tree/*.svs"))) == 1


def test_a_token_that_is_revoked_meanwhile_is_said(
    tree: Root, panel: Served, tmp_path: Path
) -> None:
    """In the server's words, although an answer to HEAD has none."""
    process = half_sent(tree, panel, tmp_path / "scan.svs")
    subprocess.run(tree.command("token", "revoke", "scanner", "--root", str(tree.path)), check=True)
    code, said = ended(process)
    assert code == 1
    assert "This token is unknown, revoked or expired." in said


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://[::1", "ftp://a", "a", ""],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_in_words(address: str) -> None:
    """Before anything is read; a token that cannot be one as well."""
    with pytest.raises(SendError, match="give the address of a panel"):
        Server(address)
    for token in ("a\nb", "é", "a b"):
        with pytest.raises(SendError, match="not a token"):
            Server("http://127.0.0.1:9780 ", token)


class _Other(BaseHTTPRequestHandler):
    """Another server than a panel: what it answers to POST stands in `answers`."""

    answers: tuple[int, dict[str, str]] = (200, {})

    def do_POST(self) -> None:
        code, headers = self.answers
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[Callable[[int, dict[str, str]], str]]:
    """Starts one; gives its address."""
    started: list[ThreadingHTTPServer] = []

    def begin(code: int, headers: dict[str, str]) -> str:
        handler = type("Handler", (_Other,), {"answers": (code, headers)})
        started.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{started[-1].server_port}"

    yield begin
    for one in started:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(
    ("code", "headers", "said"),
    [
        (404, {}, "is this the address of a panel"), (200, {}, "is this the address of a panel"),
        (301, {"Location": "https://slides.lab/uploads"}, "leads to https://slides.lab/uploads"),
        (201, {}, "is not a panel"), (201, {"Location": "/x", "Upload-Offset": "x"}, "is not a panel"),
        (201, {"Location": "/x", "Upload-Offset": "²".encode().decode("latin-1"), "Tus-Resumable": "1.0.0"}, "is not a panel"),
    ],
)  # fmt: skip
def test_another_server_is_not_taken_for_a_panel(
    other: Callable[[int, dict[str, str]], str],
    tmp_path: Path,
    code: int,
    headers: dict[str, str],
    said: str,
) -> None:
    """Each of its answers is an error in words."""
    (tmp_path / "a.svs").write_bytes(b"abc")
    item = item_of(tmp_path / "a.svs")
    with pytest.raises(SendError, match=said):
        Server(other(code, headers)).send(item, item.parts[0], {}, lambda _here: None)


def test_tls_where_there_is_none_is_said_at_once(
    other: Callable[[int, dict[str, str]], str], tmp_path: Path
) -> None:
    """No later try can help, so none is made."""
    (tmp_path / "a.svs").write_bytes(b"abc")
    item = item_of(tmp_path / "a.svs")
    told: list[str] = []
    address = other(201, {}).replace("http:", "https:")
    with pytest.raises(SendError, match="does not speak TLS"):
        Server(address, tell=told.append).send(item, item.parts[0], {}, lambda _here: None)
    assert told == []


class _Told:
    """A panel that answers one thing after the other about a drop."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        usual = {"drop": "ann/a", "files": [], "taken": True, "waits": None, "left": 0}
        self.answers = [{**usual, **one} for one in answers]

    def seen(self, _at: str) -> dict[str, Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a drop that somebody took away, and for one without any image."""
    monkeypatch.setattr(send, "_EVERY_S", 0)
    with pytest.raises(SendError, match="somebody has taken it away"):
        send._wait(_Told({"taken": False}, {}), "")  # type: ignore[arg-type]
    with pytest.raises(SendError, match="no image in it"):
        send._wait(_Told({"left": 2}), "")  # type: ignore[arg-type]
    good = {"failed": False, "final": True}
    send._wait(_Told({}, {}, {"files": [good]}), "")  # type: ignore[arg-type]


def test_a_folder_with_a_report_in_it_is_deployed(tree: Root, tmp_path: Path) -> None:
    """The slides are what is waited for; a text beside them stays in the inbox. A folder of texts fails in words."""
    panel = Served(tree.path, more=PROXY)
    try:
        token = panel.token("scanner", "ann")
        for name in ("case", "texts"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "report.txt").write_text(f"a report of {name}\n")
        builders.jpeg(tmp_path / "case" / "a.jpg")
        process = sending(panel, tmp_path / "case", "--wait", token=token)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
        # Nobody works yet, and that is said.
        assert process.poll() is None
        tree.start()
        code, said = ended(process)
        assert code == 0, said
        assert "because no daemon runs" in said
        assert (tree.path / "inbox/ann/case/report.txt").exists()
        code, said = ended(sending(panel, tmp_path / "texts", "--wait", token=token))
        assert code == 1
        assert "there is no image in it" in said
        assert tree.stop() == 0
    finally:
        panel.stop()
