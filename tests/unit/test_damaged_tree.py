"""One damaged manifest costs its own uploaded file: all who read many go on to the others."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch import aside, hooks, outside
from cytowatch.admin import ended, invariants, verification
from cytowatch.admin.remove import expired
from cytowatch.cli import export
from cytowatch.cli.lists import list_lines
from cytowatch.config.keys import Hook
from cytowatch.engine.hashing import Hasher
from cytowatch.lifecycle.counts import Ledger
from cytowatch.observe.metrics import Metrics
from cytowatch.outside import OutsideError
from cytowatch.record import manifest
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import RootError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.transitions import lighten, notes, recover
from cytowatch.tree import find
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool
from tests.builders import damage
from tests.unit.power_cuts.cases import make

NOW = datetime.now(UTC)
SOUND = UploadedFileId("20261123-141502-1000-sound")
BAD = UploadedFileId("20261123-141502-2000-bad")
HOOK = Hook(name="lab", on=("DEPLOYED",), command=("true",))
PLACES = {
    "storage": Status.DEPLOYED,
    "an error": Status.ERROR_FORMAT,
    "uploaded": Status.UPLOADED,
    "converting": Status.CONVERTING,
}


class Log(logging.Logger):
    """Takes what the daemon's takes."""

    def _any(self, *_: Any, **__: Any) -> None:
        pass

    info = warning = error = _any


@pytest.fixture(autouse=True)
def nothing_aside() -> Iterator[None]:
    aside.reset()
    yield
    aside.reset()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "root")


def put(spool: Spool, id_: UploadedFileId, status: Status, **more: Any) -> Path:
    folder = spool.storage / "ann" if status.is_success else spool.stage(status)
    make(folder / id_, status, **more)
    return folder / id_


def ledger(index: Index, spool: Spool) -> Ledger:
    return Ledger(Metrics(), Log("x"), index, status_for=timedelta(days=9999), defects=spool.state)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", damage.MANIFESTS)
def test_all_go_on_to_the_others(kind: str, place: str, spool: Spool) -> None:
    """The index, lists, recovery, the ledger and the check; and it is listed by its id, or reported."""
    put(spool, SOUND, PLACES[place])
    bad = put(spool, BAD, PLACES[place])
    damage.damaged(bad / manifest.FILE_NAME, kind)
    list(recover.set_doubles_aside(spool))
    taken_up = {id_: user for user, id_ in recover.recover(spool, now=NOW)}
    if not PLACES[place].is_final:
        assert taken_up == {SOUND: "ann", BAD: "unknown"}
    index = Index(spool)
    index.reconcile()
    assert index.fault is None
    assert index.counts()[PLACES[place]] == 2
    rows = {row.id: row for row in index.select()}
    assert set(rows) == {SOUND, BAD}
    assert rows[BAD].reason == manifest.DAMAGED
    assert [one.which for one in aside.all_of("row")] == [BAD]
    told = ledger(index, spool)
    told.count_tree(spool, NOW)
    assert (SOUND in told.lately.notes()) is PLACES[place].is_final
    entries = [entry for row in rows.values() if (entry := find.entry(spool, row))]
    shown = "\n".join(list_lines(sorted(entries, key=lambda one: one.manifest["id"]), None, NOW))
    assert SOUND in shown
    assert BAD in shown
    assert {entry.manifest["id"] for entry in entries if entry.damaged} == {BAD}
    assert [said for said in invariants.broken(spool, at_rest=True, hashes=True) if BAD in said]
    assert not [said for said in invariants.broken(spool, at_rest=False) if SOUND in said]
    list(expired(spool, age_s=lambda at: (NOW + timedelta(days=9) - at).total_seconds(), days=1))
    index.close()


