"""What lies under ``state/`` and is not what it should be costs itself only; nobody waits for it."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cytowatch import aside, hooks
from cytowatch.admin import requests
from cytowatch.cli import verify
from cytowatch.config.keys import Hook
from cytowatch.durable.failpoints import POISONS
from cytowatch.hooks.deliver import Courier
from cytowatch.observe.feedback import Note, Notes
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.transitions import notes
from cytowatch.tree import find, pauses
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.builders import damage
from tests.lab.root import HANGS_S
from tests.unit.power_cuts.cases import make

NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)
ID = UploadedFileId("20261123-141502-1000-a")
OTHER = UploadedFileId("20261123-141502-2000-b")
HOOK = Hook(name="lab", on=("DEPLOYED",), command=("true",), timeout_s=5, max_attempts=1)

#: A request that is JSON, and nothing that anybody may ask.
REQUESTS: dict[str, Any] = {
    "a key called event": {"do": "lend", "event": "x", "level": "y"},
    "no do": {"id": ID},
    "do is an object": {"do": {"retry": 1}, "id": ID},
    "an unknown do": {"do": "shutdown"},
    "an id that leads out": {"do": "remove", "id": "../../../storage/ann/" + ID},
    "an id that is a list": {"do": "retry", "id": [ID]},
    "an id with a zero byte": {"do": "retry", "id": f"{ID}\0"},
    "no id": {"do": "retry"},
    "anyway is a text": {"do": "remove", "id": ID, "anyway": "no"},
    "text that cannot be encoded": {"do": "retry", "id": "\udce4"},
    "a list": ["retry", ID],
    "not finite": {"do": "retry", "id": 1e999},
}


@pytest.fixture(autouse=True)
def nothing_aside() -> Iterator[None]:
    aside.reset()
    yield
    aside.reset()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "root")


@pytest.fixture
def index(spool: Spool) -> Iterator[Index]:
    found = Index(spool)
    found.reconcile()
    yield found
    found.close()


def poisoned(path: Path, kind: str) -> None:
    if kind in REQUESTS:
        path.write_text(json.dumps(REQUESTS[kind]))
    else:
        damage.FILES[kind](path)


@pytest.mark.parametrize("kind", [*damage.FILES, *REQUESTS])
def test_what_is_no_request_is_refused_and_the_others_are_answered(
    kind: str, spool: Spool, index: Index
) -> None:
    """Anyone who asked is answered; what was refused is kept for an admin, and named by no log key."""
    make(spool.stage(Status.ERROR_FORMAT) / ID, Status.ERROR_FORMAT)
    poisoned(spool.requests / "a.json", kind)
    (spool.requests / "b.json").write_text(json.dumps({"do": "remove", "id": ID, "more": "x"}))
    bad, good = list(requests.answer_all(spool, index, now=NOW))
    assert (bad.name, bad.request, bad.before) == ("a.json", {}, None)
    assert set(bad.answer) == {"error"}
    assert len(bad.answer["error"]) <= 1000
    assert (good.request, good.answer) == (
        {"do": "remove", "id": ID, "anyway": False},
        {"said": "removed"},
    )
    assert notes.refused(spool) == 1
    for name in "ab":
        assert json.loads((spool.requests / f"{name}.answer").read_bytes())
    assert sorted(path.name for path in spool.requests.glob("*.*")) == ["a.answer", "b.answer"]
    assert list(requests.answer_all(spool, index, now=NOW)) == []


@pytest.mark.parametrize("kind", damage.FILES)
def test_an_answer_is_written_whatever_lies_in_its_place(
    kind: str, spool: Spool, index: Index
) -> None:
    """Not through a link, and not into a FIFO."""
    damage.FILES[kind](spool.requests / ".a.answer.partial")
    damage.FILES[kind](spool.requests / "a.answer")
    (spool.requests / "a.json").write_text(json.dumps({"do": "reindex"}))
    [done] = requests.answer_all(spool, index, now=NOW)
    assert done.answer == {"said": "begun"}
    assert json.loads((spool.requests / "a.answer").read_bytes()) == done.answer


def test_the_refused_ones_do_not_grow_for_ever(spool: Spool, index: Index) -> None:
    """The oldest ones go; a file in the folder's place starves nobody."""
    for number in range(130):
        os.mkfifo(spool.requests / f"{number:03}.json")
    assert len(list(requests.answer_all(spool, index, now=NOW))) == 130
    assert notes.refused(spool) == 100


