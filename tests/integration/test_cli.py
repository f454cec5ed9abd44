"""The commands: what a person reads, what a script parses, and never a traceback."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.builders import vendors
from tests.lab.root import HANGS_S, STAGES, Root


def say(root: Root, *words: str, code: int = 0, **options: Any) -> str:
    told = subprocess.run(
        root.command(*words), capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert told.returncode == code, told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr
    return told.stdout + told.stderr


def test_show_tells_the_tree_the_history_and_the_reason(root: Root, tmp_path: Path) -> None:
    """By id, by its four characters and by name; in JSON as the manifest with its place."""
    root.drop(builders.planar_tiff(tmp_path / "flat.tif", width=900, height=700))
    (root.path / "inbox" / "ann" / "letter.pdf").write_bytes(b"%PDF-1.4 hello")
    assert root.run_until_idle() == 1
    at = ("--root", str(root.path))
    listed = json.loads(say(root, "list", "--json", *at))
    assert {one["name"]: one["status"] for one in listed} == {
        "flat.tif": "CONVERTED",
        "letter.pdf": "ERROR_FORMAT",
    }
    good = next(one for one in listed if one["name"] == "flat.tif")
    for wanted in (good["id"], good["id"].split("-")[2], "flat.tif"):
        text = say(root, "show", wanted, *at)
        assert "derived/flat.tiff" in text
        assert "DETECTING FORMAT" in text
    assert json.loads(say(root, "show", "--json", "flat.tif", *at)) == good
    # Sizes have units, and one is one.
    assert re.search(r"disk +[\d.]+ [kMGT]B free, 1.1 GB reserved", say(root, "check", *at))
    assert "1 uploaded file, " in say(root, "verify", "flat.tif", *at)
    near = say(root, "show", "let", *at, code=2)
    assert "no uploaded file has the id or the name 'let'" in near
    assert "cytowatch list --name let" in near
    bad = say(root, "show", "letter.pdf", *at)
    assert "unsupported_format" in bad
    assert "PDF" in bad
    assert (
        json.loads(say(root, "list", "--status", "error-format", "--json", *at))[0]["name"]
        == "letter.pdf"
    )
    status = json.loads(say(root, "status", "--json", *at))
    assert (status["files"]["CONVERTED"], status["files"]["ERROR_FORMAT"]) == (1, 1)
    assert not status["daemon"]["running"]
    assert "CONVERTED" in say(root, "status", *at)


def test_wrong_usage_is_exit_code_2_with_all_reasons(root: Root, tmp_path: Path) -> None:
    """Configuration, root and arguments."""
    (tmp_path / "bad.toml").write_text('[inbox]\nquiet_s = "x"\ncolour = 1\n')
    told = say(root, "run", "--config", str(tmp_path / "bad.toml"), code=2)
    assert "inbox.quiet_s" in told
    assert "inbox.colour" in told
    assert "cytowatch init" in say(root, "list", "--root", str(tmp_path / "nowhere"), code=2)
    say(root, "list", "--status", "BLUE", "--root", str(root.path), code=2)
    say(root, "show", "nothing", "--root", str(root.path), code=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    assert "thesis.doc" in say(root, "init", str(tmp_path / "mine"), code=2)


def test_init_writes_a_configuration_that_loads(root: Root, tmp_path: Path) -> None:
    """And never over one that is there."""
    path = tmp_path / "c.toml"
    say(root, "init", str(tmp_path / "tree"), "--config", str(path))
    assert "good" in say(root, "check", "--config", str(path))
    say(root, "init", str(tmp_path / "tree"), "--config", str(path), code=2)


def test_detect_says_what_it_is_and_moves_nothing(root: Root, tmp_path: Path) -> None:
    """Several files at once; 1 if one of them would not be deployed."""
    slide = builders.aperio_svs(tmp_path / "a.bin")
    (tmp_path / "b.svs").write_text("hello")
    (tmp_path / "c.svs").write_bytes(slide.read_bytes()[:-1000])
    names = [str(tmp_path / name) for name in ("a.bin", "b.svs", "c.svs", "none")]
    told = json.loads(say(root, "detect", "--json", *names, code=1))
    assert [one["format"] for one in told] == ["aperio-svs", None, "aperio-svs", None]
    assert told[2]["missing"]
    assert slide.exists()
    say(root, "detect", names[0])


def test_detect_looks_at_a_set_as_a_claim_does(root: Root, tmp_path: Path) -> None:
    """Names that differ in case belong together, and what is missing is said."""
    vendors.mirax_mrxs(tmp_path, "Case").rename(tmp_path / "case.mrxs")
    (tmp_path / "Case" / "Slidedat.ini").rename(tmp_path / "Case" / "SLIDEDAT.INI")
    [told] = json.loads(say(root, "detect", "--json", str(tmp_path / "case.mrxs")))
    assert (told["format"], told["missing"]) == ("mirax-mrxs", None)
    data = tmp_path / "Case" / "Data0001.dat"
    data.write_bytes(data.read_bytes()[:-2000])
    [told] = json.loads(say(root, "detect", "--json", str(tmp_path / "case.mrxs"), code=1))
    assert "the end of Case/Data0001.dat" in told["missing"]
    vendors.vms(tmp_path, "V").rename(tmp_path / "V.VMS")
    (tmp_path / "V_map2.jpg").rename(tmp_path / "v_MAP2.JPG")
    [told] = json.loads(say(root, "detect", "--json", str(tmp_path / "V.VMS")))
    assert (told["format"], told["missing"]) == ("hamamatsu-vms", None)


def test_a_systemd_that_reads_nothing_holds_nothing_up(root: Root, tmp_path: Path) -> None:
    """The kernel keeps ten messages for it; those that no longer fit are lost, and slides go on."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full,
            pytest.raises(BlockingIOError),
        ):
            full.connect(address)
            full.setblocking(False)
            while True:
                full.send(b"STATUS=full")
        root.environment = {"NOTIFY_SOCKET": address}
        builders.png(tmp_path / "flat.png")
        root.drop(tmp_path / "flat.png")
        assert root.run_until_idle() == 0
    assert root.by_name()["flat.png"]["status"] == "CONVERTED"


def test_systemd_is_told_when_it_is_ready(root: Root, tmp_path: Path) -> None:
    """READY after recovery and the first scan, and STOPPING at the end; while there is much to
    take up, it asks for time."""
    root.environment = dict(STAGES)
    root.start()
    builders.png(tmp_path / "flat.png")
    root.drop(tmp_path / "flat.png", "pause-CONVERTING.png")
    root.wait(lambda: list((root.path / "stages" / "converting").iterdir()))
    root.kill()
    (root.path / "state" / "index.sqlite3").unlink()
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(HANGS_S)
        root.environment |= {"NOTIFY_SOCKET": address}
        told: list[str] = []

        def listen() -> None:
            while not told or "STOPPING=1" not in told[-1]:
                told.append(listener.recv(4096).decode())

        # The kernel keeps ten messages, and a start on a busy machine has more to say: it would wait.
        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        root.start()
        assert root.stop() == 0
        listening.join(HANGS_S)
    ready = next(number for number, one in enumerate(told) if "READY=1" in one)
    before = told[:ready]
    assert any("EXTEND_TIMEOUT_USEC=60000000" in one and "taking up" in one for one in before)
    assert any("EXTEND_TIMEOUT_USEC=60000000" in one and "indexing" in one for one in before)
    assert any("WATCHDOG=1" in one for one in told)
