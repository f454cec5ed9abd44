"""Events are lost in every way there is: the scan finds all, and it is said."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cytowatch.admin import requests
from cytowatch.inbox import bounded
from cytowatch.inbox.watch import Watcher, _watches
from cytowatch.record.errors import RootError
from cytowatch.tree.spool import Spool
from tests import builders
from tests.lab.root import HANGS_S, Root
from tests.lab.told import free_port, health, json_lines, metric
from tests.needs import needs

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def deployed(root: Root, *names: str) -> bool:
    found = root.by_name()
    return all(found.get(name, {}).get("status") == "DEPLOYED" for name in names)


def test_a_queue_that_overflows_makes_a_scan(root: Root, tmp_path: Path) -> None:
    """More events than the kernel keeps: what came after them is found at once, and counted."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}", inbox={"rescan_s": 600})
    slide = builders.aperio_svs(tmp_path / "a.svs")
    for user in ("ann", "bob"):
        (root.path / "inbox" / user).mkdir()
    root.start()
    assert root.process
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    # Its readers stand still while events come: each of these ignored files makes two or more.
    os.kill(root.process.pid, signal.SIGSTOP)
    for number in range(most // 2 + 1000):
        (root.path / "inbox" / "ann" / f"{number}.part").touch()
    root.drop(slide, "late.svs", user="bob")
    os.kill(root.process.pid, signal.SIGCONT)
    root.wait(lambda: deployed(root, "late.svs"))
    assert metric(port, "cytowatch_rescan_found_total") >= 1
    assert [line for line in json_lines(root.log) if line["event"] == "events_lost"]
    # The watches were made again: the next one is announced by its event.
    before = metric(port, "cytowatch_rescan_found_total")
    root.drop(slide, "next.svs", user="bob")
    root.wait(lambda: deployed(root, "next.svs"))
    assert metric(port, "cytowatch_rescan_found_total") == before


@needs("unshare", root=True)
@pytest.mark.parametrize(("watches", "reason"), [(0, "watcher"), (6, "watches")])
def test_watches_that_run_out(root: Root, tmp_path: Path, watches: int, reason: str) -> None:
    """Without any, or with too few: `/healthz` and the metrics say so, the scan finds the drops."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    folders = [root.path / "inbox" / "ann" / f"case {number}" for number in range(12)]
    for folder in folders:
        folder.mkdir(parents=True)
    limit = f'echo {watches} > /proc/sys/user/max_inotify_watches && exec "$@"'
    root.prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"]
    root.start()
    root.wait(lambda: reason in health(port))
    assert "every 1 s" in health(port)[reason]
    root.wait(lambda: metric(port, "cytowatch_watcher_alive") == 0)
    before = metric(port, "cytowatch_rescan_found_total")
    for folder in folders:
        builders.aperio_svs(folder / f"{folder.name}.svs")
        # Over more than one scan: what has only just come does not count as missed.
        time.sleep(0.15)
    root.wait(lambda: deployed(root, *(f"{folder.name}.svs" for folder in folders)))
    assert metric(port, "cytowatch_rescan_found_total") > before
    assert root.stop() == 0


@needs("strace")
def test_an_observer_that_dies_is_replaced(root: Root, tmp_path: Path) -> None:
    """Its read of the kernel's queue fails: another one watches within a moment."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}", inbox={"rescan_s": 600})
    slide = builders.aperio_svs(tmp_path / "a.svs")
    (root.path / "inbox" / "ann").mkdir()
    root.start()
    assert root.process
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(root.process.pid),
         "-P", "anon_inode:inotify", "-e", "trace=read", "-e", "inject=read:error=EIO:when=1"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        attached = Path(f"/proc/{root.process.pid}/status")
        root.wait(lambda: "TracerPid:\t0" not in attached.read_text())
        root.drop(slide, "first.svs")
        root.wait(
            lambda: [one for one in json_lines(root.log) if one["event"] == "watcher_replaced"]
        )
    finally:
        strace.terminate()
        strace.wait(HANGS_S)
    root.wait(lambda: deployed(root, "first.svs"))
    root.drop(slide, "second.svs")
    root.wait(lambda: deployed(root, "second.svs"))
    assert metric(port, "cytowatch_watcher_alive") == 1
    assert health(port) == {}


def test_a_tree_that_is_moved_in_is_found_whole(root: Root, tmp_path: Path) -> None:
    """A rename into the inbox gives one event, no matter what lies below."""
    root.configure(inbox={"folder_quiet_s": 0.5, "rescan_s": 600})
    (root.path / "inbox" / "ann").mkdir()
    # On the same filesystem, so that it is a rename.
    aside = root.path.parent / "aside"
    for number in range(30):
        folder = aside / f"block {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        builders.aperio_svs(folder / f"{number}.svs")
    root.start()
    aside.rename(root.path / "inbox" / "ann" / "case")
    root.wait(lambda: deployed(root, *(f"{number}.svs" for number in range(30))))
    root.wait(lambda: root.by_name().get("case", {}).get("status") == "EXTRACTED")
    assert root.stop() == 0
    root.assert_clean()


@needs("mount", "umount", root=True)
def test_an_inbox_that_is_mounted_over(root: Root, tmp_path: Path) -> None:
    """Another filesystem in the place of an inbox: its drops wait and say why, and none is lost."""
    port = free_port()
    root.configure(listen=f"127.0.0.1:{port}")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.start()
    subprocess.run(["mount", "-t", "tmpfs", "none", inbox], check=True)
    try:
        root.drop(slide, "elsewhere.svs")
        root.wait(lambda: [one for one in root.waiting() if one["why"] == "other_filesystem"])
        root.two_more_scans()
        assert root.manifests() == {}
        assert (inbox / "elsewhere.svs").exists()
    finally:
        subprocess.run(["umount", inbox], check=True)
    # The same filesystem, mounted once more: equal to the eye, and no rename leads out of it.
    (tmp_path / "other").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "other", inbox], check=True)
    try:
        root.drop(slide, "bound.svs")
        root.wait(lambda: [one for one in root.waiting() if one["why"] == "other_filesystem"])
        assert (inbox / "bound.svs").exists()
        assert root.manifests() == {}
    finally:
        subprocess.run(["umount", inbox], check=True)
    root.drop(slide, "here.svs")
    root.wait(lambda: deployed(root, "here.svs"))
    assert root.stop() == 0
    root.assert_clean()


