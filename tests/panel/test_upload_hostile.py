"""What an attacker, a broken client or a race does to uploads: each is refused in words, and nothing leaks or is lost."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.panel import Answer, Served
from tests.lab.root import HANGS_S, Root
from tests.panel.tus import OFFSETS, add, begun, create, head, said

PROXY = 'auth = "proxy"\n'


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """A panel where a proxy states the user."""
    served = Served(tree.path, more=PROXY)
    yield served
    served.stop()


def posted(panel: Served, **headers: str) -> Answer:
    wanted = {"Tus_Resumable": "1.0.0", "Upload_Length": "3", **headers}
    return panel.as_user("ann", "/uploads", "POST", **wanted)


def nothing_is_made(tree: Root) -> bool:
    return not (tree.path / "inbox/.uploads").exists() and os.listdir(tree.path / "inbox") == []


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_metadata_of_odd_kinds(tree: Root, panel: Served) -> None:
    """Bytes that do not make text, halves of characters, broken base64, far too much of it: 400, and nothing is made."""
    for header in (
        f"filename {b64(b'a.svs'[:-1] + bytes([0xFF]))}",
        # Half of a pair that stands for one character, as some file managers write it.
        f"filename {b64(b'a' + bytes([0xED, 0xA0, 0x80]) + b'.svs')}",
        "filename", "filename ====", "filename a.svs", "filename\tYS5zdnM=", ",", ",,,", " ",
        f"filename {b64(b'a.svs')},{'x' * (17 << 10)}",
        f"filename {b64(b'a.svs')},groupFiles {b64(b'0')},group {b64(b'12345678')}",
        f"filename {b64(b'a.svs')},group {b64(b'../../etc')}",
        f"filename {b64(b'a.svs')},project {b64(b'../x')}",
        f"filename {b64(b'a.svs')},sha256 {b64(b'0' * 63)}",
        f"filename {b64(b'con' + bytes([0]) + b'.svs')}",
        f"filename {b64(bytes([0x1B]) + b'[2J.svs')}",
    ):  # fmt: skip
        answer = posted(panel, Upload_Metadata=header)
        assert answer.code == 400, header[:60]
        assert answer.json["error"][-1] == ".", header[:60]
    for length in ("", "-1", "+3", "3.0", "1e3", "0x3", "\u00b3", "3 3", "9" * 30):
        assert posted(panel, Upload_Length=length, Upload_Metadata=said(filename="a.svs")).code in (
            400, 413,
        ), length  # fmt: skip
    assert nothing_is_made(tree)
    # A key that is unknown does no harm.
    more = f"{said(filename='a.svs')},is_secret"
    assert posted(panel, Upload_Metadata=more).code == 201
    [note] = (tree.path / "inbox/.uploads").glob("*/notes/*.json")
    assert json.loads(note.read_text())["path"] == "a.svs"


def test_what_this_server_cannot_do_is_said(tree: Root, panel: Served) -> None:
    """Parts that are to be joined, and a size that comes later, are refused and not misunderstood."""
    meta = said(filename="a.svs")
    assert posted(panel, Upload_Metadata=meta, Upload_Concat="partial").code == 400
    assert posted(panel, Upload_Metadata=meta, Upload_Defer_Length="1").code == 400
    assert posted(panel, Upload_Metadata=meta, Tus_Resumable="0.2.2").code == 412
    assert nothing_is_made(tree)


def test_what_may_mean_two_things_is_refused(tree: Root, panel: Served) -> None:
    """A key that is there twice, and a body that is packed: neither is guessed at, and nothing of it is kept."""
    twice = panel.as_user(
        "ann", "/uploads", "POST", Tus_Resumable="1.0.0", Upload_Length="3",
        Upload_Metadata=f"{said(filename='a.svs')},{said(filename='b.svs')}",
    )  # fmt: skip
    assert twice.code == 400
    assert "more than once" in twice.json["error"]
    at = begun(panel, 3, filename="a.svs")
    assert add(panel, at, 0, b"abc", Content_Encoding="gzip").code == 415
    assert head(panel, at).headers["upload-offset"] == "0"
    assert add(panel, at, 0, b"abc", Content_Encoding="identity").code == 204
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Upload-Length", "4"), ("Upload-Metadata", said(filename="b.svs")), ("Upload-Offset", "1"),
        ("Tus-Resumable", "1.0.0"), ("Content-Type", "text/plain"), ("Upload-Checksum", "sha1 AAAA"),
    ],
)  # fmt: skip
def test_a_header_that_is_there_twice(tree: Root, panel: Served, header: str, value: str) -> None:
    """A proxy might have looked at the other one: it is refused, and nothing of it is kept."""
    sha1 = b64(hashlib.sha1(b"abc").digest())
    lines = (
        "Upload-Length: 3", f"Upload-Metadata: {said(filename='a.svs')}", "Content-Length: 3",
        f"Upload-Checksum: sha1 {sha1}", f"{header}: {value}",
    )  # fmt: skip
    answer = raw(panel, patched(panel, "/uploads", *lines).replace(b"PATCH", b"POST", 1) + b"abc")
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert nothing_is_made(tree)
    bearer = [f"Authorization: Bearer {panel.token('one', 'ann')}"] * 2
    assert b" 400 " in raw(panel, patched(panel, "/uploads", *lines, *bearer)).partition(b"\r\n")[0]


def test_accents_in_two_pieces(tree: Root, panel: Served) -> None:
    """As a Mac writes them (NFD): a project is the one of that name, a file keeps its own."""
    (tree.path / "inbox/ann/@Lébn").mkdir(parents=True)
    apart = unicodedata.normalize("NFD", "é.svs")
    for name in (apart, "é.svs"):
        at = begun(panel, 3, filename=name, project=unicodedata.normalize("NFD", "Lébn"))
        assert add(panel, at, 0, b"abc").code == 204
    assert os.listdir(tree.path / "inbox/ann") == ["@Lébn"]
    assert sorted(os.listdir(tree.path / "inbox/ann/@Lébn")) == sorted([apart, "é.svs"])


def test_a_file_and_a_folder_of_one_name(tree: Root, panel: Served) -> None:
    """In one folder, in each order: refused in words that name no path of the server, and the rest arrives."""
    more = {"group": "case-20261129", "groupFiles": "2"}
    at = begun(panel, 3, relativePath="c/a", **more)
    under_file = create(panel, 3, relativePath="c/a/b", **more)
    other = {"group": "case-20261130", "groupFiles": "2"}
    begun(panel, 3, relativePath="c/d/e", **other)
    over_folder = create(panel, 3, relativePath="c/d", **other)
    at_top = create(panel, 3, relativePath="c", **other)
    for answer in (under_file, over_folder, at_top):
        assert answer.code == 409, answer.text
        assert "/" not in answer.json["error"]
    assert add(panel, at, 0, b"abc").code == 204
    assert add(panel, begun(panel, 3, relativePath="c/b", **more), 0, b"abc").code == 204
    assert sorted(os.listdir(tree.path / "inbox/ann/c")) == ["a", "b"]


def test_one_name_by_many_at_once(tree: Root, panel: Served) -> None:
    """Twelve clients send another file of the same name at the same time: twelve drops, none replaced."""
    sent = [os.urandom(50_000) for _ in range(12)]

    def one(data: bytes) -> int:
        at = create(panel, len(data), filename="same.svs").headers["location"]
        return add(panel, at, 0, data).code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(one, sent)) == {204}
    drops = list((tree.path / "inbox/ann").iterdir())
    assert sorted(one.read_bytes() for one in drops) == sorted(sent)


def test_a_token_revoked_and_a_project_removed_meanwhile(tree: Root) -> None:
    """The next request of the token is refused, what it sent stays for its user; the project is made again, or refused to strangers."""
    panel = Served(tree.path, more=f'{PROXY}[panel.projects]\nLung = ["ann"]\n')
    try:
        bearer = f"Bearer {panel.token('laptop', 'ann')}"
        (tree.path / "projects/Lung").mkdir()
        at = begun(panel, 6, filename="a.svs", project="Lung")
        assert create(panel, 6, user="bob", filename="a.svs", project="Lung").code == 403

        def by_token(method: str, **more: Any) -> Answer:
            said = {"Tus_Resumable": "1.0.0", "Authorization": bearer}
            return panel.ask(at, method, origin=None, **said, **more)

        part = {"Upload_Offset": "0", "Content_Type": OFFSETS}
        assert by_token("PATCH", body=b"abc", **part).code == 204
        subprocess.run(
            [sys.executable, "-m", "cytowatch", "token", "revoke", "laptop", "--root", str(tree.path)],
            check=True, capture_output=True,
        )  # fmt: skip
        (tree.path / "projects/Lung").rmdir()
        for method in ("HEAD", "GET", "PATCH", "DELETE"):
            more = {"body": b"def", **part, "Upload_Offset": "3"} if method == "PATCH" else {}
            assert by_token(method, **more).code == 401, method
        assert head(panel, at).headers["upload-offset"] == "3"
        assert add(panel, at, 3, b"def").code == 204
        assert (tree.path / "inbox/ann/@Lung/a.svs").read_bytes() == b"abcdef"
    finally:
        panel.stop()


def test_a_method_in_disguise(panel: Served) -> None:
    """A question stays a question; a POST that stands for another method is looked at as every change is."""
    at = begun(panel, 3, filename="a.svs")
    for method in ("GET", "HEAD"):
        panel.as_user("ann", at, method, Tus_Resumable="1.0.0", X_HTTP_Method_Override="DELETE")
        assert head(panel, at).code == 200
    for override in ("DELETE", "PATCH"):
        foreign = panel.as_user(
            "ann", at, "POST", origin="https://evil.example", Tus_Resumable="1.0.0",
            X_HTTP_Method_Override=override, body=b"abc", Upload_Offset="0", Content_Type=OFFSETS,
        )  # fmt: skip
        assert foreign.code == 403
        other = panel.as_user(
            "bob", at, "POST", Tus_Resumable="1.0.0", X_HTTP_Method_Override=override
        )
        assert other.code == 404
    assert head(panel, at).headers["upload-offset"] == "0"
    for odd in ("PUT", "TRACE", "", "DELETE, GET", "CONNECT"):
        answer = panel.as_user("ann", at, "POST", Tus_Resumable="1.0.0", X_HTTP_Method_Override=odd)
        assert answer.code == 405, odd
    good = panel.as_user("ann", at, "POST", Tus_Resumable="1.0.0", X_HTTP_Method_Override="DELETE")
    assert good.code == 204
    assert head(panel, at).code == 404


def test_addresses_that_lead_elsewhere(tree: Root, panel: Served) -> None:
    """No address but that of an upload of one's own is anything, with any method."""
    at = begun(panel, 3, filename="a.svs")
    token = at.rpartition("/")[2]
    (tree.path / "inbox/ann").mkdir()
    (tree.path / "inbox/ann/secret.svs").write_bytes(b"secret")
    for odd in (
        "..%2fann%2fsecret.svs", "%2e%2e/ann/secret.svs", "..", ".", "%00", f"{token}%00", f"{token}/../{token}x",
        token.upper(), f" {token}", f"{token}%0a", token.partition(".")[0], f"{token}.json", "*", "%ff",
    ):  # fmt: skip
        for method in ("GET", "HEAD", "DELETE", "PATCH"):
            answer = panel.as_user(
                "ann", f"/uploads/{odd.replace(' ', '%20')}", method, Tus_Resumable="1.0.0",
                Upload_Offset="0", Content_Type=OFFSETS, body=b"abc" if method == "PATCH" else None,
            )  # fmt: skip
            assert answer.code in (403, 404, 405), (method, odd)
            assert b"secret" not in answer.body
    assert head(panel, at).headers["upload-offset"] == "0"
    assert (tree.path / "inbox/ann/secret.svs").read_bytes() == b"secret"