@pytest.mark.parametrize("kind", damage.MANIFESTS)
def test_it_is_right_again_when_it_is_mended(kind: str, spool: Spool) -> None:
    """In its place, which no folder's time shows: by a running daemon, and at the next start."""
    bad = put(spool, BAD, Status.DEPLOYED)
    sound = (bad / manifest.FILE_NAME).read_bytes()
    damage.damaged(bad / manifest.FILE_NAME, kind)
    index = Index(spool)
    index.reconcile()
    assert index.due() == []
    damage._gone(bad / manifest.FILE_NAME)
    (bad / manifest.FILE_NAME).write_bytes(sound)
    aside.reset()
    if kind in ("deep", "missing"):
        index.close()
        index = Index(spool)
        index.reconcile()
    else:
        assert index.due() == [BAD]
        index.again(index.due())
    [row] = index.select()
    assert (row.reason, row.name) == (None, "a.jpg")
    assert index.due() == []
    index.close()


def test_one_that_is_removed_is_forgotten(spool: Spool) -> None:
    """Then nothing is set aside any more."""
    bad = put(spool, BAD, Status.DEPLOYED)
    damage.damaged(bad / manifest.FILE_NAME, "torn")
    index = Index(spool)
    index.reconcile()
    assert aside.all_of("row")
    spool.discard(bad)
    index.look([BAD])
    assert (index.select(), aside.all_of("row"), index.due()) == ([], [], [])
    index.close()


@pytest.mark.parametrize("kind", damage.FILES)
def test_notes_that_are_damaged_are_followed_by_their_id(kind: str, spool: Spool) -> None:
    """What is still to be hashed or given up stands in the note's name as well."""
    for id_ in (SOUND, BAD):
        put(spool, id_, Status.DEPLOYED)
        for ending in (".hash", ".lighten"):
            (spool.requests / f"{id_}{ending}").write_text("ann")
    for ending in (".hash", ".lighten"):
        damage._gone(spool.requests / f"{BAD}{ending}")
        damage.FILES[kind](spool.requests / f"{BAD}{ending}")
        damage.FILES[kind](spool.requests / f"no id{ending}")
    hasher = Hasher(spool, Index(spool), Log("x"), lambda: None)
    assert not hasher.idle()
    assert [path.name for _, path in hasher._waiting()] == [SOUND, BAD]
    assert set(recover.finish(spool)) == {SOUND, BAD}
    assert not list(spool.requests.glob("*.lighten"))
    assert len(os.listdir(spool.requests / "refused")) == 2


@pytest.mark.parametrize("kind", damage.MANIFESTS)
def test_what_is_to_be_done_to_one_that_is_damaged_waits(kind: str, spool: Spool) -> None:
    """Its notes and deliveries stay; those of the other are followed."""
    for id_ in (SOUND, BAD):
        path = put(spool, id_, Status.DEPLOYED)
        found = manifest.read(path)
        lighten.plan_to_lighten(spool, Place(status=Status.DEPLOYED, path=path, manifest=found))
        found["files"][0]["sha256"] = None
        notes.note_hash(spool, found)
        hooks.note(spool, [HOOK], found, Status.DEPLOYED, now=NOW)
    damage.damaged(spool.storage / "ann" / BAD / manifest.FILE_NAME, kind)
    assert set(recover.finish(spool)) == {SOUND}
    assert [one.id for one in hooks.drop_untrue(spool)] == [BAD]
    assert [one.id for one in hooks.pending(spool)] == [SOUND]


@pytest.mark.parametrize("kind", damage.MANIFESTS)
def test_commands_about_one_that_is_damaged_are_refused_in_words(kind: str, spool: Spool) -> None:
    """They say what to do, and nothing of it is changed."""
    from cytowatch.admin import projects, requests

    path = put(spool, BAD, Status.DEPLOYED)
    damage.damaged(path / manifest.FILE_NAME, kind)
    index = Index(spool)
    index.reconcile()
    for do in ("retry", "return", "remove"):
        answer = requests.perform(spool, index, {"do": do, "id": BAD, "anyway": True}, now=NOW)
        assert "error" in answer
    with pytest.raises(RootError):
        projects.link(spool, path, "p")
    with pytest.raises(RootError):
        projects.unlink(spool, path, "p")
    assert (path / "source" / "a.jpg").exists()
    index.close()


