"""The panel killed, or failed, at every place that an upload passes: one drop comes of it, with every byte."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from cytowatch.durable import failpoints
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root
from tests.panel.tus import add, create, head

FILES = {"case/a.svs": os.urandom(70_000), "case/b/c.dat": os.urandom(30_000)}
MORE = {"group": "case-20261129", "groupFiles": str(len(FILES)), "project": "Lung"}
PROXY = 'auth = "proxy"\n'


@pytest.fixture
def serve(tree: Root) -> Iterator[Callable[[], Served]]:
    """Makes a panel that a test starts itself."""
    made: list[Served] = []

    def make() -> Served:
        made.append(Served(tree.path, more=PROXY, start=False))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def armed(panel: Served, names: list[str], what: str) -> None:
    panel.environment = {failpoints.VARIABLE: ",".join(f"{name}={what}" for name in names)}


def sent(panel: Served) -> str:
    """Everything, in two requests a file, from where it ended; gives the address of the last one."""
    at = ""
    for path, data in FILES.items():
        made = create(panel, len(data), relativePath=path, **MORE)
        assert made.code == 201, made.text
        at = made.headers["location"]
        while (here := int(head(panel, at).headers["upload-offset"])) < len(data):
            answer = add(panel, at, here, data[here : here + 40_000])
            assert answer.code == 204, answer.text
        assert head(panel, at).code == 200
    return at


def assert_one_drop(tree: Root) -> None:
    inbox = tree.path / "inbox/ann/@Lung"
    assert os.listdir(inbox) == ["case"]
    found = {str(one.relative_to(inbox)): one.read_bytes() for one in inbox.rglob("*.*")}
    assert found == FILES


def test_killed_at_every_place(tree: Root, serve: Callable[[], Served]) -> None:
    """One start after the other, each cut off at the next place that is left, until none is."""
    left = list(failpoints.UPLOADS)
    panel = serve()
    at = ""
    while left:
        armed(panel, left, "kill")
        # What the start itself publishes may be its end already.
        with suppress(OSError, http.client.HTTPException, AssertionError):
            panel.start()
            at = sent(panel)
        assert panel.process
        assert panel.process.wait(HANGS_S) == -signal.SIGKILL, panel.log.read_text()[-2000:]
        last = [line for line in panel.log.read_text().splitlines() if line.startswith("failpoint")]
        left.remove(last[-1].split()[1])
    panel.environment = {}
    panel.start()
    at = sent(panel)
    assert_one_drop(tree)
    # Where it went is known, though no process that did it lived long enough to say so.
    assert panel.as_user("ann", at).json["drop"] == "ann/@Lung/case"
    assert panel.stop() == 0


@pytest.mark.parametrize("what", ["EIO", "ENOSPC", "EDQUOT@2"])
def test_failed_at_every_place(tree: Root, serve: Callable[[], Served], what: str) -> None:
    """Each place fails once: the client learns of it and tries again; the panel lives on."""
    panel = serve()
    # Every place is reached twice, but those that only the whole folder reaches.
    once = ("upload.renamed", "upload.durable")
    armed(panel, [n for n in failpoints.UPLOADS if "@" not in what or n not in once], what)
    panel.start()
    refused = []
    for _ in range(30):
        try:
            sent(panel)
            break
        except (AssertionError, KeyError) as error:
            refused.append(str(error))
    assert_one_drop(tree)
    reached = panel.log.read_text().count("failpoint upload.")
    assert reached == len(failpoints.UPLOADS) - (2 if "@" in what else 0)
    assert refused
    assert panel.lines("panel_unexpected") == []
    assert panel.stop() == 0


def test_whole_and_never_asked_for_again(tree: Root, serve: Callable[[], Served]) -> None:
    """Its client got no answer and went away: the next start of the panel publishes it."""
    panel = serve()
    armed(panel, ["upload.kept"], "kill")
    panel.start()
    at = create(panel, 3, filename="a.svs").headers["location"]
    with pytest.raises((OSError, http.client.HTTPException)):
        add(panel, at, 0, b"abc")
    assert panel.process
    assert panel.process.wait(HANGS_S) == -signal.SIGKILL
    assert not (tree.path / "inbox/ann").exists()
    panel.environment = {}
    panel.start()
    end = time.monotonic() + HANGS_S
    while not (tree.path / "inbox/ann/a.svs").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tree.path / "inbox/ann/a.svs").read_bytes() == b"abc"
    assert panel.as_user("ann", at).json["drop"] == "ann/a.svs"
    assert panel.stop() == 0
