"""Slides that are lost, in an archive or in storage, are seen by everyone who looks."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from tests import builders
from tests.builders.packs import Packed, raw_tar, raw_zip, write_finder_zip
from tests.lab.root import Root, command
from tests.lab.told import free_port, json_lines, metric


def damaged_zip(tmp_path: Path) -> Path:
    image = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    data = bytearray(raw_zip(
        Packed(name="検体.jpg".encode("cp932"), data=image, method=0), Packed(name=b"ok.jpg", data=image),
        Packed(name=b"readme.txt", data=b"hello there"),
    ))  # fmt: skip
    data[300] ^= 0xFF
    path = tmp_path / "batch.zip"
    path.write_bytes(data)
    return path


def test_an_archive_that_lost_a_member_is_no_plain_success(root: Root, tmp_path: Path) -> None:
    """Exit code, list, show, hook, log, note for the technician; its other slide is deployed."""
    (tmp_path / "hook").write_text(
        f"#!/bin/sh\necho $CYTOWATCH_STATUS $CYTOWATCH_LOST >> {tmp_path}/told\n"
    )
    (tmp_path / "hook").chmod(0o755)
    root.configure(
        more=f'[[hooks]]\nname = "h"\non = ["EXTRACTED", "CONVERTED"]\ncommand = ["{tmp_path}/hook"]\n'
    )
    root.drop(damaged_zip(tmp_path))
    assert root.run_until_idle() == 1
    found = root.by_name()
    assert {name: one["status"] for name, one in found.items()} == {
        "batch.zip": "EXTRACTED", "ok.jpg": "CONVERTED",
    }  # fmt: skip
    assert found["batch.zip"]["warnings"][0].startswith(
        "1 member of the archive could not be unpacked"
    )
    assert "EXTRACTED, 1 lost" in command(root, "list").stdout
    listed = json.loads(command(root, "list", "--json").stdout)
    assert {one["name"]: one["lost"] for one in listed} == {"batch.zip": 1, "ok.jpg": 0}
    assert "検体.jpg: damaged" in command(root, "show", "batch.zip").stdout
    assert sorted((tmp_path / "told").read_text().split("\n")) == ["", "CONVERTED 0", "EXTRACTED 1"]
    [ended] = [
        line
        for line in json_lines(root.log)
        if line["event"] == "ended" and line["name"] == "batch.zip"
    ]
    assert (ended["lost"], ended["level"]) == (1, "warning")
    assert [p.name for p in root.path.glob("status/ann/*batch*")] == [
        "! batch.zip - EXTRACTED 1 of 2, 1 FAILED.txt"
    ]
    # Nothing of the next run was lost.
    assert root.run_until_idle() == 0
    root.assert_clean()


def test_losses_are_counted(root: Root, tmp_path: Path) -> None:
    """From 0 on, so that an alert sees the first; what is not an image does not count."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        archive.write(builders.jpeg(tmp_path / "b.jpg"), "b.jpg")
        archive.writestr("notes.txt", "hello")
    root.start()
    assert metric(port, "cytowatch_archives_with_losses_total") == 0
    root.drop(tmp_path / "good.zip")
    root.drop(damaged_zip(tmp_path))
    root.wait(lambda: metric(port, 'cytowatch_files{status="CONVERTED"}') == 2)
    assert metric(port, "cytowatch_archives_with_losses_total") == 1
    assert root.stop() == 0


def test_a_tar_with_a_name_that_is_not_utf8_holds_up_nobody(root: Root, tmp_path: Path) -> None:
    """Its images are deployed, the daemon starts again, and every command answers."""
    image = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    names = [b"G\xe4rtner.jpg", b"ok.jpg", b"Gr\xf6\xdfe/eins.jpg"]
    others = [(b"._G\xe4.jpg", b"x"), (b"\xe4.doc", b"hello there")]
    (tmp_path / "old.tar").write_bytes(raw_tar(*((name, image) for name in names), *others))
    root.drop(tmp_path / "old.tar")
    assert root.run_until_idle() == 0
    root.drop(tmp_path / "a.jpg", "next.jpg", user="bob")
    assert root.run_until_idle() == 0
    assert {name: one["status"] for name, one in root.by_name().items()} == {
        "old.tar": "EXTRACTED", "G\ufffdrtner.jpg": "CONVERTED", "ok.jpg": "CONVERTED",
        "eins.jpg": "CONVERTED", "next.jpg": "CONVERTED",
    }  # fmt: skip
    for words in (["list"], ["status"], ["check", "--deep"], ["reindex"], ["verify"]):
        assert command(root, *words).returncode == 0, words
    assert command(root, "export", "G\ufffdrtner.jpg", str(tmp_path / "out")).returncode == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["G\udce4rtner.jpg"]
    root.assert_clean()


