"""Past one machine: a real dask scheduler and real workers on loopback, and what happens when they go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import builders
from tests.lab.disks import MB, Disk, needs_mounts, rooted
from tests.lab.root import HANGS_S, STAGES, Root
from tests.lab.told import free_port, json_lines
from tests.needs import needs


class Machines:
    """A scheduler and workers as processes of their own; each can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]),
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
        }  # fmt: skip

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def _run(
        self, *words: str, prefix: tuple[str, ...] = (), **more: str
    ) -> subprocess.Popen[bytes]:
        with (self.folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [*prefix, sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**self.environment, **more},
            )  # fmt: skip

    def start_scheduler(self) -> None:
        self.scheduler = self._run(
            "dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard",
        )  # fmt: skip

    def start_worker(self, *, prefix: tuple[str, ...] = (), **more: str) -> subprocess.Popen[bytes]:
        worker = self._run(
            "dask_worker", self.address, "--no-nanny", "--nthreads", "2", "--no-dashboard",
            "--resources", "cytowatch=2", "--host", "127.0.0.1", "--death-timeout", "60",
            prefix=prefix, **more,
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for one in [*self.workers, self.scheduler]:
            if one is not None and one.poll() is None:
                one.kill()
                one.wait(HANGS_S)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    yield made
    made.stop()


def configured(root: Root, machines: Machines) -> None:
    root.configure(engine=f'kind = "dask"\nscheduler = "{machines.address}"\nmax_attempts = 3')


def status_of(root: Root, name: str) -> str | None:
    return root.by_name().get(name, {}).get("status")


def test_the_same_result_on_a_cluster(root: Root, tmp_path: Path, machines: Machines) -> None:
    """A native slide, a flat image, a damaged one and an archive: as on one machine, nothing left behind."""
    machines.start_scheduler()
    machines.start_worker()
    configured(root, machines)
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    builders.png(tmp_path / "b.png")
    root.drop(tmp_path / "b.png")
    (root.path / "inbox" / "ann" / "letter.pdf").write_bytes(b"%PDF-1.4 hello")
    import zipfile

    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(tmp_path / "b.png", "inner.png")
    root.drop(tmp_path / "c.zip")
    assert root.run_until_idle() == 1
    told = {name: document["status"] for name, document in root.by_name().items()}
    assert told == {
        "a.svs": "DEPLOYED", "b.png": "CONVERTED", "letter.pdf": "ERROR_FORMAT", "c.zip": "EXTRACTED",
        "inner.png": "CONVERTED",
    }  # fmt: skip
    root.check_hashes()
    root.assert_clean()
    assert not list(root.path.rglob("begun.*")) + list(root.path.rglob("progress.*"))


def test_a_worker_that_is_killed_costs_an_attempt_and_nothing_else(
    root: Root, tmp_path: Path, machines: Machines
) -> None:
    """Its stage is taken up on another one, in another directory; its progress came through the tree."""
    machines.start_scheduler()
    first = machines.start_worker()
    configured(root, machines)
    root.environment = dict(STAGES)
    root.start()
    builders.png(tmp_path / "a.png")
    root.drop(tmp_path / "a.png", "slow-CONVERTING.png")
    root.wait(lambda: list(root.path.glob("stages/converting/*/progress.out.1")))
    # It does not finish before the other one is there.
    first.send_signal(signal.SIGSTOP)
    machines.start_worker()
    time.sleep(2)
    first.send_signal(signal.SIGKILL)
    first.wait(HANGS_S)
    root.wait(lambda: status_of(root, "slow-CONVERTING.png") == "CONVERTED")
    crashed = [one for one in json_lines(root.log) if one["event"] == "decoder_crashed"]
    assert len(crashed) >= 1
    history = root.by_name()["slow-CONVERTING.png"]["history"]
    assert [row["status"] for row in history][-1] == "CONVERTED"
    assert root.stop() == 0
    root.assert_clean()


@needs_mounts
def test_a_decoder_is_bounded_on_a_cluster_as_anywhere(tmp_path: Path, machines: Machines) -> None:
    """One fills the disk, one wants all the memory, one hangs: each costs one error, and none runs on."""
    machines.start_scheduler()
    machines.start_worker()
    disk = Disk(tmp_path, 64 * MB)
    try:
        with rooted(disk) as root:
            root.environment = dict(STAGES)
            engine = f'kind = "dask"\nscheduler = "{machines.address}"\nmax_attempts = 2'
            root.configure(
                engine=f"{engine}\nno_progress_s = 8.0", sandbox="memory_bytes = 1_000_000_000"
            )
            builders.png(tmp_path / "a.png")
            ends = {
                "fill-named.png": "output_too_large",
                "eat-CONVERTING.png": "out_of_memory",
                "hang-CONVERTING.png": "no_progress",
            }
            root.start()
            for name, reason in ends.items():
                root.drop(tmp_path / "a.png", name)
                root.wait(lambda name=name: root.by_name().get(name, {}).get("error"), 150)
                assert root.by_name()[name]["error"]["reason"] == reason, name
            root.drop(tmp_path / "a.png", "good.png", user="bob")
            root.wait(lambda: status_of(root, "good.png") == "CONVERTED", 60)
            assert root.stop() == 0
            root.assert_clean()
            # What fills the disk is not merely out of sight.
            assert shutil.disk_usage(disk.place).free > 30 * MB
    finally:
        machines.stop()
        disk.unmount()


def test_a_scheduler_that_is_away_is_waited_for(
    root: Root, tmp_path: Path, machines: Machines
) -> None:
    """Before it is there, and when it is killed in the middle: it waits with a reason, and goes on."""
    configured(root, machines)
    root.start()
    builders.png(tmp_path / "a.png")
    root.drop(tmp_path / "a.png", "one.png")
    root.wait(lambda: [one for one in json_lines(root.log) if one.get("why") == "scheduler"])
    machines.start_scheduler()
    machines.start_worker()
    root.wait(lambda: status_of(root, "one.png") == "CONVERTED")
    assert machines.scheduler
    machines.scheduler.kill()
    machines.scheduler.wait(HANGS_S)
    root.drop(tmp_path / "a.png", "two.png")
    held = lambda: [one for one in json_lines(root.log) if one.get("why") == "scheduler"]  # noqa: E731
    before = len(held())
    root.wait(lambda: len(held()) > before)
    machines.start_scheduler()
    machines.start_worker()
    root.wait(lambda: status_of(root, "two.png") == "CONVERTED")
    assert root.stop() == 0
    root.assert_clean()


@needs("unshare", "mount", root=True)
def test_a_worker_that_mounts_the_root_elsewhere(
    root: Root, tmp_path: Path, machines: Machines
) -> None:
    """In a mount namespace of its own, where the daemon's path does not exist."""
    elsewhere = tmp_path / "mnt"
    elsewhere.mkdir()
    machines.start_scheduler()
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    script = (
        f"mount --bind {root.path} {elsewhere} && mount --bind {hidden} {root.path} && "
        'exec "$@"'
    )  # fmt: skip
    machines.start_worker(
        prefix=("unshare", "--mount", "sh", "-c", script, "sh"), CYTOWATCH_ROOT=str(elsewhere)
    )
    configured(root, machines)
    builders.png(tmp_path / "a.png")
    root.drop(tmp_path / "a.png")
    assert root.run_until_idle() == 0
    assert status_of(root, "a.png") == "CONVERTED"
    assert list(hidden.iterdir()) == []
    root.assert_clean()
