"""One drop, one folder, one user: no matter what is wrong with it, the others are seen and claimed."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch import aside, durable
from cytowatch.config import from_mapping
from cytowatch.durable import failpoints
from cytowatch.formats import Probe
from cytowatch.formats.sets import groups
from cytowatch.inbox import intake, rooms, scan, sweep
from cytowatch.inbox.gather import Gatherer
from cytowatch.inbox.settle import Track
from cytowatch.observe.metrics import WAITING
from cytowatch.record import names, reasons
from cytowatch.record.names import UploadedFileId
from cytowatch.tree.pauses import Pauses
from cytowatch.tree.spool import Spool
from tests.lab.root import HANGS_S


class NoFolders:
    open: tuple[str, ...] = ()

    def is_open(self, _folder: str) -> bool:
        return False

    def note(self) -> None:
        pass


class Inboxes:
    """The inboxes of a root, and what a daemon's main loop does with them."""

    def __init__(self, root: Path, **inbox: Any) -> None:
        self.spool = Spool.create(root)
        self.woken = threading.Event()
        source = random.Random(1)
        self.intake = intake.Intake(
            self.spool, from_mapping({"inbox": {"quiet_s": 0.05, **inbox}}),
            now=lambda: datetime.now(UTC),
            make_id=lambda now, name: UploadedFileId(names.new_id(now, name, source)), software={},
            folders=cast("Any", NoFolders()), wake=self.woken.set,
        )  # fmt: skip
        self.claimed: set[str] = set()

    def drop(self, path: str, data: bytes = b"x") -> Path:
        file = self.spool.inbox / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def turn(self) -> None:
        """One turn of the main loop."""
        now = time.monotonic()
        self.intake.scan_all(now, whole=True)
        self.intake.claim_due(now, Pauses())
        self.claimed |= {one.name for one in self.intake.collect(now)}
        self.claimed |= {one.name for one in self.intake.mend()}

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + HANGS_S
        while not true():
            assert time.monotonic() < end, self.waiting()
            self.turn()
            self.woken.wait(0.02)
            self.woken.clear()

    def waiting(self) -> dict[str, str]:
        return {one["path"]: one["why"] for one in self.intake.waiting(time.monotonic())}


@pytest.fixture
def inboxes(tmp_path: Path) -> Iterator[Inboxes]:
    aside.reset()
    made = Inboxes(tmp_path / "root")
    yield made
    made.intake.stop()
    aside.reset()


def scanned(inboxes: Inboxes, user: str = "ann") -> dict[str, str | None]:
    device = os.stat(inboxes.spool.root).st_dev
    found = scan.scan(inboxes.spool.inbox, user, (), device=device)
    return {one[0].path: one[1] and one[1].why for one in found}