@needs("strace")
def test_a_reader_that_hangs_is_found_and_replaced(root: Root, tmp_path: Path) -> None:
    """Its thread is alive and reads for ever: nothing comes through, so there is a new one."""
    root.configure(inbox={"rescan_s": 600})
    slide = builders.aperio_svs(tmp_path / "a.svs")
    (root.path / "inbox" / "ann").mkdir()
    root.start()
    assert root.process
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(root.process.pid),
         "-P", "anon_inode:inotify", "-e", "trace=read", "-e", "inject=read:delay_enter=100000000"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        attached = Path(f"/proc/{root.process.pid}/status")
        root.wait(lambda: "TracerPid:\t0" not in attached.read_text())
        root.drop(slide, "first.svs")
        root.wait(
            lambda: [one for one in json_lines(root.log) if one["event"] == "watcher_replaced"], 90
        )
        # Found by the scan that comes with a new watcher.
        root.wait(lambda: deployed(root, "first.svs"))
    finally:
        strace.kill()
        strace.wait(HANGS_S)
    root.kill()


def test_a_request_wakes_a_daemon_at_rest(root: Root) -> None:
    """It looks by itself every two seconds; of ten commands one after the other some are faster than that."""
    root.start()
    time.sleep(1)
    spool = Spool.open(root.path)
    took = []
    for _ in range(10):
        began = time.monotonic()
        with pytest.raises(RootError, match="there is no uploaded file"):
            requests.ask(spool, {"do": "remove", "id": "x", "anyway": False}, now=lambda: NOW)
        took.append(time.monotonic() - began)
    # The first one may come just before the daemon looks; behind each answer it rests for two seconds again.
    assert min(took[1:]) < 1


def test_folders_that_are_watched_are_not_missed(tmp_path: Path) -> None:
    """Each folder below the inboxes has a watch, and so have the requests: none too few, none too many."""
    inbox, asked = tmp_path / "inbox", tmp_path / "requests"
    for folder in (inbox / "ann" / "case", inbox / "bob", asked):
        folder.mkdir(parents=True)
    watcher = Watcher(
        inbox, "inotify", lambda _user: None, lambda: None, requests=asked, asked=lambda: None,
        moved=lambda: None,
    )  # fmt: skip
    watcher.start()
    try:
        assert _watches() == 5
        assert watcher.unwatched() == (0, [])
    finally:
        watcher.stop()


def test_one_user_does_not_use_up_all_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a share only the scan finds what one drops; others' events come, and it is reported whose they are."""
    monkeypatch.setattr(bounded, "most_watches", lambda: 4)
    inbox, asked = tmp_path / "inbox", tmp_path / "requests"
    for number in range(20):
        (inbox / "ann" / f"{number}").mkdir(parents=True)
    asked.mkdir()
    told: set[str] = set()
    watcher = Watcher(
        inbox, "inotify", told.add, lambda: None, requests=asked, asked=lambda: None,
        moved=lambda: None,
    )  # fmt: skip
    watcher.start()
    try:
        assert _watches() == 2 + 4
        assert watcher.unwatched() == (17, ["ann"])
        (inbox / "zoe" / "case").mkdir(parents=True)
        end = time.monotonic() + HANGS_S
        while watcher.unwatched() != (17, ["ann"]) or _watches() != 2 + 4 + 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        told.clear()
        (inbox / "zoe" / "case" / "a.svs").touch()
        while told != {"zoe"}:
            assert time.monotonic() < end
            time.sleep(0.02)
        # What goes makes room for what comes.
        for number in range(20):
            (inbox / "ann" / f"{number}").rmdir()
        while _watches() != 2 + 1 + 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        (inbox / "ann" / "new").mkdir()
        while _watches() != 2 + 2 + 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert watcher.unwatched() == (0, [])
    finally:
        watcher.stop()
