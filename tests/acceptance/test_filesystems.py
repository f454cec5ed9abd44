"""The tree on filesystems that go read-only, vanish, have quotas, or are served by a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import builders
from tests.lab.disks import MB, Disk, needs_mounts, rooted
from tests.lab.root import HANGS_S, STAGES, Root
from tests.lab.told import free_port, health, json_lines, metric
from tests.needs import needs

pytestmark = needs_mounts


def all_in(root: Root, count: int, *statuses: str) -> bool:
    found = [one["status"] for one in root.manifests().values()]
    return len(found) == count and set(found) <= set(statuses)


def listening(root: Root) -> int:
    port = free_port()
    root.configure_also(listen=f"127.0.0.1:{port}")
    return port


@needs("findmnt", "e2fsck")
def test_a_filesystem_that_goes_read_only(tmp_path: Path) -> None:
    """The kernel finds a fault and no longer writes: nothing is an error, all is said; repaired, it goes on."""
    disk = Disk(tmp_path, 64 * MB, options="loop,errors=remount-ro")
    try:
        with rooted(disk) as root:
            port = listening(root)
            inbox = root.path / "inbox" / "ann"
            inbox.mkdir()
            slide = builders.aperio_svs(tmp_path / "a.svs")
            image = builders.png(tmp_path / "b.png")
            root.start()
            for number in range(3):
                root.drop(slide, f"{number}.svs")
                root.drop(image, f"{number}.png")
            # What a scanner wrote and no disk has yet is lost to anyone who reads it: not ours to save.
            os.sync()
            root.wait(root.manifests)
            device = Path(
                subprocess.run(
                    ["findmnt", "-n", "-o", "SOURCE", disk.place],
                    check=True, capture_output=True, text=True,
                ).stdout.strip()
            )  # fmt: skip
            Path(f"/sys/fs/ext4/{device.name}/trigger_fs_error").write_text("a test")
            with pytest.raises(OSError, match="Read-only"):
                (disk.place / "probe").touch()
            # Anything that it tries now fails; it stays, and says so.
            root.wait(lambda: any("Read-only" in why for why in health(port).values()))
            time.sleep(3)
            assert root.process
            assert root.process.poll() is None
            assert not [one for one in root.manifests().values() if one["error"]]
            root.process.send_signal(signal.SIGTERM)
            assert root.process.wait(HANGS_S) == 0
            disk.unmount()
            subprocess.run(["e2fsck", "-fy", disk.image], check=False, capture_output=True)
            disk.mount()
            assert root.run_until_idle() == 0
            assert all_in(root, 6, "DEPLOYED", "CONVERTED")
            root.check_hashes()
            root.assert_clean()
    finally:
        disk.unmount()


def test_a_tree_that_vanishes_is_offline_and_not_empty(tmp_path: Path) -> None:
    """Its mount goes away under the daemon: nothing is taken for deleted, and it goes on when it is back."""
    disk = Disk(tmp_path, 64 * MB)
    try:
        with rooted(disk) as root:
            port = listening(root)
            root.environment = dict(STAGES)
            (root.path / "inbox" / "ann").mkdir()
            builders.png(tmp_path / "b.png")
            (root.path / "inbox" / "ann" / "half.svs").write_bytes(
                builders.aperio_svs(tmp_path / "a.svs").read_bytes()[:-5000]
            )
            # In work while it happens, for some seconds.
            root.drop(tmp_path / "b.png", "slow-CONVERTING.png")
            root.start()
            root.wait(lambda: list(root.path.glob("stages/converting/*")))
            root.wait(lambda: [one for one in root.waiting() if one["why"] == "incomplete"])
            subprocess.run(["umount", "--lazy", disk.place], check=True)
            root.wait(lambda: "root" in health(port))
            root.wait(lambda: metric(port, "cytowatch_watcher_alive") == 0)
            time.sleep(4)
            assert list(disk.place.iterdir()) == [], "something was written where it had been"
            assert metric(port, "cytowatch_inbox_waiting_files") == 1, "taken for deleted"
            disk.mount()
            root.wait(lambda: health(port) == {})
            root.wait(lambda: all_in(root, 1, "CONVERTED"))
            assert [one["why"] for one in root.waiting()] == ["incomplete"]
            root.drop(tmp_path / "a.svs", "later.svs")
            root.wait(lambda: all_in(root, 2, "DEPLOYED", "CONVERTED"))
            assert root.stop() == 0
            root.assert_clean()
    finally:
        disk.unmount()


def test_it_can_be_stopped_while_the_tree_is_away(tmp_path: Path) -> None:
    """With exit 0, and nothing is made in the place where the tree had been."""
    disk = Disk(tmp_path, 64 * MB)
    try:
        with rooted(disk) as root:
            port = listening(root)
            root.drop(builders.aperio_svs(tmp_path / "a.svs"))
            root.start()
            root.wait(lambda: all_in(root, 1, "DEPLOYED"))
            subprocess.run(["umount", "--lazy", disk.place], check=True)
            root.wait(lambda: "root" in health(port))
            assert root.stop() == 0
            assert list(disk.place.iterdir()) == []
            disk.mount()
            root.assert_clean()
    finally:
        disk.unmount()


@needs("mkfs.btrfs", "btrfs")
def test_a_quota_is_waited_out(tmp_path: Path) -> None:
    """Full only for us, by EDQUOT: it waits as for a full disk, and goes on with a larger quota."""
    disk = Disk(tmp_path, 300 * MB, "mkfs.btrfs", "-q")
    volume = disk.place / "volume"
    try:
        subprocess.run(["btrfs", "-q", "quota", "enable", disk.place], check=True)
        subprocess.run(["btrfs", "-q", "subvolume", "create", volume], check=True)
        image = builders.png(tmp_path / "b.png", width=2400, height=1800)
        limit = str(image.stat().st_size + 600_000)
        subprocess.run(["btrfs", "-q", "qgroup", "limit", limit, volume], check=True)
        asked = ["btrfs", "inspect-internal", "rootid", volume]
        group = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        disk.place = volume
        with rooted(disk) as root:
            root.config = tmp_path / "root.toml"
            root.log = tmp_path / "root.log"
            root.configure(more='[convert]\ncompression = "lossless"')
            (root.path / "inbox" / "ann").mkdir()
            root.drop(image)
            root.start()
            # Not even state/live.json can be written now: its log says it.
            root.wait(lambda: [o for o in json_lines(root.log) if o["event"] == "held_up"])
            time.sleep(2)
            assert not [one for one in root.manifests().values() if one["error"]]
            # From above: asked of the volume itself, the change would need room in its own quota.
            more = ["btrfs", "-q", "qgroup", "limit", "none", f"0/{group}", tmp_path / "disk"]
            subprocess.run(more, check=True)
            root.wait(lambda: all_in(root, 1, "CONVERTED"))
            assert root.stop() == 0
            root.assert_clean()
    finally:
        disk.place = tmp_path / "disk"
        disk.unmount()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Root]:
    """A tree on a filesystem that a program serves."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    layers = ",".join(f"{one}={tmp_path / one[:5]}" for one in ("lowerdir", "upperdir"))
    subprocess.run(
        ["fuse-overlayfs", "-o", f"{layers},workdir={tmp_path / 'work'}", tmp_path / "merged"],
        check=True,
    )
    root = Root(tmp_path / "merged" / "root")
    root.config, root.log = tmp_path / "root.toml", tmp_path / "root.log"
    root.configure()
    try:
        root.create()
        yield root
    finally:
        if root.process and root.process.poll() is None:
            root.process.kill()
            root.process.wait(HANGS_S)
        subprocess.run(["umount", tmp_path / "merged"], check=True)