@pytest.mark.parametrize("kind", sorted(failpoints.POISONS))
@pytest.mark.parametrize("place", ["drop:bad", "claim:bad", "user:ann", "user:ann/"])
def test_one_that_raises_anything_costs_itself_alone(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    """The others are claimed, also those of its user unless all of that inbox is bad; then it is, too."""
    where, _, which = place.partition(":")
    monkeypatch.setattr(failpoints, "_POISONED", [(where, which, kind, "")])
    others = {"good.txt", "bob.txt"} if where != "user" else {"bob.txt"}
    for path in ("ann/bad.txt", "ann/good.txt", "bob/bob.txt"):
        inboxes.drop(path)
    inboxes.until(lambda: others <= inboxes.claimed and "set_aside" in inboxes.waiting().values())
    assert "bad.txt" not in inboxes.claimed
    assert which.rstrip("/") in " ".join(one.which for one in aside.all_of(where))
    monkeypatch.setattr(failpoints, "_POISONED", [])
    inboxes.until(lambda: inboxes.claimed == {"bad.txt", "good.txt", "bob.txt"})
    inboxes.until(lambda: aside.all_of() == [] and inboxes.waiting() == {})


@pytest.mark.parametrize("kind", ["ValueError", "OSError"])
def test_a_file_that_cannot_be_looked_into_costs_itself_alone(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What belongs together is found by a look into many files, and one of them fails."""
    poison = ("cytowatch.inbox.gather.Gatherer.bundles.<locals>.look_into", "bad", kind, "")
    monkeypatch.setattr(failpoints, "_POISONED", [poison])
    inboxes.drop("ann/bad")
    inboxes.drop("ann/good")
    inboxes.until(lambda: inboxes.claimed == {"good"} and inboxes.waiting().keys() == {"ann/bad"})
    assert inboxes.waiting() == {"ann/bad": "set_aside"}
    monkeypatch.setattr(failpoints, "_POISONED", [])
    inboxes.until(lambda: inboxes.claimed == {"bad", "good"})


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.EPERM]
)
@pytest.mark.parametrize("folder", ["ann/export", "ann"])
def test_a_folder_that_cannot_be_read_waits_alone(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch, folder: str, code: int
) -> None:
    """With any fault, and if it is the whole inbox: all else is claimed, and it when that passes."""
    for path in ("adam/a.txt", "ann/beside.txt", "ann/export/in.txt", "zoe/z.txt"):
        inboxes.drop(path)
    opened = durable.beneath

    @contextmanager
    def failing(top: Path, relative: str) -> Iterator[int]:
        if relative == folder:
            raise OSError(code, os.strerror(code), relative)
        with opened(top, relative) as found:
            yield found

    # Neither EIO nor ESTALE comes at will on a disk that is sound.
    monkeypatch.setattr(durable, "beneath", failing)
    others = {"a.txt", "z.txt"} | ({"beside.txt"} if folder == "ann/export" else set())
    inboxes.until(lambda: others <= inboxes.claimed)
    assert inboxes.waiting()[folder] == "unreadable"
    [told] = [one for one in inboxes.intake.waiting(0.0) if one["path"] == folder]
    assert "belongs to" in told["detail"]
    assert os.strerror(code) in told["detail"]
    monkeypatch.setattr(durable, "beneath", opened)
    inboxes.until(lambda: folder not in inboxes.waiting())


def test_a_path_that_is_too_long_waits(inboxes: Inboxes) -> None:
    """The kernel takes 4,096 bytes of a path, and where it is claimed it gets longer."""
    top = inboxes.spool.inbox / "ann"
    top.mkdir()
    inboxes.drop("ann/good.txt")
    before = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(20):
        os.mkdir("n" * 200, dir_fd=before)
        inner = os.open("n" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=before)
        os.close(before)
        before = inner
    os.close(before)
    found = scanned(inboxes)
    assert found.pop("ann/good.txt") is None
    [(path, why)] = found.items()
    assert why == "too_deep"
    assert len(path) < 3_300
    inboxes.until(lambda: inboxes.claimed == {"good.txt"})


def test_what_lies_deep_is_seen_down_to_a_bound(inboxes: Inboxes) -> None:
    """In 32 folders it is a drop, below that the folder waits; and nothing below is looked at."""
    deepest = "/".join(["d"] * 32)
    inboxes.drop(f"ann/{deepest}/in.txt")
    inboxes.drop(f"ann/{deepest}/e/f/g/below.txt")
    assert scanned(inboxes) == {f"ann/{deepest}/in.txt": None, f"ann/{deepest}/e": "too_deep"}


def test_links_say_that_they_are_links(inboxes: Inboxes, tmp_path: Path) -> None:
    """To a file, to a folder, and in place of an inbox."""
    inboxes.drop("ann/a.txt")
    (inboxes.spool.inbox / "ann" / "file").symlink_to("a.txt")
    (inboxes.spool.inbox / "ann" / "folder").symlink_to(tmp_path)
    (inboxes.spool.inbox / "bob").symlink_to(tmp_path)
    (inboxes.spool.inbox / "stray").touch()
    inboxes.turn()
    details = {one["path"]: one["detail"] for one in inboxes.intake.waiting(time.monotonic())}
    assert "it is a link, and" in details["ann/file"]
    assert "it is a link, and" in details["ann/folder"]
    assert "a link to a folder" in details["bob"]
    assert inboxes.waiting()["stray"] == "no_user"


def test_no_hint_makes_a_user_of_what_is_none(inboxes: Inboxes, tmp_path: Path) -> None:
    """An event may name a hidden folder, a project, a file or a link in ``inbox/`` itself."""
    for name in (".uploads", "@project"):
        inboxes.drop(f"{name}/a.txt")
    (inboxes.spool.inbox / "link").symlink_to(tmp_path)
    inboxes.drop("file")
    for name in (".uploads", "@project", "link", "file", "gone"):
        inboxes.intake.hint(name)
    inboxes.intake.scan_some(time.monotonic())
    assert inboxes.waiting() == {}


def test_a_look_at_one_inbox_does_not_hold_up_another(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time left in a turn each goes on by one step: the small one is seen first, all in the end."""
    monkeypatch.setattr(sweep, "_SLICE_S", 0.0)
    monkeypatch.setattr(sweep, "_TURN_S", 0.0)
    (inboxes.spool.inbox / "ann").mkdir()
    for number in range(5_000):
        (inboxes.spool.inbox / "ann" / f"{number}").touch()
    inboxes.drop("zoe/z.txt")
    inboxes.intake.scan_all(time.monotonic())
    turns = 0
    while "zoe/z.txt" not in inboxes.waiting():
        inboxes.intake.scan_some(time.monotonic())
        turns += 1
    assert sum(path.startswith("ann") for path in inboxes.waiting()) < 3_000
    assert turns < 10
    while not inboxes.intake.seen()[1]:
        assert not inboxes.intake.idle(time.monotonic(), patience_s=0)
        inboxes.intake.scan_some(time.monotonic())
    assert inboxes.intake.waiting_counts(time.monotonic())[0].total() == 5_001


def test_an_inbox_that_takes_long_is_not_looked_at_in_each_scan(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its share of the main thread, however often scans are due; then its turn comes without an event."""
    began = time.monotonic()
    monkeypatch.setattr(sweep, "_SHARE", 1e6)
    inboxes.drop("ann/1.txt")
    inboxes.drop("zoe/1.txt")
    inboxes.intake.scan_all(began, whole=True)
    for user in ("", "zoe"):
        monkeypatch.setitem(inboxes.intake._sweep._not_before, user, began)
    for user in ("ann", "zoe"):
        inboxes.drop(f"{user}/2.txt")
    inboxes.intake.scan_all(began + 1)
    inboxes.intake.scan_some(began + 2)
    assert set(inboxes.waiting()) == {"ann/1.txt", "zoe/1.txt", "zoe/2.txt"}
    # No scan begins again: it was put off until then.
    later = inboxes.intake._sweep._not_before["ann"]
    assert inboxes.intake.scan_some(began + 3) == later
    inboxes.intake.scan_some(later)
    assert "ann/2.txt" in inboxes.waiting()
    # What must see all of it sees all of it.
    inboxes.drop("ann/3.txt")
    inboxes.intake.scan_all(later + 1)
    assert "ann/3.txt" not in inboxes.waiting()
    inboxes.intake.scan_all(later + 1, whole=True)
    assert "ann/3.txt" in inboxes.waiting()


def test_nothing_is_claimed_out_of_an_inbox_that_is_half_seen(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs to it may be in the part that was not looked at."""
    monkeypatch.setattr(sweep, "_SLICE_S", 0.0)
    monkeypatch.setattr(sweep, "_TURN_S", 0.0)
    for number in range(1_000):
        inboxes.drop(f"ann/{number}", b"")
    began = time.monotonic()
    inboxes.intake.scan_all(began)
    while not inboxes.waiting():
        inboxes.intake.scan_some(began)
    inboxes.intake.claim_due(began + 10, Pauses())
    assert not inboxes.intake._rooms.busy
    while not inboxes.intake.seen()[1]:
        inboxes.intake.scan_some(began)
    inboxes.intake.claim_due(began + 20, Pauses())
    assert inboxes.intake._rooms.busy


def test_what_becomes_due_while_its_room_is_put_together_does_not_wait_long(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is claimed when the room is done, and not a fixed time later; one that has changed waits for quiet."""
    monkeypatch.setattr(rooms, "_AGAIN_S", 1_000.0)
    go_on = threading.Event()
    gather = Gatherer.bundles

    def waiting(self: Gatherer, room: str, tracks: list[Track]) -> object:
        go_on.wait()
        return gather(self, room, tracks)

    monkeypatch.setattr(Gatherer, "bundles", waiting)
    taken = inboxes.intake
    for name in ("first", "second", "third"):
        inboxes.drop(f"ann/{name}.txt")
    taken.scan_all(time.monotonic(), whole=True)
    first, second, third = sorted(taken._settler.of_user("ann"), key=lambda one: one.drop.name)
    now = time.monotonic() + 10
    second.due_at = third.due_at = now + 1
    taken.claim_due(now, Pauses())
    taken.claim_due(now + 1, Pauses())
    assert second.due_at == third.due_at
    assert second.due_at > now + 900
    third.due_at = changed = now + 500
    go_on.set()
    while taken._rooms.busy:
        taken.claim_due(now, Pauses())
    assert first.claiming
    assert not second.claiming
    assert second.due_at < now + 100
    assert third.due_at == changed


def test_of_very_many_a_part_is_claimed_and_then_the_rest(
    inboxes: Inboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone who has more than may be under way loses none of it."""
    monkeypatch.setattr(rooms, "_LEAST_UNDER_WAY", 3)
    monkeypatch.setattr(rooms, "_AGAIN_S", 0.01)
    wanted = {f"{number}.txt" for number in range(20)}
    for name in wanted:
        inboxes.drop(f"ann/{name}")
    inboxes.until(lambda: inboxes.claimed == wanted)


def test_the_masses_of_one_do_not_hide_what_others_must_mend(inboxes: Inboxes) -> None:
    """Of those that wait a thousand are listed: of each user some, and what needs a hand first."""
    for number in range(1_500):
        inboxes.drop(f"ann/{number}", b"")
    inboxes.turn()
    (inboxes.spool.inbox / "ann" / "link").symlink_to("0")
    (inboxes.spool.inbox / "zoe").mkdir()
    (inboxes.spool.inbox / "zoe" / "link").symlink_to("0")
    inboxes.turn()
    assert {"ann/link", "zoe/link"} <= inboxes.waiting().keys()
    assert len(inboxes.waiting()) <= 1_000


def calls(do: Callable[[], object]) -> int:
    """How many functions are called, which grows as time does and is the same on every machine."""
    count = 0

    def counted(_frame: object, event: str, _: object) -> None:
        nonlocal count
        count += event.endswith("call")

    sys.setprofile(counted)
    try:
        do()
    finally:
        sys.setprofile(None)
    return count


def _in_folders(n: int) -> Iterator[str]:
    yield from (f"_d{number}_/stack1/x" for number in range(n))
    yield from (f"f{number}" for number in range(n))


def _mirax(n: int) -> Iterator[str]:
    yield from (f"d{number}/Data0000.dat" for number in range(n))
    yield from (f"f{number}.jpg" for number in range(n))


def _sidecars(n: int) -> Iterator[str]:
    for number in range(n):
        yield from (f"s{number}.mrxs", f"s{number}/Slidedat.ini", f"s{number}.xml")


def _one_stem(n: int) -> Iterator[str]:
    yield from ("a.xml", "a.txt", "a.ndpa", "a/Slidedat.ini", "_a_/stack1/x")
    yield from (f"a.{number}x" for number in range(n))


def _nested(n: int) -> Iterator[str]:
    yield from (f"_a_/{'b/' * 20}_c_/{number}" for number in range(n))


@pytest.mark.parametrize("shape", [_in_folders, _mirax, _sidecars, _one_stem, _nested])
def test_putting_together_grows_as_the_files_do(shape: Callable[[int], Iterator[str]]) -> None:
    """Twice the files take twice the time, no matter what they are called: not four times."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    nothing = Probe(descriptor)

    def steps(n: int) -> int:
        sizes = dict.fromkeys(shape(n), 0)
        return calls(lambda: groups.groups(sizes, lambda _path, function: function(nothing)))

    assert steps(800) < 2.5 * steps(400)
    os.close(descriptor)


def test_names_that_are_the_same_when_made_safe_are_numbered_as_fast() -> None:
    """A DICOM slide of a thousand files whose names have no letter of our own."""

    def steps(n: int) -> int:
        members = tuple(f"{chr(0x4E00 + number)}.dcm" for number in range(n))
        group = groups.Group(kind="dicom", members=members, is_open_ended=True)
        return calls(lambda: groups.placed(group, members[0]))

    assert steps(800) < 2.5 * steps(400)


def test_the_index_of_a_set_is_compared_as_fast_as_it_is_read() -> None:
    """A VMS that names thousands of files, which are there."""

    def steps(n: int) -> int:
        data = b"[Virtual Microscope Specimen]\n" + b"".join(
            b"ImageFile(%d,0)=a(%d,0).jpg\n" % (number, number) for number in range(n)
        )
        descriptor = os.memfd_create("index")
        os.write(descriptor, data)
        sizes = {"a.vms": len(data), **{f"a({number},0).jpg": 0 for number in range(n)}}
        probe = Probe(descriptor, name="a.vms")
        found = calls(lambda: groups.groups(sizes, lambda _path, function: function(probe)))
        os.close(descriptor)
        return found

    assert steps(800) < 2.5 * steps(400)


def test_every_reason_to_wait_that_is_given_is_one_that_is_counted() -> None:
    """Or the metrics would call it ``other``."""
    assert set(WAITING) == set(reasons.WAITING)


def test_a_folder_whose_name_no_user_can_have_is_told(inboxes: Inboxes) -> None:
    """What servers keep there, and what holds nothing, is nobody's worry."""
    for path in (".ann/a", "@project/a", ".uploads/a", ".snapshot/a", ".Trash-1000/a", "ann/b"):
        inboxes.drop(path)
    (inboxes.spool.inbox / "@empty").mkdir()
    inboxes.until(lambda: inboxes.claimed == {"b"})
    assert inboxes.waiting() == {".ann": "no_user", "@project": "no_user"}
    (inboxes.spool.inbox / ".ann").rename(inboxes.spool.inbox / "anna")
    inboxes.until(lambda: inboxes.claimed == {"a", "b"})


def test_below_the_reserve_each_drop_says_so(inboxes: Inboxes) -> None:
    """And is taken when there is room again."""
    inboxes.drop("ann/a")
    end = time.monotonic() + HANGS_S
    while inboxes.waiting() != {"ann/a": "disk"}:
        assert time.monotonic() < end
        inboxes.intake.scan_all(time.monotonic(), whole=True)
        inboxes.intake.hold(time.monotonic(), "7 bytes are free")
        time.sleep(0.02)
    [told] = inboxes.intake.waiting(time.monotonic())
    assert told["detail"].startswith("7 bytes are free: nothing new is begun")
    assert not inboxes.intake.idle(time.monotonic(), patience_s=1)
    inboxes.until(lambda: inboxes.claimed == {"a"})


def test_a_temporary_name_that_stays_is_told_and_never_claimed(inboxes: Inboxes) -> None:
    """In a folder too; what programs keep beside it is not, nor what `inbox.ignore` names."""
    for path in (
        "ann/a.svs.part",
        "ann/case/b.svs.filepart",
        "ann/c",
        "ann/c.aria2",
        "ann/.d.svs.Ab3dE6",
    ):
        inboxes.drop(path)
    inboxes.until(lambda: set(inboxes.waiting().values()) == {"temporary_name", "still_copied"})
    told = {"ann/a.svs.part": "temporary_name", "ann/case/b.svs.filepart": "temporary_name"}
    assert inboxes.waiting() == {**told, "ann/c": "still_copied"}
    assert inboxes.intake.idle(time.monotonic(), patience_s=1)
    inboxes.intake.reconfigure(from_mapping({"inbox": {"quiet_s": 0.05, "ignore": ["b.*"]}}))
    (inboxes.spool.inbox / "ann/a.svs.part").rename(inboxes.spool.inbox / "ann/a.svs")
    inboxes.until(lambda: inboxes.claimed == {"a.svs"})
    assert inboxes.waiting() == {"ann/c": "still_copied"}