def test_names_of_a_code_page_come_back(root: Root, tmp_path: Path) -> None:
    """A Japanese zip: listed, exported and found by eye under its names."""
    image = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    wanted = ["表.jpg", "ソ.jpg", "新しいフォルダ/検体.jpg"]
    (tmp_path / "jp.zip").write_bytes(
        raw_zip(*(Packed(name=name.encode("cp932"), data=image) for name in wanted))
    )
    root.drop(tmp_path / "jp.zip")
    assert root.run_until_idle() == 0
    found = root.by_name()
    assert set(found) == {"jp.zip", "表.jpg", "ソ.jpg", "検体.jpg"}
    assert found["検体.jpg"]["id"].endswith("-JianTi")
    assert command(root, "export", "検体.jpg", str(tmp_path / "out")).returncode == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["検体.jpg"]


def test_a_zip_of_the_finder_beyond_four_gigabytes(root: Root, tmp_path: Path) -> None:
    """A slide of 4 GiB and 3 MB, packed to 19 MB, whose size the zip states as 3 MB; and what is beside it."""
    head = b"P5\n1000 1000\n255\n"
    small = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    total = (4 << 30) + (3 << 20)
    big = [head, *[b"\x80" * (1 << 24)] * 256, b"\x80" * (total - (4 << 30) - len(head))]
    path = write_finder_zip(
        tmp_path / "finder.zip",
        Packed(name=b"1.jpg", data=small, descriptor="sig"),
        Packed(name=b"big.pgm", data=iter(big), descriptor="sig", level=1),
        Packed(name=b"3.jpg", data=small, descriptor="sig"),
    )
    (root.path / "inbox" / "ann").mkdir()
    path.rename(root.path / "inbox" / "ann" / "finder.zip")
    assert root.run_until_idle(600) == 0
    found = root.by_name()
    assert {name: one["status"] for name, one in found.items()} == {
        "finder.zip": "EXTRACTED", "1.jpg": "CONVERTED", "3.jpg": "CONVERTED", "big.pgm": "CONVERTED",
    }  # fmt: skip
    assert found["big.pgm"]["size_bytes"] == total


def test_a_slide_that_vanishes_is_reported_until_it_is_back(root: Root, tmp_path: Path) -> None:
    """By the metric and the log of the daemon, by status, verify and the deep check; then it is forgotten."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    root.drop(builders.jpeg(tmp_path / "b.jpg"), user="bob")
    root.start()
    root.wait(lambda: metric(port, 'cytowatch_files{status="CONVERTED"}') == 2)
    assert metric(port, "cytowatch_storage_missing_files") == 0
    [path] = root.path.glob("storage/ann/*")
    path.rename(tmp_path / "away")
    root.wait(lambda: metric(port, "cytowatch_storage_missing_files") == 1)
    root.wait(lambda: [one for one in json_lines(root.log) if one["event"] == "vanished"])
    shutil.move(root.path / "storage" / "bob", tmp_path / "bob")
    root.wait(lambda: metric(port, "cytowatch_storage_missing_files") == 2)
    assert "2 vanished from storage" in command(root, "status").stdout
    told = command(root, "verify", "--json")
    assert (told.returncode, sorted(one["name"] for one in json.loads(told.stdout)["missing"])) == (
        1, ["a.jpg", "b.jpg"],
    )  # fmt: skip
    assert command(root, "verify", "--user", "ann").returncode == 1
    assert root.stop() == 0
    deep = command(root, "check", "--deep")
    assert (deep.returncode, deep.stdout.count("vanished from storage")) == (1, 2)
    root.start()
    (tmp_path / "away").rename(path)
    root.wait(lambda: metric(port, "cytowatch_storage_missing_files") == 1)
    [gone] = json.loads(command(root, "verify", "--json").stdout)["missing"]
    assert "vanished from storage" in command(root, "show", gone["id"]).stderr
    assert command(root, "remove", gone["id"]).returncode == 0
    root.wait(lambda: metric(port, "cytowatch_storage_missing_files") == 0)
    assert command(root, "verify").returncode == 0
    assert root.stop() == 0
    root.assert_clean()
