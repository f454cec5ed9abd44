"""Power that is cut anywhere in a claim, or on the way into storage: in every state that a disk may be in then,
nothing is lost.

Each state that `tests.unit.power` knows of is made in a tree of its own and started from. Then each fsync
is left out in turn: some state must be a loss, or it would be needless.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cytowatch.config import Config
from cytowatch.decoder import unchanged
from cytowatch.inbox import claim
from cytowatch.inbox import scan as inboxes
from cytowatch.model import Outcome, UploadedFile
from cytowatch.record import entries, manifest
from cytowatch.record.names import UploadedFileId
from cytowatch.record.place import Place
from cytowatch.record.status import STAGE_STATUSES, Status
from cytowatch.stages import STAGES
from cytowatch.transitions import accept, correct
from cytowatch.tree.spool import Spool
from tests import builders
from tests.lab.power import Disk, losses, recorded
from tests.unit.test_claim import claiming

ID = UploadedFileId("20261123-141502-1000-a")
NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)
#: What is dropped, of each kind of parcel: where, and where it goes.
DROPS = {
    "a file": {"ann/a.jpg": "source/a.jpg"},
    "a marked file": {"ann/a.jpg": "source/a.jpg", "ann/a.jpg.done": ""},
    "a set": {"ann/a.mrxs": "source/a.mrxs", "ann/a/Index.dat": "source/a/Index.dat"},
}


def content(name: str) -> bytes:
    return f"\xff\xd8 {name} \xff\xd9".encode("latin-1") * 40


def claimed(names: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    claim.prepare_process()
    spool = Spool.create(folder / "root")
    for name in names:
        (spool.inbox / name).parent.mkdir(exist_ok=True)
        (spool.inbox / name).write_bytes(content(name))
    device = os.stat(spool.root).st_dev
    drops = {drop.path: drop for drop, _ in inboxes.scan(spool.inbox, "ann", [], device=device)}
    members = tuple(claim.Member(drop=drops[name], to=to) for name, to in names.items() if to)
    marker = next((drops[name] for name, to in names.items() if not to), None)

    def do() -> None:
        claim.claim(
            claiming(spool, ID, now=NOW),
            claim.Parcel(members=members, marker=marker),
            overdue=False,
            quiet_for_s=10,
        )

    return recorded(spool.root, do, monkeypatch)


def lost_of_a_claim(disk: Disk, names: dict[str, str], place: Path, **how: Any) -> list[str]:
    wanted = {content(name) for name, to in names.items() if to}
    markers = {content(name) for name, to in names.items() if not to}
    slides = {inode for inode, (data, _) in disk.files.items() if data in wanted}

    def check(root: Path, where: dict[int, Path], end: bool) -> str | None:
        """None if the slide is whole in its inbox, or claimed and whole; once, where that can be."""
        for journal in root.glob("state/tmp/*/claim.json"):
            if data := journal.read_bytes():
                known = json.loads(data)
                for member in known["members"]:
                    new = where.get(member["inode"])
                    member["inode"] = new.stat().st_ino if new else 0
                journal.write_text(json.dumps(known))
        spool = Spool.open(root)
        told = claim.recover(spool)
        found = [path for path in spool.inbox.rglob("*") if path.is_file()]
        for path in (spool.stages / "uploaded").iterdir():
            # One that claims to have a slide and has none would be an error of a slide that is elsewhere.
            found += [path / row["path"] for row in manifest.read(path)["files"]]
        there = Counter(path.read_bytes() for path in found)
        if (
            end
            and how["atomic"]
            and markers & there.keys()
            and list((spool.stages / "uploaded").iterdir())
        ):
            return "its marker marks the next one"
        for one in markers:
            del there[one]
        if there.keys() != wanted or (how["atomic"] and max(there.values()) > 1):
            return f"{told}, {[str(path.relative_to(root)) for path in found]}"
        if any(said.startswith("kept") for said in told.values()):
            return f"nobody ends it: {told}"
        return None

    # What a scanner wrote and did not sync is our promise only once we say that it is uploaded.
    return losses(
        disk, place, check, unsure=lambda end: disk.born | slides if end else disk.born, **how
    )


@pytest.mark.parametrize("kind", DROPS)
@pytest.mark.parametrize("atomic", [True, False])
def test_a_claim_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, atomic: bool
) -> None:
    """Where a rename is one step, as with a journal; and where a cut may leave a file both its names."""
    disk = claimed(DROPS[kind], folder, monkeypatch)
    how: dict[str, Any] = {"left_out": None, "atomic": atomic, "first": False}
    assert lost_of_a_claim(disk, DROPS[kind], tmp_path / "at", **how) == []


@pytest.mark.parametrize("kind", DROPS)
def test_every_fsync_of_a_claim_is_needed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Without it some state is a loss."""
    disk = claimed(DROPS[kind], folder, monkeypatch)
    needless = [
        number
        for number in range(len(disk.syncs))
        if not any(
            lost_of_a_claim(
                disk, DROPS[kind], tmp_path / "at", left_out=number, atomic=atomic, first=True
            )
            for atomic in (True, False)
        )
    ]
    assert needless == [], [disk.syncs[number] for number in needless]


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Disk, dict[str, bytes]]:
    """From CONVERTING into storage, as the engine does it; and what is in storage then."""
    spool = Spool.create(folder / "root")
    path = spool.stage(Status.CONVERTING) / ID
    (path / "source").mkdir(parents=True)
    builders.png(path / "source" / "a.png", width=40, height=30)
    size = (path / "source" / "a.png").stat().st_size
    row = entries.FileEntry(
        role="source", path="source/a.png", size_bytes=size, sha256=None, status="UPLOADED"
    )
    new = manifest.new(
        id=ID, user="ann", name="a.png", drop_path="ann/a.png", files=[row], now=NOW, software={}
    )
    form = entries.FormatEntry(
        id="png", name="PNG", native=False, evidence="its first bytes", openslide_vendor=None
    )
    begun = manifest.at_status(
        {**new, "format": form},
        Status.CONVERTING,
        now=NOW,
        attempts=1,  # type: ignore[typeddict-item]
    )
    manifest.write(path, begun)
    monkeypatch.chdir(path)
    # A stage sets it for its own process, which is this one here.
    monkeypatch.setenv("TMPDIR", str(folder))

    def do() -> None:
        place = Place(status=Status.CONVERTING, path=path, manifest=begun)
        while not place.status.is_final:
            os.chdir(place.path)
            os.makedirs("out.1", exist_ok=True)
            file = UploadedFile(
                manifest=place.manifest, out="out.1", config=Config(), progress=lambda _: None,
                check_room=lambda _bytes, _inodes=0: None,
            )  # fmt: skip
            outcome = STAGES[place.status](file)
            if outcome.status.is_final:
                files = unchanged.with_hashes(
                    place.status, place.path / "derived", outcome.changes["files"],
                    progress=lambda _share: None, look=lambda: None,
                )  # fmt: skip
                outcome = Outcome(
                    status=outcome.status, changes={**outcome.changes, "files": files}
                )
            place = accept.accept(
                spool, place, outcome, "out.1", now=NOW, settings=Config().storage
            )
        assert place.status is Status.CONVERTED

    disk = recorded(spool.root, do, monkeypatch)
    end = spool.storage / "ann" / ID
    whole = {row["path"]: (end / row["path"]).read_bytes() for row in manifest.read(end)["files"]}
    return disk, whole


