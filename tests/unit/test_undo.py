"""A claim that is undone while the daemon runs: its files go back as one, no matter who comes or what fails meanwhile."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cytowatch import durable
from cytowatch.inbox import claim, scan
from cytowatch.inbox.claim import parcel as parcels
from cytowatch.record.drop import Waiting
from cytowatch.record.names import UploadedFileId
from cytowatch.tree.spool import Spool
from tests.unit.test_claim import claiming

FIRST, SECOND = b"of the first drop ", b"of the second drop "
SET = ("1.mrxs", "1/Slidedat.ini", "1/Index.dat", "1/Data0000.dat", "1/Data0001.dat")
MARKER = "1.mrxs.done"


class EndError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    claim.prepare_process()
    made = Spool.create(tmp_path / "root")
    (made.inbox / "ann").mkdir()
    yield made


def drop(spool: Spool, content: bytes, *paths: str) -> None:
    """Write each of the `paths` as another file than the one that may be there."""
    for path in paths:
        there = spool.inbox / "ann" / path
        there.parent.mkdir(exist_ok=True)
        new = there.with_name(f"{there.name}.new")
        new.write_bytes(content + path.encode())
        new.rename(there)


def parcel_of(spool: Spool, *paths: str, marked: bool = False) -> claim.Parcel:
    """What was dropped, as it is seen by a scan."""
    device = os.stat(spool.root).st_dev
    seen = {one.path: one for one, _ in scan.scan(spool.inbox, "ann", [], device=device)}
    return claim.Parcel(
        members=tuple(
            claim.Member(drop=seen[f"ann/{path}"], to=f"source/{path}") for path in paths
        ),
        folder="ann/1" if len(paths) > 1 else None,
        marker=seen[f"ann/{MARKER}"] if marked else None,
    )


def take(spool: Spool, parcel: claim.Parcel) -> UploadedFileId | Waiting:
    return claim.claim(
        claiming(spool),
        parcel,
        overdue=True,
        quiet_for_s=10,
    )


def undone(
    spool: Spool,
    parcel: claim.Parcel,
    monkeypatch: pytest.MonkeyPatch,
    *,
    then: Callable[[], None] = lambda: None,
    at: int | None = None,
    error: BaseException | None = None,
    behind: bool = False,
) -> Waiting | None:
    """A claim in which a writer opens the last file once all have moved; its answer, if it has one.

    From then on `then` is called at the rename number `at`, and `error` raised there: before it, or `behind` it.
    """
    real, count = durable.rename, itertools.count()
    moves = len(parcel.members) + (parcel.marker is not None)

    def renamed(*arguments: Any, **options: Any) -> None:
        number = next(count) - moves
        hit = number == at
        if hit and not behind:
            then()
            if error:
                raise error
        real(*arguments, **options)
        if number == -1:
            last = next(iter(spool.tmp.glob("*"))) / parcel.members[-1].to
            with contextlib.suppress(BlockingIOError):
                os.close(os.open(last, os.O_RDWR | os.O_NONBLOCK))
            if at is None:
                then()
        if hit and behind:
            then()
            if error:
                raise error

    found: UploadedFileId | Waiting | None = None
    with monkeypatch.context() as patched, contextlib.suppress(EndError, OSError):
        patched.setattr(durable, "rename", renamed)
        found = take(spool, parcel)
    assert not isinstance(found, str), found
    return found


def files(spool: Spool) -> dict[str, bytes]:
    """Every file of both drops, below the root."""
    return {
        str(path.relative_to(spool.root)): path.read_bytes()
        for path in spool.root.rglob("*")
        if path.is_file() and path.read_bytes().startswith((FIRST, SECOND))
    }


def unit_of(found: dict[str, bytes], content: bytes) -> dict[str, bytes]:
    """The files of one drop by their paths from the folder in which its head is, whose stem is 1 again."""
    own = {path: data for path, data in found.items() if data.startswith(content)}
    [head] = [path for path in own if path.endswith(".mrxs")]
    above, stem = os.path.dirname(head), Path(head).stem
    return {
        os.path.relpath(path, above).replace(stem, "1"): data.removeprefix(content)
        for path, data in own.items()
    }


def assert_together(spool: Spool, *, second: tuple[str, ...]) -> None:
    """The first is whole, at one place; the second is as it was dropped."""
    found = files(spool)
    assert unit_of(found, FIRST) == {path: path.encode() for path in SET}
    for path in second:
        assert found[f"inbox/ann/{path}"] == SECOND + path.encode()
    assert len(found) == len(SET) + len(second)
    assert list(spool.tmp.iterdir()) == []


ONE_OF_EACH = [("1.mrxs",), ("1/Index.dat",), ("1/Data0001.dat", "1/Data0000.dat"), SET[:4], SET]


@pytest.mark.parametrize("second", [(), *ONE_OF_EACH])
@pytest.mark.parametrize("at", [None, 0, 1, 2, 3, 4])
def test_what_is_undone_goes_back_as_one(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, second: tuple[str, ...], at: int | None
) -> None:
    """Another slide of the same names is dropped before it goes back, or while it does."""
    drop(spool, FIRST, *SET)
    at = at if second else None
    # What has gone back already is the user's again, who may replace it.
    later = tuple(path for path in second if at is None or path not in SET[::-1][: at or 0])
    said = undone(
        spool, parcel_of(spool, *SET), monkeypatch, then=lambda: drop(spool, SECOND, *later), at=at
    )
    assert said is not None
    assert said.why == "open_for_writing"
    assert_together(spool, second=later)


@pytest.mark.parametrize("error", [EndError(), OSError(errno.EIO, "no luck")])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("second", [(), *ONE_OF_EACH[:3]])
def test_killed_or_failed_at_each_step_it_is_together(
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    second: tuple[str, ...],
    at: int,
    behind: bool,
    error: BaseException,
) -> None:
    """The end, or a fault, comes at any rename of the way back; a start or the next turn goes on with it.

    The other drop is there before; or it has come and gone again.
    """
    drop(spool, FIRST, *SET)
    parcel = parcel_of(spool, *SET)
    real, begun = claim.take.undo, []  # type: ignore[attr-defined]

    def dropped_first(*arguments: Any, **options: Any) -> None:
        begun.append(True)
        drop(spool, SECOND, *second)
        real(*arguments, **options)

    monkeypatch.setattr(claim.take, "undo", dropped_first)  # type: ignore[attr-defined]
    undone(spool, parcel, monkeypatch, at=at, error=error, behind=behind)
    assert begun
    for _ in range(2):
        said = claim.recover(spool)
        assert not [one for one in said.values() if one.startswith("kept")]
    assert_together(spool, second=second)


@pytest.mark.parametrize("at", range(1, 6))
def test_it_stays_together_when_the_other_drop_is_gone_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Half of it went under another name; the rest follows, although its own name is free by then."""
    drop(spool, FIRST, *SET)

    def gone() -> None:
        (spool.inbox / "ann" / "1.mrxs").unlink()

    real = claim.take.undo  # type: ignore[attr-defined]

    def dropped_first(*arguments: Any, **options: Any) -> None:
        drop(spool, SECOND, "1.mrxs")
        real(*arguments, **options)

    monkeypatch.setattr(claim.take, "undo", dropped_first)  # type: ignore[attr-defined]
    undone(spool, parcel_of(spool, *SET), monkeypatch, then=gone, at=at, error=EndError())
    claim.recover(spool)
    if (spool.inbox / "ann" / "1.mrxs").exists():
        gone()
    assert_together(spool, second=())


