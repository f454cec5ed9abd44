"""What a manifest says of bytes: links to the same content, hashes that come later, sources that are given up or named."""

from __future__ import annotations

import json
from typing import Any, cast

from cytowatch.engine.hashing import Hasher
from cytowatch.record import manifest
from cytowatch.record.place import Place, is_linked
from cytowatch.record.status import Status
from cytowatch.transitions import enter, lighten
from cytowatch.transitions import link as link_module
from cytowatch.tree.spool import Spool
from tests.unit.power_cuts.cases import (
    ID,
    NOW,
    OTHER,
    PYRAMID,
    SLIDE,
    Case,
    accept,
    case,
    make,
    place_in,
    published,
    staged,
    torn,
)


@case
def links_to_the_same_content() -> Case:
    def before(spool: Spool) -> None:
        make(spool.storage / "ann" / OTHER, Status.CONVERTED, derived=True)
        staged(spool, Status.DEPLOYING, duplicate_of=OTHER)

    def link(spool: Spool, place: Place) -> Place:
        path = spool.storage / "ann" / OTHER
        first = Place(status=Status.CONVERTED, path=path, manifest=manifest.read(path))
        return link_module.link(spool, place, first, now=NOW)

    def do(spool: Spool) -> None:
        link(spool, cast("Any", place_in(spool)))

    def holds(spool: Spool, end: bool) -> str | None:
        place = place_in(spool)
        if isinstance(place, str):
            return place
        if not place.status.is_final:
            if end:
                return "it was said to be at its end"
            if not is_linked(place):
                return torn(place)
            place = link(spool, place)
        return torn(place)

    return Case(before, do, holds)


@case
def a_hash_that_comes_after() -> Case:
    def before(spool: Spool) -> None:
        found = staged(spool, Status.DEPLOYING).manifest
        rows = [{**row, "sha256": None} for row in found["files"]]
        path = spool.stage(Status.DEPLOYING) / ID
        (path / manifest.FILE_NAME).write_text(json.dumps({**found, "files": rows}))

    def to_come(spool: Spool, _place: Place) -> str | None:
        hasher = Hasher(spool, cast("Any", None), None, lambda: None)
        return "nobody will hash it" if hasher.idle() else None

    return Case(before, lambda spool: accept(spool, Status.DEPLOYED), published(to_come))


@case
def a_source_that_is_given_up() -> Case:
    def do(spool: Spool) -> None:
        lighten.plan_to_lighten(spool, cast("Any", place_in(spool)))
        lighten.lighten(spool, accept(spool, Status.CONVERTED))

    def gone(spool: Spool, place: Place) -> str | None:
        list(lighten.lighten_the_rest(spool))
        now = Place(status=place.status, path=place.path, manifest=manifest.read(place.path))
        left = list((place.path / "source").iterdir())
        named = [row["role"] for row in now.manifest["files"]]
        return torn(now) or (
            f"{left} and {named} are left" if left or named != ["pyramid"] else None
        )

    def before(spool: Spool) -> None:
        conversion = {
            "why": "", "reader": "", "compression": "jpeg", "quality": 90, "tile": 256, "seconds": 0,
            "source_bytes": len(SLIDE), "output_bytes": len(PYRAMID),
        }  # fmt: skip
        staged(spool, Status.DEPLOYING, derived=True, conversion=conversion)

    return Case(before, do, published(gone))


@case
def a_source_that_is_named() -> Case:
    form = {
        "id": "aperio-svs",
        "name": "SVS",
        "native": True,
        "evidence": "",
        "openslide_vendor": "aperio",
    }

    def before(spool: Spool) -> None:
        staged(spool, Status.UPLOADED, source="x", format=None)

    def do(spool: Spool) -> None:
        path = spool.stage(Status.UPLOADED) / ID
        place = Place(status=Status.UPLOADED, path=path, manifest=manifest.read(path))
        enter.begin(spool, place, Status.DETECTING_FORMAT, now=NOW)
        accept(spool, Status.DEPLOYING, changes={"format": form})
        accept(spool, Status.DEPLOYED)

    def holds(spool: Spool, end: bool) -> str | None:
        place = place_in(spool)
        if isinstance(place, Place) and place.manifest["format"] is None:
            early = place.status in (Status.UPLOADED, Status.DETECTING_FORMAT)
            return (
                None
                if early and not end and torn(place) is None
                else f"its format is unknown at {place.status}"
            )
        return published(lambda _spool, _place: None)(spool, end)

    return Case(before, do, holds)
