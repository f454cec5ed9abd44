"""One folder, one file, one user: whatever is wrong with it, all others are served, now and after a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cytowatch.durable import trees
from cytowatch.durable.failpoints import POISON
from tests import builders
from tests.acceptance.conftest import Root, free_port, health, json_lines

#: Nobody of this machine.
_OTHER = 4242


def waiting(root: Root) -> dict[str, dict[str, Any]]:
    live = root.path / "state" / "live.json"
    if not live.exists():
        # It is written a moment after the daemon is ready.
        return {}
    told = json.loads(live.read_text())
    return {one["path"]: one for one in told["waiting"]}


def deployed(root: Root, *names: str) -> bool:
    found = root.by_name()
    return all(found.get(name, {}).get("status") == "DEPLOYED" for name in names)


def nest(top: Path, depth: int, name: str) -> None:
    """Make folders in folders, as `mkdir` and `cd` do."""
    before = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=before)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=before)
        os.close(before)
        before = inner
    os.close(before)


def unprivileged(root: Root, folder: Path) -> None:
    """Let the daemon be one that may not enter `folder`: root as well, without its capabilities."""
    if os.geteuid() != 0:
        folder.chmod(0)
        return
    if not shutil.which("setpriv") and not os.environ.get("CI"):
        pytest.skip("setpriv is missing (Debian: apt install util-linux)")
    os.chown(folder, _OTHER, _OTHER)
    folder.chmod(0o700)
    root.prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.mark.parametrize("watch", ["inotify", "polling"])
def test_a_folder_of_any_depth_waits_and_all_else_goes_on(
    root: Root, tmp_path: Path, watch: str
) -> None:
    """Made before a start and while the daemon runs; beyond recursion, and beyond any path's length."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}", inbox=f'watch = "{watch}"')
    slide = builders.aperio_svs(tmp_path / "a.svs")
    ann = root.path / "inbox" / "ann"
    ann.mkdir(parents=True)
    nest(ann, 1_200, "d")
    for start in range(2):
        root.start()
        root.drop(slide, f"beside-{start}.svs", user="ann")
        root.drop(slide, f"other-{start}.svs", user="bob")
        root.wait(lambda start=start: deployed(root, f"beside-{start}.svs", f"other-{start}.svs"))
        live = ann / f"live-{start}"
        live.mkdir()
        nest(live, 300, "n" * 200)
        root.drop(slide, f"later-{start}.svs", user="zoe")
        root.wait(lambda start=start: deployed(root, f"later-{start}.svs"))
        root.wait(
            lambda start=start: (
                {
                    path.split("/")[1]
                    for path, one in waiting(root).items()
                    if one["why"] == "too_deep"
                }
                >= {"d", f"live-{start}"}
            )
        )
        assert health(port) == {}
        assert not [one for one in json_lines(root.log) if one["event"] == "thread_died"]
        assert root.stop() == 0
    found = subprocess.run(root.command("check", "--root", str(root.path)), capture_output=True,
                           text=True, check=False)  # fmt: skip
    assert found.returncode == 1
    assert "more than 32 folders deep" in found.stdout
    trees.remove(ann)