@pytest.mark.parametrize("second", [(), ("1.mrxs",), ("1.mrxs", MARKER), (MARKER,)])
def test_its_marker_goes_with_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, second: tuple[str, ...]
) -> None:
    """It marks what it marked, and never another drop."""
    drop(spool, FIRST, "1.mrxs", MARKER)
    parcel = parcel_of(spool, "1.mrxs", marked=True)
    undone(spool, parcel, monkeypatch, then=lambda: drop(spool, SECOND, *second))
    found = files(spool)
    places = {path: data for path, data in found.items() if data.startswith(FIRST)}
    [head] = [path for path in places if path.endswith(".mrxs")]
    assert sorted(places) == [head, f"{head}.done"]
    assert all(found[f"inbox/ann/{path}"].startswith(SECOND) for path in second)
    assert len(found) == 2 + len(second)


def test_what_was_put_in_the_place_of_a_file_keeps_its_name(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copier replaces one file of a set at the moment when it is claimed: the set is not torn apart."""
    drop(spool, FIRST, *SET)
    parcel = parcel_of(spool, *SET)
    real, count = durable.rename, itertools.count()

    def renamed(*arguments: Any, **options: Any) -> None:
        if next(count) == 3:
            drop(spool, SECOND, SET[3])
        real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "rename", renamed)
        said = take(spool, parcel)
    assert isinstance(said, Waiting)
    assert said.why == "settling"
    wanted = {f"inbox/ann/{path}": FIRST + path.encode() for path in SET}
    assert files(spool) == {**wanted, f"inbox/ann/{SET[3]}": SECOND + SET[3].encode()}


def test_a_start_puts_back_what_was_put_in_the_place_of_a_file(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with a kill right after it: nothing of a user stays in ``state/tmp`` for good."""
    drop(spool, FIRST, *SET)
    parcel = parcel_of(spool, *SET)
    real, count = durable.rename, itertools.count()

    def renamed(*arguments: Any, **options: Any) -> None:
        number = next(count)
        if number == 3:
            drop(spool, SECOND, SET[3])
        real(*arguments, **options)
        if number == 3:
            raise EndError

    with monkeypatch.context() as patched, contextlib.suppress(EndError):
        patched.setattr(durable, "rename", renamed)
        take(spool, parcel)
    assert set(claim.recover(spool).values()) == {"undone"}
    wanted = {f"inbox/ann/{path}": FIRST + path.encode() for path in SET}
    assert files(spool) == {**wanted, f"inbox/ann/{SET[3]}": SECOND + SET[3].encode()}


def test_a_start_finishes_nothing_that_has_a_second_name(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running claim puts such a file back, so a start does so too."""
    drop(spool, FIRST, "1.mrxs")
    parcel = parcel_of(spool, "1.mrxs")
    real = durable.rename

    def renamed(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        [there] = spool.tmp.glob(f"*/{parcel.members[0].to}")
        os.link(there, spool.inbox / "ann" / "other.mrxs")
        raise EndError

    with monkeypatch.context() as patched, contextlib.suppress(EndError):
        patched.setattr(durable, "rename", renamed)
        take(spool, parcel)
    assert set(claim.recover(spool).values()) == {"undone"}
    assert sorted(os.listdir(spool.inbox / "ann")) == ["1.mrxs", "other.mrxs"]
    assert not list((spool.stages / "uploaded").iterdir())


def test_what_came_along_in_the_place_of_a_marker_goes_back(spool: Spool) -> None:
    """A link there, with a kill before it was seen: it is not followed, and does not keep the slide."""
    drop(spool, FIRST, "1.mrxs", MARKER)
    parcel = parcel_of(spool, "1.mrxs", marked=True)
    place = spool.tmp / "20261123-141502-1000-a"
    from cytowatch.inbox.claim import take as taking

    with contextlib.ExitStack() as opened:
        held = taking.open_all(spool, parcel, opened)
        assert not isinstance(held, Waiting)
        taking.prepare(claiming(spool), place, parcel, held, datetime.now(UTC))
    (spool.inbox / "ann" / "1.mrxs").rename(place / parcel.members[0].to)
    (spool.inbox / "ann" / MARKER).unlink()
    (place / parcels.MARKER).symlink_to("/etc/passwd")
    (place / parcel.members[0].to).write_bytes(FIRST + b"changed")
    drop(spool, SECOND, "1.mrxs")
    assert set(claim.recover(spool).values()) == {"undone"}
    assert (spool.inbox / "ann" / MARKER).is_symlink()
    assert sorted(files(spool)) == ["inbox/ann/1 (1).mrxs", "inbox/ann/1.mrxs"]
