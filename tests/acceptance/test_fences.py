"""One thing of every kind raises at its own place in one daemon: it is reported everywhere, and all else goes on."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cytowatch import aside, durable
from cytowatch.durable.failpoints import POISON, POISONS
from tests import builders
from tests.lab.loops import fences
from tests.lab.root import Root
from tests.lab.told import free_port, json_lines, metric

#: By function: where it is set aside, and a part of the name of the thing.
PLACES = {
    "inbox.scan._look": ("drop", "seen"),
    "inbox.claims.Claims.collect": ("claim", "taken"),
    "inbox.dropped.Dropped.finish_some": ("folder", "case"),
    "inbox.sweep.Sweep._fenced": ("user", "eve"),
    "inbox.bounded._Group.on_event": ("event", "dan"),
    "lifecycle.work.Work._take_up": ("uploaded_file", "collected"),
    "engine.hashing.Hasher._serve": ("uploaded_file", "hashed"),
    "tree.index.index.Index.put": ("row", "indexed"),
    "hooks.deliver.Courier._deliver": ("hook", "told"),
    "observe.feedback.Notes._write": ("note", "noted"),
    "lifecycle.work.Work.do_requests": ("uploaded_file", "asked"),
    "admin.requests.answer_all": ("request", "second"),
    "lifecycle.duties.Duties.do": ("part", "unwatched"),
}
#: Where a reload is taken over.
_RELOAD = "lifecycle.reload.take_over"
_DUTY = "lifecycle.duties.Duties.do"
#: An event makes up for itself by a scan, what was not reported of a claim is reported by its next step,
#: and a row is written from the tree a second later.
PASSING = {"dan", "collected", "indexed"}
SLIDES = ("seen", "taken", "collected", "hashed", "indexed", "told", "noted")


def command(root: Root, *words: str) -> str:
    return subprocess.run(
        root.command(*words, "--root", str(root.path), "--config", str(root.config)),
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


def told(root: Root) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(root, "status", "--json"))["set_aside"]
    return found


def lacking(root: Root) -> set[tuple[str, str]]:
    """Those that `status` does not name, though they wait."""
    named = told(root)
    return {
        (where, which)
        for where, which in PLACES.values()
        if which not in PASSING
        and not any(one["where"] == where and which in one["which"] for one in named)
    }


def deployed(root: Root, *names: str) -> bool:
    found = root.by_name()
    return all(found.get(name, {}).get("status") in ("DEPLOYED", "CONVERTED") for name in names)


@pytest.mark.parametrize("turn", range(len(POISONS)) if os.environ.get("CI") else [0])
def test_one_of_each_is_set_aside_and_goes_on(root: Root, tmp_path: Path, turn: int) -> None:
    """In `status`, `check`, log and metric; others are served, over a kill -9 too; and it goes on after."""
    assert {*PLACES, _RELOAD} <= fences(), "a place is called otherwise by now"
    port = free_port()
    more = '[[hooks]]\nname = "lab"\non = ["DEPLOYED"]\ncommand = ["/bin/true"]\n'
    root.configure(listen=f"127.0.0.1:{port}", inbox="folder_quiet_s = 0.5", more=more)
    root.configure_also(storage={"hash": "after"})
    cause = tmp_path / "cause"
    cause.touch()
    # In as many turns as there are kinds, each of them comes to each place.
    kinds = itertools.islice(itertools.cycle(POISONS), turn, None)
    poisons = {function: next(kinds) for function in PLACES}
    if poisons[_DUTY] == "OSError":
        # There it is a fault of the machine: told by /healthz and waited for, not set aside.
        poisons[_DUTY] = "ValueError"
    root.environment[POISON] = ",".join(
        f"cytowatch.{function}:{which}={poisons[function]}@{cause}"
        for function, (_, which) in PLACES.items()
    )
    slide = builders.aperio_svs(tmp_path / "a.svs")
    (tmp_path / "asked.png").write_text("this is not an image")
    root.start()
    for name in SLIDES:
        root.drop(slide, f"{name}.svs")
    root.drop(slide, "eves.svs", user="eve")
    root.drop(slide, "dans.svs", user="dan")
    (root.path / "inbox" / "ann" / "case").mkdir()
    shutil.copyfile(slide, root.path / "inbox" / "ann" / "case" / "inside.svs")
    for user in ("ann", "bob", "zoe"):
        root.drop(slide, f"{user}-0.svs", user=user)
    root.drop(tmp_path / "asked.png")
    root.wait(lambda: root.by_name().get("asked.png", {}).get("status") == "ERROR_FORMAT")
    retry = json.dumps({"do": "retry", "id": root.by_name()["asked.png"]["id"]})
    for name in ("first", "second"):
        # Whole at once, as commands write it: half a request is refused.
        durable.replace_file(root.path / "state" / "requests" / f"{name}.json", retry)
    root.wait(lambda: deployed(root, "ann-0.svs", "bob-0.svs", "zoe-0.svs", "dans.svs"))
    root.wait(lambda: not lacking(root))
    # Another step forward with the same file names it no longer for a moment.
    unnamed = {which for _, which in PLACES.values() if which not in PASSING}

    def all_named() -> bool:
        said = command(root, "check")
        unnamed.difference_update([which for which in unnamed if which in said])
        return not unnamed

    root.wait(all_named)
    lines = [one for one in json_lines(root.log) if one["event"] == "set_aside"]
    for where, which in PLACES.values():
        assert any(one["where"] == where and which in one["which"] for one in lines), which
        assert metric(port, f'cytowatch_set_aside_total{{where="{where}"}}') >= 1
    assert {one["where"] for one in lines} == set(aside.WHERES)
    # A reload that raises is refused, and is tried again when it is asked for again.
    root.kill()
    root.environment[POISON] += f",cytowatch.{_RELOAD}:reload=KeyError@{cause}"
    root.start()
    assert root.process
    root.process.send_signal(signal.SIGHUP)
    root.wait(lambda: any(one["event"] == "reload_refused" for one in json_lines(root.log)))
    for user in ("ann", "bob", "zoe"):
        root.drop(slide, f"{user}-1.svs", user=user)
    root.wait(lambda: deployed(root, "ann-1.svs", "bob-1.svs", "zoe-1.svs"))
    cause.unlink()
    root.wait(lambda: deployed(root, *(f"{name}.svs" for name in (*SLIDES, "eves", "inside"))))
    root.wait(lambda: root.by_name()["case"]["status"] == "EXTRACTED")
    root.wait(lambda: told(root) == [])
    root.wait(lambda: root.by_name()["asked.png"]["status"] == "ERROR_FORMAT")
    root.wait(lambda: root.by_name()["hashed.svs"]["sha256"] is not None)
    root.process.send_signal(signal.SIGHUP)
    root.wait(lambda: any(one["event"] == "reloaded" for one in json_lines(root.log)))
    assert root.stop() == 0
    root.assert_clean()
