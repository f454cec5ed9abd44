"""Uploads into an inbox whose copier says by a marker that a file is done: the panel says so as well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cytowatch.durable import failpoints
from tests import builders
from tests.lab.panel import Served
from tests.lab.root import Root
from tests.panel.tus import add, begun, create

MARKED = 'auth = "proxy"\n[inbox]\ndone_marker = ".done"\n'


def test_what_arrived_is_marked_and_taken(tree: Root, tmp_path: Path) -> None:
    """A file, a folder, and one of a user who has no marker; the markers are gone with them."""
    own = '[inbox.users.bob]\ndone_marker = ""\n'
    tree.configure(inbox={"done_marker": ".done"}, more=own)
    panel = Served(tree.path, more=MARKED + own)
    data = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    try:
        assert add(panel, begun(panel, len(data), filename="a.jpg"), 0, data).code == 204
        at = begun(panel, len(data), relativePath="case 7/b.jpg", group="case-7-2026")
        assert add(panel, at, 0, data).code == 204
        mine = create(panel, len(data), user="bob", filename="c.jpg").headers["location"]
        assert add(panel, mine, 0, data, user="bob").code == 204
        assert os.listdir(tree.path / "inbox/bob") == ["c.jpg"]
        answer = create(panel, 3, filename="other.svs.done")
        assert answer.code == 400
        assert ".done" in answer.json["error"]
        tree.start()
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            tree.wait(lambda one=name: tree.by_name().get(one, {}).get("status") == "CONVERTED")
        tree.wait(lambda: not list((tree.path / "inbox/ann").glob("*.done")))
        assert tree.stop() == 0
    finally:
        panel.stop()


@pytest.mark.parametrize("place", ["upload.renamed", "upload.durable"])
def test_killed_before_it_could_say_so(tree: Root, place: str) -> None:
    """The next start marks what was published, and nothing that the daemon has taken since."""
    panel = Served(tree.path, more=MARKED, start=False)
    panel.environment = {failpoints.VARIABLE: f"{place}=kill"}
    inbox = tree.path / "inbox/ann"
    panel.start()
    try:
        at = begun(panel, 3, filename="a.svs")
        with pytest.raises((ConnectionError, OSError)):
            add(panel, at, 0, b"abc")
        assert panel.process
        panel.process.wait(30)
        panel.environment = {}
        panel.start()
        tree.wait(lambda: sorted(os.listdir(inbox)) == ["a.svs", "a.svs.done"])
    finally:
        panel.stop()