def test_who_is_not_known_learns_nothing(tree: Root, panel: Served) -> None:
    """Without a name, with two, with one that is a path: 401 or 400 before anything is looked at."""
    at = begun(panel, 3, filename="a.svs")
    for path, method in (
        ("/uploads", "OPTIONS"),
        ("/uploads", "POST"),
        (at, "HEAD"),
        (at, "PATCH"),
    ):
        assert panel.ask(path, method, Tus_Resumable="1.0.0").code == 401
        for evil in ("../bob", "", ".uploads", "a/b", "@x"):
            answer = panel.ask(path, method, Tus_Resumable="1.0.0", X_Forwarded_User=evil)
            assert answer.code == 401, evil
    assert head(panel, at).headers["upload-offset"] == "0"


def test_one_user_in_two_spellings(tree: Root, panel: Served) -> None:
    """Ann and ANN are one person with one inbox, and each sees the other's uploads."""
    (tree.path / "inbox/Ann").mkdir()
    at = begun(panel, 3, filename="a.svs")
    assert head(panel, at, user="ANN").code == 200
    assert add(panel, at, 0, b"abc", user="ANN").code == 204
    assert os.listdir(tree.path / "inbox/Ann") == ["a.svs"]
    assert sorted(os.listdir(tree.path / "inbox")) == [".uploads", "Ann"]


