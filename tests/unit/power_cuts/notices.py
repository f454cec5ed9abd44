"""Hooks: each is delivered once it is true, and none is forgotten."""

from __future__ import annotations

from typing import Any, cast

from cytowatch import hooks
from cytowatch.hooks.pending import bury, place_of
from cytowatch.record.errors import ConversionError
from cytowatch.record.place import Place
from cytowatch.record.status import Status
from cytowatch.transitions import enter
from cytowatch.tree.spool import Spool
from tests.unit.power_cuts.cases import (
    HOOK,
    ID,
    NOW,
    Case,
    accept,
    case,
    make,
    place_in,
    published,
    staged,
)


def told(spool: Spool, place: Place) -> str | None:
    """What is wrong with the deliveries of its end."""
    list(hooks.drop_untrue(spool))
    noted = [one.status for one in hooks.pending(spool)]
    return None if noted == [place.status.name] else f"{place.status} is reported as {noted}"


@case
def a_hook() -> Case:
    def do(spool: Spool) -> None:
        accept(spool, Status.DEPLOYED, hooks=(HOOK,))

    return Case(lambda spool: staged(spool, Status.DEPLOYING), do, published(told))


@case
def an_error_and_its_hook() -> Case:
    def do(spool: Spool) -> None:
        place = cast("Any", place_in(spool))
        enter.fail(spool, place, ConversionError("corrupt", "it is torn"), now=NOW, hooks=(HOOK,))

    return Case(lambda spool: staged(spool, Status.CONVERTING), do, published(told))


@case
def a_hook_that_nobody_answers() -> Case:
    def before(spool: Spool) -> None:
        found = make(spool.storage / "ann" / ID, Status.DEPLOYED)
        hooks.note(spool, [HOOK], found, Status.DEPLOYED, now=NOW)

    def do(spool: Spool) -> None:
        [one] = hooks.pending(spool)
        bury(spool, one)
        [one] = hooks.dead(spool)
        hooks.revive(spool, one)
        bury(spool, one)

    def holds(spool: Spool, _end: bool) -> str | None:
        list(hooks.drop_untrue(spool))
        known = [*hooks.pending(spool), *hooks.dead(spool)]
        return None if known and all(place_of(spool, one) for one in known) else "it is forgotten"

    return Case(before, do, holds)