def test_a_tree_of_parents_in_a_ring_is_drawn_once(spool: Spool) -> None:
    """Who came out of whom is what manifests say, and they may say anything."""
    from cytowatch.cli import show

    for id_, parent in ((SOUND, BAD), (BAD, SOUND)):
        put(spool, id_, Status.DEPLOYED, parent_id=parent)
    with find.indexed(spool) as index:
        entries = [find.entry(spool, row) for row in index.below(SOUND)]
    known = [entry for entry in entries if entry]

    def nodes(tree: Any) -> int:
        return 1 + sum(nodes(one) for one in tree.children)

    # Each of the two with its source, and the folder of the second; nothing below that.
    assert nodes(show.tree(known[0], known, 80)) == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "G\udce4rtner.jpg"), ("size_bytes", 1 << 70), ("size_bytes", -(1 << 70)),
     ("received_at", "\udce4"), ("parent_id", "x\udce4"), ("format", {"id": "\udce4"})],
)  # fmt: skip
def test_what_sqlite_cannot_hold_is_stored_as_it_can(key: str, value: Any, spool: Spool) -> None:
    """What is in work is reported to the index from memory, where anything may stand."""
    path = put(spool, BAD, Status.UPLOADED)
    found = cast("Manifest", {**manifest.read(path), key: value})
    index = Index(spool)
    index.put(found, Status.UPLOADED)
    assert index.fault is None
    [row] = index.select()
    assert row.id == BAD
    index.close()


def test_a_folder_of_storage_that_is_no_text_is_passed_over(spool: Spool) -> None:
    """And reported; a folder's time may be of any year."""
    put(spool, SOUND, Status.DEPLOYED)
    os.mkdir(os.fsencode(spool.storage) + b"/\xe4nn")
    os.utime(spool.storage / "ann", (1 << 34, 1 << 34))
    index = Index(spool)
    index.reconcile()
    assert index.fault is None
    assert [row.id for row in index.select()] == [SOUND]
    assert [one.which for one in aside.all_of("row")] == ["storage/\udce4nn"]
    assert index.find("\udce4") == []
    index.close()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG])
