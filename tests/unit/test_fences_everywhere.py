"""Each loop through which things from outside go has a fence that is tried, or a reason why it needs none."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cytowatch import aside
from cytowatch.cli.commands import application
from cytowatch.config.keys import Config
from cytowatch.durable import failpoints
from cytowatch.lifecycle.reload import before_a_start
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool
from tests.lab import loops
from tests.unit import test_fences_of_inboxes, test_fences_of_state
from tests.unit.test_damaged_tree import BAD, SOUND, put

HOUSE = Path(__file__).parents[2]

#: What does not run in the daemon's process, or runs in it for only one thing, behind the fence of that one.
APART = {
    "archives": "in a decoder process",
    "pyramid": "in a decoder process",
    "stages": "in a decoder process",
    "formats": "in a decoder process, or for one drop through `look.safely`, at its claim",
    "decoder.zygote": "the process that forks decoders: the daemon starts another one when it dies",
    "decoder.stagehand": "in a decoder process",
    "decoder.sandbox": "in a decoder process",
    "decoder.landlock": "in a decoder process",
    "decoder.seccomp": "in a decoder process",
    "decoder.walls": "in a process that `check` starts to try the walls",
    "decoder.remote": "in a worker of a cluster",
    "panel": "the panel is a process of its own; one request costs one answer",
    "cli.parcels": "on the machine that sends, as `cli.tus`",
    "cli.tus": "on the machine that sends: a path that cannot be read ends that path, in `send._one`",
    "cli.demo": "a demonstration on slides of its own",
    "cli.slides": "the slides of that demonstration",
    "cli.complete": "for a shell; what fails there completes nothing",
    "cli.python": "over the interpreter's own folders",
    "config": "what an administrator wrote: what is wrong with it is named, and refused as a whole",
    "durable.failpoints": "what a test has asked for",
    "record.leftovers": "a table of our own",
    "record.lacking": "one sentence of our own, in a note behind its own fence",
    "aside": "the fence itself",
}

#: By function where a fence is tried, if not by those of `test_fences_of_state` and `test_fences_of_inboxes`.
ELSEWHERE = {
    "cli.verify.verify": "tests/unit/test_fences_everywhere.py::test_what_is_verified",
    "lifecycle.work.Work._take_up": "tests/unit/test_fences_of_the_loop.py::test_what_was_claimed",
    "lifecycle.reload.take_over": "tests/unit/test_fences_of_the_loop.py::test_a_reload",
    "lifecycle.work.Work.do_requests": "tests/unit/test_fences_of_the_loop.py::test_what_was_asked_for",
    "lifecycle.reload.before_a_start": "tests/unit/test_fences_everywhere.py::test_a_reload_before_the_start",
    "engine.engine.Engine._run": "tests/unit/test_treat.py::test_anything_that_is_raised_ends_that_file_alone",
    "engine.engine.Engine._unexpected": "tests/unit/test_treat.py::test_a_defect_that_cannot_even_be_reported",
    "engine.engine.Engine._size_bytes": "tests/unit/test_treat.py::test_a_defect_that_cannot_even_be_reported",
    "engine.hashing.Hasher._serve": "tests/unit/test_fences_of_the_loop.py::test_what_is_hashed_later",
    "hooks.deliver.Courier._serve": "tests/unit/test_damaged_state.py::test_a_delivery_that_raises_anything_ends_no_thread",
    "lifecycle.duties.Duties.do": "tests/unit/test_duties.py::test_whatever_a_part_raises_the_others_go_on",
    "observe.health.serve": "tests/unit/test_threads.py::test_a_page_that_fails_leaves_the_server_alive",
    "panel.uploads.publish.publish_whole": "tests/unit/test_uploads_store.py::test_one_that_cannot_be_published_costs_only_itself",
    "panel.uploads.store.Store.expire": "tests/unit/test_uploads_store.py::test_one_that_cannot_be_removed_costs_only_itself",
    "threads.forever": "tests/unit/test_threads.py::test_work_that_raises_is_begun_again",
}

#: Why nothing from outside can fail in a loop so that others miss their turn, and the loops of that kind.
NEED_NONE = {
    "each thing that enters is fenced one call below": """
        admin._links admin.broken cli._refused cli.hooks_ lifecycle.Work.collect_all lifecycle.take_up
        lifecycle.Presence.is_there hooks.Courier.idle inbox.Intake.claim_due inbox.Rooms._some_of
        inbox.Rooms.take_up inbox.Sweep._look inbox.Sweep._look_on inbox.Sweep.go_on inbox._inside inbox.scan
        inbox.steps lifecycle.Lately._take_notes_of_what_they_came_in lifecycle.Lately.again
        lifecycle.Lately.take_up lifecycle.status_page observe.Drops.without_their_root
        tree.Reconciling._look_at
        tree.Reconciling._stages tree.Reconciling._storage tree.Reconciling._unread tree.Reconciling.again tree.Reconciling.look tree.entries
    """,
    "only names, of a folder of our own: nothing is opened": """
        admin._in_each admin._leftovers admin._link admin._storages admin._strangers
        durable.keeps_renames durable.words cli._ensure_readable hooks.count_dead inbox.users observe._there observe.keep
        transitions.out_directories transitions.refuse transitions.without_temporaries
        tree.Layout.create tree.Layout.make_again lifecycle.Presence._make_again tree.Spool.empty_trash tree.Spool.in_status tree.Layout.remove_temporaries
        tree.Spool.set_aside tree.Spool.unlink tree.Spool.stored tree.Spool.taken tree.Spool.users tree.everything tree.in_storage tree.of tree.project_ids
    """,
    "a look at the whole tree, which is fenced as a whole in `invariants.broken`: its manifests were read strictly": """
        admin._children admin._index admin._missing
    """,
    "one uploaded file, fenced where `invariants._fenced` looks at it": """
        admin._hashes admin._one admin._unnamed
    """,
    "one uploaded file in work: anything that is raised ends that one, in `Engine._run`": """
        admin.unlink decoder.Decoder._answer decoder.Doomed._is_still decoder.Doomed._wait decoder.RemoteDecoder._wait decoder.Zygote.reap decoder._same decoder.check_hashes decoder.check_sources decoder.same_bytes decoder.with_hashes engine.Walk._run engine._has_same_bytes transitions.fail
        decoder._check_files decoder._check_hash decoder._check_made decoder._check_tree decoder._differs
        decoder._error decoder._exactly decoder._import_path decoder._inside decoder._is_given decoder._outcome
        decoder._safe decoder.check decoder.check_child decoder.check_derived decoder.send durable.fsync_tree
        engine._link engine._published engine._treat engine.Walk.go engine.Engine._serve engine.Engine._submit_members engine.is_real engine._may_start_threads hooks.note
        inbox._with_children transitions.enter transitions._found_again transitions._hand_out
        transitions._keep_output transitions._name_source transitions._paths transitions.without_output
        transitions.clear transitions.corrected transitions.lighten transitions.link transitions.note_hash
        transitions.rebuilt
    """,
    "one claim: anything that is raised puts its drop aside, in `Intake._take_up` and `Claims.collect`": """
        durable.of inbox.Bundle.arrived_in_parts inbox.Bundle.changed_at inbox.Bundle.places inbox.Folders._make inbox.Claims.begin
        inbox.Claims._ended_with inbox.Later.put_aside inbox.Later.put_off inbox.Packing.parcel inbox.Readiness.of
        inbox.Readiness._came_before inbox.Readiness._is_as_seen inbox.Parcel.size_bytes inbox.broken inbox.fetch inbox.is_crowded inbox.go_back inbox.begun inbox._has_source inbox._put inbox._put_back inbox._put_elsewhere inbox._finish inbox._make_durable inbox._move_all
        inbox.Parcel.directories inbox.directories inbox.no_image inbox.open_all inbox.prepare inbox._recover_one inbox.sync_names inbox._take inbox.claim
    """,
    "one request, fenced in `requests.answer_all`": """
        admin.give_back admin._refuse_if_shown admin._unlink_everywhere admin.by_daemon
        admin.remove admin.verify inbox.Unit.named inbox.Unit._own_stem inbox.Unit.is_set inbox._free inbox._inner inbox.give_back
        record.named_as record.originals
    """,
    "one note, or one delivery: fenced where it is made, in `hooks` and `observe`": """
        hooks._checked observe.Drops._look_again_at_what_it_came_in observe.Drops._drop observe.Drops._later observe.Drops._lost
        observe.Drops._made observe.Drops._succeeded_after observe.Drops._sum observe.Drops._unpath
        observe.Drops.expire observe.Drops.folder observe.Drops.put observe._is_settled observe._is_told
        observe._lost_paths observe._of_user observe._of_folder observe.seen observe.Sum.bad observe.lines observe.of_many observe._notes observe._says observe._table observe.text
    """,
    "one file that is hashed or written: fenced, or reported about it only, where that is asked for": """
        durable.sha256 durable.write_all
    """,
    "one published file that is hashed, fenced in `Hasher._serve`": """
        engine.Hasher._hash
    """,
    "one folder of an inbox: what cannot be read is passed over, and the scan says why": """
        durable._emptied durable._taken_apart durable.beneath durable.disk_use durable.remove_empty durable.walk
        inbox._Group._add_all_callbacks inbox.folders
    """,
    "one dropped folder, fenced in `Dropped.finish_some`": """
        inbox.Dropped._finish inbox.Folders._children_of
    """,
    "records of this process: numbers, ids and paths that were checked when they were made": """
        daemon._Daemon._due_at lifecycle.Listening.feel_pulse lifecycle.Work.mend lifecycle.Teller._live
        engine.Contents.release engine.Spare.is_needed engine.HeldUp.due engine.HeldUp.hurry engine.Engine.next_due engine.Engine.start_some engine.FairQueue.take
        engine.FairQueue._had_s engine.FairQueue._join engine.FairQueue.waiting_for hooks.Courier.start hooks.Courier.stop inbox.Dropped._left_in
        inbox.Dropped.any_to_finish inbox.Dropped.next_at inbox.Dropped.times inbox.Folders.adopt
        inbox.Gatherer.forget inbox.Later.put_room_aside inbox.Later.hold inbox.Claims.keep_folders_open inbox.Intake.idle
        inbox.Intake.next_due inbox.Intake.reconfigure inbox.Intake.scan_all inbox.Markers.of
        inbox.Rooms._end inbox.Rooms._put_off_rest inbox.Rooms.begin inbox.Settler.due inbox.Settler.forget_missing
        inbox.Settler.next_due inbox.Settler.tracks inbox.Sweep._heed inbox.Sweep._mark inbox.Sweep.begin
        inbox.Turns._take inbox.Watcher.alive inbox.Watcher.start inbox.Watcher.unwatched inbox._watches
        inbox.counts inbox.left inbox.listed lifecycle.Asked.forget_wakeups lifecycle.Delays.after_s lifecycle.Delays.claimed lifecycle.Asked.signals
        lifecycle.Estimates.forget_all_but lifecycle.Indexing.look_for_vanished lifecycle.Lately.in_work
        lifecycle.Leaps.age_s lifecycle.Leaps.look observe.Drops.came
        lifecycle.Delays.after_s lifecycle.Delays.claimed lifecycle.Duties._defect lifecycle.Duties.hear_others lifecycle.Rates.bytes_per_s
        lifecycle.Rates.forget_all_but lifecycle.Waiting.pause lifecycle._ended lifecycle._pixels
        observe.Health.clear observe.Metrics._zero observe.Metrics.set_files observe.Metrics.set_oldest
        observe.Metrics.set_waiting observe.Metrics.text observe.Pulse.still observe.Steady._put_bytes observe.ended_line
        observe.set_aside tree.Room.check tree.Room.reserve tree.Room.reserved tree.too_little
    """,
    "what an administrator wrote in the configuration, checked when it was read": """
        lifecycle.Teller.describe daemon.run
    """,
    "until something ends it: what is done in it is in parts, each behind a fence": """
        daemon._Daemon._loop
    """,
    "one document or one text, held against its types and bounds: what is wrong with it is raised about it only": """
        lifecycle.Leaps._read model.UploadedFile.source outside._depth outside.check outside.printable outside.read_file
        record._Table.__init__ record._Table._check_types record._Table.check record._identity record._image
        record._matching record._texts record.alike record.as_dropped record.at_status record.capped record.check record.content_key record.is_temporary
        record.file_name record.link_name record.losses record.named_as record.new record.originals record.shortened record.stage_error
        tree._check tree._checked tree._row
    """,
    "rows of the index, whose columns have types; a damaged one is made again": """
        tree.Reconciling._gone tree.Database._make tree.Database._odd tree.Reconciling._write tree.Reconciling._write_unread
        tree._statements tree.Reconciling.due tree.Index.held tree.Questions._rows tree.Questions.distinct tree.Questions.images_of tree.Questions.beginning tree.Questions.ended_since
        tree.Questions.select tree.Questions.tally tree.recall tree.rows
    """,
    "the root itself, made and checked by a start, which waits or says what is wrong": """
        durable._filesystem durable.may_take durable._mount tree.Layout._make_directories tree.Layout.check_filesystem tree._locked
    """,
    "a command that shows what the index and the daemon say, row by row, as texts that are escaped": """
        cli._beside cli._samba cli.one cli.project cli.show
    """,
    "a command about what an administrator names: it says what is wrong with one, and its exit code says so": """
        cli._failed cli._missing cli.deployed cli.link cli.pause cli.remove cli.retry cli.return_ cli.unlink
    """,
}

NEEDS_NONE = {name: why for why, some in NEED_NONE.items() for name in some.split()}


def tried() -> set[str]:
    """Every function whose fence is tried with each kind of exception."""
    text = Path(test_fences_of_inboxes.__file__).read_text()
    inboxes = set(re.findall(r'"(inbox\.[\w.<>]+)"', text))
    named = {one.function.removeprefix("cytowatch.") for one in test_fences_of_state.LOOPS}
    return {one.partition(".<locals>")[0] for one in named | inboxes} | ELSEWHERE.keys()


def test_every_fence_is_tried() -> None:
    """A new one needs a case."""
    assert loops.fences() - tried() == set()


def test_no_case_tries_what_is_no_fence() -> None:
    """Or a fence was taken away, or has another name."""
    assert tried() - loops.fences() == set()


def test_every_loop_has_a_fence_or_a_reason() -> None:
    """A new one needs either: a fence, with a case, or a line in `NEED_NONE` that says why none."""
    found, fences = loops.loops(frozenset(APART)), {loops.short(one) for one in loops.fences()}
    bare = {name: through for name, through in found.items() if name not in fences}
    fresh = [
        f"{name} ({', '.join(sorted(bare[name]))})" for name in bare.keys() - NEEDS_NONE.keys()
    ]
    assert not fresh, f"a fence with a case, or a line in NEED_NONE, for {'; '.join(fresh)}"
    stale = sorted(NEEDS_NONE.keys() - bare.keys())
    assert not stale, f"NEED_NONE names what is no longer such a loop: {' '.join(stale)}"


def test_a_new_loop_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a method, in a function, in a comprehension; not one over what is ours."""
    module = tmp_path / "inbox" / "fresh.py"
    module.parent.mkdir()
    module.write_text(
        "class Fresh:\n    def look(self, drops):\n        for one in drops:\n            one()\n"
        "def users(path):\n    return [one for one in path.iterdir()]\n"
        "def ours():\n    return [one for one in STATUSES]\n"
        "def fenced(some):\n    for one in some:\n        with aside.fence('drop', one):\n            one()\n"
    )
    monkeypatch.setattr(loops, "PACKAGE", tmp_path)
    assert loops.loops(frozenset()).keys() == {"inbox.Fresh.look", "inbox.users", "inbox.fenced"}
    assert loops.fences() == {"inbox.fresh.fenced"}
    assert loops.loops(frozenset({"inbox"})) == {}


