"""One uploaded file on whose way anything is raised ends in an error, and is never held up for ever."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch import aside
from cytowatch.config import Config
from cytowatch.config.keys import Engine
from cytowatch.decoder.forks import Zygote
from cytowatch.durable import failpoints
from cytowatch.durable.failpoints import POISONS
from cytowatch.engine.engine import Engine as Scheduler
from cytowatch.engine.firsts import Contents
from cytowatch.engine.treat import Treatment
from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry
from cytowatch.record.errors import TransientError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.transitions.moves import Transitions
from cytowatch.tree.index.index import Index
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.room import Free, Room
from cytowatch.tree.spool import Spool
from tests.lab.root import HANGS_S

ID = UploadedFileId("20261123-141502-k3f9-a")
NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)


class Told:
    """Anyone who is informed keeps what was unforeseen."""

    def __init__(self) -> None:
        self.unforeseen_ones: list[str] = []

    def said(self, _id: str, words: str) -> None:
        pass

    def unforeseen(self, _id: str, error: BaseException) -> None:
        self.unforeseen_ones.append(type(error).__name__)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


class Raising:
    """Stands where a zygote does, and raises when a decoder process is asked for."""

    def __init__(self, kind: Callable[[str], Exception]) -> None:
        self._kind = kind

    def fork(self, _directory: Path, _out: str) -> Any:
        raise self._kind("poisoned \x1b[2J")


def work(scheduler: Scheduler, now: float) -> None:
    """Start what is due at `now`, and wait until it is done."""
    scheduler.start_some(now)
    end = time.monotonic() + HANGS_S
    while scheduler.busy:
        assert time.monotonic() < end
        time.sleep(0.001)


def scheduled(root: Path, kind: Callable[[str], Exception]) -> tuple[Spool, Told, Scheduler]:
    """A slide that is submitted, where asking for a decoder raises a `kind`."""
    spool = Spool.create(root)
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
        transitions=Transitions(
            spool=spool, config=Config(engine=Engine(max_attempts=2)), observer=cast("Any", told),
            index=index, now=lambda: NOW, monotonic=time.monotonic,
        ),
        decoders=cast("Any", Raising(kind)), contents=Contents(),
        room=Room(lambda: Free(bytes=1 << 40)), stop=threading.Event(),
    )  # fmt: skip
    scheduler = Scheduler(with_, count=1, wake=lambda: None)
    scheduler.submit("ann", ID)
    return spool, told, scheduler


def test_a_thread_goes_on_without_the_main_loop(tmp_path: Path) -> None:
    """With the next file in turn, until the queue is empty or everyone is held back."""
    spool, told, scheduler = scheduled(tmp_path / "root", ValueError)
    for number in range(4):
        shutil.copytree(
            spool.stage(Status.UPLOADED) / ID, spool.stage(Status.UPLOADED) / f"{ID}-{number}"
        )

    def submit(*numbers: int) -> None:
        for number in numbers:
            scheduler.submit("bob", UploadedFileId(f"{ID}-{number}"))

    def until_tried(count: int) -> None:
        end = time.monotonic() + HANGS_S
        while len(told.unforeseen_ones) < count or scheduler.busy:
            assert time.monotonic() < end
            time.sleep(0.001)

    submit(0, 1)
    scheduler.start_some(time.monotonic())
    until_tried(3)
    submit(2)
    scheduler.hold(Pauses(everyone=True))
    scheduler.start_some(time.monotonic())
    submit(3)
    assert (scheduler.held, scheduler.busy, len(told.unforeseen_ones)) == (2, 0, 3)
    scheduler.hold(Pauses(users=frozenset({"bob"})))
    scheduler.start_some(time.monotonic())
    assert (scheduler.held, scheduler.busy) == (2, 0)
    scheduler.hold(Pauses())
    scheduler.start_some(time.monotonic())
    until_tried(5)


@pytest.mark.parametrize("kind", [*POISONS.values(), SystemError, StopIteration])
def test_anything_that_is_raised_ends_that_file_alone(
    tmp_path: Path, kind: type[Exception]
) -> None:
    """After `max_attempts` tries it is shelved with a reason and its original; each try is reported."""
    spool, told, scheduler = scheduled(tmp_path / "root", kind)
    work(scheduler, 0.0)
    [(why, detail)] = scheduler.waiting.values()
    assert why == "unexpected"
    assert detail.isprintable()
    work(scheduler, time.monotonic() + 3600)
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


def test_what_may_not_be_written_is_waited_for(tmp_path: Path) -> None:
    """Rights in the tree are an administrator's to mend, however often it is tried, and no slide's error."""
    where = tmp_path / "root" / "storage" / "ann" / "x"
    spool, told, scheduler = scheduled(
        tmp_path / "root", lambda _: PermissionError(13, "Permission denied", "a", None, str(where))
    )
    for _ in range(4):
        work(scheduler, time.monotonic() + 3600)
    assert told.unforeseen_ones == []
    [(why, detail)] = scheduler.waiting.values()
    assert why == "not_permitted"
    assert detail.startswith("storage/ann cannot be written (Permission denied): give it to")
    found = spool.find(ID)
    assert found is not None
    assert found[0] is Status.DETECTING_FORMAT
    assert manifest.read(found[1])["attempts"] <= 1


@pytest.mark.parametrize("kind", ["a file", "a link", "a dead link"])
def test_nothing_is_published_through_what_is_no_folder(tmp_path: Path, kind: str) -> None:
    """It stays where it was, and the words name what is in the way."""
    spool = Spool.create(tmp_path / "root")
    path = spool.stage(Status.DEPLOYING) / ID
    path.mkdir()
    match kind:
        case "a file":
            (spool.storage / "ann").touch()
        case "a link":
            (spool.storage / "ann").symlink_to(tmp_path)
        case _:
            (spool.storage / "ann").symlink_to("nowhere")
    with pytest.raises(TransientError, match="storage/ann must be a folder") as raised:
        spool.publish(path, "ann")
    assert raised.value.why == "not_permitted"
    assert path.is_dir()
    (spool.storage / "ann").unlink()
    assert spool.publish(path, "ann").is_dir()


def test_a_name_as_long_as_it_can_be_is_thrown_away(tmp_path: Path) -> None:
    """In the trash it gets an ending of its own, for which there would be no room."""
    spool = Spool.create(tmp_path / "root")
    for name in ("n" * 255, os.fsdecode(b"\xe4" * 255)):
        (spool.tmp / name).touch()
        spool.discard(spool.tmp / name)
        assert list(spool.tmp.iterdir()) == list(spool.trash.iterdir()) == []


def test_what_a_kill_left_in_state_goes_at_a_start(tmp_path: Path) -> None:
    """What is young may be a command's that is at work now."""
    spool = Spool.create(tmp_path / "root")
    for name in (".lease-12", ".paused.json.partial", ".lease-13", "paused.json", "lock"):
        (spool.state / name).touch()
        if name != ".lease-13":
            os.utime(spool.state / name, (1, 1))
    spool.remove_temporaries()
    left = {path.name for path in spool.state.iterdir() if path.is_file()}
    assert left == {".lease-13", "paused.json", "lock"}


