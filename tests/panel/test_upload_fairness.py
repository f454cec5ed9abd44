"""A thousand files through the panel beside a scanner's own drops: the scanner's slide takes its turn, and is next."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import builders
from tests.lab.panel import Served
from tests.lab.root import Root
from tests.lab.told import json_lines
from tests.panel.tus import add, begun

MANY = 1000


def test_a_thousand_uploads_do_not_hold_up_a_scanner(tree: Root, tmp_path: Path) -> None:
    """Between the claim of its slide and its first stage at most three stages of the others pass, with one worker."""
    tree.configure(engine="workers = 1")
    panel = Served(tree.path, more=f'auth = "proxy"\nmax_unfinished = {2 * MANY}\n')
    picture = builders.png(tmp_path / "a.png", width=64).read_bytes()
    slide = builders.png(tmp_path / "slide.png", width=600)
    (tree.path / "inbox" / "scanner").mkdir()
    tree.start()

    def upload(number: int) -> None:
        at = begun(panel, len(picture), filename=f"{number:04}.png")
        assert add(panel, at, 0, picture).code == 204

    try:
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(upload, number) for number in range(MANY)]
            # It comes in the midst of them, as a scanner writes it.
            sent[MANY // 2].result(300)
            shutil.copyfile(slide, tree.path / "inbox" / "scanner" / "single.png")
            for one in sent:
                one.result(300)
        tree.wait(lambda: tree.by_name().get("single.png", {}).get("status") == "CONVERTED")
    finally:
        panel.stop()
        assert tree.stop() == 0
    [single] = [one for one in tree.manifests().values() if one["user"] == "scanner"]
    lines = [one for one in json_lines(tree.log) if one["event"] in ("claimed", "stage")]
    of_single = [number for number, one in enumerate(lines) if one["id"] == single["id"]]
    claimed, begun_at = of_single[:2]
    before = [one for one in lines[:claimed] if one["event"] == "claimed"]
    waiting = {one["id"] for one in before} - {
        one["id"] for one in lines[:claimed] if one["event"] == "stage"
    }
    assert len(waiting) > 20, "nobody was waiting whom it could have been behind"
    between = [one for one in lines[claimed:begun_at] if one["event"] == "stage"]
    assert len(between) <= 3, between