@needs("fuse-overlayfs")
def test_where_leases_prove_nothing(served: Root, tmp_path: Path) -> None:
    """Others may write unseen there: it polls, and a drop must be quiet for `fallback_quiet_s`."""
    port = free_port()
    served.configure(listen=f"127.0.0.1:{port}", inbox={"fallback_quiet_s": 3.0, "rescan_s": 600})
    (served.path / "inbox" / "ann").mkdir()
    served.start()
    served.wait(lambda: metric(port, 'cytowatch_watcher_mode{mode="polling"}') == 1)
    builders.aperio_svs(served.path / "inbox" / "ann" / "a.svs")
    dropped = time.monotonic()
    # Quiet for long enough were there leases; the reason is said.
    served.wait(lambda: [one for one in served.waiting() if one["why"] == "no_lease"])
    served.wait(lambda: all_in(served, 1, "DEPLOYED"))
    assert time.monotonic() - dropped > 3
    assert served.stop() == 0
    served.assert_clean()


@needs("bindfs")
def test_a_filesystem_that_may_replace_is_refused(tmp_path: Path) -> None:
    """Without a rename that never replaces, nothing would be safe: the start says so."""
    for name in ("below", "above"):
        (tmp_path / name).mkdir()
    subprocess.run(["bindfs", tmp_path / "below", tmp_path / "above"], check=True)
    try:
        told = subprocess.run(
            Root(tmp_path / "above" / "root").command("init", str(tmp_path / "above" / "root")),
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert told.returncode == 2
        assert "cannot rename without replacing" in " ".join(told.stderr.split())
    finally:
        subprocess.run(["umount", tmp_path / "above"], check=True)


def test_a_tree_on_two_mounts_of_one_filesystem_is_refused(tmp_path: Path) -> None:
    """No rename leads from one mount to another, though the device is the same."""
    root = Root(tmp_path / "root")
    root.create()
    (tmp_path / "other").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "other", root.path / "storage"], check=True)
    try:
        told = subprocess.run(
            root.command("run", "--root", str(root.path)),
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert told.returncode == 2
        assert "storage is on another mount" in " ".join(told.stderr.split())
    finally:
        subprocess.run(["umount", root.path / "storage"], check=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (("mkfs.ext4", "-q", "-F"), "survives a power cut whole, or not at all"),
        (("mkfs.ext4", "-q", "-F", "-O", "^has_journal"), "no journal"),
        pytest.param(("mkfs.ext2", "-q", "-F"), "no journal", marks=needs("mkfs.ext2")),
        pytest.param(
            ("mkfs.btrfs", "-q"),
            "survives a power cut whole, or not at all",
            marks=needs("mkfs.btrfs"),
        ),
    ],
)
def test_check_says_where_a_power_cut_may_lose_a_slide(
    make: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Named in `check` for a filesystem without a journal; it is advice, and no fault."""
    disk = Disk(tmp_path, 128 * MB, *make)
    try:
        with rooted(disk) as root:
            words = root.command("check", "--root", str(root.path), "--json")
            # It says as well that the disk is small, which is not a success.
            done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
            [told] = [one for one in json.loads(done.stdout) if one["name"] == "power cut"]
            assert said in told["detail"]
            assert told["good"] is (None if "no journal" in said else True)
    finally:
        disk.unmount()