def test_a_folder_that_may_not_be_entered_waits_and_all_else_goes_on(
    root: Root, tmp_path: Path
) -> None:
    """In somebody's inbox, and a whole inbox: named with its owner, everywhere one would look."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    for user in ("adam", "zoe"):
        root.drop(slide, f"{user}.svs", user=user)
    root.drop(slide, "beside.svs", user="bob")
    export, inbox = root.path / "inbox" / "bob" / "export", root.path / "inbox" / "carl"
    for folder in (export, inbox):
        folder.mkdir()
        shutil.copyfile(slide, folder / f"in-{folder.name}.svs")
        unprivileged(root, folder)
    root.start()
    root.wait(lambda: deployed(root, "adam.svs", "zoe.svs", "beside.svs"))
    root.wait(lambda: {"bob/export", "carl"} <= waiting(root).keys())
    for path in ("bob/export", "carl"):
        one = waiting(root)[path]
        assert one["why"] == "unreadable"
        assert "belongs to" in one["detail"]
    said = {one["path"] for one in json_lines(root.log) if one["event"] == "waits"}
    assert said == {"bob/export", "carl"}
    root.wait((root.path / "status" / "bob" / "export - WAITING.txt").exists)
    root.wait((root.path / "status" / "carl" / "carl - WAITING.txt").exists)
    told = subprocess.run(root.command("check", "--root", str(root.path)), capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert told.returncode == 1
    assert "bob/export waits" in told.stdout
    assert "carl waits" in told.stdout
    # It goes on by itself when the cause is gone.
    for folder in (export, inbox):
        os.chown(folder, os.geteuid(), os.getegid())
        folder.chmod(0o755)
    root.wait(lambda: deployed(root, "in-export.svs", "in-carl.svs"))
    assert root.stop() == 0


def test_an_inbox_that_is_a_link_says_so(root: Root, tmp_path: Path) -> None:
    """It is not followed, and not called a file of nobody."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    builders.aperio_svs(elsewhere / "a.svs")
    (root.path / "inbox" / "ann").symlink_to(elsewhere)
    root.start()
    root.wait(lambda: "ann" in waiting(root))
    assert "a link to a folder" in waiting(root)["ann"]["detail"]
    # Its events, and a hint that names it, change nothing.
    builders.aperio_svs(elsewhere / "b.svs")
    root.drop(builders.aperio_svs(tmp_path / "c.svs"), "c.svs", user="bob")
    root.wait(lambda: deployed(root, "c.svs"))
    assert sorted(path.name for path in elsewhere.iterdir()) == ["a.svs", "b.svs"]
    assert root.stop() == 0


def test_a_folder_out_of_which_nothing_may_be_moved_waits(root: Root, tmp_path: Path) -> None:
    """No uploaded file stands for it while that is so; and it goes on when it may."""
    root.configure(inbox="folder_quiet_s = 0.5")
    folder = root.path / "inbox" / "ann" / "case"
    folder.mkdir(parents=True)
    builders.aperio_svs(folder / "a.svs")
    unprivileged(root, folder)
    folder.chmod(0o755 if os.geteuid() == 0 else 0o555)
    root.start()
    root.wait(lambda: waiting(root).get("ann/case/a.svs", {}).get("why") == "not_permitted")
    assert root.by_name() == {}
    os.chown(folder, os.geteuid(), os.getegid())
    folder.chmod(0o755)
    root.wait(lambda: deployed(root, "a.svs"))
    root.wait(lambda: root.by_name()["case"]["status"] == "EXTRACTED")
    assert root.stop() == 0


@pytest.mark.parametrize("kind", ["RecursionError", "UnicodeError", "MemoryError", "OSError"])
def test_what_raises_anything_is_set_aside_alone(root: Root, tmp_path: Path, kind: str) -> None:
    """In the scan, at its claim, in its folder, for a user's whole inbox, at an event; and goes on after."""
    root.configure(inbox="folder_quiet_s = 0.5")
    slide = builders.aperio_svs(tmp_path / "a.svs")
    cause = tmp_path / "cause"
    cause.touch()
    places = ("drop:seen", "claim:taken", "folder:case", "user:eve", "event:dan")
    root.environment[POISON] = ",".join(f"{place}={kind}@{cause}" for place in places)
    bad = {"seen.svs": "ann", "taken.svs": "ann", "eves.svs": "eve"}
    for start in range(2):
        root.start()
        if start == 0:
            for name, user in bad.items():
                root.drop(slide, name, user=user)
            (root.path / "inbox" / "ann" / "case").mkdir()
            shutil.copyfile(slide, root.path / "inbox" / "ann" / "case" / "inside.svs")
        for user in ("ann", "bob", "dan", "zoe"):
            root.drop(slide, f"{user}-{start}.svs", user=user)
        root.wait(
            lambda start=start: deployed(
                root, *(f"{user}-{start}.svs" for user in ("ann", "bob", "dan", "zoe"))
            )
        )
        wanted = {"ann/seen.svs", "ann/taken.svs", "eve"}
        root.wait(
            lambda wanted=wanted: (
                wanted <= {path for path, one in waiting(root).items() if one["why"] == "set_aside"}
            )
        )
        assert not deployed(root, "seen.svs")
        assert root.stop() == 0
    cause.unlink()
    root.start()
    root.wait(lambda: deployed(root, *bad, "inside.svs"))
    root.wait(lambda: root.by_name()["case"]["status"] == "EXTRACTED")
    root.wait(lambda: waiting(root) == {})
    assert root.stop() == 0