#: Where each case of the two modules that try many fences is, and every other one.
CASES = {
    *ELSEWHERE.values(),
    "tests/unit/test_fences_of_state.py::test_the_others_are_served",
    *(
        f"tests/unit/test_fences_of_inboxes.py::{name}"
        for name in vars(test_fences_of_inboxes)
        if name.startswith("test_")
    ),
}


@pytest.mark.parametrize("where", sorted(CASES))
def test_each_case_raises_every_kind_of_exception(where: str) -> None:
    """Of `POISONS`, by itself or by a fixture that it takes; and a test that was renamed is named again."""
    path, _, name = where.partition("::")
    functions = {
        one.name: one
        for one in ast.parse((HOUSE / path).read_text()).body
        if isinstance(one, ast.FunctionDef)
    }
    assert name in functions
    takes = [one.arg for one in functions[name].args.args]
    assert any(
        "POISONS" in ast.unparse(functions[one]) for one in (name, *takes) if one in functions
    )


@pytest.mark.parametrize("kind", failpoints.POISONS.values())
def test_a_reload_before_the_start(kind: type[Exception]) -> None:
    """No matter what it raises, the old configuration holds."""

    def reload() -> Config:
        raise kind("it broke")

    before = Config(root="/nowhere")
    assert before_a_start(before, reload) is before
    assert before_a_start(before, Config) == Config()
    aside.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that raises anything is named as damaged, and the others are verified."""
    spool = Spool.create(tmp_path / "root")
    for id_ in (SOUND, BAD):
        put(spool, id_, Status.DEPLOYED)
    for number, kind in enumerate(failpoints.POISONS):
        poison = ("cytowatch.cli.verify.verify", BAD, kind, "")
        monkeypatch.setattr(failpoints, "_POISONED", [poison])
        done = CliRunner().invoke(application(), ["verify", "--root", str(spool.root), "--json"])
        assert done.exit_code == 1, done.output
        told = {one["id"]: one["problems"] for one in json.loads(done.stdout)["damaged"]}
        assert any("cannot be looked at" in said for said in told[BAD]), number
        assert not any("cannot be looked at" in said for said in told.get(SOUND, []))
        aside.reset()


def test_each_part_that_is_apart_is_there() -> None:
    """And has its reason."""
    for name, why in APART.items():
        path = loops.PACKAGE / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
        assert why
