"""What the panel writes: tokens, its key, and uploads."""

from __future__ import annotations

from unittest import mock

import pytest

from cytowatch.durable import failpoints
from cytowatch.panel import sessions, tokens
from cytowatch.panel.uploads import publish
from cytowatch.panel.uploads.appending import Appending
from cytowatch.panel.uploads.rules import Announced
from cytowatch.panel.uploads.store import Store
from cytowatch.tree.spool import Spool
from tests.unit.power_cuts.cases import (
    NOW,
    SLIDE,
    Case,
    case,
)


@case
def a_token_of_the_panel() -> Case:
    def before(spool: Spool) -> None:
        tokens.add(spool, "one", "ann", days=None, now=NOW)

    def holds(spool: Spool, end: bool) -> str | None:
        known = [one.name for one in tokens.listed(spool)]
        return None if known in (["one", "two"], ["one"][: 0 if end else 1]) else f"{known}"

    def do(spool: Spool) -> None:
        tokens.add(spool, "two", "bob", days=None, now=NOW)

    return Case(before, do, holds)


@case
def the_key_of_the_panel() -> Case:
    """One that is all zeros could be guessed; one that is gone is made again."""

    def holds(spool: Spool, end: bool) -> str | None:
        path = spool.state / "panel.key"
        found = path.read_bytes() if path.is_file() else b"none"
        return None if any(found) else f"its {len(found)} bytes can be guessed"

    return Case(lambda _: None, lambda spool: sessions._key(spool.state / "panel.key"), holds)


UPLOAD = Announced(path="case/a.jpg", size=len(SLIDE), user="ann", project="Lung")


def written(store: Store, descriptor: int, parts: list[bytes]) -> None:
    Appending(descriptor, 0, UPLOAD.size, store.disk).add(parts)


@case
def a_part_of_an_upload() -> Case:
    """What was acknowledged is there: the client does not send it again."""

    def do(spool: Spool) -> None:
        store = Store(spool.inbox)
        with store.writing(store.create(UPLOAD, "ann")) as descriptor:
            written(store, descriptor, [SLIDE[:60], SLIDE[60:100]])
            store.keep(descriptor)

    def holds(spool: Spool, end: bool) -> str | None:
        found = list(Store(spool.inbox).unfinished("ann"))
        if not end:
            return None
        if len(found) != 1 or found[0].announced != UPLOAD:
            return "the upload is gone"
        there = found[0].bytes_at
        good = there.exists() and there.read_bytes() == SLIDE[:100]
        return None if good else "bytes that were acknowledged are gone"

    return Case(lambda _spool: None, do, holds)


@case
def a_whole_upload() -> Case:
    """It is a drop, or still an upload that a next request publishes."""

    def before(spool: Spool) -> None:
        store = Store(spool.inbox)
        with store.writing(store.create(UPLOAD, "ann")) as descriptor:
            written(store, descriptor, [SLIDE])

    def do(spool: Spool) -> None:
        [found] = Store(spool.inbox).unfinished("ann")
        publish.settle(found, spool.inbox)

    def holds(spool: Spool, end: bool) -> str | None:
        drop = spool.inbox / "ann/@Lung/case/a.jpg"
        if drop.exists():
            return None if drop.read_bytes() == SLIDE else "the drop has other bytes"
        if end:
            return "what was acknowledged as whole is not a drop"
        there = list(spool.inbox.glob(".uploads/*/tree/case/a.jpg"))
        return None if there and there[0].read_bytes() == SLIDE else "the upload is gone"

    return Case(before, do, holds, elsewhere=("publish._keep",))


def dropped_or_there(spool: Spool, end: bool) -> str | None:
    """It is a drop; or, before any client knows, still an upload."""
    drop = spool.inbox / "ann/@Lung/case/a.jpg"
    if drop.exists():
        return None if drop.read_bytes() == SLIDE or not end else "the drop has other bytes"
    return "what was acknowledged as whole is not a drop" if end else None


@case
def a_whole_upload_whose_request_was_cut_off() -> Case:
    """Every byte was written and none was synced when the panel was killed; the next one publishes it."""

    def do(spool: Spool) -> None:
        store = Store(spool.inbox)
        with store.writing(store.create(UPLOAD, "ann")) as descriptor:
            written(store, descriptor, [SLIDE])
        assert publish.publish_whole(store) == ["ann/@Lung/case"]

    # That an upload is there at all is shown by `a_part_of_an_upload`.
    return Case(
        lambda _spool: None, do, dropped_or_there, elsewhere=("store.create", "store._write_note")
    )


@case
def an_upload_that_was_cut_off_after_its_rename() -> Case:
    """The rename was made and not synced when the panel was killed: no client learns of it before it is."""

    def before(spool: Spool) -> None:
        store = Store(spool.inbox)
        (spool.inbox / "ann/@Lung").mkdir(parents=True)
        with store.writing(store.create(UPLOAD, "ann")) as descriptor:
            written(store, descriptor, [SLIDE])

    def do(spool: Spool) -> None:
        [found] = Store(spool.inbox).unfinished("ann")
        armed = {"upload.renamed": ("EIO", 1)}
        with (
            mock.patch.object(failpoints, "_ARMED", armed),
            mock.patch.object(failpoints, "_seen", {}),
            pytest.raises(publish.NoInboxError),
        ):
            publish.settle(found, spool.inbox)
        assert publish.settle(found, spool.inbox) is None

    return Case(before, do, dropped_or_there, elsewhere=("publish._keep",))
