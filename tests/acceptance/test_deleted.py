"""Parts of the tree that somebody deletes while the daemon runs: a job that tidies up, a restore without them."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
from contextlib import suppress
from pathlib import Path

from tests import builders
from tests.lab.root import Root, command
from tests.lab.told import free_port, health, json_lines


def deployed(root: Root, name: str) -> bool:
    return any(
        one["name"] == name and one["status"] == "CONVERTED" for one in root.manifests().values()
    )


def test_directories_that_are_deleted_are_made_again(root: Root, tmp_path: Path) -> None:
    """`find -type d -empty -delete`, and each by itself with all in it: every drop gets through, and it is reported."""
    root.start()
    builders.jpeg(tmp_path / "a.jpg")
    root.drop(tmp_path / "a.jpg", "first.jpg")
    root.wait(lambda: deployed(root, "first.jpg"))
    parts = ["stages", "state/tmp", "state/requests", "state/trash", "state", "projects"]
    parts += ["stages/uploaded", "stages/detecting-format", "stages/converting", "stages/deploying"]
    for number, part in enumerate(parts):
        (root.path / part).rename(tmp_path / f"gone-{number}")
        name = f"{number}.jpg"
        root.drop(tmp_path / "a.jpg", name, user=f"user-{number}")
        root.wait(lambda name=name: deployed(root, name))
        assert (root.path / part).is_dir(), part
        assert not [one for one in root.manifests().values() if one["error"]], part
    for empty in sorted(root.path.rglob("*"), reverse=True):
        with suppress(OSError):
            empty.rmdir()
    root.drop(tmp_path / "a.jpg", "last.jpg", user="zoe")
    root.wait(lambda: deployed(root, "last.jpg"))
    told = {
        line["path"] for line in json_lines(root.log) if line["event"] == "directory_made_again"
    }
    assert {str(root.path / part) for part in parts if part != "state"} <= told
    assert root.count("unexpected") == 0
    assert root.stop() == 0
    root.assert_clean()


def test_a_lock_that_is_deleted_is_held_again(root: Root, tmp_path: Path) -> None:
    """The running daemon keeps the tree: commands see it, and a second daemon is refused."""
    builders.jpeg(tmp_path / "a.jpg")
    root.start()
    assert root.process
    (root.path / "state/lock").unlink()
    root.wait((root.path / "state/lock").exists)
    root.drop(tmp_path / "a.jpg")
    root.wait(lambda: deployed(root, "a.jpg"))
    told = json.loads(command(root, "status", "--json").stdout)
    assert told["daemon"]["pid"] == root.process.pid
    second = command(root, "run")
    assert second.returncode == 2
    assert f"in use by process {root.process.pid}" in second.stderr
    assert root.stop() == 0


def test_a_lock_that_another_holds_leaves_the_tree_to_it(root: Root, tmp_path: Path) -> None:
    """It was deleted, and somebody else was faster: this daemon touches nothing until that one has gone."""
    builders.jpeg(tmp_path / "a.jpg")
    root.configure(listen=f"127.0.0.1:{(port := free_port())}")
    root.start()
    taken = tmp_path / "lock"
    with taken.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        taken.replace(root.path / "state/lock")
        root.wait(lambda: "root" in health(port))
        root.drop(tmp_path / "a.jpg")
    root.wait(lambda: deployed(root, "a.jpg"))
    assert root.count("root_offline") == root.count("root_back") == 1
    assert root.stop() == 0


def test_a_copy_that_followed_links_is_named_with_its_cure(root: Root, tmp_path: Path) -> None:
    """`cp -rL` makes a directory of each link in a project: `check --deep` names the two commands, and they mend it."""
    project = root.path / "inbox/ann/@lung 3"
    project.mkdir(parents=True)
    builders.aperio_svs(project / "a.svs")
    assert root.run_until_idle() == 0
    [link] = (root.path / "projects/lung 3").iterdir()
    target = link.resolve()
    link.unlink()
    shutil.copytree(target, link)
    [told] = [
        line
        for line in command(root, "check", "--deep").stdout.splitlines()
        if "is not a link" in line
    ]
    words = shlex.split(told.partition("`cytowatch ")[2].rstrip("`"))
    shutil.rmtree(link)
    assert command(root, *words).returncode == 0
    assert link.resolve() == target
    root.assert_clean()


def test_an_index_that_is_deleted_is_made_again_at_once(root: Root, tmp_path: Path) -> None:
    """Or each command would read the whole tree until the next start; a replaced one would answer for another tree."""
    builders.jpeg(tmp_path / "a.jpg")
    root.start()
    index = root.path / "state/index.sqlite3"
    for number, harm in enumerate((Path.unlink, lambda path: path.rename(tmp_path / "before"))):
        root.drop(tmp_path / "a.jpg", f"{number}.jpg")
        root.wait(lambda number=number: deployed(root, f"{number}.jpg"))
        harm(index)
        root.wait(index.exists)
        root.wait(
            lambda number=number: (
                len(json.loads(command(root, "list", "--json").stdout)) == number + 1
            )
        )
    assert root.count("index_fault") >= 2
    assert root.stop() == 0
    root.assert_clean()