def test_where_nothing_can_be_refused_the_others_are_answered(spool: Spool, index: Index) -> None:
    """It stays where it is, set aside, and is tried again with a growing pause."""
    (spool.requests / "refused").write_text("x")
    os.mkfifo(spool.requests / "a.json")
    (spool.requests / "b.json").write_text(json.dumps({"do": "reindex"}))
    assert [done.name for done in requests.answer_all(spool, index, now=NOW)] == ["b.json"]
    assert [one.which for one in aside.all_of("request")] == ["a.json"]
    (spool.requests / "a.json").unlink()
    assert list(requests.answer_all(spool, index, now=NOW)) == []
    assert aside.all_of("request") == []


def test_what_killed_commands_have_left_goes_after_a_while(spool: Spool) -> None:
    """Answers that nobody fetched and files half-written; not notes, and not what is young."""
    now_s = time.time()
    for age_s in (5, 3600, -3600):
        for name in (
            f"{age_s}.answer",
            f".{age_s}.json.partial",
            f"{ID}{age_s}.hash",
        ):
            (spool.requests / name).write_text("x")
            os.utime(spool.requests / name, (now_s - age_s, now_s - age_s))
    (spool.requests / "fold.answer").mkdir()
    os.utime(spool.requests / "fold.answer", (0, 0))
    requests.sweep(spool, now_s=now_s)
    left = {name for name in os.listdir(spool.requests) if not name.endswith(".hash")}
    assert left == {"5.answer", ".5.json.partial"}
    assert len(list(spool.requests.glob("*.hash"))) == 3


@pytest.mark.parametrize("kind", damage.FILES)
def test_a_damaged_list_of_pauses_holds_back_nobody(kind: str, spool: Spool) -> None:
    """And is replaced by the next pause or resume."""
    damage.FILES[kind](spool.state / "paused.json")
    damage.FILES[kind](spool.state / ".paused.json.partial")
    assert not pauses.read(spool)
    assert pauses.pause(spool, "ann").covers("ann")
    assert pauses.read(spool).covers("ann")
    damage._gone(spool.state / "paused.json")
    damage.FILES[kind](spool.state / "paused.json")
    assert not pauses.resume(spool, None)
    assert not (spool.state / "paused.json").exists()


@pytest.mark.parametrize(
    "found", [{}, {"everyone": 1, "users": []}, {"everyone": True, "users": "ann"},
              {"everyone": False, "users": [5]}, {"everyone": False, "users": {"ann": 1}}],
)  # fmt: skip
def test_pauses_of_other_types_hold_back_nobody(found: Any, spool: Spool) -> None:
    """A text is not a list of its letters."""
    (spool.state / "paused.json").write_text(json.dumps(found))
    assert not pauses.read(spool)


PENDING = {
    "hook": "lab", "id": OTHER, "user": "ann", "status": "DEPLOYED", "noted_at": "2026-11-23T14:15:02Z",
    "tries": 0, "said": "",
}  # fmt: skip
DELIVERIES: dict[str, Any] = {
    "hook leads out": {"hook": "../x"},
    "hook is a list": {"hook": []},
    "id leads out": {"id": "../../x"},
    "user leads out": {"user": "../ann"},
    "status is unknown": {"status": "LOST"},
    "status is a list": {"status": ["DEPLOYED"]},
    "noted at no time": {"noted_at": "x"},
    "noted without a zone": {"noted_at": "2026-11-23T14:15:02"},
    "tries is a text": {"tries": "many"},
    "tries is huge": {"tries": 1 << 70},
    "said is an object": {"said": {}},
    "of another file": {"id": ID},
}


