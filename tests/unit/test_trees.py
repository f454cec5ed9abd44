"""Trees that others have nested deeply: no depth ends a program, and all of it goes."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import pytest

import cytowatch
from cytowatch import durable
from cytowatch.durable import trees


def nest(top: Path, depth: int, *, name: str = "d") -> None:
    """Make folders in folders below `top`, each with a file, as `mkdir` and `cd` do."""
    before = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=before)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=before)
        os.close(before)
        before = inner
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=before))
    os.close(before)


@pytest.mark.parametrize("depth", [0, 1, 200, 5_000])
def test_a_tree_of_any_depth_is_removed(tmp_path: Path, depth: int) -> None:
    """Beyond Python's recursion, and beyond the longest path that the kernel takes."""
    top = tmp_path / "top"
    for name in ("one", "two"):
        (top / name).mkdir(parents=True)
        nest(top / name, depth)
    (top / "link").symlink_to(tmp_path)
    (tmp_path / "kept").touch()
    trees.remove(top)
    assert os.listdir(tmp_path) == ["kept"]


def test_a_tree_that_was_half_removed_is_removed(tmp_path: Path) -> None:
    """No matter what the folders in it are called."""
    top = tmp_path / "top"
    for name in (".gone-1", ".gone-2", ".gone-0"):
        (top / name / ".gone-1" / ".gone-0").mkdir(parents=True)
    trees.remove(top)
    assert not top.exists()


def test_a_walk_sees_what_os_walk_sees(tmp_path: Path) -> None:
    """Each folder before those in it; a link is one of the files."""
    for path in ("a/b/c", "a/d", "e"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "file").touch()
    found = {folder: (sorted(dirs), files) for folder, dirs, files in durable.walk(tmp_path)}
    wanted = {folder: (sorted(dirs), files) for folder, dirs, files in os.walk(tmp_path)}
    assert found == wanted
    (tmp_path / "link").symlink_to("a")
    assert next(durable.walk(tmp_path))[2] == ["link"]


def test_a_walk_ends_in_words_where_a_tree_is_too_deep(tmp_path: Path) -> None:
    """An OSError, which every caller expects, and not the interpreter's own limit."""
    nest(tmp_path, 2_000)
    with pytest.raises(OSError, match="nested too deeply") as raised:
        list(durable.walk(tmp_path))
    assert raised.value.errno == errno.ENAMETOOLONG
    trees.remove(tmp_path)


def test_empty_folders_go_and_a_file_keeps_all(tmp_path: Path) -> None:
    """Nothing of a folder goes while a file is in it, or what looks like one."""
    (tmp_path / "set" / "a" / "b").mkdir(parents=True)
    (tmp_path / "set" / "c").mkdir()
    (tmp_path / "set" / "c" / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="not empty"):
        durable.remove_empty(tmp_path, "set")
    assert (tmp_path / "set" / "a" / "b").is_dir()
    (tmp_path / "set" / "c" / "link").unlink()
    durable.remove_empty(tmp_path, "set")
    assert os.listdir(tmp_path) == []


def test_folders_that_are_too_deep_to_be_removed_stay(tmp_path: Path) -> None:
    """They are somebody else's, and nothing of them is touched."""
    nest(tmp_path, 1)
    (tmp_path / "d" / "file").unlink()
    path = tmp_path / "d"
    for _ in range(300):
        path /= "e"
        path.mkdir()
    with pytest.raises(OSError, match="too many folders"):
        durable.remove_empty(tmp_path, "d")
    assert path.is_dir()


#: Who may use what recurses: an archive has no member that lies more than 64 folders deep.
_BOUNDED = {("extract.py", "rmtree")}


def test_no_module_recurses_over_a_depth_that_others_choose() -> None:
    """`os.walk`, `rglob` and `rmtree` do: RecursionError has ended the daemon for everyone."""
    found = set()
    for path in Path(cytowatch.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            of, name = node.func.value, node.func.attr
            walks = name == "walk" and isinstance(of, ast.Name) and of.id == "os"
            if walks or name in {"rglob", "rmtree", "copytree"}:
                found.add((path.name, name))
    assert found <= _BOUNDED