def test_a_secret_is_in_no_log(tree: Root, panel: Served) -> None:
    """Neither a token nor a file's name with a patient's in a query gets there."""
    secret = panel.token("scanner", "ann")
    made = panel.ask(
        "/uploads?filename=Miller", "POST", origin=None, Authorization=f"Bearer {secret}",
        Tus_Resumable="1.0.0", Upload_Length="3", Upload_Metadata=said(filename="a.svs"),
    )  # fmt: skip
    assert made.code == 201
    panel.ask("/uploads", "POST", origin=None, Authorization=f"Bearer {secret}x")
    panel.ask(f"/uploads/{secret}", origin=None, Authorization=f"bearer {secret}")
    text = panel.log.read_text()
    assert "Miller" not in text
    # Anyone who writes it into the address has published it.
    assert text.count(secret) == text.count(f"/uploads/{secret}")


def raw(panel: Served, data: bytes) -> bytes:
    """What comes back for bytes as they stand."""
    with socket.create_connection(("127.0.0.1", panel.port), timeout=30) as one:
        one.sendall(data)
        found = b""
        while b"\r\n\r\n" not in found:
            more = one.recv(65_536)
            if not more:
                break
            found += more
        return found


def patched(panel: Served, at: str, *more: str) -> bytes:
    lines = [
        f"PATCH {at} HTTP/1.1", f"Host: {panel.address}", "X-Forwarded-User: ann",
        f"Origin: http://{panel.address}", "Tus-Resumable: 1.0.0", "Upload-Offset: 0",
        f"Content-Type: {OFFSETS}", *more,
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_bodies_that_do_not_say_how_long_they_are(tree: Root, panel: Served) -> None:
    """Chunked: what is announced is taken; of what goes beyond nothing stays; both lengths at once end the connection."""
    at = begun(panel, 6, filename="a.svs")
    beyond = patched(panel, at, "Transfer-Encoding: chunked") + b"8\r\nabcdefgh\r\n0\r\n\r\n"
    assert b" 413 " in raw(panel, beyond)
    assert head(panel, at).headers["upload-offset"] == "0"
    smuggled = patched(panel, at, "Transfer-Encoding: chunked", "Content-Length: 3")
    assert b" 204 " not in raw(panel, smuggled + b"3\r\nabc\r\n0\r\n\r\n")
    assert b" 204 " not in raw(panel, patched(panel, at, "Content-Length: -3") + b"abc")
    assert b" 204 " not in raw(
        panel, patched(panel, at, "Content-Length: 3", "Content-Length: 4") + b"abc"
    )
    assert head(panel, at).headers["upload-offset"] == "0"
    good = patched(panel, at, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    assert b" 204 " in raw(panel, good)
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abcdef"


def test_a_head_that_is_too_large(panel: Served) -> None:
    """It ends that connection only."""
    with socket.create_connection(("127.0.0.1", panel.port), timeout=30) as one:
        told = b""
        with suppress(ConnectionError):
            one.sendall(
                b"POST /uploads HTTP/1.1\r\nHost: x\r\nUpload-Metadata: " + b"x" * (64 << 10)
            )
            told = one.recv(100)
        assert told == b""
    assert head(panel, begun(panel, 3, filename="a.svs")).code == 200


def test_many_clients_begin_the_same_file(tree: Root, panel: Served) -> None:
    """Eight at a time announce one file of one folder and send it: one upload, no byte twice, one drop."""
    data = os.urandom(300_000)
    more = {"group": "case-20261129", "groupFiles": "1", "relativePath": "case/a.svs"}

    def one(_: int) -> tuple[str, list[int]]:
        at = create(panel, len(data), **more).headers["location"]
        codes = []
        for _ in range(200):
            here = int(head(panel, at).headers["upload-offset"])
            if here == len(data):
                break
            codes.append(add(panel, at, here, data[here : here + 50_000]).code)
        return at, codes

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(8)))
    assert len({at for at, _ in found}) == 1
    assert {code for _, codes in found for code in codes} <= {204, 409, 423}
    assert os.listdir(tree.path / "inbox/ann") == ["case"]
    assert (tree.path / "inbox/ann/case/a.svs").read_bytes() == data


