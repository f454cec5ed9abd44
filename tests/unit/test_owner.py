"""Whose file it is after the claim, tried by a second user of this machine who had it open all the while."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cytowatch import durable
from cytowatch.decoder import unchanged
from cytowatch.durable import owner
from cytowatch.inbox import back, claim, scan
from cytowatch.record import manifest
from cytowatch.record.drop import Waiting
from cytowatch.record.errors import IngestError
from cytowatch.record.names import UploadedFileId
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool
from tests import builders
from tests.lab.writer import UID, Writer
from tests.needs import needs
from tests.unit.test_claim import claiming, single


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    claim.prepare_process()
    made = Spool.create(tmp_path / "root")
    (made.inbox / "ann").mkdir()
    yield made


@pytest.fixture
def dropped(spool: Spool) -> Path:
    """A slide of another user, who lets everybody write."""
    path = builders.jpeg(spool.inbox / "ann" / "a.jpg")
    os.chown(path, UID, UID)
    path.chmod(0o666)
    return path


def take(spool: Spool, *, quiet_for_s: float = 100) -> UploadedFileId | Waiting:
    device = os.stat(spool.root).st_dev
    [(drop, waiting)] = scan.scan(spool.inbox, "ann", [], device=device)
    assert waiting is None
    return claim.claim(
        claiming(spool),
        single(drop),
        overdue=False,
        quiet_for_s=quiet_for_s,
    )


@needs(root=True)
def test_who_dropped_it_cannot_write_to_it_after_the_claim(spool: Spool, dropped: Path) -> None:
    """Not by the descriptor that he kept, nor by a mode that he sets: owner and mode are the daemon's."""
    digest = hashlib.sha256(dropped.read_bytes()).hexdigest()
    writer = Writer(dropped)
    try:
        assert writer.tries("w") == "done"
        assert hashlib.sha256(dropped.read_bytes()).hexdigest() != digest
        digest = hashlib.sha256(dropped.read_bytes()).hexdigest()
        id_ = take(spool)
        assert isinstance(id_, str)
        assert {word: writer.tries(word) for word in "wmt"} == dict.fromkeys(
            "wmt", "PermissionError"
        )
    finally:
        writer.close()
    [source] = (spool.stages / "uploaded" / id_ / "source").iterdir()
    assert hashlib.sha256(source.read_bytes()).hexdigest() == digest
    assert (source.stat().st_uid, stat.S_IMODE(source.stat().st_mode)) == (os.geteuid(), 0o640)
    assert owner.is_ours(source.stat())


@needs(root=True)
def test_who_opens_it_while_it_is_claimed_has_it_back_or_is_denied(spool: Spool) -> None:
    """The owner opens it for writing in a loop: anything that is claimed is never written to again, nothing is lost."""
    came: list[str] = []
    for round_ in range(600):
        if round_ >= 60 and len(set(came)) == 2:
            break
        path = builders.jpeg(spool.inbox / "ann" / "a.jpg")
        os.chown(path, UID, UID)
        writer = Writer(path)
        try:
            writer.begin("r")
            found = take(spool)
            if isinstance(found, Waiting):
                came.append("back")
                continue
            assert writer.answer() == "PermissionError"
            [source] = (spool.stages / "uploaded" / found / "source").iterdir()
            before = source.read_bytes()
            assert writer.tries("w") == "PermissionError"
            assert source.read_bytes() == before
            came.append("claimed")
        finally:
            writer.close()
            assert (
                len(list((spool.inbox / "ann").iterdir()))
                + len(list((spool.stages / "uploaded").iterdir()))
                == 1
            )
            for left in (*(spool.inbox / "ann").iterdir(), *(spool.stages / "uploaded").iterdir()):
                spool.discard(left)
    assert set(came) == {"back", "claimed"}


