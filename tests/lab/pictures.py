"""One daemon for all pictures that need no settings and no tree of their own: it is started once.

A test puts its files into `Pictures.inbox`, an inbox that no other test has, and asks what became of them. The
daemon lives as long as the tests of its process do, so what it was given before must not be able to disturb it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from PIL import Image

from cytowatch.record import manifest, schema
from cytowatch.record.status import STAGE_STATUSES
from tests.lab.root import HANGS_S, Root

__all__ = ["Pictures", "pictures", "shown", "treating"]

_users = itertools.count(1)


class Pictures:
    """What one test drops, and what became of it."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.user = f"u{next(_users)}"
        #: Where a test makes its files. Until they are `treated` the daemon does not see it.
        self.inbox = root.path.parent / self.user
        self.inbox.mkdir()
        self._before = set(self._places())

    def _places(self) -> list[Path]:
        return [*self.root.path.glob("stages/*/*"), *self.root.path.glob("storage/*/*")]

    def drop(self, source: Path, name: str | None = None) -> Path:
        """A copy of `source` in the inbox."""
        target = self.inbox / (name or source.name)
        shutil.copyfile(source, target)
        return target

    def treated(self) -> int:
        """Give the daemon what was dropped and wait until all of it has ended: 1 if some in an error, else 0."""
        given = self.root.path / "inbox" / self.user
        if self.inbox != given:
            # In one step, so that nothing is taken while a test is still at it.
            self.inbox.rename(given)
            self.inbox = given
        quiet, end = 0, time.monotonic() + HANGS_S
        # What moves on between two looks can be missed by one of them.
        while quiet < 2:
            quiet = 0 if self._is_in_work() else quiet + 1
            assert time.monotonic() < end, self.said()
            assert self.root.process
            assert self.root.process.poll() is None, self.said()
            time.sleep(0.02)
        return int(any(document["error"] for document in self.manifests().values()))

    def _is_in_work(self) -> bool:
        """In the order of its way, so that what moves on meanwhile is met further on."""
        # A folder may be taken while it is looked through, which is not an error here.
        if any(files for _, _, files in os.walk(self.inbox)):
            return True
        path = self.root.path
        working = [path / "stages" / one.directory for one in STAGE_STATUSES if not one.is_final]
        return any(any(folder.iterdir()) for folder in (path / "state" / "tmp", *working))

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Every uploaded file that was dropped here, by id, each one valid."""
        found = {}
        for path in self._places():
            if path in self._before:
                continue
            document = manifest.read(path)
            if document["user"] == self.user:
                assert schema.problem(document) is None
                found[path.name] = {**document, "_path": path}
        return found

    def by_name(self) -> dict[str, dict[str, Any]]:
        """The same by name."""
        return {document["name"]: document for document in self.manifests().values()}

    def check_hashes(self) -> None:
        """Every file that a manifest names is there and has the hash that it names."""
        self.root.check_hashes(self.manifests())

    def said(self) -> str:
        """The end of the daemon's log."""
        return self.root.log.read_text()[-3000:]


def shown(document: dict[str, Any]) -> np.ndarray:
    """The pixels of its only image as a viewer shows them, on white: (height, width, 3)."""
    [image] = document["images"]
    with openslide.OpenSlide(document["_path"] / image["file"]) as slide:
        region = slide.read_region((0, 0), 0, slide.dimensions)
    white = Image.new("RGBA", region.size, (255, 255, 255, 255))
    white.alpha_composite(region)
    return np.asarray(white.convert("RGB"))


@pytest.fixture(scope="session")
def treating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """The daemon, started when the first picture comes; at the end it stops, and its tree holds what it must."""
    root = Root(tmp_path_factory.mktemp("pictures") / "root").create()
    root.configure(inbox={"folder_quiet_s": 1.0})
    root.start()
    yield root
    assert root.stop() == 0
    root.assert_clean()


@pytest.fixture
def pictures(treating: Root) -> Pictures:
    """An inbox of the test's own."""
    if treating.process and treating.process.poll() is not None:
        # The test that ended it has failed by that.
        treating.start()
    return Pictures(treating)
