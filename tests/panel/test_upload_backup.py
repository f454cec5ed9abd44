"""Uploads in a tree that is backed up, restored or moved by the documented commands: gone or gone on with, never doubled."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import builders
from tests.lab.panel import Served
from tests.lab.root import Root, command
from tests.needs import needs
from tests.panel.tus import add, begun, head

HOUSE = Path(__file__).resolve().parents[2]


def documented(heading: str, tree: Root, tmp_path: Path, *, moved: Path | None = None) -> None:
    """The lines with rsync that install.md has below `heading`, for the places of this test."""
    text = (HOUSE / "docs/how-to/install.md").read_text().partition(f"\n## {heading}\n")[2]
    [block, *_] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for line in block.splitlines() if "/etc" not in line]
    script = "\n".join(
        line for line in lines if re.match(r"\s*(for|do|done|rsync|install -d -m)\b", line)
    )
    assert "rsync" in script
    for place, here in (
        ("/var/backups", tmp_path / "backups"), ("/srv/cytowatch", tree.path),
        ("/mnt/cytowatch", moved or tmp_path),
    ):  # fmt: skip
        script = script.replace(place, str(here))
    subprocess.run(["bash", "-euxo", "pipefail", "-c", script], check=True)


@contextmanager
def served(tree: Root) -> Iterator[Served]:
    panel = Served(tree.path, more='auth = "proxy"\n')
    try:
        yield panel
    finally:
        panel.stop()


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return builders.jpeg(tmp_path / "a.jpg").read_bytes()


@needs("bash", "rsync")
def test_restored(tree: Root, tmp_path: Path, data: bytes) -> None:
    """One is deployed, one was complete and of a folder that is not, one is half: the first is there once, the others are gone, and their clients learn it."""
    (tmp_path / "backups/cytowatch/tree").mkdir(parents=True)
    more = {"group": "case-7-2026", "groupFiles": "2"}
    with served(tree) as panel:
        whole = begun(panel, len(data), filename="whole.jpg")
        assert add(panel, whole, 0, data).code == 204
        assert tree.run_until_idle() == 0
        part = begun(panel, len(data), relativePath="case 7/a.jpg", **more)
        assert add(panel, part, 0, data).code == 204
        half = begun(panel, len(data), filename="half.jpg")
        assert add(panel, half, 0, data[:5000]).code == 204
        documented("Back up", tree, tmp_path)
        # What goes on after the backup must not meet it again.
        assert add(panel, half, 5000, data[5000:]).code == 204
        assert tree.run_until_idle() == 0
        assert sorted(tree.by_name()) == ["half.jpg", "whole.jpg"]
    documented("Restore", tree, tmp_path)
    with served(tree) as panel:
        assert {head(panel, at).code for at in (whole, part, half)} == {404}
        assert tree.run_until_idle() == 0
        assert list(tree.by_name()) == ["whole.jpg"]
        again = begun(panel, len(data), relativePath="case 7/a.jpg", **more)
        assert head(panel, again).headers["upload-offset"] == "0"
        assert command(tree, "check", "--deep").returncode == 0
    tree.assert_clean()


@needs("bash", "rsync")
def test_moved(tree: Root, tmp_path: Path, data: bytes) -> None:
    """The whole tree at a new place: unfinished ones go on where they were, and the published one is not published again."""
    with served(tree) as panel:
        whole = begun(panel, len(data), filename="whole.jpg")
        assert add(panel, whole, 0, data).code == 204
        half = begun(panel, len(data), filename="half.jpg")
        assert add(panel, half, 0, data[:5000]).code == 204
    assert tree.run_until_idle() == 0
    moved = tmp_path / "moved"
    documented("Move the tree", tree, tmp_path, moved=moved)
    shutil.rmtree(tree.path)
    moved.rename(tree.path)
    with served(tree) as panel:
        assert head(panel, whole).headers["upload-offset"] == str(len(data))
        assert head(panel, half).headers["upload-offset"] == "5000"
        assert command(tree, "check", "--deep").returncode == 0
        assert add(panel, half, 5000, data[5000:]).code == 204
        assert tree.run_until_idle() == 0
    assert sorted(one["name"] for one in tree.manifests().values()) == ["half.jpg", "whole.jpg"]
    tree.assert_clean()
