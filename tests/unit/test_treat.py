"""One uploaded file on whose way anything is raised ends in an error, and is never held up for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch.config import Config, Engine
from cytowatch.durable.failpoints import POISONS
from cytowatch.engine.engine import Engine as Scheduler
from cytowatch.engine.firsts import Contents
from cytowatch.engine.treat import Treatment
from cytowatch.record import manifest
from cytowatch.record.manifest import FileEntry
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.index.index import Index
from cytowatch.tree.room import Free, Room
from cytowatch.tree.spool import Spool

ID = UploadedFileId("20261123-141502-k3f9-a")
NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)


class Told:
    """Whoever is told keeps what was unforeseen."""

    def __init__(self) -> None:
        self.unforeseen_ones: list[str] = []

    def unforeseen(self, _id: str, error: BaseException) -> None:
        self.unforeseen_ones.append(type(error).__name__)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


class Raising:
    """Stands where a zygote does, and raises when a decoder process is asked for."""

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def fork(self, _directory: Path, _out: str) -> Any:
        raise self._kind("poisoned \x1b[2J")


class Later(Executor):
    """Does what it was given when it is asked to, in this thread."""

    def __init__(self) -> None:
        self._given: list[Any] = []

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Any:
        self._given.append((function, arguments))

    def run(self) -> None:
        given, self._given = self._given, []
        for function, arguments in given:
            function(*arguments)


@pytest.mark.parametrize("kind", [*POISONS.values(), SystemError, StopIteration])
def test_anything_that_is_raised_ends_that_file_alone(
    tmp_path: Path, kind: type[Exception]
) -> None:
    """After `max_attempts` tries it is shelved with a reason and its original; each try is reported."""
    spool = Spool.create(tmp_path / "root")
    path = spool.stage(Status.UPLOADED) / ID
    (path / "source").mkdir(parents=True)
    (path / "source" / "a.png").write_text("12345")
    row = FileEntry(
        role="source", path="source/a.png", size_bytes=5, sha256=None, status="UPLOADED"
    )
    manifest.write(
        path,
        manifest.new(
            id=ID,
            user="ann",
            name="a.png",
            drop_path="ann/a.png",
            files=[row],
            now=NOW,
            software={},
        ),
    )
    index = Index(spool, memory=True)
    told = Told()
    with_ = Treatment(
        spool=spool, config=Config(engine=Engine(max_attempts=2)), zygote=cast("Any", Raising(kind)),
        observer=cast("Any", told), index=index, contents=Contents(),
        room=Room(lambda: Free(bytes=1 << 40)), now=lambda: NOW, monotonic=time.monotonic,
        stop=threading.Event(),
    )  # fmt: skip
    pool = Later()
    scheduler = Scheduler(with_, executor=pool, count=1, wake=lambda: None)
    scheduler.submit("ann", ID)
    scheduler.start_some(0.0)
    pool.run()
    [(why, detail)] = scheduler.waiting.values()
    assert why == "unexpected"
    assert detail.isprintable()
    scheduler.start_some(time.monotonic() + 3600)
    pool.run()
    assert scheduler.idle
    found = spool.find(ID)
    assert found is not None
    assert found[0] is Status.ERROR_FORMAT
    ended = manifest.read(found[1])
    assert ended["error"] is not None
    assert ended["error"]["reason"] == "unexpected"
    assert ended["error"]["detail"].isprintable()
    assert (found[1] / ended["files"][0]["path"]).read_text() == "12345"
    assert told.unforeseen_ones == [kind.__name__] * 2