@pytest.mark.parametrize("folder", ["hooks", "hooks-dead"])
@pytest.mark.parametrize("kind", [*damage.FILES, *DELIVERIES])
def test_a_damaged_delivery_holds_up_no_other(kind: str, folder: str, spool: Spool) -> None:
    """It is set aside, and forgotten when somebody has removed it."""
    from cytowatch.record import manifest

    make(spool.storage / "ann" / ID, Status.DEPLOYED)
    found = manifest.read(spool.storage / "ann" / ID)
    hooks.note(spool, [HOOK], found, Status.DEPLOYED, now=NOW)
    [true] = hooks.pending(spool)
    place = spool.state / folder
    place.mkdir(exist_ok=True)
    bad = place / f"lab~{OTHER}.DEPLOYED.json"
    if kind in DELIVERIES:
        bad.write_text(json.dumps({**PENDING, **DELIVERIES[kind]}))
    else:
        damage.FILES[kind](bad)
    assert hooks.pending(spool) == [true]
    assert hooks.dead(spool) == []
    assert hooks.count_dead(spool) == (folder == "hooks-dead")
    assert [one.which for one in aside.all_of("hook")] == [f"{folder}/{bad.name}"]
    told: list[str] = []
    courier = Courier(spool, (HOOK,), lambda one, outcome: told.append(f"{one.id} {outcome}"))
    courier._try(HOOK, true)
    assert told == [f"{ID} delivered"]
    assert courier.idle()
    damage._gone(bad)
    assert hooks.pending(spool) == hooks.dead(spool) == []
    assert aside.all_of("hook") == []


