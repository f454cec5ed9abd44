"""An inbox that anybody can write to: no matter what lies there, nothing leaves the tree or ends the daemon."""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import socket
import stat
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from urllib.request import urlopen

from tests import builders
from tests.lab.pictures import Pictures
from tests.lab.root import Root, command
from tests.lab.told import free_port, json_lines

_RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def test_what_is_no_file_waits_and_is_never_followed(root: Root, tmp_path: Path) -> None:
    """Links of every kind, pipes, sockets, devices: each is named, none moves, none hangs it."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "secret.svs"
    secret.write_bytes(slide.read_bytes())
    (inbox / "link.svs").symlink_to(secret)
    (inbox / "dangling.svs").symlink_to("/nowhere/at/all")
    (inbox / "loop.svs").symlink_to("loop.svs")
    (inbox / "folder").symlink_to(outside)
    (inbox / "root").symlink_to("/")
    os.link(secret, inbox / "hard.svs")
    os.mkfifo(inbox / "pipe.svs")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(inbox / "socket.svs"))
    odd = {
        "link.svs",
        "dangling.svs",
        "loop.svs",
        "folder",
        "root",
        "hard.svs",
        "pipe.svs",
        "socket.svs",
    }
    if os.geteuid() == 0:
        os.mknod(inbox / "device.svs", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        odd.add("device.svs")
    setuid = root.drop(slide, "setuid.svs")
    setuid.chmod(0o6777)
    root.start()
    root.wait(lambda: root.by_name().get("setuid.svs", {}).get("status") == "DEPLOYED")
    root.wait(lambda: {Path(one["path"]).name for one in root.waiting()} == odd)
    assert {one["why"] for one in root.waiting()} == {"not_a_regular_file"}
    assert root.stop() == 0
    listener.close()
    assert {entry.name for entry in inbox.iterdir()} == odd
    assert secret.read_bytes() == slide.read_bytes()
    for path in (root.path / "storage").rglob("*"):
        assert not path.lstat().st_mode & (stat.S_ISUID | stat.S_ISVTX), path
        assert not path.lstat().st_mode & 0o007, path
        assert not path.is_symlink(), path


def exchange(one: Path, other: Path) -> None:
    _libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), _RENAME_EXCHANGE)


def test_a_folder_that_is_swapped_for_a_link_all_the_time(root: Root, tmp_path: Path) -> None:
    """Between any two looks: what the link leads to is never taken, read or moved."""
    outside = tmp_path / "outside" / "case"
    outside.mkdir(parents=True)
    secret = builders.aperio_svs(outside / "secret.svs", width=600, height=500)
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    slide = builders.aperio_svs(tmp_path / "a.svs")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    root.configure(inbox="folder_quiet_s = 1.0")
    # A link and a folder, each of which takes the place of the other again and again.
    (inbox / ".aside").mkdir()
    case, link = inbox / "case", inbox / ".aside" / "case"
    link.symlink_to(outside)
    # And one for a user's whole inbox.
    bob = root.path / "inbox" / "bob"
    bob.mkdir()
    (root.path / "inbox" / ".bob").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(case, link)
            exchange(bob, root.path / "inbox" / ".bob")

    root.start()
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        end = time.monotonic() + 12
        number = 0
        while time.monotonic() < end:
            for folder in (case, bob):
                try:
                    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                except OSError:
                    continue
                try:
                    written = os.open(
                        f"{number}.svs", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=descriptor
                    )
                except OSError:
                    continue
                finally:
                    os.close(descriptor)
                number += 1
                with os.fdopen(written, "wb") as file:
                    file.write(slide.read_bytes())
            time.sleep(0.1)
    finally:
        stop.set()
        swapping.join()
    if case.is_symlink():
        exchange(case, link)
    if bob.is_symlink():
        exchange(bob, root.path / "inbox" / ".bob")
    assert number > 10
    root.wait(lambda: len([one for one in root.manifests().values() if one["name"].endswith(".svs")]) == number)  # fmt: skip
    root.wait(
        lambda: all(
            one["status"] == "DEPLOYED"
            for one in root.manifests().values()
            if one["name"].endswith(".svs")
        )
    )
    assert root.stop() == 0
    assert secret.exists()
    assert [path.name for path in outside.iterdir()] == ["secret.svs"]
    for one in root.manifests().values():
        assert digest not in [row["sha256"] for row in one["files"]]
    root.assert_clean()


NAMES = [
    b"line\nend.svs", b"tab\tand\r.svs", b"\x1b[31mred\x1b]0;title\x07.svs", "\u202egpj.slide.svs".encode(),
    b"a[page=3].svs", b"%s%n%x{0}{name}.svs", b"-rf --root.svs", b"not utf-8 \xff\xfe.svs",
    b"x" * 251 + b".svs", "é" .encode() * 125 + b".svs", b" leading and trailing .svs ", b"a...svs",
    "\U0001f52c.svs".encode(), b"$(touch x);`id`|&.svs", b"'\"\\.svs", b"[bold red]markup[.svs",
    b"NUL.svs", b"a:b*c?.svs", "\u200b\ufeff.svs".encode(), b"\x7f\xc2\x9b.svs", b"manifest.json",
    b"{\"event\": \"ended\"}.svs", b"../.svs"[3:], b"#comment=1.svs",
]  # fmt: skip


def test_every_name_is_ingested_and_does_nothing(root: Root, tmp_path: Path) -> None:
    """One event stays one line; nothing acts on a terminal; the notes and the metrics are as ever."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    slide = builders.aperio_svs(tmp_path / "a.svs").read_bytes()
    inbox = os.fsencode(root.path / "inbox" / "ann")
    os.mkdir(inbox)
    names = [name for name in NAMES if name not in (b".svs",)]
    for name in names:
        with open(os.path.join(inbox, name), "wb") as file:
            file.write(slide)
    root.start()
    root.wait(
        lambda: [one["status"] for one in root.manifests().values()] == ["DEPLOYED"] * len(names)
    )
    found = root.manifests().values()
    assert {one["name"] for one in found} == {name.decode("utf-8", "replace") for name in names}
    [odd] = [one for one in found if one["name_base64"]]
    assert "\ufffd" in odd["name"]
    for line in root.log.read_text().splitlines():
        assert json.loads(line)["event"]
    metrics = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
    deployed = "status/ann/*DEPLOYED*"
    root.wait(lambda: len(list(root.path.glob(deployed))) == len(names))
    notes = [path.name for path in (root.path / "status" / "ann").iterdir()]
    for text in (root.log.read_text(), metrics.decode(), *notes, command(root, "list").stdout,
                 command(root, "status").stdout, command(root, "watch", "--once").stdout):  # fmt: skip
        assert not set(text) & set("\x1b\x07\u202e\x7f\x9b\u200b\r\t")
    assert b'svs"' not in metrics.replace(b'format="aperio-svs"', b"")
    assert root.stop() == 0
    # No name of a dropped file is a name on disk: the decoders saw our own only.
    for one in found:
        [row] = [row for row in one["files"] if row["role"] == "source"]
        assert set(row["path"]) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./"
        )
        assert not row["path"].startswith("source/-")
    root.assert_clean()
    assert json_lines(root.log)


def test_what_comes_out_of_an_archive_has_our_own_modes(pictures: Pictures, tmp_path: Path) -> None:
    """No matter what the archive says: no setuid, no execute, nobody else may read; zip and tar alike."""
    png = builders.png(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        info = zipfile.ZipInfo("one.png")
        info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o6777) << 16
        archive.writestr(info, png)
    with tarfile.open(tmp_path / "t.tar", "w") as packed:
        member = tarfile.TarInfo("two.png")
        member.size, member.mode, member.uid, member.gid = len(png), 0o6777, 0, 0
        packed.addfile(member, io.BytesIO(png))
    pictures.drop(tmp_path / "z.zip")
    pictures.drop(tmp_path / "t.tar")
    assert pictures.treated() == 0
    found = pictures.by_name()
    assert {found[name]["status"] for name in ("one.png", "two.png")} == {"CONVERTED"}
    for name in ("one.png", "two.png", "z.zip", "t.tar"):
        for path in found[name]["_path"].rglob("*"):
            mode = stat.S_IMODE(path.lstat().st_mode)
            assert mode & ~0o2000 == (0o750 if path.is_dir() else 0o640), (path, oct(mode))
