"""Small files of our own: a reader sees the old text or the new one, and a fault leaves nothing beside them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cytowatch import durable
from cytowatch.durable import small_files

Replace = Callable[[Path, str], None]

REPLACES = pytest.mark.parametrize(
    "replace",
    [
        durable.replace_file,
        partial(durable.replace_durably, name=True),
        partial(durable.replace_durably, name=False, mode=0o600),
    ],
)


@REPLACES
def test_a_file_takes_the_place_of_anything(tmp_path: Path, replace: Replace) -> None:
    """Of a file and of a link, which is not followed; a folder is moved out of the way, with what is in it."""
    path = tmp_path / "a.json"
    (tmp_path / "other").write_text("not ours")
    for make in (
        lambda: None,
        lambda: path.write_text("before"),
        lambda: path.symlink_to(tmp_path / "other"),
        lambda: (path / "inside").mkdir(parents=True),
    ):
        make()
        replace(path, "after")
        assert path.read_text() == "after"
        assert not path.is_symlink()
        path.unlink()
    assert (tmp_path / "other").read_text() == "not ours"
    [moved] = [one for one in os.listdir(tmp_path) if one != "other"]
    assert moved.startswith("a.json.")


@REPLACES
@pytest.mark.parametrize("broken", ["write_all", "move_over"])
def test_a_fault_leaves_the_old_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Replace, broken: str
) -> None:
    """A full disk is not filled further with halves of files."""
    path = tmp_path / "a.json"
    path.write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(small_files, broken, full)
    with pytest.raises(OSError, match="full"):
        replace(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.json"]