@needs(root=True)
def test_what_goes_back_is_his_again(
    spool: Spool, dropped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that is undone gives back owner, group and mode, and so does the next start after a crash."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            take(spool)
    # What could not be put back at once is put back by the next start.
    claim.recover(spool)
    found = dropped.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (UID, UID, 0o666)


@needs(root=True)
def test_a_claim_that_is_finished_after_a_crash_is_taken_as_well(
    spool: Spool, dropped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash came between the rename and the change of its owner."""

    class CrashError(BaseException):
        pass

    def crash(_descriptor: int, **_settings: object) -> None:
        raise CrashError

    writer = Writer(dropped)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(owner, "take", crash)
            with contextlib.suppress(CrashError):
                take(spool)
        [place] = spool.tmp.iterdir()
        assert json.loads((place / claim.JOURNAL).read_bytes())["members"][0]["uid"] == UID
        assert set(claim.recover(spool).values()) == {"finished"}
        assert writer.tries("w") == "PermissionError"
    finally:
        writer.close()


@needs(root=True)
def test_what_is_handed_back_belongs_to_whose_folder_it_is(spool: Spool, dropped: Path) -> None:
    """A user can read, change and remove what comes back, as before."""
    from cytowatch.inbox import back

    os.chown(spool.inbox / "ann", UID, UID)
    (spool.inbox / "ann").chmod(0o770)
    id_ = take(spool)
    assert isinstance(id_, str)
    place = spool.stages / "uploaded" / id_
    [source] = (place / "source").iterdir()
    unit = back.Unit(stem="a", files=[(f"source/{source.name}", "a.jpg")])
    back.give_back(place, unit, spool.inbox, "ann/_returned")
    for path in (spool.inbox / "ann" / "_returned", spool.inbox / "ann" / "_returned" / "a.jpg"):
        assert path.stat().st_uid == path.stat().st_gid == UID
        assert path.stat().st_mode & 0o600 == 0o600


def test_a_file_that_others_may_write_is_not_ours(tmp_path: Path) -> None:
    """By its group or by everybody: ``file_mode`` may say so, and then it proves nothing."""
    path = tmp_path / "a"
    path.touch()
    for mode, ours in ((0o600, True), (0o644, True), (0o660, False), (0o646, False)):
        path.chmod(mode)
        assert owner.is_ours(path.stat()) is ours
    assert durable.is_local(tmp_path) is True
    path.chmod(0o640)
    claim.prepare_process()
    with path.open("rb") as reader:
        assert owner.nobody_writes(reader.fileno())
        with path.open("r+b"):
            assert not owner.nobody_writes(reader.fileno())


def test_only_the_marker_that_was_seen_is_removed(spool: Spool, tmp_path: Path) -> None:
    """A slide, a folder, a link or a pipe that took its place stays as it is; the slide is claimed all the same."""
    from cytowatch.inbox import markers

    for kind in ("marker", "slide", "folder", "link", "pipe"):
        path = spool.inbox / "ann" / "a.jpg.done"
        path.touch()
        device = os.stat(spool.root).st_dev
        [(marker, _)] = scan.scan(spool.inbox, "ann", [], device=device)
        if kind != "marker":
            path.rename(tmp_path / f"seen-{kind}")
        match kind:
            case "slide":
                path.write_bytes(b"a slide")
            case "folder":
                path.mkdir()
                (path / "slide").write_bytes(b"a slide")
            case "link":
                path.symlink_to(tmp_path)
            case "pipe":
                os.mkfifo(path)
        markers.withdraw(spool.inbox, marker, tmp_path / "gone")
        assert os.path.lexists(path) is (kind != "marker")
        assert os.path.lexists(tmp_path / "gone") is (kind == "marker")
        spool.discard(path if kind != "marker" else tmp_path / "gone")


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Its owner keeps a descriptor for reading, and takes a lease for writing on it, again whenever it is broken."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGIO, lambda *_: None)
            # Before: no other user may enter the directories of a test.
            descriptor = os.open(path, os.O_RDONLY)
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            os.write(told, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
        yield
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@needs(root=True)
def test_a_lease_of_who_dropped_it_costs_his_own_slide(tmp_path: Path) -> None:
    """Where the daemon may not take the file: nobody waits for him, and it is not an unexpected error."""
    folder = tmp_path / "id" / "source"
    folder.mkdir(parents=True)
    path = folder / "a.jpg"
    path.write_bytes(b"a slide")
    os.chown(path, UID, UID)
    row = manifest.received(role="source", path="source/a.jpg", size_bytes=7)
    with _held(path):
        with pytest.raises(IngestError) as raised:
            unchanged.check_sources(
                Status.DEPLOYING, tmp_path / "id", [row], progress=lambda _share: None
            )
        assert raised.value.reason == "changed"
        assert "its owner holds it" in raised.value.detail
        same = [("source/a.jpg", "source/a.jpg")]
        assert not unchanged.same_bytes(tmp_path / "id", tmp_path / "id", same, look=lambda: None)
    [found] = unchanged.check_sources(
        Status.DEPLOYING, tmp_path / "id", [row], progress=lambda _share: None
    )
    assert found["sha256"] == hashlib.sha256(b"a slide").hexdigest()


@needs(root=True)
@pytest.mark.parametrize("begun", [False, True])
def test_what_its_owner_has_a_lease_on_goes_back(
    spool: Spool, dropped: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """A retry or a return, and a claim that was cut off: it was never the daemon's, and is the user's again."""
    place = spool.tmp / "20261123-141502-1000-a"
    monkeypatch.setattr(
        owner, "take", lambda descriptor, **_: owner.Owner(uid=UID, gid=UID, mode=0o666)
    )
    if begun:
        real = durable.rename

        def cut(*arguments: Any, **options: Any) -> None:
            real(*arguments, **options)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(durable, "rename", cut)
            take(spool)
    else:
        (place / "source").mkdir(parents=True)
        dropped.rename(place / "source" / "a.jpg")
    [there] = place.glob("source/*")
    with _held(there):
        if begun:
            assert claim.recover(spool) == {place.name: "undone"}
        else:
            unit = back.Unit(stem="a", files=[("source/a.jpg", "a.jpg")])
            back.give_back(place, unit, spool.inbox, "ann")
    assert dropped.stat().st_uid == UID
