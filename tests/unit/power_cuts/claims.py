"""Claims that a start finishes or undoes."""

from __future__ import annotations

import json
import os
from unittest import mock

from cytowatch.inbox import claim
from cytowatch.inbox import scan as inboxes
from cytowatch.inbox.claim import recovery, take
from cytowatch.record.drop import Waiting
from cytowatch.record.status import Status
from cytowatch.tree.spool import Spool
from tests.unit.power_cuts.cases import (
    ID,
    NOW,
    SLIDE,
    Case,
    case,
    make,
    renumbered,
)
from tests.unit.test_claim import claiming


def claim_begun(spool: Spool, origins: tuple[str, ...]) -> None:
    """What a claim has made durable before it moves anything."""
    place = spool.tmp / ID
    make(place, Status.UPLOADED)
    (place / "source" / "a.jpg").unlink()
    members = []
    for origin in origins:
        path = spool.inbox / origin
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SLIDE)
        found = path.stat()
        members.append(
            {"from": origin, "to": f"source/{path.name}", "device": found.st_dev, "inode": found.st_ino,
             "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
        )  # fmt: skip
    journal = {"user": "ann", "members": members, "folder": None, "marker": None}
    (place / claim.JOURNAL).write_text(json.dumps(journal))


def killed_and_started(spool: Spool, origins: tuple[str, ...], *, written: bool = False) -> None:
    """The daemon is killed once these were moved; one was written to meanwhile, perhaps."""
    for origin in origins:
        path = spool.tmp / ID / "source" / os.path.basename(origin)
        os.rename(spool.inbox / origin, path)
        if written:
            os.utime(path, ns=(1, 1))
    if (spool.inbox / "ann" / "set").is_dir():
        # As a claim removes it, once all is durable.
        recovery.sync_names(spool.tmp / ID, ["source"], marked=False)
        os.rmdir(spool.inbox / "ann" / "set")
    told = claim.recover(spool)
    assert told == {ID: "undone" if written or len(origins) < 2 else "finished"}


def recovered(spool: Spool, end: bool) -> str | None:
    """Both are whole somewhere, together, and once."""
    renumbered(spool)
    told = claim.recover(spool)
    dropped = [path for path in spool.inbox.rglob("*") if path.is_file()]
    taken = list(spool.stages.glob("uploaded/*/source/*"))
    names = [sorted(path.name for path in paths) for paths in (dropped, taken)]
    if sorted(names) != [[], ["a.jpg", "a.xml"]]:
        return f"{told}: {dropped} in the inbox, {taken} claimed"
    torn = [str(path) for path in taken if path.read_bytes() != SLIDE]
    return f"{torn} are torn" if torn and end else None


BESIDE = ("ann/a.jpg", "ann/a.xml")

IN_A_SET = ("ann/set/a.jpg", "ann/set/a.xml")


@case
def a_claim_that_is_finished_by_a_start() -> Case:
    return Case(
        lambda spool: claim_begun(spool, BESIDE),
        lambda spool: killed_and_started(spool, BESIDE),
        recovered,
        dirty=SLIDE,
    )


@case
def a_claim_that_is_undone_by_a_start() -> Case:
    return Case(
        lambda spool: claim_begun(spool, BESIDE),
        lambda spool: killed_and_started(spool, BESIDE[:1]),
        recovered,
    )


@case
def a_claim_that_is_undone_by_a_start_when_its_folder_has_gone() -> Case:
    return Case(
        lambda spool: claim_begun(spool, IN_A_SET),
        lambda spool: killed_and_started(spool, IN_A_SET, written=True),
        recovered,
    )


@case
def a_claim_that_somebody_comes_between() -> Case:
    def before(spool: Spool) -> None:
        claim.prepare_process()
        (spool.inbox / "ann").mkdir()
        for origin in BESIDE:
            (spool.inbox / origin).write_bytes(SLIDE)

    def do(spool: Spool) -> None:
        device = os.stat(spool.root).st_dev
        drops = sorted(
            inboxes.scan(spool.inbox, "ann", [], device=device), key=lambda one: one[0].path
        )
        members = [claim.Member(drop=drop, to=f"source/{drop.name}") for drop, _ in drops]
        came = Waiting(why="settling", detail="it changed while it was taken")
        with mock.patch.object(take, "trouble_with", return_value=came):
            told = claim.claim(
                claiming(spool, ID, now=NOW),
                claim.Parcel(members=tuple(members)),
                overdue=False,
                quiet_for_s=10,
            )
        assert told is not ID and isinstance(told, Waiting)

    # Undone, nothing depends on its journal; it is needed for a claim that goes on (`test_power`).
    return Case(before, do, recovered, elsewhere=("manifest.write",))