def test_cancelled_while_it_is_sent(tree: Root, panel: Served) -> None:
    """A file of a folder that is cancelled during its last request is never taken for one that is whole."""
    more = {"group": "case-20261129", "groupFiles": "2"}
    one = begun(panel, 6, relativePath="case/a.svs", **more)
    other = begun(panel, 3, relativePath="case/b.svs", **more)
    with socket.create_connection(("127.0.0.1", panel.port), timeout=30) as slow:
        slow.sendall(patched(panel, one, "Content-Length: 6") + b"abc")
        growing = next((tree.path / "inbox/.uploads").glob("*/tree/case/a.svs"))
        # It holds the upload from here on.
        tree.wait(lambda: panel.uploads_held() == 1)
        assert add(panel, one, 5, b"a").code == 423
        assert panel.as_user("ann", one, "DELETE", Tus_Resumable="1.0.0").code == 423
        assert growing.exists()
    # It has broken off: now it goes, though the panel may not have noticed yet.
    assert panel.as_user("ann", one, "DELETE", Tus_Resumable="1.0.0").code == 204
    assert not growing.exists()
    assert head(panel, one).code == 404
    assert add(panel, other, 0, b"abc").code == 204
    assert not (tree.path / "inbox/ann").exists()
    # Announced again it begins again, and the folder is whole with it.
    again = begun(panel, 2, relativePath="case/a.svs", **more)
    assert head(panel, again).headers["upload-offset"] == "0"
    assert add(panel, again, 0, b"xy").code == 204
    assert (tree.path / "inbox/ann/case/a.svs").read_bytes() == b"xy"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "gone"])
