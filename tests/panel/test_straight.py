"""Bodies that are read from the socket past the parser: just their own bytes, no matter what their client does."""

from __future__ import annotations

import base64
import hashlib
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from cytowatch.config import Panel
from cytowatch.panel.uploads import appending
from cytowatch.panel.uploads.appending import Appending
from cytowatch.panel.uploads.body import Body
from tests.lab import disks
from tests.lab.inside import panel_inside
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.panel.tus import OFFSETS, add, begun, head

PROXY = 'auth = "proxy"\n'
MIB = 1 << 20
DATA = os.urandom(3 * MIB + 12_345)


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """A panel where a proxy states the user."""
    served = Served(tree.path, more=PROXY)
    yield served
    served.stop()


class Line:
    """A client that sends bytes as they stand, and reads one answer after the other."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=HANGS_S)
        self._answers = self.socket.makefile("rb")

    def head(self, at: str, offset: int, size: int, *more: str, method: str = "PATCH") -> bytes:
        lines = (
            f"{method} {at} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "X-Forwarded-User: ann",
            f"Origin: http://127.0.0.1:{self.port}", "Tus-Resumable: 1.0.0", f"Upload-Offset: {offset}",
            f"Content-Type: {OFFSETS}", f"Content-Length: {size}", *more,
        )  # fmt: skip
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self) -> tuple[int, str]:
        """The code of the next answer, and its ``Upload-Offset``."""
        code = int(self._answers.readline().split()[1])
        found = {}
        while line := self._answers.readline().strip():
            name, _, value = line.decode().partition(": ")
            found[name.lower()] = value
        self._answers.read(int(found.get("content-length", "0")) if code == 200 else 0)
        if code >= 400:
            self._answers.read(int(found["content-length"]))
        return code, found.get("upload-offset", "")

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._answers.close()
        self.socket.close()


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """`data` in parts of these sizes, again and again."""
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        yield data[at : at + size]
        at, number = at + size, number + 1


def drop(tree: Root, name: str = "a.svs") -> bytes:
    return (tree.path / "inbox/ann" / name).read_bytes()


def threads(panel: Served) -> int:
    assert panel.process
    return len(os.listdir(f"/proc/{panel.process.pid}/task"))


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_they_pass_no_parser(tree: Root, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """A body that comes after its head does not go the parser's way, from a proxy that speaks HTTP/1.0 neither."""
    monkeypatch.delattr(Body, "_parsed")
    with panel_inside(tree.path, Panel(auth="proxy")) as (port, _):
        line = Line(port)
        meta = f"filename {base64.b64encode(b'a.svs').decode()}"
        more = (f"Upload-Length: {len(DATA)}", f"Upload-Metadata: {meta}")
        asked = line.head("/uploads", 0, len(DATA), *more, method="POST")
        line.send(asked.replace(b"HTTP/1.1", f"HTTP/{version}".encode()), DATA[:1])
        line.send(DATA[1:])
        assert line.answer() == (201, str(len(DATA)))
        line.close()
    assert drop(tree) == DATA