def test_one_that_cannot_be_read_now_is_listed_by_its_id(
    code: int, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that errs at one place, or a file of somebody else: the others are indexed, and it later."""
    put(spool, SOUND, Status.DEPLOYED)
    put(spool, BAD, Status.DEPLOYED)
    read = outside.read_file

    def failing(path: Any, **how: Any) -> bytes:
        if BAD in str(path):
            raise OSError(code, os.strerror(code), str(path))
        return read(path, **how)

    with monkeypatch.context() as broken:
        broken.setattr(outside, "read_file", failing)
        index = Index(spool)
        index.reconcile()
        assert index.fault is None
        assert {row.id: row.reason for row in index.select()} == {
            SOUND: None,
            BAD: manifest.DAMAGED,
        }
        [one] = aside.all_of("row")
        assert os.strerror(code) in one.why
        assert [said for said in invariants.broken(spool, at_rest=False) if BAD in said]
        list(recover.recover(spool, now=NOW))
    aside.reset()
    index.again(index.due())
    assert {row.id: row.reason for row in index.select()} == {SOUND: None, BAD: None}
    index.close()


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
@pytest.mark.parametrize("kind", [kind for kind in damage.FILES if kind != "huge"])
def test_a_damaged_index_is_made_again(kind: str, ending: str, spool: Spool) -> None:
    """Anything that lies in the place of one of its files; a command beside it answers from the tree."""
    put(spool, SOUND, Status.DEPLOYED)
    first = Index(spool)
    first.reconcile()
    first.close()
    place = Path(f"{spool.state / 'index.sqlite3'}{ending}")
    damage._gone(place)
    damage.FILES[kind](place)
    with find.indexed(spool) as beside:
        assert [row.id for row in beside.select()] == [SOUND]
    index = Index(spool)
    index.reconcile()
    if index.fault is not None:
        index.reconcile(from_scratch=index.damaged)
    assert index.fault is None
    assert [row.id for row in index.select()] == [SOUND]
    index.put(manifest.read(put(spool, BAD, Status.DEPLOYED)), Status.DEPLOYED)
    assert len(index.select()) == 2
    index.close()


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "link to a device"])
def test_a_file_in_storage_that_is_none_is_waited_at_by_nobody(
    kind: str, spool: Spool, tmp_path: Path
) -> None:
    """Verifying, hashing and exporting say so."""
    path = put(spool, BAD, Status.DEPLOYED)
    found = manifest.read(path)
    damage._gone(path / "source" / "a.jpg")
    damage.FILES[kind](path / "source" / "a.jpg")
    findings = verification.verify(
        path, found, cast("Any", None), throttle=verification.Throttle(0), progress=lambda _: None,
        stop=threading.Event(),
    )  # fmt: skip
    assert findings.problems == ["source/a.jpg is not a regular file"]
    hasher = Hasher(spool, Index(spool, memory=True), Log("x"), lambda: None)
    with pytest.raises((OutsideError, OSError)):
        hasher._digest(path / "source" / "a.jpg")
    with pytest.raises((RootError, OSError)):
        export.export(BAD, tmp_path / "out", root=spool.root)
    assert [said for said in invariants.broken(spool, at_rest=True) if BAD in said]


def test_pausing_one_whose_name_is_no_text_holds_back_the_others_still(spool: Spool) -> None:
    """It is spelled as the daemon does, so that the file can be read again."""
    from cytowatch.tree import pauses

    pauses.pause(spool, "ann")
    pauses.pause(spool, "b\udce4b")
    assert pauses.read(spool).users == {"ann", "b\ufffdb"}
    assert pauses.resume(spool, "b\udce4b").users == {"ann"}


@pytest.mark.parametrize("status", [Status.UPLOADED, Status.ERROR_DEPLOYMENT])
def test_a_link_in_a_stage_is_no_uploaded_file(
    spool: Spool, tmp_path: Path, status: Status
) -> None:
    """A manifest was written through it, into any folder that it led to; it is named instead."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (spool.stage(status) / BAD).symlink_to(elsewhere)
    assert (spool.find(BAD), spool.in_status(status)) == (None, [])
    assert any(str(BAD) in line for line in list(invariants.broken(spool, at_rest=True)))
    assert not list(elsewhere.iterdir())


def test_what_is_in_its_status_already_stays_there(spool: Spool) -> None:
    """One without a manifest in error-deployment was moved onto itself: "unexpected: File exists"."""
    place = spool.stage(Status.ERROR_DEPLOYMENT) / BAD
    place.mkdir()
    assert spool.move(place, Status.ERROR_DEPLOYMENT) == place


def test_a_link_in_storage_is_followed_by_nobody(spool: Spool, tmp_path: Path) -> None:
    """Neither by the index, nor by lists, nor by the check, which names it."""
    put(spool, SOUND, Status.DEPLOYED)
    elsewhere = tmp_path / "elsewhere"
    make(elsewhere / BAD, Status.DEPLOYED)
    (elsewhere / BAD / "manifest.json.x").touch()
    (spool.storage / "bob").symlink_to(elsewhere)
    (spool.storage / "stray").touch()
    index = Index(spool)
    index.reconcile()
    index.look_for_vanished(thoroughly=True)
    assert [row.id for row in index.select()] == [SOUND]
    assert index.fault is None
    index.close()
    assert [entry.path.name for entry in find.entries(spool)] == [SOUND]
    with pytest.raises(RootError, match="there is no uploaded file"):
        ended.place(spool, BAD)
    said = list(invariants.broken(spool, at_rest=True))
    assert not [one for one in said if BAD in one]
    assert [one for one in said if "storage/bob is a link" in one]
    assert [one for one in said if "storage/stray is not the folder of a user" in one]
