"""One thing that goes wrong costs that one, no matter what it raises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cytowatch import aside
from cytowatch.durable import failpoints

KINDS = list(failpoints.POISONS)


@pytest.fixture(autouse=True)
def nothing_aside() -> Iterator[None]:
    """Each test begins and ends with nothing set aside."""
    aside.reset()
    yield
    aside.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_it_raises_the_others_are_served(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set aside with a reason, and goes on when the cause is gone."""
    monkeypatch.setattr(failpoints, "_POISONED", [("drop", "bad", kind, "")])
    served = []

    def serve() -> None:
        for name in ("a", "bad", "c"):
            with aside.fence("drop", name):
                served.append(name)

    serve()
    assert served == ["a", "c"]
    [one] = aside.all_of("drop")
    assert (one.which, one.tries) == ("bad", 1)
    assert "poisoned" in one.why or kind == "UnicodeError"
    assert not aside.may_try("drop", "bad")
    monkeypatch.setattr(failpoints, "_POISONED", [])
    serve()
    assert served == ["a", "c", "a", "bad", "c"]
    assert aside.all_of() == []


def test_one_loop_is_named_by_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another loop over things of the same kind is left alone."""
    name = f"{__name__}.{test_one_loop_is_named_by_its_function.__qualname__}"
    monkeypatch.setattr(failpoints, "_POISONED", [(name, "x", "KeyError", "")])
    with aside.fence("row", "x") as here:
        assert here

    def elsewhere() -> bool:
        with aside.fence("row", "x"):
            return False
        return True

    assert here.failed
    assert not elsewhere()


def test_an_exception_without_words_is_named() -> None:
    """One whose own text cannot be had, or would fill a screen, or act on a terminal."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    for error, wanted in (
        (Mute(), "Mute"),
        (ValueError("x" * 10_000), "ValueError: xxx"),
        (ValueError("\x1b[2J\udce4"), "ValueError: \\x1b[2J?"),
        (KeyError(), "KeyError"),
        (OSError(13, "Permission denied", "/a\nb"), "Permission denied: /a\\nb"),
    ):
        with aside.fence("drop", "x"):
            raise error
        [one] = aside.all_of()
        assert one.why.startswith(wanted)
        assert len(one.why) <= 500


def test_what_the_caller_knows_goes_through() -> None:
    """Exceptions that mean something to it, and those that end the process."""
    with pytest.raises(LookupError), aside.fence("drop", "x", but=(LookupError,)):
        raise KeyError
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), aside.fence("drop", "x"):
            raise kind
    assert aside.all_of() == []


def test_it_is_told_once_for_a_reason() -> None:
    """Not at each try, but again for another reason; and the list is bounded."""
    told: list[str] = []
    aside.listen(lambda one: told.append(one.why))
    for why in ("a", "a", "b", "b"):
        with aside.fence("drop", "x"):
            raise ValueError(why)
    assert told == ["ValueError: a", "ValueError: b"]
    assert aside.all_of()[0].tries == 4
    for number in range(3000):
        with aside.fence("row", str(number)):
            raise ValueError
    assert len(aside.all_of()) <= 1000
    aside.keep_only("row", ["5"])
    assert [one.which for one in aside.all_of("row")] == ["5"]