def test_a_file_that_was_replaced(tree: Root, panel: Served, tmp_path: Path, kind: str) -> None:
    """By a link, a pipe, a folder or nothing: nothing is written to elsewhere, nothing is published, and it is said."""
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    more = {"group": "case-20261129", "groupFiles": "2"}
    at = begun(panel, len(str(target)), relativePath="case/a.svs", **more)
    [growing] = (tree.path / "inbox/.uploads").glob("*/tree/case/a.svs")
    growing.unlink()
    if kind == "link":
        growing.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(growing)
    elif kind == "folder":
        growing.mkdir()
    began = time.monotonic()
    for answer in (add(panel, at, 0, b"abc"), head(panel, at)):
        assert answer.code in (404, 409, 410, 500), answer.code
    assert time.monotonic() - began < 30
    assert target.read_bytes() == b"mine"
    assert not (tree.path / "inbox/ann").exists()
    assert panel.lines("panel_unexpected") == []


def test_what_lies_there_and_is_none_of_ours(tree: Root, panel: Served, tmp_path: Path) -> None:
    """Files, links and notes of strangers in the folder of uploads neither break it nor are they followed."""
    at = begun(panel, 3, filename="a.svs")
    uploads = tree.path / "inbox/.uploads"
    (uploads / "stray").write_bytes(b"x")
    (uploads / "away").symlink_to(tmp_path)
    (uploads / "empty").mkdir()
    (uploads / "odd" / "notes").mkdir(parents=True)
    (uploads / "odd" / "notes" / "x.json").write_text("[" * 5000)
    panel.stop()
    panel.start()
    assert head(panel, at).code == 200
    assert create(panel, 3, filename="b.svs").code == 201
    assert add(panel, at, 0, b"abc").code == 204
    assert tmp_path.exists()


