"""A small filesystem that fills, power that is cut; mounted for real."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyvips

from cytowatch.pyramid.derive import _raise_if_full
from cytowatch.record.errors import TransientError
from tests import builders
from tests.builders import vendors
from tests.lab import stages
from tests.lab.disks import MB, Disk, fill, needs_mounts, rooted
from tests.lab.root import STAGES, Root, command
from tests.lab.told import free_port, json_lines

pytestmark = needs_mounts


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path, 64 * MB)
    yield made
    made.unmount()


@pytest.fixture
def root(disk: Disk) -> Iterator[Root]:
    with rooted(disk) as made:
        yield made


@pytest.mark.parametrize("leave", [200_000, 1_500_000])
def test_a_full_disk_is_waited_out(root: Root, disk: Disk, tmp_path: Path, leave: int) -> None:
    """It is not an error of any file: all wait, and go on by themselves when there is room again."""
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    builders.png(inbox / "b.png", width=1500, height=1000)
    builders.aperio_svs(inbox / "a.svs")
    (tmp_path / "z").mkdir()
    builders.jpeg(tmp_path / "z" / "x.jpg", width=1500, height=1000)
    shutil.make_archive(str(tmp_path / "c"), "zip", root_dir=tmp_path / "z")
    shutil.copyfile(tmp_path / "c.zip", inbox / "c.zip")
    filler = fill(disk, leave)
    root.configure(listen=f"127.0.0.1:{free_port()}")
    root.start()
    root.two_more_scans()
    root.two_more_scans()
    assert root.process
    assert root.process.poll() is None
    wrong = {one["name"]: one["error"] for one in root.manifests().values() if one["error"]}
    assert wrong == {}
    filler.unlink()
    root.wait(
        lambda: (
            len(
                [
                    o
                    for o in root.manifests().values()
                    if o["status"] in ("DEPLOYED", "CONVERTED", "EXTRACTED")
                ]
            )
            == 4
        ),
        90,
    )
    assert root.stop() == 0
    root.assert_clean()


def test_what_fills_the_disk_gives_the_room_back_while_it_waits(root: Root, tmp_path: Path) -> None:
    """A tar says nowhere how much it holds: half unpacked, it must not keep others from the rest of the disk."""
    block = os.urandom(1000)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.bmp")
            member.size = 30 * MB
            data = b"".join(os.urandom(900) + block * 100 for _ in range(300))
            archive.addfile(member, io.BytesIO(data.ljust(member.size, b"x")[: member.size]))
    root.drop(tmp_path / "a.tar.gz")
    root.start()
    root.wait(lambda: [one for one in json_lines(root.log) if one["event"] == "held_up"])
    assert not [*root.path.glob("stages/*/*/out.*")]
    builders.png(tmp_path / "b.png")
    root.drop(tmp_path / "b.png", user="bob")
    root.wait(lambda: root.by_name().get("b.png", {}).get("status") == "CONVERTED")
    assert root.by_name()["a.tar.gz"]["error"] is None
    assert root.stop() == 0


@pytest.mark.parametrize("how", stages.FILLS)
def test_a_decoder_that_fills_the_disk_ends_in_an_error(
    root: Root, tmp_path: Path, how: str
) -> None:
    """By files with names, in a tree that is too deep to be measured, or without names: others have their turn."""
    root.environment = dict(STAGES)
    root.configure(engine="max_attempts = 2")
    builders.png(tmp_path / "a.png")
    bad = f"fill-{how}.png"
    root.drop(tmp_path / "a.png", bad)
    root.start()
    root.wait(lambda: "error" in root.by_name().get(bad, {}).get("status", "").lower())
    found = root.by_name()[bad]
    assert found["status"] == "ERROR_CONVERSION"
    wanted = "unreadable" if how == "nameless" else "output_too_large"
    assert found["error"]["reason"] == wanted, found["error"]
    root.drop(tmp_path / "a.png", "good.png", user="bob")
    root.wait(lambda: root.by_name().get("good.png", {}).get("status") == "CONVERTED")
    assert root.stop() == 0
    root.assert_clean()


def test_what_would_not_fit_is_not_begun(root: Root, disk: Disk) -> None:
    """A pyramid that may need more than there is waits, and says how much; it is not an error."""
    root.configure_also(convert={"compression": "lossless"})
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    builders.jpeg(inbox / "b.jpg", width=3000, height=2000)
    filler = fill(disk, 12 * MB)
    root.start()
    live = root.path / "state" / "live.json"
    held = root.wait(lambda: live.exists() and json.loads(live.read_text())["held_up"])
    [why] = held.values()
    assert why["why"] == "disk"
    assert "bytes are needed" in why["detail"]
    filler.unlink()
    root.wait(
        lambda: [one for one in root.manifests().values() if one["status"] == "CONVERTED"], 90
    )
    assert root.stop() == 0
    root.assert_clean()


def test_two_stages_do_not_count_on_the_same_room(root: Root, disk: Disk) -> None:
    """Each of two pyramids would fit, both would not: the second one waits for the first."""
    root.configure_also(convert={"compression": "lossless"})
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    # Up to 21 MB each as far as anybody can tell beforehand; of one colour they take far less.
    for name in ("pause-CONVERTING-1.tif", "pause-CONVERTING-2.tif"):
        builders.planar_tiff(inbox / name, width=2500, height=2000)
    filler = fill(disk, 33 * MB)
    root.environment = dict(STAGES)
    root.start()
    live = root.path / "state" / "live.json"
    held = root.wait(lambda: live.exists() and json.loads(live.read_text())["held_up"])
    [why] = held.values()
    assert why["why"] == "disk"
    assert "are reserved for what is in work" in why["detail"]
    assert root.stop() == 0
    root.environment = {}
    assert root.run_until_idle() == 0
    assert sorted(one["status"] for one in root.manifests().values()) == ["CONVERTED"] * 2
    filler.unlink()
    root.assert_clean()


def test_the_reserve_is_kept(root: Root, disk: Disk) -> None:
    """Below it nothing is claimed, and `/healthz` says why; above it work goes on."""
    root.configure(listen=f"127.0.0.1:{free_port()}", storage={"reserve_bytes": 20_000_000})
    builders.aperio_svs((root.path / "inbox" / "ann").mkdir() or root.path / "inbox/ann/a.svs")
    filler = fill(disk, 10 * MB)
    root.start()
    root.two_more_scans()
    assert root.manifests() == {}
    filler.unlink()
    root.wait(lambda: [one for one in root.manifests().values() if one["status"] == "DEPLOYED"])
    assert root.stop() == 0


def test_a_tree_on_two_filesystems_is_refused(root: Root, disk: Disk) -> None:
    """At the start, with the directory that is elsewhere."""
    subprocess.run(["mount", "-t", "tmpfs", "none", root.path / "storage"], check=True)
    try:
        done = subprocess.run(
            root.command("run", "--root", str(root.path)),
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "storage is on another filesystem" in " ".join(done.stderr.split())
    finally:
        disk.unmount(root.path / "storage")


def test_power_that_is_cut(root: Root, disk: Disk, tmp_path: Path) -> None:
    """What the disk held at several moments is started from: every slide is deployed exactly once."""
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    for number in range(3):
        builders.aperio_svs(inbox / f"{number}.svs", width=400 + number, height=300)
        builders.png(inbox / f"{number}.png", width=300 + number)
    vendors.mirax_mrxs(inbox, "M")
    os.sync()
    root.start()
    assert root.process
    snapshots, done, moved = [], 0, -1
    # Some as time goes by, however slow this machine is, and one for each slide that is published.
    while done < 7:
        time.sleep(0.12)
        assert root.process.poll() is None
        before, done = done, len(list(root.path.glob("storage/*/*")))
        now = len(list(root.path.glob("stages/*/*"))) + 100 * done
        if done == before and (now == moved or len(snapshots) >= 9):
            continue
        moved = now
        os.kill(root.process.pid, signal.SIGSTOP)
        snapshots.append(tmp_path / f"{len(snapshots)}.img")
        subprocess.run(["cp", "--sparse=always", disk.image, snapshots[-1]], check=True)
        os.kill(root.process.pid, signal.SIGCONT)
    root.wait(
        lambda: (
            len([o for o in root.manifests().values() if o["status"] in ("DEPLOYED", "CONVERTED")])
            == 7
        )
    )
    assert root.stop() == 0
    seen = set()
    for number, image in enumerate(snapshots):
        place = tmp_path / f"at-{number}"
        place.mkdir()
        disk.mount(image, place)
        try:
            again = Root(place / "root")
            again.config, again.log = tmp_path / "again.toml", tmp_path / f"again-{number}.log"
            again.configure()
            seen.add(len(list(again.path.glob("storage/*/*"))))
            assert again.run_until_idle() == 0, again.log.read_text()[-2000:]
            again.assert_clean()
            told = sorted(one["name"] for one in again.manifests().values())
            assert told == ["0.png", "0.svs", "1.png", "1.svs", "2.png", "2.svs", "M.mrxs"]
            assert {one["status"] for one in again.manifests().values()} == {
                "DEPLOYED",
                "CONVERTED",
            }
        finally:
            disk.unmount(place)
        image.unlink()
    assert len(seen) > 1, "all snapshots are of the same moment"


def test_a_log_on_the_full_disk_ends_nothing(root: Root, disk: Disk, tmp_path: Path) -> None:
    """Lines are lost, slides are not: the daemon lives on, and goes on when there is room."""
    root.log = disk.place / "daemon.log"
    builders.png(tmp_path / "b.png", width=1500, height=1000)
    root.environment = dict(STAGES)
    root.drop(tmp_path / "b.png", "slow-CONVERTING.png")
    root.start()
    assert root.process
    root.wait(lambda: list(root.path.glob("stages/converting/*")))
    filler = fill(disk, 500_000)
    # What is left in the last block of the log is used up as well.
    log = os.open(root.log, os.O_WRONLY | os.O_APPEND)
    with contextlib.suppress(OSError):
        while os.write(log, b" " * 511 + b"\n"):
            pass
    os.close(log)
    time.sleep(6)
    assert root.process.poll() is None, "it ended with its log"
    assert not [one for one in root.manifests().values() if one["error"]]
    filler.unlink()
    root.wait(lambda: [o for o in root.manifests().values() if o["status"] == "CONVERTED"])
    assert root.stop() == 0
    root.assert_clean()


def test_commands_on_a_full_disk_say_so_and_what_is_removed_has_not_vanished(
    root: Root, disk: Disk, tmp_path: Path
) -> None:
    """An export leaves no half of a slide under its name; a removal makes room, and is known to the next daemon."""
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.drop(builders.jpeg(tmp_path / "b.jpg"))
    assert root.run_until_idle() == 0
    fill(disk, 300_000)
    with contextlib.suppress(OSError), (disk.place / "rest").open("wb", buffering=0) as rest:
        while rest.write(bytes(512)):
            pass
    for words in (("pause",), ("link", "a.svs", "--project", "lung"), ("verify",)):
        done = command(root, *words)
        assert done.returncode in (1, 2), words
        assert "No space left" in done.stderr
        assert "output" not in done.stderr
    done = command(root, "export", "a.svs", str(disk.place / "out"))
    assert done.returncode == 1
    assert not list((disk.place / "out").glob("**/*.svs"))
    assert command(root, "remove", "--yes", "a.svs").returncode == 0
    (disk.place / "rest").unlink()
    (disk.place / "filler").unlink()
    assert root.run_until_idle() == 0
    assert root.count("vanished") == 0
    assert command(root, "verify").returncode == 0
    root.assert_clean()


def test_a_full_disk_is_one_without_words_too(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvips' own may have been cleared by another thread, and the image would be called damaged."""
    monkeypatch.chdir(disk.place)
    _raise_if_full(pyvips.Error("", ""))
    filler = fill(disk, 500_000)
    with pytest.raises(TransientError, match="disk"):
        _raise_if_full(pyvips.Error("", ""))
    filler.unlink()
    monkeypatch.undo()
