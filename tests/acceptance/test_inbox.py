"""One folder, one file, one user: no matter what is wrong with it, all others are served, now and after a restart."""

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
from tests.builders import vendors
from tests.lab.root import Root, command
from tests.lab.told import free_port, health, json_lines
from tests.needs import needs

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
    root.wait((root.path / "status" / "bob" / "! export - WAITING, cannot be opened.txt").exists)
    root.wait((root.path / "status" / "carl" / "! carl - WAITING, cannot be opened.txt").exists)
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
    # An administrator has to mend it, so the log says it once, and `check` as long as it is so.
    told = [line for line in json_lines(root.log) if line["event"] == "waits"]
    assert [(line["path"], line["why"]) for line in told] == [("ann/case/a.svs", "not_permitted")]
    checked = command(root, "check")
    assert checked.returncode == 1
    assert "ann/case/a.svs waits: it cannot be moved" in checked.stdout
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


def test_a_file_that_may_not_be_moved_does_not_keep_its_folder_open(
    root: Root, tmp_path: Path
) -> None:
    """The folder is finished and names it; it goes by itself when it may, and nothing is made twice."""
    root.configure(listen=f"127.0.0.1:{free_port()}", inbox="folder_quiet_s = 0.5")
    case = root.path / "inbox" / "ann" / "case"
    kept = case / "kept"
    kept.mkdir(parents=True)
    builders.aperio_svs(case / "a.svs")
    builders.aperio_svs(kept / "b.svs")
    unprivileged(root, kept)
    kept.chmod(0o755 if os.geteuid() == 0 else 0o555)
    root.start()
    root.wait(lambda: root.by_name().get("case", {}).get("status") == "EXTRACTED")
    [skipped] = root.by_name()["case"]["skipped"]
    assert skipped["name"] == "kept/b.svs"
    assert skipped["reason"].startswith("not_permitted: ")
    root.two_more_scans()
    assert waiting(root)["ann/case/kept/b.svs"]["why"] == "not_permitted"
    assert len(root.manifests()) == 2
    os.chown(kept, os.geteuid(), os.getegid())
    kept.chmod(0o755)
    root.wait(lambda: deployed(root, "b.svs"))
    assert root.stop() == 0
    root.assert_clean()


def test_a_folder_whose_name_is_no_text_ends_as_others_do(root: Root, tmp_path: Path) -> None:
    """What it holds beside its images keeps it open as long as it changes, over a restart too, and is named."""
    root.configure(inbox="folder_quiet_s = 2.0")
    ann = root.path / "inbox" / "ann"
    cases = [Path(os.fsdecode(os.fsencode(ann) + b"/case-" + end)) for end in (b"\xe4", b"\xe5")]
    for number, case in enumerate(cases):
        case.mkdir(parents=True)
        builders.aperio_svs(case / f"{number}.svs")
        (case / f"notes-{number}.txt").write_text("seen")
    root.start()
    root.wait(lambda: deployed(root, "0.svs", "1.svs"))
    root.kill()
    root.start()
    parents = lambda: [  # noqa: E731
        one
        for one in root.manifests().values()
        if one["name_base64"] and one["status"] == "EXTRACTED"
    ]
    root.wait(lambda: len(parents()) == 2)
    for parent in parents():
        [child] = [one for one in root.manifests().values() if one["parent_id"] == parent["id"]]
        number = child["name"].removesuffix(".svs")
        assert parent["children"] == [child["id"]]
        assert [one["name"] for one in parent["skipped"]] == [f"notes-{number}.txt"]
    assert len(root.manifests()) == 4
    assert root.stop() == 0


@needs("setpriv", root=True)
def test_storage_that_may_not_be_written_is_waited_for(root: Root, tmp_path: Path) -> None:
    """One user's folder there, and one that is a file: told in `status`, others go on, and so do they after."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    locked, file = root.path / "storage" / "ann", root.path / "storage" / "carl"
    locked.mkdir()
    unprivileged(root, locked)
    locked.chmod(0o755)
    file.touch()
    root.start()
    for user in ("ann", "bob", "carl"):
        root.drop(slide, f"{user}.svs", user=user)
    root.wait(lambda: deployed(root, "bob.svs"))
    live = root.path / "state" / "live.json"
    held = lambda: json.loads(live.read_text())["held_up"]  # noqa: E731
    root.wait(lambda: len(held()) == 2)
    told = {one["detail"].split()[0] for one in held().values() if one["why"] == "not_permitted"}
    assert told == {"storage/ann", "storage/carl"}
    shown = subprocess.run(root.command("status", "--root", str(root.path)), capture_output=True,
                           text=True, check=True)  # fmt: skip
    assert "storage/ann cannot be written (Permission denied): give it to" in " ".join(
        shown.stdout.split()
    )
    os.chown(locked, 0, 0)
    file.unlink()
    root.wait(lambda: deployed(root, "ann.svs", "carl.svs"))
    assert root.stop() == 0
    assert not [one for one in json_lines(root.log) if one["event"] == "unexpected"]
    root.assert_clean()


def test_notes_of_a_copier_make_their_file_wait(root: Root, tmp_path: Path) -> None:
    """aria2 and lftp write several parts of a file under its final name; when their notes go they are done."""
    inbox = root.path / "inbox" / "ann"
    builders.png(tmp_path / "a.png")
    for name in ("a.png", "b.png"):
        root.drop(tmp_path / "a.png", name)
    (inbox / "a.png.aria2").write_bytes(b"\0\1")
    vendors.mirax_mrxs(inbox, "M")
    notes = inbox / "M" / "Data0001.dat.lftp-pget-status"
    notes.write_text("size=1\n")
    assert root.run_until_idle() == 0
    assert set(root.by_name()) == {"b.png"}
    root.start()
    root.wait(lambda: {one["why"] for one in root.waiting()} == {"still_copied"})
    said = {one["path"]: one["detail"] for one in root.waiting()}
    assert "a.png.aria2 lies beside it" in said["ann/a.png"]
    assert "Data0001.dat.lftp-pget-status lies beside it" in said["ann/M.mrxs"]
    (inbox / "a.png.aria2").unlink()
    notes.unlink()
    root.wait(lambda: root.by_name().get("a.png", {}).get("status") == "CONVERTED")
    root.wait(lambda: root.by_name().get("M.mrxs", {}).get("status") == "DEPLOYED")
    assert root.stop() == 0
    root.assert_clean()