def lost_on_the_way(disk: Disk, whole: dict[str, bytes], place: Path, **how: Any) -> list[str]:
    def check(root: Path, _where: dict[int, Path], end: bool) -> str | None:
        """None if it is there once, and whole as far as nothing of it is made again."""
        spool = Spool.open(root)
        stored = [one for one in [spool.storage / "ann" / ID] if one.is_dir()]
        staged = [status for status in STAGE_STATUSES if (spool.stage(status) / ID).is_dir()]
        if len(stored) + len(staged) != 1:
            return f"it is in {stored} and {staged}"
        if stored:
            [path], found = stored, manifest.read(stored[0])
            if not manifest.status_of(found).is_success:
                return f"in storage it says {found['status']}"
        elif end:
            return "it was said to be in storage"
        else:
            path = spool.stage(staged[0]) / ID
            taken = Place(status=staged[0], path=path, manifest=manifest.read(path))
            found = correct.tidy(spool, taken, now=NOW).manifest
        rows = [row["path"] for row in found["files"]]
        if (stored or staged == [Status.DEPLOYING]) and rows != list(whole):
            return f"it has {rows}"
        bad = [row for row in rows if (path / row).read_bytes() != whole[row]]
        return f"{bad} are not whole" if bad else None

    return losses(disk, place, check, unsure=lambda _end: disk.born, **how)


def test_the_way_into_storage_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The uploaded file is in one place, and what is accepted or published is whole."""
    disk, whole = published(folder, monkeypatch)
    how: dict[str, Any] = {"left_out": None, "atomic": True, "first": False}
    assert lost_on_the_way(disk, whole, tmp_path / "at", **how) == []


def test_every_fsync_on_the_way_into_storage_is_needed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it some state is a loss."""
    disk, whole = published(folder, monkeypatch)
    needless = [
        number
        for number in range(len(disk.syncs))
        if not lost_on_the_way(
            disk, whole, tmp_path / "at", left_out=number, atomic=True, first=True
        )
    ]
    assert needless == [], [disk.syncs[number] for number in needless]
