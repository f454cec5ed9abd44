"""One tree, made by a real daemon from real drops, for all tests of the panel that only look."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.lab.panel import EVIL, Served
from tests.lab.root import Root

__all__: list[str] = []


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Ann's and Bob's files: deployed, converted, extracted and failed, some with a hostile name."""
    folder = tmp_path_factory.mktemp("panel")
    root = Root(folder / "root")
    root.create()
    photo = builders.jpeg(folder / "photo.jpg")
    root.drop(photo)
    root.drop(photo, EVIL.replace("/", "_"))
    root.drop(builders.aperio_svs(folder / "slide.svs"))
    damaged = bytearray(photo.read_bytes())
    del damaged[len(damaged) // 3 : -2]
    (folder / "broken.jpg").write_bytes(damaged)
    root.drop(folder / "broken.jpg")
    with zipfile.ZipFile(folder / "scans.zip", "w") as archive:
        archive.write(builders.png(folder / "one.png"), "scans/one.png")
        archive.write(builders.jpeg(folder / "two.jpg", width=300), "scans/two.jpg")
        archive.writestr("scans/notes.txt", "no image\n")
    root.drop(folder / "scans.zip")
    root.drop(builders.pyramidal_tiff(folder / "bob.tif"), user="bob")
    root.drop(builders.jpeg(folder / "shared.jpg", width=320), user="bob")
    # The one file in error makes it 1.
    assert root.run_until_idle() == 1
    shared = root.by_name()["shared.jpg"]["id"]
    subprocess.run(
        root.command("link", shared, "--project", "Trial 7", "--root", str(root.path)), check=True
    )
    return root


@pytest.fixture(scope="session")
def ids(made: Root) -> dict[str, str]:
    """The id of each uploaded file by its name."""
    return {name: document["id"] for name, document in made.by_name().items()}


@pytest.fixture(scope="module")
def serve(made: Root) -> Iterator[Callable[..., Served]]:
    """Starts panels on the tree that is only looked at."""
    started: list[Served] = []

    def begin(**more: Any) -> Served:
        started.append(Served(made.path, **more))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture
def own(made: Root, tmp_path: Path) -> Iterator[Root]:
    """A copy of the tree, to change."""
    shutil.copytree(made.path, tmp_path / "root", symlinks=True)
    root = Root(tmp_path / "root")
    yield root
    if root.process and root.process.poll() is None:
        root.stop()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Root]:
    """An empty tree."""
    root = Root(tmp_path / "root")
    root.create()
    yield root
    if root.process and root.process.poll() is None:
        root.stop()