@pytest.mark.parametrize(
    "sizes", [(1 << 30,), (MIB,), (1, 300_000), (65_537,), (100, MIB + 7)], ids=str
)
def test_what_is_behind_a_body(tree: Root, panel: Served, sizes: tuple[int, ...]) -> None:
    """Four requests in one stream, however it is cut: each gets its bytes, and its answer in its turn."""
    one = begun(panel, len(DATA), filename="a.svs")
    other = begun(panel, 2, filename="b.svs")
    line = Line(panel.port)
    half = len(DATA) // 2
    stream = b"".join(
        (
            line.head(one, 0, half), DATA[:half],
            line.head(one, half, len(DATA) - half), DATA[half:],
            line.head(other, 0, 0, method="HEAD"),
            line.head(other, 0, 2), b"xy",
        )
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(line.send, *cut(stream, sizes))
        found = [line.answer() for _ in range(4)]
        sending.result(HANGS_S)
    assert found == [(204, str(half)), (204, str(len(DATA))), (200, "0"), (204, "2")]
    # The connection is as good as before.
    line.send(line.head("/uploads/none", 0, 0, method="GET"))
    assert line.answer()[0] == 404
    line.close()
    assert drop(tree) == DATA
    assert drop(tree, "b.svs") == b"xy"


def test_a_client_that_waits_to_be_asked(tree: Root, panel: Served) -> None:
    """``Expect: 100-continue`` is answered once, before the body."""
    at = begun(panel, len(DATA), filename="a.svs")
    line = Line(panel.port)
    line.send(line.head(at, 0, len(DATA), "Expect: 100-continue"))
    assert line.answer()[0] == 100
    line.send(DATA)
    assert line.answer() == (204, str(len(DATA)))
    line.close()
    assert drop(tree) == DATA


def test_slow_ones_take_no_thread(tree: Root, panel: Served) -> None:
    """Sixty are in the midst of a body, more than there are threads: a fast one passes them all, and then each goes on."""
    lines = [(Line(panel.port), begun(panel, len(DATA), filename=f"{n}.svs")) for n in range(60)]
    add(panel, begun(panel, len(DATA), filename="first.svs"), 0, DATA)
    kb = panel.memory_kb()
    for line, at in lines:
        line.send(line.head(at, 0, len(DATA)), DATA[:1000])
    tree.wait(lambda: panel.uploads_held() == len(lines))
    # Threads of pages come and go; they are fewer than the clients.
    assert threads(panel) < 60
    assert panel.memory_kb() < kb + 60 * 200
    at = begun(panel, len(DATA), filename="fast.svs")
    assert add(panel, at, 0, DATA).code == 204
    assert drop(tree, "fast.svs") == DATA
    for line, _ in lines:
        line.send(DATA[1000:])
    for number, (line, _) in enumerate(lines):
        assert line.answer() == (204, str(len(DATA)))
        line.close()
        assert drop(tree, f"{number}.svs") == DATA


@pytest.mark.parametrize("sizes", [(1 << 30,), (1, 300_000), (4095, MIB + 7)], ids=str)
@pytest.mark.parametrize("rate", [0, 50_000_000])
def test_a_large_file_passes_the_page_cache(
    tree: Root, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], rate: int
) -> None:
    """However its bytes come and wherever a request begins: they are the same, and most of them go straight to the disk."""
    disks.skip_unless_direct(tree.path)
    monkeypatch.setattr(appending, "_LARGE_BYTES", 0)
    passed: list[int] = []
    past = Appending._past

    def noted(self: Appending, blocks: memoryview) -> memoryview:
        rest = past(self, blocks)
        passed.append(len(blocks) - len(rest))
        return rest

    monkeypatch.setattr(Appending, "_past", noted)
    data, first = DATA * 3, 2 * MIB + 77
    settings = Panel(auth="proxy", upload_bytes_per_s=rate)
    with panel_inside(tree.path, settings) as (port, _):
        line = Line(port)
        meta = f"filename {base64.b64encode(b'a.svs').decode()}"
        more = (f"Upload-Length: {len(data)}", f"Upload-Metadata: {meta}")
        line.send(line.head("/uploads", 0, first, *more, method="POST"), *cut(data[:first], sizes))
        assert line.answer() == (201, str(first))
        [folder] = (tree.path / "inbox/.uploads").glob("*/notes/*.json")
        at = f"/uploads/{folder.parent.parent.name}.{folder.stem}"
        line.send(line.head(at, first, len(data) - first), *cut(data[first:], sizes))
        assert line.answer() == (204, str(len(data)))
        line.close()
    assert drop(tree) == data
    assert sum(passed) > len(data) // 2


@pytest.mark.parametrize("sent", [1, 1000, MIB, 2 * MIB + 500_000])
def test_cut_in_the_middle(tree: Root, panel: Served, sent: int) -> None:
    """Every byte that came is kept, also those of a piece that is not full; the next request goes on from there."""
    at = begun(panel, len(DATA), filename="a.svs")
    line = Line(panel.port)
    line.send(line.head(at, 0, len(DATA)))
    tree.wait(lambda: panel.uploads_held() == 1)
    line.send(DATA[:sent])
    line.close()
    tree.wait(lambda: panel.uploads_held() == 0)
    assert head(panel, at).headers["upload-offset"] == str(sent)
    assert add(panel, at, sent, DATA[sent:]).code == 204
    assert drop(tree) == DATA


