"""Everything in storage looked at again: what is damaged is named, what is whole passes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import tifffile

from tests import builders
from tests.builders import vendors
from tests.lab.root import HANGS_S, Root, command


def filled(root: Root, tmp_path: Path) -> None:
    vendors.mirax_mrxs(root.path / "inbox" / "ann", "M")
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.drop(builders.planar_tiff(tmp_path / "b.tif", width=900, height=700), user="bob")
    deep = np.arange(600 * 500, dtype=np.uint16).reshape(500, 600)
    tifffile.imwrite(tmp_path / "c.tif", deep, photometric="minisblack")
    root.drop(tmp_path / "c.tif", user="bob")
    (tmp_path / "z").mkdir()
    builders.jpeg(tmp_path / "z" / "x.jpg")
    shutil.make_archive(str(tmp_path / "d"), "tar", root_dir=tmp_path / "z")
    root.drop(tmp_path / "d.tar", user="bob")
    assert root.run_until_idle() == 0
    assert len(root.manifests()) == 6


def verified(root: Root, *words: str) -> tuple[int, dict]:
    told = command(root, "verify", "--json", *words)
    return told.returncode, json.loads(told.stdout)


def test_what_is_whole_passes(root: Root, tmp_path: Path) -> None:
    """Native, derived, of 16 bit, a set, an archive; nothing in the tree is changed by it."""
    filled(root, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in root.path.glob("storage/**/*")}
    code, told = verified(root)
    assert (code, told["files"], told["damaged"], told["broken_off"]) == (0, 6, [], False)
    every = [row for one in root.manifests().values() for row in one["files"]]
    assert told["read_bytes"] == sum(row["size_bytes"] for row in every)
    assert {p: p.stat().st_mtime_ns for p in root.path.glob("storage/**/*")} == before
    assert verified(root, "--user", "bob")[1]["files"] == 4
    assert verified(root, "a.svs")[1]["files"] == 1
    root.assert_clean()


def test_what_is_damaged_is_named(root: Root, tmp_path: Path) -> None:
    """A bit that flipped, a file that is gone, a pyramid that was written again: each with its reason."""
    filled(root, tmp_path)
    found = root.by_name()
    flipped = found["a.svs"]["_path"] / found["a.svs"]["files"][0]["path"]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    [gone] = [row for row in found["b.tif"]["files"] if row["role"] == "pyramid"]
    (found["b.tif"]["_path"] / gone["path"]).unlink()
    code, told = verified(root)
    assert code == 1
    problems = {one["name"]: one["problems"] for one in told["damaged"]}
    assert set(problems) == {"a.svs", "b.tif"}
    assert "other bytes" in problems["a.svs"][0]
    assert problems["b.tif"] == [f"{gone['path']} is not there"]
    text = command(root, "verify").stdout
    assert "2 damaged: restore them" in " ".join(text.split())


def test_a_pyramid_that_no_reader_opens_is_damaged(root: Root, tmp_path: Path) -> None:
    """Though its hash is what the manifest says: both were written again by anyone who did it."""
    filled(root, tmp_path)
    document = root.by_name()["b.tif"]
    [row] = [row for row in document["files"] if row["role"] == "pyramid"]
    path = document["_path"] / row["path"]
    path.write_bytes(path.read_bytes()[: row["size_bytes"] // 2])
    manifest = document["_path"] / "manifest.json"
    text = manifest.read_text()
    digest = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout
    text = text.replace(row["sha256"], digest.split()[0])
    manifest.write_text(text.replace(str(row["size_bytes"]), str(path.stat().st_size)))
    code, told = verified(root, document["id"])
    assert code == 1
    assert told["damaged"][0]["problems"]


def test_broken_off_and_resumed(root: Root, tmp_path: Path) -> None:
    """Ctrl-C says how to go on; what was looked at is not looked at again. Beside a daemon."""
    filled(root, tmp_path)
    root.start()
    words = [
        "verify",
        "--max-mb-per-s",
        "0.4",
        "--root",
        str(root.path),
        "--config",
        str(root.config),
    ]
    running = subprocess.Popen(
        root.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    state = root.path / "state" / "verify.json"
    end = time.monotonic() + HANGS_S
    while not state.exists() or json.loads(state.read_text())["files"] < 2:
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "verify --resume" in said
    assert "Traceback" not in said
    done = json.loads(state.read_text())["files"]
    assert done < 6
    code, told = verified(root, "--resume")
    assert (code, told["files"], told["damaged"]) == (0, 6, [])
    assert not state.exists()
    refused = command(root, "verify", "--resume")
    assert (refused.returncode, "nothing to resume" in refused.stderr) == (2, True)
    assert root.stop() == 0
    root.assert_clean()
