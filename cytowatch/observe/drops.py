"""What is known of each drop while somebody may look for it, and which notes that makes on the share.

A drop is what a person put into an inbox: one slide, an archive or a folder. It has one note that sums up;
of what came out of it only what failed has a note of its own. `wording` writes their texts.

A failure is cleared when the same path succeeds later. A whole drop with failures gives way to a later drop
of the same path that is finished.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cytowatch import aside
from cytowatch.observe import wording
from cytowatch.observe.feedback import Note
from cytowatch.observe.seen import Seen, Sum
from cytowatch.record.entries import Manifest, SkippedEntry
from cytowatch.record.place import is_folder
from cytowatch.record.skipped import is_loss
from cytowatch.record.status import Status

__all__ = ["Drops", "seen"]


def seen(
    found: Manifest, status: Status, share: float = 0.0, *, same_as: str | None = None
) -> Seen:
    """What notes need of an uploaded file; `share` of its stage is done."""
    _, _, path = found["drop_path"].partition("/")
    error = found["error"] if status.is_error else None
    return Seen(
        id=found["id"],
        parent_id=found["parent_id"],
        user=found["user"],
        path=path or found["name"],
        status=status,
        share=share,
        at=datetime.fromisoformat(found["history"][-1]["at"]),
        received_at=found["received_at"],
        reason=error["reason"] if error else None,
        detail=error["detail"] if error else "",
        children=len(found["children"]),
        is_folder=is_folder(found),
        skipped=tuple(_skipped(one) for one in found["skipped"]),
        warnings=tuple(found["warnings"]),
        same_as=same_as,
    )


def _is_done(one: Seen) -> bool:
    return one.status.is_success and not one.is_container


def _lost_paths(one: Seen) -> list[tuple[str, str]]:
    return [(one.user, f"{one.path}/{name}") for name, _, _, is_lost in one.skipped if is_lost]


def _skipped(one: SkippedEntry) -> tuple[str, str, int, bool]:
    return one["name"], one["reason"], one.get("count", 1), is_loss(one)


#: This many members of one drop that succeeded are known one by one, more than its note lists; the
#: others are counted, or an archive of 100,000 would take a hundred megabytes for as long as notes stay.
_MOST_DONE = 2_000
#: At most this many drops are known, which take 50 MB; beyond that, those that ended first are forgotten, with their notes.
_MOST_DROPS = 20_000


@dataclass(slots=True)
class _Drop:
    """What is known of one drop, by id; `gone` were removed or handed back since, `more` are counted only."""

    inside: dict[str, Seen] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    notes: dict[str, Note] | None = None
    done: int = 0
    more: int = 0
    #: When any of it last changed, on the monotonic clock.
    at: float = float("-inf")


class Drops:
    """Guards what is known of recent drops; anyone who uses it from several threads holds a lock.

    How long they are kept, and which of two came later, does not depend on the wall clock, which may be set
    while the daemon runs; only what an earlier daemon left has nothing else.
    """

    def __init__(
        self, *, keep_for: timedelta, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep_s = keep_for.total_seconds()
        self._monotonic = monotonic
        self._numbers = itertools.count(1)
        #: By id, for what came while this daemon ran: the first has 1.
        self._came: dict[str, int] = {}
        #: By the id of what was dropped.
        self._drops: dict[str, _Drop] = {}
        self._root_of: dict[str, str] = {}
        #: The ids of everything that was dropped as a path of a user, each with what tells which came later.
        self._by_path: dict[tuple[str, str], dict[str, tuple[int, str, str]]] = {}
        #: The paths of members that could not be unpacked, which a later one may clear.
        self._lost_paths: Counter[tuple[str, str]] = Counter()

    def came(self, ids: Iterable[str]) -> None:
        """These were claimed just now, in this order."""
        for id_ in ids:
            self._came.setdefault(id_, next(self._numbers))

    def put(self, root_id: str, one: Seen, *, age_s: float = 0.0) -> None:
        """Take note of an uploaded file as it has been for `age_s`; `root_id` is what was dropped."""
        drop = self._drops.setdefault(root_id, _Drop())
        drop.at = max(drop.at, self._monotonic() - max(0.0, age_s))
        if self._is_counted_only(root_id, drop, one):
            if one.id in drop.inside:
                self._unpath(drop.inside.pop(one.id))
            self._root_of.pop(one.id, None)
            self._came.pop(one.id, None)
            drop.more += 1
            drop.notes = None
            return
        before = drop.inside.get(one.id)
        drop.done += _is_done(one) - (before is not None and _is_done(before))
        drop.inside[one.id] = one
        drop.gone.discard(one.id)
        drop.notes = None
        self._root_of[one.id] = root_id
        if before is not None:
            self._lost_paths.subtract(_lost_paths(before))
        self._lost_paths.update(_lost_paths(one))
        same = self._by_path.setdefault((one.user, one.path), {})
        same[one.id] = (
            max(self._came.get(root_id, 0), self._came.get(one.id, 0)), one.received_at, one.id,
        )  # fmt: skip
        if one.status.is_final:
            # What it clears may be in other drops.
            for other in same:
                self._drops[self._root_of[other]].notes = None
            if self._lost_paths[one.user, one.path] > 0:
                self._look_again_at_what_it_came_in(one)

    def _look_again_at_what_it_came_in(self, one: Seen) -> None:
        """An archive of that path had lost it."""
        parts = one.path.split("/")
        for count in range(1, len(parts)):
            for other in self._by_path.get((one.user, "/".join(parts[:count])), {}):
                self._drops[self._root_of[other]].notes = None

    def _is_counted_only(self, root_id: str, drop: _Drop, one: Seen) -> bool:
        """Whether all that matters of a member is that it succeeded: it clears no failure of its path."""
        if drop.done < _MOST_DONE or not _is_done(one):
            return False
        if one.id in drop.inside and _is_done(drop.inside[one.id]):
            return False
        known = self._by_path.get((one.user, one.path), {}).keys() - {one.id}
        return one.id != root_id and not known and (one.user, one.path) not in self._lost_paths

    def progressed(self, id_: str, share: float) -> None:
        """Take note of the share of its stage that is done; notes show it in steps of ten per cent."""
        drop = self._drops.get(self._root_of.get(id_, ""))
        if drop is None:
            return
        one = drop.inside[id_]
        if int(one.share * 10) != int(share * 10):
            drop.inside[id_] = replace(one, share=share)
            drop.notes = None

    def held_up(self, id_: str, why: str) -> None:
        """A fault of the machine makes it wait, until its status changes."""
        drop = self._drops.get(self._root_of.get(id_, ""))
        if drop is not None and drop.inside[id_].held != why:
            drop.inside[id_] = replace(drop.inside[id_], held=why)
            drop.notes = None

    def without_their_root(self) -> list[tuple[str, str]]:
        """User and id of each archive or folder of which only members are known."""
        return [
            (next(iter(drop.inside.values())).user, root_id)
            for root_id, drop in self._drops.items()
            if root_id not in drop.inside
        ]

    def forget(self, id_: str) -> None:
        """It was removed, handed back or sent back."""
        self._came.pop(id_, None)
        root_id = self._root_of.pop(id_, None)
        if root_id is None:
            return
        drop = self._drops[root_id]
        one = drop.inside.pop(id_)
        drop.done -= _is_done(one)
        drop.gone.add(id_)
        drop.notes = None
        self._unpath(one)
        if not drop.inside or id_ == root_id:
            self._drop(root_id)

    def _unpath(self, one: Seen) -> None:
        if one.skipped:
            self._lost_paths = self._lost_paths - Counter(_lost_paths(one))
        same = self._by_path[one.user, one.path]
        same.pop(one.id, None)
        for other in same:
            self._drops[self._root_of[other]].notes = None
        if not same:
            del self._by_path[one.user, one.path]

    def _drop(self, root_id: str) -> None:
        drop = self._drops.pop(root_id)
        self._came.pop(root_id, None)
        for id_, one in drop.inside.items():
            self._root_of.pop(id_, None)
            self._came.pop(id_, None)
            self._unpath(one)

    def expire(self) -> None:
        """Forget the drops whose last part was finished too long ago."""
        oldest = self._monotonic() - self._keep_s
        for root_id, drop in list(self._drops.items()):
            if drop.at <= oldest and all(one.status.is_final for one in drop.inside.values()):
                self._drop(root_id)
        if len(self._drops) > _MOST_DROPS:
            ended = sorted(
                (drop.at, root_id)
                for root_id, drop in self._drops.items()
                if all(one.status.is_final for one in drop.inside.values())
            )
            for _, root_id in ended[: len(self._drops) - _MOST_DROPS]:
                self._drop(root_id)

    def notes(self) -> dict[str, Note]:
        """Every note, by the id of what it is about."""
        made: dict[str, Note] = {}
        for root_id, drop in self._drops.items():
            if not aside.may_try("note", root_id):
                continue
            # The code that writes the note clears the fence.
            with aside.fence("note", root_id, clears=False):
                if drop.notes is None:
                    drop.notes = self._made(root_id, drop)
                made |= drop.notes
        return made

    def folder(self, user: str, path: str) -> Seen | None:
        """The newest dropped folder `path` of `user`, if one is known."""
        ids = self._by_path.get((user, path), {})
        some = [self._drops[self._root_of[id_]].inside[id_] for id_ in ids]
        folders = [one for one in some if one.is_folder]
        return max(folders, key=lambda one: ids[one.id], default=None)

    def _made(self, root_id: str, drop: _Drop) -> dict[str, Note]:
        def is_replaced(one: Seen) -> bool:
            """Whether the same path was dropped again, and is finished."""
            return any(later.status.is_final for later in self._later(one, one.path))

        root = drop.inside.get(root_id)
        made: dict[str, Note] = {}
        members = [one for id_, one in drop.inside.items() if id_ != root_id]
        failed = [
            one
            for one in members
            if one.status.is_error and not self._succeeded_after(one, one.path)
        ]
        if root is None or not (root.is_container or members):
            # Of a member whose archive ended too long ago there is nothing to sum up.
            alone = [root] if root else members
            return {
                one.id: wording.of_one(one, None)
                for one in alone
                if not (one.status.is_error and is_replaced(one))
            }
        total = self._sum(root, drop, failed)
        if total.bad and is_replaced(root):
            return {}
        made[root_id] = wording.of_many(root, total)
        for one in failed:
            made[one.id] = wording.of_one(one, root)
        return made

    def _sum(self, root: Seen, drop: _Drop, failed: list[Seen]) -> Sum:
        containers = [one for one in drop.inside.values() if one.is_container]
        leaves = [one for one in drop.inside.values() if not one.is_container]
        done = [one for one in leaves if one.status.is_success or (
            one.status.is_error and self._succeeded_after(one, one.path))]  # fmt: skip
        lost = [entry for one in containers for entry in self._lost(one)]
        # Members that are not begun yet are known only by their number.
        stated = sum(one.children for one in containers) - (len(containers) - 1) - len(drop.gone)
        stated = max(stated, len(leaves) + drop.more)
        return Sum(
            done=tuple(done),
            more=drop.more,
            failed=tuple(failed),
            in_work=tuple(one for one in leaves if not one.status.is_final),
            lost=tuple(lost),
            total=stated + sum(count for _, _, count, _ in lost),
            left=tuple(entry for one in containers for entry in one.skipped if not entry[3]),
        )

    def _lost(self, one: Seen) -> Iterator[tuple[str, str, int, bool]]:
        for entry in one.skipped:
            name, _, _, is_lost = entry
            if is_lost and not self._succeeded_after(one, f"{one.path}/{name}"):
                yield entry

    def _succeeded_after(self, one: Seen, path: str) -> bool:
        return any(later.status.is_success for later in self._later(one, path))

    def _later(self, one: Seen, path: str) -> Iterable[Seen]:
        own = self._by_path[one.user, one.path][one.id]
        for id_, came in self._by_path.get((one.user, path), {}).items():
            if came > own:
                yield self._drops[self._root_of[id_]].inside[id_]
