"""What crosses the wall between daemon and decoder process: what is said, what is made, how much and how fast."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch.config.keys import Storage
from cytowatch.decoder import answers, facts, made, recorded, stagehand, wire
from cytowatch.decoder.ends import DecoderCrashed
from cytowatch.decoder.pace import DecoderTimedOut, Pace
from cytowatch.durable import trees
from cytowatch.engine import doubts
from cytowatch.model import Outcome
from cytowatch.outside import OutsideError
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import ConversionError, IngestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from tests.lab.claims import CONVERSION, FORMAT, IMAGE, PYRAMID, SOURCE, VERIFICATION

HOUSE = Path(__file__).parents[2]
ID = UploadedFileId("20261123-141502-k3f9-a")
NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)


def known(**more: Any) -> Manifest:
    found = manifest.new(
        id=ID, user="ann", name="a.png", drop_path="ann/a.png", files=[SOURCE], now=NOW, software={}
    )
    return cast("Manifest", {**found, **more})


def said(status: str, **changes: Any) -> dict[str, Any]:
    return {"outcome": {"status": status, "changes": changes}}


def converted(**more: Any) -> dict[str, Any]:
    sound: dict[str, Any] = {
        "files": [SOURCE, PYRAMID], "images": [IMAGE], "conversion": CONVERSION,
    }  # fmt: skip
    return said("DEPLOYING", **{**sound, **more})


def checked(status: Status, message: dict[str, Any], found: Manifest | None = None) -> Outcome:
    outcome = answers.understood(status, message)
    facts.check(status, found or known(), outcome, most_children=3)
    return outcome


def test_a_sound_conversion_is_understood() -> None:
    """Its files are those that were received, and those that it made."""
    assert checked(Status.CONVERTING, converted()).status is Status.DEPLOYING


@pytest.mark.parametrize(
    "message",
    [
        converted(files=[PYRAMID]),
        converted(files=[SOURCE]),
        converted(files=[SOURCE, PYRAMID, PYRAMID]),
        converted(files=[{**SOURCE, "size_bytes": 6}, PYRAMID]),
        converted(files=[{**SOURCE, "role": "pyramid"}, PYRAMID]),
        converted(files=[SOURCE, {**PYRAMID, "path": "derived/../source/a.png"}]),
        converted(files=[SOURCE, {**PYRAMID, "path": "derived/a/b/c.tiff"}]),
        converted(files=[SOURCE, {**PYRAMID, "path": "/etc/passwd"}]),
        converted(files=[SOURCE, {**PYRAMID, "path": 5}]),
        converted(files=[SOURCE, {**PYRAMID, "size_bytes": 1 << 60}]),
        converted(files=[SOURCE, {**PYRAMID, "status": "UPLOADED"}]),
        converted(files={"a": 1}),
        converted(files=[[]]),
        converted(files=[SOURCE, {**PYRAMID, "role": ["pyramid"]}]),
        converted(files=[{**SOURCE, "role": {}}, PYRAMID]),
        converted(files=[{**SOURCE, "sha256": ["0" * 64]}, PYRAMID], sha256=["0" * 64]),
        converted(files=[SOURCE, {"path": "derived/a.tiff"}]),
        converted(images=[{**IMAGE, "file": "derived/b.tiff"}]),
        converted(images=[{**IMAGE, "file": ["derived/a.tiff"]}]),
        converted(images=[{**IMAGE, "width": 64.0}]),
        converted(images=[{**IMAGE, "width": 0}]),
        converted(images=[{"file": "derived/a.tiff"}]),
        converted(images=[[]]),
        converted(images=[]),
        converted(conversion={}),
        converted(conversion=None),
        converted(sha256="0" * 64),
        converted(warnings="x"),
        converted(warnings=["x"] * 2000),
        converted(user="bob"),
        said("ERROR_FORMAT"),
        said("UPLOADED"),
        said("DEPLOYED"),
        said("\x1b[2J"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(message: dict[str, Any]) -> None:
    """With the reason `output_refused`, in words that can be shown."""
    with pytest.raises(IngestError) as caught:
        checked(Status.CONVERTING, message)
    assert caught.value.reason == "output_refused"
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"format": None},
        {"format": {**FORMAT, "id": "x"}},
        {"format": {**FORMAT, "id": "zip"}},
        {"format": {**FORMAT, "id": [1]}},
        {"format": {"id": "png"}},
        {"format": FORMAT, "files": [SOURCE, PYRAMID]},
    ],
)
def test_a_format_is_one_that_is_known(changes: dict[str, Any]) -> None:
    """And the next status is the one that follows from it."""
    assert checked(Status.DETECTING_FORMAT, said("CONVERTING", format=FORMAT))
    with pytest.raises(IngestError):
        checked(Status.DETECTING_FORMAT, said("CONVERTING", **changes))


_IDS = [f"{ID}{number}" for number in range(4)]


@pytest.mark.parametrize(
    "children", [[], [*_IDS[:2], _IDS[0]], _IDS, ["a"], [1], [[]], "abc", None]
)
def test_members_are_a_list_of_ids_each_once(children: Any) -> None:
    """At most as many as an archive may have."""
    assert checked(Status.EXTRACTING_DATA, said("EXTRACTED", children=_IDS[:3]))
    with pytest.raises(IngestError):
        checked(Status.EXTRACTING_DATA, said("EXTRACTED", children=children))


def test_what_is_derived_ends_converted_and_nothing_else_does() -> None:
    """A stage that deploys cannot choose."""
    good = {"images": [{**IMAGE, "file": SOURCE["path"]}], "verification": VERIFICATION}
    assert checked(Status.DEPLOYING, said("DEPLOYED", **good)).status is Status.DEPLOYED
    with pytest.raises(IngestError):
        checked(Status.DEPLOYING, said("CONVERTED", **good))
    with pytest.raises(IngestError):
        checked(Status.DEPLOYING, said("DEPLOYED", **good), known(conversion=CONVERSION))


def flood() -> None:
    """An answer with 400,000 faults; prints how many KiB of memory it takes to refuse it."""
    wrong = {**IMAGE, "width": 0, "height": 0, "samples_per_pixel": 0, "bits_per_sample": 0}
    changes = {"files": [SOURCE, PYRAMID], "images": [wrong] * 100_000, "conversion": CONVERSION}
    outcome = Outcome(status=Status.DEPLOYING, changes=changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IngestError) as caught:
        facts.check(Status.CONVERTING, known(), outcome, most_children=3)
    assert len(caught.value.detail) < 600
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_of_a_flood_of_faults_the_first_is_enough() -> None:
    """To list them all would take gigabytes of the daemon's memory, and seconds in which it does nothing else."""
    # In a process of its own, whose peak is not that of an earlier test.
    words = [sys.executable, "-c", "from tests.unit.test_wall import flood; flood()"]
    done = subprocess.run(words, cwd=HOUSE, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 << 10


def test_texts_are_cut_and_escaped_wherever_they_stand() -> None:
    """In keys and values, in errors, in faults and in the trace."""
    outcome = answers.understood(
        Status.CONVERTING, converted(warnings=["\x1b[2J", "x" * 9000], images=[{"\a": "\r"}])
    )
    assert outcome.changes["warnings"][0] == "\\x1b[2J"
    assert len(outcome.changes["warnings"][1]) <= 4000
    assert outcome.changes["images"] == [{"\\x07": "\\r"}]
    with pytest.raises(answers.ClaimedFaultError) as fault:
        answers.understood(Status.CONVERTING, answers.of_fault("\x1b", "\x1b" * 50_000))
    assert fault.value.why == "other"
    assert fault.value.detail.isprintable()
    assert len(fault.value.detail) <= 2000
    message = {
        "error": {"reason": "x\x1b", "detail": "\x1b", "retryable": True},
        "trace": "\x1b\nb",
    }
    with pytest.raises(IngestError) as error:
        answers.understood(Status.CONVERTING, message)
    assert error.value.reason == "unexpected"
    assert error.value.detail.isprintable()
    assert error.value.__notes__ == ["\\x1b\nb"]


@pytest.mark.parametrize(
    "value", [float("inf"), float("nan"), 1 << 5000, -1, 2, True, "0.5", None, []]
)
def test_progress_and_room_are_numbers_in_their_range(value: Any) -> None:
    """Anything else makes no sense."""
    with pytest.raises(OutsideError):
        answers.share(value)
    if value not in (2, True):
        with pytest.raises(OutsideError):
            answers.room_asked_for({"need_bytes": value})


@pytest.mark.parametrize(
    "data", [b"[" * 9000, b'{"a":' * 99 + b"1" + b"}" * 99, b"\xff", b'{"a": 1e999}', b"[]", b"{"]
)
def test_a_message_is_shallow_json(data: bytes) -> None:
    """Anything else is a defect of the one who sent it."""
    with pytest.raises(wire.ProtocolError):
        wire.parsed(data)


def test_a_message_that_drips_or_is_not_read_gives_way() -> None:
    """Both ends ask whether to give up, so that a decoder that stands still holds no thread."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        theirs.sendall(b"\xff\0\0\0{")
        with pytest.raises(TimeoutError):
            wire.frame(ours, most_bytes=1000)
        with pytest.raises(TimeoutError):
            wire.send(ours, b"x" * (64 << 20))
        theirs.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(wire.ProtocolError):
            wire.frame(ours, most_bytes=1000)


def test_an_answer_in_a_file_is_bounded_by_what_is_known(tmp_path: Path) -> None:
    """Its bytes, and its values before they are made; a pipe or a link is not waited for."""
    path = tmp_path / answers.IN_FILE
    read = lambda: answers.read_in_file(tmp_path, Status.CONVERTING, known(), most_children=3)  # noqa: E731
    path.write_text(json.dumps(converted()))
    assert read() == converted()
    assert not path.exists()
    for make in (
        lambda: path.write_bytes(b"[" + b"[]," * 2_000_000 + b"[]]"),
        lambda: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40),
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        path.mkdir,
        lambda: None,
    ):
        make()
        with pytest.raises(OutsideError):
            read()
        trees.remove(path)


def test_only_what_gets_further_counts_as_progress() -> None:
    """The same share again does not, a second pass does, and not for ever; too much talk ends it."""
    pace = Pace(1000, 10, now=0.0)
    marks = [(0.1, 1.0), (0.1, 5.0), (0.10001, 6.0), (0.5, 7.0), (0.0, 8.0)]
    for share, now in marks:
        pace.moved(share, now)
    assert pace._moved_at == 8.0
    for number in range(100):
        pace.moved(0.5, 9.0 + number)
        pace.moved(0.0, 9.5 + number)
    assert pace._moved_at < 40
    for _ in range(40):
        pace.heard(100_000, 1.0)
    with pytest.raises(wire.ProtocolError):
        for _ in range(10):
            pace.heard(100_000, 1.0)


def derived(top: Path) -> None:
    top.mkdir()
    (top / "a.tiff").write_text("12345")


@pytest.mark.parametrize(
    "kind", ["fifo", "link", "hard", "size", "folder", "gone", "many", "folder link"]
)
def test_what_is_named_is_a_plain_file(tmp_path: Path, kind: str) -> None:
    """With one name and of its size; anything else is refused, and nothing is waited for."""
    top = tmp_path / "out.1"
    derived(top)
    path = top / "a.tiff"
    if kind == "hard":
        os.link(path, tmp_path / "second")
    elif kind == "size":
        os.truncate(path, 1 << 42)
    elif kind == "many":
        for number in range(200):
            (top / str(number)).touch()
    elif kind == "folder link":
        top.rename(tmp_path / "elsewhere")
        top.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
        {"fifo": os.mkfifo, "link": lambda at: at.symlink_to("/dev/zero"), "folder": os.mkdir,
         "gone": lambda _: None}[kind](path)  # fmt: skip
    with pytest.raises(IngestError, match="output_refused"):
        made.check_derived(
            Status.CONVERTING, top, [SOURCE, PYRAMID], Storage(), discard=lambda _: None
        )


def test_a_deep_tree_without_permissions_is_removed(tmp_path: Path) -> None:
    """5,000 levels, modes of 000, links and pipes: all goes, and what a link leads to stays."""
    (tmp_path / "kept").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.fchmod(folder, 0)
    os.close(folder)
    (top / "link").symlink_to(tmp_path)
    os.mkfifo(top / "pipe")
    (top / "closed").mkdir()
    (top / "closed" / "in").mkdir()
    (top / "closed").chmod(0)
    assert trees.disk_use(top)[1] < 5000
    assert not trees.remove(top, patience_s=0.0)
    assert trees.remove(top)
    assert not top.exists()
    assert (tmp_path / "kept").read_text() == "x"


@pytest.mark.parametrize(
    "note", [b"[" * 9000, b'{"pid": 1e999}', b'{"pid": -1}', b'{"pid": 0, "start_time": 0}', b"\xff", None,
             b'{"pid": true, "start_time": 1}', b'{"pid": 99999999999999999999}']
)  # fmt: skip
def test_a_damaged_note_of_who_works_stops_nothing(tmp_path: Path, note: bytes | None) -> None:
    """It names nobody, and goes; so does what is not a file."""
    path = tmp_path / "worker"
    makes = [lambda: path.write_bytes(note)] if note else [lambda: os.mkfifo(path), path.mkdir]
    for make in makes:
        make()
        assert not recorded.kill_recorded(tmp_path)
        assert not os.path.lexists(path)


def test_a_fault_is_believed_where_it_is_found(tmp_path: Path) -> None:
    """A disk that is full is, a sound one is not, no matter what a decoder reports."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_text("12345")
    for why in ("disk", "input_output", "other"):
        assert not doubts.is_real(why, tmp_path, [SOURCE], spare_bytes=0)
    assert doubts.is_real("disk", tmp_path, [SOURCE], spare_bytes=1 << 62)
    assert [one.name for one in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "said",
    [
        "can't start new thread",
        "jpegsave: glib: Error creating thread: Resource temporarily unavailable",
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_limit_of_processes_is_a_fault_of_the_machine(said: str, wrapped: bool) -> None:
    """`TasksMax` of the unit, or a container's limit of pids: the slide waits, and is not called damaged for it."""

    def stage(_: object) -> Outcome:
        try:
            raise RuntimeError(said)
        except RuntimeError as error:
            if wrapped:
                raise ConversionError("damaged", "it cannot be decoded") from error
            raise

    answer = stagehand._answer(stage, Status.CONVERTING, cast("Any", None))
    with pytest.raises(answers.ClaimedFaultError) as fault:
        answers.understood(Status.CONVERTING, answer)
    assert fault.value.why == "processes"
    assert "TasksMax" in fault.value.detail


@pytest.mark.parametrize("end", [DecoderCrashed(9), DecoderTimedOut("no_progress", 1.5)])
def test_only_a_worker_says_how_its_decoder_ended(end: DecoderCrashed | DecoderTimedOut) -> None:
    """It is raised as it was there; a decoder that was taken over is not believed about its own end."""
    message = wire.parsed(wire.encoded(answers.of_end(end)))
    with pytest.raises(type(end)) as raised:
        answers.understood(Status.CONVERTING, message, of_worker=True)
    assert vars(raised.value) == vars(end)
    with pytest.raises(ConversionError) as refused:
        answers.understood(Status.CONVERTING, message)
    assert refused.value.reason == "unexpected"


def test_whether_processes_lack_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder's word is not enough: the daemon starts as many threads as one needs, and none is left."""
    before = threading.active_count()
    assert not doubts.is_real("processes", tmp_path, [], spare_bytes=0)
    started = iter([None] * 5)

    def start(_: threading.Thread) -> None:
        if next(started, "full") == "full":
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert doubts.is_real("processes", tmp_path, [], spare_bytes=0)
    monkeypatch.undo()
    for one in threading.enumerate():
        if one.name.startswith("Thread-"):
            one.join(60)
    assert threading.active_count() <= before