def test_stages_that_cannot_be_imported_are_named() -> None:
    """So that who starts it learns what is missing."""
    zygote = Zygote(Config(), stages="cytowatch.no_such_stages")
    with pytest.raises(TransientError, match=r"ModuleNotFoundError.*no_such_stages"):
        zygote.start()
    zygote.stop()


@pytest.mark.parametrize("kind", POISONS)
@pytest.mark.parametrize("function", ["_unexpected", "_size_bytes"])
def test_a_defect_that_cannot_even_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, kind: str
) -> None:
    """It is set aside; the slide ends as any other that meets a defect, and is forgotten then."""
    poison = (f"cytowatch.engine.engine.Engine.{function}", ID, kind, "")
    monkeypatch.setattr(failpoints, "_POISONED", [poison])
    spool, _, scheduler = scheduled(tmp_path / "root", ValueError)
    # The next step forward would write its row, and so clear what is set aside when it is submitted.
    for _ in range(2 if function == "_unexpected" else 0):
        work(scheduler, time.monotonic() + 3600)
    where = "uploaded_file" if function == "_unexpected" else "row"
    assert [one.which for one in aside.all_of(where)] == [ID]
    monkeypatch.setattr(failpoints, "_POISONED", [])
    for _ in range(3):
        work(scheduler, time.monotonic() + 3600)
    assert scheduler.idle
    found = spool.find(ID)
    assert found is not None
    assert found[0] is Status.ERROR_FORMAT
    aside.reset()
    sys.settrace(None)


def test_a_size_that_cannot_be_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken for small, and has its turn."""
    poison = ("cytowatch.engine.engine.Engine._size_bytes", ID, "KeyError", "")
    monkeypatch.setattr(failpoints, "_POISONED", [poison])
    _, told, scheduler = scheduled(tmp_path / "root", ValueError)
    assert aside.all_of("row") != []
    work(scheduler, 0.0)
    assert told.unforeseen_ones == ["ValueError"]
    aside.reset()
    sys.settrace(None)