@pytest.mark.parametrize("kind", POISONS.values())
def test_a_delivery_that_raises_anything_ends_no_thread(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """The next one is made; it is, when the cause is gone."""
    from cytowatch.hooks import deliver
    from cytowatch.record import manifest

    for id_ in (ID, OTHER):
        make(spool.storage / "ann" / id_, Status.DEPLOYED)
        found = manifest.read(spool.storage / "ann" / id_)
        hooks.note(spool, [HOOK], found, Status.DEPLOYED, now=NOW)
    causes = [kind]

    def run(_hook: Hook, one: Any, *_: Any) -> str:
        if one.id == ID and causes:
            raise causes[0]("it broke")
        return "good"

    monkeypatch.setattr(deliver, "_run", run)
    monkeypatch.setattr(deliver, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(aside, "_FIRST_PAUSE_S", 0.01)
    told: list[str] = []
    courier = Courier(spool, (HOOK,), lambda one, outcome: told.append(f"{one.id} {outcome}"))
    courier.start()
    end = time.monotonic() + HANGS_S
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    assert told == [f"{OTHER} delivered"]
    assert [kind.__name__ in one.why for one in aside.all_of("hook")] == [True]
    causes.clear()
    while len(told) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    courier.stop()
    assert told[1:] == [f"{ID} delivered"]
    assert aside.all_of("hook") == []


LIVE: dict[str, Any] = {
    "progress": {ID: {"status": "CONVERTING", "share": 0.5, "since": "x"}},
    "waiting": [], "health": {}, "paused": {"everyone": False, "users": []},
    "workers": {"busy": 1, "of": 2}, "watcher": {"mode": "inotify", "alive": True}, "held_up": {},
    "set_aside": [{"where": "drop", "which": "a", "why": "b", "tries": 1}],
}  # fmt: skip


def test_what_the_daemon_said_is_believed_if_it_can_be(spool: Spool) -> None:
    """Each key may be missing; none may be of another type, in any row."""
    (spool.state / "live.json").write_text(json.dumps(LIVE))
    assert find.live(spool) == LIVE
    for key in LIVE:
        for other in (None, 5, "x", [5], {"x": 5}, [{}], {"x": {}}):
            (spool.state / "live.json").write_text(json.dumps({**LIVE, key: other}))
            # An object without keys of our own says nothing, and nothing wrong.
            if not (key in ("paused", "workers", "watcher") and isinstance(other, dict)):
                assert find.live(spool) is None, (key, other)
        (spool.state / "live.json").write_text(
            json.dumps({k: v for k, v in LIVE.items() if k != key})
        )
        assert find.live(spool) is not None
    status = {ID: {**LIVE["progress"][ID], "status": "LOST"}}
    (spool.state / "live.json").write_text(json.dumps({**LIVE, "progress": status}))
    assert find.live(spool) is None


@pytest.mark.parametrize("kind", damage.FILES)
def test_a_damaged_file_of_the_daemon_is_no_word_of_it(kind: str, spool: Spool) -> None:
    """Nor is what lies in the lock's place a daemon that runs."""
    damage.FILES[kind](spool.state / "live.json")
    assert find.live(spool) is None
    damage.FILES[kind](spool.state / "lock")
    assert find.daemon_pid(spool) is None


@pytest.mark.parametrize("kind", [*damage.FILES, "of other types"])
def test_verify_cannot_resume_by_a_damaged_file(kind: str, spool: Spool) -> None:
    """It says so; without --resume it begins from the beginning."""
    place = spool.state / "verify.json"
    what = {"user": None, "project": None, "ids": []}
    if kind in damage.FILES:
        damage.FILES[kind](place)
    else:
        place.write_text(json.dumps({**verify._begun(spool, what, resume=False), "files": "x"}))
    with pytest.raises(RootError, match="--resume"):
        verify._begun(spool, what, resume=True)
    state = verify._begun(spool, what, resume=False)
    verify._note(spool, state)
    assert verify._begun(spool, what, resume=True) == state


@pytest.mark.parametrize("kind", damage.FILES)
def test_a_note_is_written_whatever_lies_in_its_place(kind: str, spool: Spool) -> None:
    """For those who see only the share."""
    shown = Notes(spool.root, "status")
    note = Note(user="ann", about="a.svs", says="DEPLOYED", text="\udce4 is deployed\n")
    (spool.status_dir / "ann").mkdir()
    damage.FILES[kind](spool.status_dir / "ann" / ".note")
    damage.FILES[kind](spool.status_dir / "ann" / "a.svs - DEPLOYED.txt")
    shown.show({"a": note, "b": dataclasses.replace(note, about="b.svs")})
    for name in "ab":
        assert (
            spool.status_dir / "ann" / f"{name}.svs - DEPLOYED.txt"
        ).read_text() == "? is deployed\n"


def test_a_folder_that_takes_no_notes_is_no_other_users_trouble(spool: Spool) -> None:
    """The others have theirs; anyone who asked for them learns it."""
    (spool.status_dir / "ann").write_text("a file in the folder's place")
    note = Note(user="ann", about="a.svs", says="DEPLOYED", text="x")
    with pytest.raises(OSError):
        Notes(spool.root, "status").show({"a": note, "b": dataclasses.replace(note, user="bob")})
    assert (spool.status_dir / "bob" / "a.svs - DEPLOYED.txt").exists()


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_what_a_user_put_in_place_of_status_costs_his_notes_alone(
    tmp_path: Path, kind: str
) -> None:
    """It was reported as a fault of the machine, and all of ``/healthz`` failed for one user's file."""
    for user in ("ann", "mallory"):
        (tmp_path / "inbox" / user).mkdir(parents=True)
    place = tmp_path / "inbox" / "mallory" / "_status"
    {
        "file": place.touch,
        "link": lambda: place.symlink_to(tmp_path / "inbox" / "ann"),
        "fifo": lambda: os.mkfifo(place),
    }[kind]()
    made = {
        user: Note(user=user, about="a.jpg", says="CONVERTED", text="")
        for user in ("ann", "mallory")
    }
    Notes(tmp_path, "inbox").show(made)
    assert os.listdir(tmp_path / "inbox" / "ann" / "_status") == ["a.jpg - CONVERTED.txt"]
    assert os.listdir(tmp_path / "inbox" / "ann") == ["_status"]
    assert [one.which for one in aside.all_of()] == ["mallory"]
