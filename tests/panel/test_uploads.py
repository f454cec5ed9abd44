"""Adding files over tus: real panels, a real daemon, and clients that break off, lie and come twice."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from tests import builders
from tests.builders import vendors
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.needs import CHROMIUM, unless
from tests.panel.tus import OFFSETS, add, begun, create, head, said, sending

PROXY = 'auth = "proxy"\n'


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """A panel on it, where a proxy states the user."""
    served = Served(tree.path, more=PROXY)
    yield served
    served.stop()


def test_the_whole_way_to_deployed(tree: Root, panel: Served, tmp_path: Path) -> None:
    """In two parts, into a project; a lost last answer is given again, and the name that is taken gets a number."""
    tree.start()
    data = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    at = begun(panel, len(data), filename="Fälle 1.jpg", project="Lung")
    assert add(panel, at, 0, data[:5000]).headers["upload-offset"] == "5000"
    assert head(panel, at).headers["upload-offset"] == "5000"
    assert panel.as_user("ann", at).json["drop"] is None
    assert add(panel, at, 5000, data[5000:]).code == 204
    assert add(panel, at, len(data), b"").code == 204
    assert head(panel, at).headers["upload-offset"] == str(len(data))
    tree.wait(lambda: tree.by_name().get("Fälle 1.jpg", {}).get("status") == "CONVERTED")
    document = tree.by_name()["Fälle 1.jpg"]
    assert document["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert document["user"] == "ann"
    assert document["drop_path"] == "ann/@Lung/Fälle 1.jpg"
    tree.wait(
        lambda: [one["status"] for one in panel.as_user("ann", at).json["files"]] == ["CONVERTED"]
    )
    assert tree.stop() == 0
    tree.assert_clean()


def test_a_taken_name_gets_a_number(tree: Root, panel: Served) -> None:
    """Nothing is ever replaced."""
    for name in ("a.ome.tif", "a (1).ome.tif"):
        at = begun(panel, 3, filename="a.ome.tif")
        assert add(panel, at, 0, b"abc").code == 204
        assert (tree.path / "inbox/ann" / name).read_bytes() == b"abc"


def test_with_the_creation(tree: Root, panel: Served) -> None:
    """A small file needs one request, with a checksum or without."""
    right = f"sha1 {base64.b64encode(hashlib.sha1(b'abc').digest()).decode()}"
    answer = panel.as_user(
        "ann", "/uploads", "POST", body=b"abc", Tus_Resumable="1.0.0", Upload_Length="3",
        Upload_Metadata=said(filename="a.svs"), Content_Type=OFFSETS, Upload_Checksum=right,
    )  # fmt: skip
    assert (answer.code, answer.headers["upload-offset"]) == (201, "3")
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("body", "more", "code"),
    [
        (b"abc", {"Upload_Checksum": "sha1 AAAA"}, 460), (b"abc", {"Upload_Checksum": "md5 AAAA"}, 400),
        (b"abcd", {}, 413), (b"abc", {"Content_Encoding": "gzip"}, 415),
    ],
)  # fmt: skip
def test_a_creation_whose_bytes_are_refused_leaves_nothing(
    tree: Root, panel: Served, body: bytes, more: dict[str, str], code: int
) -> None:
    """Its client was not told its address: what nobody can continue takes no room, and counts for nobody."""
    answer = panel.as_user(
        "ann", "/uploads", "POST", body=body, Tus_Resumable="1.0.0", Upload_Length="3",
        Upload_Metadata=said(filename="a.svs"), Content_Type=OFFSETS, **more,
    )  # fmt: skip
    assert (answer.code, answer.headers["tus-resumable"]) == (code, "1.0.0")
    assert "location" not in answer.headers
    assert list((tree.path / "inbox/.uploads").glob("*-*")) == []
    assert panel.as_user("ann", "/api/v1/uploads").json == []


def test_a_creation_of_a_folders_file_goes_on(tree: Root, panel: Served) -> None:
    """It is found again by its group, so what was taken of it stays."""
    pairs = {"relativePath": "case/a.svs", "group": "a" * 16, "groupFiles": "2"}
    answer = panel.as_user(
        "ann", "/uploads", "POST", body=b"abcd", Tus_Resumable="1.0.0", Upload_Length="3",
        Upload_Metadata=said(**pairs), Content_Type=OFFSETS,
    )  # fmt: skip
    assert answer.code == 413
    [note] = (tree.path / "inbox/.uploads").glob("*-*/notes/*.json")
    assert begun(panel, 3, **pairs).endswith(note.stem)


def test_each_refusal_states_the_protocol(panel: Served) -> None:
    """A client that looks for it takes an answer without it for another server's."""
    for size, pairs in (
        ("1e3", {"filename": "a"}),
        ("0", {"filename": "a"}),
        ("3", {}),
        ("3", {"filename": ".."}),
    ):
        answer = panel.as_user(
            "ann",
            "/uploads",
            "POST",
            Tus_Resumable="1.0.0",
            Upload_Length=size,
            Upload_Metadata=said(**pairs),
        )
        assert (answer.code, answer.headers["tus-resumable"]) == (400, "1.0.0")
    old = panel.as_user("ann", "/uploads", "POST", Tus_Resumable="0.2.2")
    assert (old.code, old.headers["tus-version"], old.headers["tus-resumable"]) == (
        412,
        "1.0.0",
        "1.0.0",
    )