def within(seconds: float, done: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_rate_for_each_user(tree: Root) -> None:
    """Two uploads of one user share it; another user has a separate one, and nobody who waits is turned away."""
    panel = Served(tree.path, more=f"{PROXY}upload_bytes_per_s = 2000000\n")
    try:
        data = os.urandom(3_000_000)
        took: dict[str, float] = {}

        def one(which: str) -> None:
            user = which[:3]
            at = create(panel, len(data), user=user, filename=f"{which}.svs").headers["location"]
            began = time.monotonic()
            assert add(panel, at, 0, data, user=user).code == 204
            took[which] = time.monotonic() - began

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(one, ["ann1", "ann2", "bob1"]))
        assert max(took["ann1"], took["ann2"]) >= 2.5
        assert took["bob1"] >= 1
        within(HANGS_S, (tree.path / "inbox/ann/ann2.svs").exists)
        assert (tree.path / "inbox/ann/ann2.svs").read_bytes() == data
    finally:
        panel.stop()


def test_the_room_that_others_fill_meanwhile(tree: Root) -> None:
    """Announced in time, and gone since: the next bytes are refused in words, and go on once there is room."""
    panel = Served(tree.path, more=PROXY)
    config = panel.config.read_text()
    try:
        at = begun(panel, 6, filename="a.svs")
        assert add(panel, at, 0, b"abc").code == 204
        panel.config.write_text(config.replace("reserve_bytes = 0", f"reserve_bytes = {1 << 60}"))
        panel.stop()
        panel.start()
        answer = add(panel, at, 3, b"def")
        assert answer.code == 507
        assert "room" in answer.json["error"]
        assert head(panel, at).headers["upload-offset"] == "3"
        panel.config.write_text(config)
        panel.stop()
        panel.start()
        assert add(panel, at, 3, b"def").code == 204
        assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abcdef"
    finally:
        panel.stop()


def test_going_on_counts_once(tree: Root) -> None:
    """An upload that is announced again needs neither its room nor its number a second time; what was removed by hand counts no longer."""
    panel = Served(tree.path, more=f"{PROXY}max_unfinished = 1\n")
    try:
        free = os.statvfs(tree.path)
        half = free.f_bavail * free.f_frsize * 6 // 10
        more = {"filename": "a.svs", "group": "12345678"}
        at = create(panel, half, **more).headers["location"]
        assert create(panel, half, **more).headers["location"] == at
        assert create(panel, 3, filename="b.svs").code == 429
        for path in sorted((tree.path / "inbox/.uploads").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        # Sums are read again before a refusal, at most every ten seconds.
        within(HANGS_S, lambda: create(panel, 3, filename="b.svs").code == 201)
    finally:
        panel.stop()