def test_reset_in_the_middle(tree: Root, panel: Served) -> None:
    """As by a cable that is pulled: its beginning is kept, and the log has no error."""
    at = begun(panel, len(DATA), filename="a.svs")
    line = Line(panel.port)
    line.send(line.head(at, 0, len(DATA)), DATA[: 2 * MIB])
    tree.wait(lambda: panel.uploads_held() == 1)
    line.close(reset=True)
    tree.wait(lambda: panel.uploads_held() == 0)
    here = int(head(panel, at).headers["upload-offset"])
    assert here <= 2 * MIB
    assert add(panel, at, here, DATA[here:]).code == 204
    assert drop(tree) == DATA
    assert panel.lines("panel_unexpected") == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_panel_ends_in_the_middle(tree: Root, panel: Served, how: signal.Signals) -> None:
    """Killed, or asked to end beside a client that has fallen silent: it ends, and the next one goes on."""
    at = begun(panel, len(DATA), filename="a.svs")
    line = Line(panel.port)
    line.send(line.head(at, 0, len(DATA)), DATA[: 2 * MIB + 5])
    growing = next((tree.path / "inbox/.uploads").glob("*/tree/a.svs"))
    tree.wait(lambda: growing.stat().st_size >= MIB)
    assert panel.process
    panel.process.send_signal(how)
    assert panel.process.wait(HANGS_S) == (-how if how is signal.SIGKILL else 0)
    line.close()
    panel.start()
    here = int(head(panel, at).headers["upload-offset"])
    assert MIB <= here <= 2 * MIB + 5
    assert add(panel, at, here, DATA[here:]).code == 204
    assert drop(tree) == DATA


def test_two_clients_on_one_upload(tree: Root, panel: Served) -> None:
    """The second one is refused while the first is in the midst of its body, and takes none of its bytes."""
    at = begun(panel, len(DATA), filename="a.svs")
    line, other = Line(panel.port), Line(panel.port)
    line.send(line.head(at, 0, len(DATA)), DATA[: 2 * MIB])
    growing = next((tree.path / "inbox/.uploads").glob("*/tree/a.svs"))
    tree.wait(lambda: growing.stat().st_size >= MIB)
    other.send(other.head(at, 0, 5), b"wrong")
    assert other.answer()[0] == 423
    line.send(DATA[2 * MIB :])
    assert line.answer() == (204, str(len(DATA)))
    line.close()
    other.close()
    assert drop(tree) == DATA


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_a_wrong_checksum(tree: Root, panel: Served, kind: str) -> None:
    """Nothing of the body is kept, and the connection is good for the right one; cut in the middle it keeps nothing too."""
    at = begun(panel, len(DATA), filename="a.svs")
    right = f"Upload-Checksum: {kind} {base64.b64encode(hashlib.new(kind, DATA).digest()).decode()}"
    line = Line(panel.port)
    line.send(line.head(at, 0, len(DATA), right))
    line.send(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    assert line.answer()[0] == 460
    assert head(panel, at).headers["upload-offset"] == "0"
    broken = Line(panel.port)
    broken.send(broken.head(at, 0, len(DATA), right), DATA[: 2 * MIB])
    growing = next((tree.path / "inbox/.uploads").glob("*/tree/a.svs"))
    tree.wait(lambda: growing.stat().st_size >= MIB)
    broken.close()
    tree.wait(lambda: panel.uploads_held() == 0)
    assert growing.stat().st_size == 0
    line.send(line.head(at, 0, len(DATA), right), DATA)
    assert line.answer() == (204, str(len(DATA)))
    line.close()
    assert drop(tree) == DATA


@pytest.mark.parametrize("has_checksum", [False, True])
def test_a_disk_that_refuses(tree: Root, panel: Served, has_checksum: bool) -> None:
    """In the middle of a body: the answer says so at once, the rest is thrown away, and the next request is understood. Bytes that were to be compared first are not kept."""
    data = DATA * 4
    sha1 = base64.b64encode(hashlib.sha1(data).digest()).decode()
    more = [f"Upload-Checksum: sha1 {sha1}"] if has_checksum else []
    at = begun(panel, len(data), filename="a.svs")
    assert panel.process
    hard = resource.prlimit(panel.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(panel.process.pid, resource.RLIMIT_FSIZE, (2 * MIB, hard))
    line = Line(panel.port)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(line.send, line.head(at, 0, len(data), *more), *cut(data, (100_000,)))
        assert line.answer()[0] == 500
        sending.result(HANGS_S)
    resource.prlimit(panel.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    line.send(line.head(at, 0, 0, method="HEAD"))
    code, offset = line.answer()
    assert code == 200
    here = int(offset)
    assert here == 0 if has_checksum else 0 < here <= 2 * MIB
    line.send(line.head(at, here, len(data) - here), data[here:])
    assert line.answer() == (204, str(len(data)))
    line.close()
    assert drop(tree) == data
    assert panel.lines("panel_unexpected") == []