def test_what_it_can_do(panel: Served) -> None:
    """OPTIONS lists it; another version of the protocol is refused."""
    answer = panel.as_user("ann", "/uploads", "OPTIONS")
    assert answer.headers["tus-extension"] == (
        "creation,creation-with-upload,termination,expiration,checksum"
    )
    assert answer.headers["tus-checksum-algorithm"] == "sha256,sha1"
    assert panel.as_user("ann", "/uploads", "POST", Upload_Length="3").code == 412


def test_a_kill_in_the_middle(tree: Root, panel: Served, tmp_path: Path) -> None:
    """The panel is killed (-9) while bytes come; it goes on where the file ends, and the hash is right."""
    data = os.urandom(6 << 20)
    at = begun(panel, len(data), filename="big.svs", sha256=hashlib.sha256(data).hexdigest())
    with socket.create_connection(("127.0.0.1", panel.port)) as raw:
        raw.sendall(
            f"PATCH {at} HTTP/1.1\r\nHost: {panel.address}\r\nX-Forwarded-User: ann\r\n"
            f"Origin: http://{panel.address}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: {OFFSETS}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        )
        raw.sendall(data[: 4 << 20])
        [growing] = (tree.path / "inbox/.uploads").glob("*/tree/big.svs")
        tree.wait(lambda: growing.stat().st_size >= 2 << 20)
        assert panel.process
        panel.process.kill()
        panel.process.wait(HANGS_S)
    panel.start()
    offset = int(head(panel, at).headers["upload-offset"])
    assert 2 << 20 <= offset < len(data)
    assert add(panel, at, offset, data[offset:]).code == 204
    assert (tree.path / "inbox/ann/big.svs").read_bytes() == data


def test_bytes_that_are_wrong(tree: Root, panel: Served) -> None:
    """A wrong offset, more than was announced, a wrong checksum, a wrong hash: nothing of it stays."""
    at = begun(panel, 6, filename="a.svs", sha256=hashlib.sha256(b"abcdef").hexdigest())
    wrong = add(panel, at, 3, b"def")
    assert (wrong.code, wrong.headers["upload-offset"]) == (409, "0")
    assert add(panel, at, 0, b"abcdefg").code == 413
    sha256 = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    assert add(panel, at, 0, b"xyz", Upload_Checksum=f"sha256 {sha256}").code == 460
    assert add(panel, at, 0, b"xyz", Upload_Checksum="md5 abc").code == 400
    assert head(panel, at).headers["upload-offset"] == "0"
    assert add(panel, at, 0, b"abc", Upload_Checksum=f"sha256 {sha256}").code == 204
    assert add(panel, at, 3, b"deX").code == 460
    assert head(panel, at).headers["upload-offset"] == "0"
    assert not (tree.path / "inbox/ann").exists()
    assert add(panel, at, 0, b"abcdef").code == 204
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abcdef"


NAMES = (
    "", "..", "../bob/a.svs", "/etc/passwd", "a/../../b", "a\\b.svs", "a//b", "a\n.svs", "a\u202e.svs",
    "a\0b", ".uploads/a", "@Trial/a.svs", "x" * 300, "a/" * 40 + "b", "Thumbs.db", "a.svs.part",
)  # fmt: skip


def test_names_that_lead_elsewhere(tree: Root, panel: Served) -> None:
    """They are refused in words, and nothing is made."""
    for name in NAMES:
        for key in ("filename", "relativePath"):
            answer = create(panel, 3, **{key: name})
            assert answer.code == 400, name
            assert len(answer.json["error"]) > 20
    assert not (tree.path / "inbox/.uploads").exists()


def test_somebody_elses(panel: Served) -> None:
    """Another's upload is not there; another's inbox and a foreign page are refused."""
    at = begun(panel, 3, filename="a.svs")
    for answer in (
        head(panel, at, user="bob"),
        add(panel, at, 0, b"abc", user="bob"),
        panel.as_user("bob", at),
        panel.as_user("bob", at, "DELETE", Tus_Resumable="1.0.0"),
        head(panel, "/uploads/..%2f..%2fx"),
    ):
        assert answer.code == 404
    assert create(panel, 3, filename="a.svs", user="ann").code == 201
    foreign = panel.as_user(
        "ann",
        "/uploads",
        "POST",
        origin="http://evil.example",
        Tus_Resumable="1.0.0",
        Upload_Length="3",
    )
    assert foreign.code == 403
    token = panel.token("scanner", "ann")
    answer = panel.ask(
        at, "PATCH", body=b"abc", origin=None, Authorization=f"Bearer {token}", Tus_Resumable="1.0.0",
        Upload_Offset="0", Content_Type=OFFSETS,
    )  # fmt: skip
    assert answer.code == 204


def test_two_clients(tree: Root, panel: Served) -> None:
    """One writes; the other one gets 423, and what the first one sent stays when it breaks off."""
    at = begun(panel, 6, filename="a.svs")
    [note] = (tree.path / "inbox/.uploads").glob("*/notes/*.json")
    with socket.create_connection(("127.0.0.1", panel.port)) as raw:
        raw.sendall(
            f"PATCH {at} HTTP/1.1\r\nHost: {panel.address}\r\nX-Forwarded-User: ann\r\n"
            f"Origin: http://{panel.address}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: {OFFSETS}\r\nContent-Length: 6\r\n\r\nabc".encode()
        )
        tree.wait(lambda: _is_locked(note))
        assert add(panel, at, 0, b"abcdef").code == 423
    tree.wait(lambda: head(panel, at).headers["upload-offset"] == "3")
    tree.wait(lambda: not _is_locked(note))
    assert add(panel, at, 3, b"def").code == 204


def _is_locked(path: Path) -> bool:
    import fcntl

    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_cancelled(tree: Root, panel: Served) -> None:
    """Its bytes go; one that is on its way is not cancelled any more."""
    at = begun(panel, 6, filename="a.svs")
    assert add(panel, at, 0, b"abc").code == 204
    assert panel.as_user("ann", at, "DELETE", Tus_Resumable="1.0.0").code == 204
    assert list((tree.path / "inbox/.uploads").glob("*-*")) == []
    assert head(panel, at).code == 404
    at = begun(panel, 3, filename="a.svs")
    assert add(panel, at, 0, b"abc").code == 204
    assert panel.as_user("ann", at, "DELETE", Tus_Resumable="1.0.0").code == 409


def test_expired(tree: Root, panel: Served) -> None:
    """After a day without a byte it is removed when the panel looks; a younger one stays."""
    old, young = begun(panel, 6, filename="a.svs"), begun(panel, 6, filename="b.svs")
    assert add(panel, old, 0, b"abc").code == 204
    home = tree.path / "inbox/.uploads" / old.rpartition("/")[2].partition(".")[0]
    before = time.time() - 86_500
    for path in [home, *home.rglob("*")]:
        os.utime(path, (before, before))
    panel.stop()
    panel.start()
    tree.wait(lambda: not home.exists())
    assert head(panel, old).code == 404
    assert head(panel, young).code == 200


def test_limits(tree: Root) -> None:
    """Too large, too many, no room, switched off: each is refused in words, before a byte is sent."""
    panel = Served(tree.path, more=f"{PROXY}max_upload_bytes = {1 << 60}\nmax_unfinished = 2\n")
    try:
        assert create(panel, (1 << 60) + 1, filename="a.svs").code == 413
        free = os.statvfs(tree.path)
        answer = create(panel, free.f_bavail * free.f_frsize + (64 << 20), filename="a.svs")
        assert answer.code == 507
        assert "room" in answer.json["error"]
        # What is announced counts, though nothing of it has come.
        half = free.f_bavail * free.f_frsize * 6 // 10
        assert create(panel, half, filename="a.svs").code == 201
        assert create(panel, half, filename="b.svs", user="ann").code == 507
        assert create(panel, 3, filename="b.svs").code == 201
        answer = create(panel, 3, filename="c.svs")
        assert answer.code == 429
        assert "unfinished" in answer.json["error"]
    finally:
        panel.stop()
    panel = Served(tree.path, more=f"{PROXY}uploads = false\n")
    try:
        assert create(panel, 3, filename="a.svs").code == 404
    finally:
        panel.stop()


def test_a_folder_is_one_set(tree: Root, panel: Served, tmp_path: Path) -> None:
    """An MRXS with its folder: nothing is in the inbox before the last file is whole, then it is one slide."""
    folder = tmp_path / "case 7"
    folder.mkdir()
    vendors.mirax_mrxs(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    more: dict[str, Any] = {"group": "case-7-20261129", "groupFiles": str(len(files))}
    for path in files:
        assert not (tree.path / "inbox/ann").exists()
        data = path.read_bytes()
        at = begun(panel, len(data), relativePath=str(path.relative_to(tmp_path)), **more)
        assert add(panel, at, 0, data).code == 204
    assert panel.as_user("ann", at).json["drop"] == "ann/case 7"
    tree.start()
    tree.wait(lambda: tree.by_name().get("CMU-1.mrxs", {}).get("status") == "DEPLOYED")
    document = tree.by_name()["CMU-1.mrxs"]
    assert {one["sha256"] for one in document["files"] if one["role"] == "source"} == {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert tree.stop() == 0
    told = panel.as_user("ann", at).json
    assert [(one["name"], one["final"]) for one in told["files"]] == [("CMU-1.mrxs", True)]
    assert told["taken"]


def test_the_daemon_leaves_it_in_peace(tree: Root, panel: Served) -> None:
    """Unfinished uploads are not drops, belong to no user, and `check --deep` finds nothing wrong."""
    at = begun(panel, 6, filename="a.svs")
    assert add(panel, at, 0, b"abc").code == 204
    assert tree.run_until_idle() == 0
    assert tree.manifests() == {}
    assert tree.waiting() == []
    subprocess.run(
        tree.command("check", "--deep", "--root", str(tree.path)),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert head(panel, at).headers["upload-offset"] == "3"


def test_an_inbox_that_is_not_writable(tree: Root, panel: Served, tmp_path: Path) -> None:
    """A link in its place leads nowhere, and that is said before any byte is sent."""
    (tmp_path / "elsewhere").mkdir()
    (tree.path / "inbox/ann").symlink_to(tmp_path / "elsewhere")
    answer = create(panel, 3, filename="a.svs")
    assert answer.code == 409
    assert "inbox of ann" in answer.json["error"]
    shutil.rmtree(tmp_path / "elsewhere")


@unless(None if CHROMIUM else "missing: chromium (Debian: apt install chromium)")
def test_in_a_browser(tree: Root, tmp_path: Path) -> None:
    """A file of some MB, paused, the panel killed (-9) and the page loaded again in the middle, then a folder: two drops."""
    big = tmp_path / "big.bin.svs"
    big.write_bytes(os.urandom(8 << 20))
    folder = tmp_path / "case 7"
    folder.mkdir()
    vendors.mirax_mrxs(folder)
    (folder / "Thumbs.db").write_bytes(b"x")
    served = Served(tree.path, words=("--actions",))
    wrong: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(base_url=f"http://{served.address}")
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.on("dialog", lambda one: one.accept())
        page.goto("/")
        page.click("text=Add files")
        page.fill("#user", "ann")
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        slow = {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": 2 << 20,
        }
        network.send("Network.emulateNetworkConditions", slow)
        page.set_input_files("#files", big)
        uploads = tree.path / "inbox/.uploads"
        tree.wait(lambda: any(p.stat().st_size > 1 << 20 for p in uploads.glob("*/tree/*")))
        page.click("#b-pause")
        expect(page.locator("#list .badge")).to_have_text("Paused")
        assert served.process
        served.process.kill()
        served.process.wait(HANGS_S)
        served.start()
        page.reload()
        network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
        page.fill("#user", "ann")
        page.set_input_files("#files", big)
        tree.wait((tree.path / "inbox/ann/big.bin.svs").exists)
        assert (tree.path / "inbox/ann/big.bin.svs").read_bytes() == big.read_bytes()
        # It went on with the same upload, and began no other one.
        assert len(list(uploads.glob("*-*"))) == 1
        (tree.path / "inbox/ann/big.bin.svs").unlink()
        page.set_input_files("#folder", folder)
        tree.wait((tree.path / "inbox/ann/case 7/CMU-1/Slidedat.ini").exists)
        expect(page.locator("#said")).to_have_text("1 temporary file was left out.")
        assert sorted(os.listdir(tree.path / "inbox/ann")) == ["case 7"]
        tree.start()
        expect(page.locator("#list > li").nth(1).locator(".badge")).to_have_text(
            "Deployed", timeout=30_000
        )
        page.screenshot(path=os.environ.get("UPLOAD_SHOT", str(tmp_path / "page.png")))
        browser.close()
    assert wrong == []
    served.stop()
    assert tree.stop() == 0


def test_send(tree: Root, panel: Served, tmp_path: Path) -> None:
    """A file and a folder, the panel killed (-9) in the middle; a second call sends nothing twice."""
    token = panel.token("scanner", "ann")
    big = tmp_path / "big.svs"
    big.write_bytes(os.urandom(64 << 20))
    folder = tmp_path / "case 7"
    folder.mkdir()
    vendors.mirax_mrxs(folder)
    (folder / "Thumbs.db").write_bytes(b"x")
    process = sending(panel, big, folder, "--project", "Lung", token=token)
    uploads = tree.path / "inbox/.uploads"
    tree.wait(lambda: any(p.stat().st_size > 1 << 20 for p in uploads.glob("*/tree/big.svs")))
    assert panel.process
    panel.process.kill()
    panel.process.wait(HANGS_S)
    panel.start()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "left out 1" in said
    inbox = tree.path / "inbox/ann/@Lung"
    assert (inbox / "big.svs").read_bytes() == big.read_bytes()
    assert len([path for path in (inbox / "case 7").rglob("*") if path.is_file()]) == 5
    process = sending(panel, big, "--project", "Lung", token=token)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert sorted(os.listdir(inbox)) == ["big.svs", "case 7"]


def test_send_and_wait(tree: Root, panel: Served, tmp_path: Path) -> None:
    """It ends with 0 when the slide is deployed, and with 1 and the reason when it failed or is refused."""
    token = panel.token("scanner", "ann")
    tree.start()
    photo = builders.jpeg(tmp_path / "photo.jpg")
    process = sending(panel, photo, "--wait", token=token)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "deployed" in said
    assert tree.by_name()["photo.jpg"]["status"] == "CONVERTED"
    damaged = bytearray(photo.read_bytes())
    del damaged[len(damaged) // 3 : -2]
    (tmp_path / "broken.jpg").write_bytes(damaged)
    process = sending(panel, tmp_path / "broken.jpg", "--wait", token=token)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "broken.jpg failed: " in said
    process = sending(panel, photo, token="cyt_wrong")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "unknown, revoked or expired" in said
    process = sending(panel, tmp_path / "nothing.svs", token=token)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "No such file" in said
