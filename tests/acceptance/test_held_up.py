"""A decoder process that the kernel cannot end yet holds up its own uploaded file, and nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytowatch.config import Config
from cytowatch.decoder.process import Decoder
from cytowatch.decoder.forks import Zygote
from tests.lab.disks import MB, Disk, needs_mounts
from tests.needs import needs


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    """One whose children write as soon as they run."""
    made = Zygote(Config(root="/"), stages="tests.acceptance.writes_at_once")
    made.start()
    yield made
    made.stop()


def _id(folder: Path, out: Path) -> Path:
    """An ``<id>/`` whose output lies at `out`."""
    for name in ("source", "derived"):
        (folder / name).mkdir(parents=True)
    (folder / "out.1").symlink_to(out)
    return folder


def _write(child: Decoder) -> None:
    """Have it write, and return once it does."""
    child._channel.send(b"x")
    assert child._channel.recv(1) == b"x"


@needs_mounts
@needs("fsfreeze", root=True)
def test_a_decoder_that_cannot_be_killed_yet_holds_up_nobody_else(
    tmp_path: Path, zygote: Zygote
) -> None:
    """A disk hangs under it: others are forked and end, and it counts as gone when it is gone, not before."""
    disk = Disk(tmp_path, 16 * MB)
    (disk.place / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    ended: list[float] = []
    try:
        stuck = zygote.fork(_id(tmp_path / "stuck", disk.place / "out"), "out.1")
        with disk.frozen():
            _write(stuck)
            time.sleep(0.5)

            def end() -> None:
                stuck.end()
                ended.append(time.monotonic())

            ends = threading.Thread(target=end)
            ends.start()
            began = time.monotonic()
            # Longer than the zygote may take for an answer.
            while time.monotonic() - began < 7:
                other = zygote.fork(
                    _id(tmp_path / f"{time.monotonic_ns()}", tmp_path / "elsewhere"), "out.1"
                )
                _write(other)
                asked_at = time.monotonic()
                other.end()
                assert time.monotonic() - asked_at < 4
                time.sleep(0.5)
            assert not ended
            thawed = time.monotonic()
        ends.join(20)
        assert ended[0] >= thawed
        assert zygote.fork(_id(tmp_path / "after", tmp_path / "elsewhere"), "out.1").end() == 9
    finally:
        disk.unmount()
