"""The wall clock is set years back and forth under a running daemon, and events are lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests import builders
from tests.lab.root import Root
from tests.lab.told import free_port, metric
from tests.needs import unless

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)

#: libfaketime 0.9.10 gives a sleep that ends at a monotonic time a negative length, and Python an OSError.
#: Source: its issue 426, mended after Debian 12.
_SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


def settable(root: Root, tmp_path: Path) -> Path:
    """A file that says by how much the wall clock of the daemon of `root` is wrong; the monotonic one is right."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    (tmp_path / "sitecustomize.py").write_text(_SLEEP)
    root.environment = {
        "PYTHONPATH": str(tmp_path),
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return offset


@unless(None if LIBRARY else "missing: libfaketime (Debian: apt install faketime)")
def test_the_clock_is_set_ten_years_back_and_forth(root: Root, tmp_path: Path) -> None:
    """Settling, waiting and time-outs run on the monotonic clock; nothing is late, nothing lost."""
    offset = settable(root, tmp_path)
    root.start()
    for number, wanted in enumerate(("+0", "-10y", "+10y", "-3y", "+0")):
        offset.write_text(wanted)
        root.drop(builders.aperio_svs(tmp_path / "a.svs"), f"{number}.svs")
        root.drop(builders.png(tmp_path / "b.png"), f"{number}.png")
        root.wait(
            lambda n=number: (
                [root.by_name().get(f"{n}.{ending}", {}).get("status") for ending in ("svs", "png")]
                == ["DEPLOYED", "CONVERTED"]
            )
        )
    assert root.stop() == 0
    root.environment = {}
    for document in root.manifests().values():
        assert all(entry["seconds"] >= 0 for entry in document["history"])
    assert root.run_until_idle() == 0
    assert len(root.manifests()) == 10
    root.assert_clean()


@unless(None if LIBRARY else "missing: libfaketime (Debian: apt install faketime)")
def test_a_clock_ten_years_ahead_removes_no_error_and_no_note(root: Root, tmp_path: Path) -> None:
    """Neither where it is set ahead while the daemon runs, nor where the next start finds it so."""
    offset = settable(root, tmp_path)
    root.configure(storage={"reserve_bytes": 0, "keep_errors_days": 1})
    root.start()
    root.drop(builders.png(tmp_path / "b.png"), "b.txt.png")
    (root.path / "inbox" / "ann" / "no slide.png").write_text("words")
    root.wait(lambda: list(root.path.glob("status/ann/! no slide*FAILED*")))
    offset.write_text("+10y")
    (root.path / "inbox" / "ann" / "case").mkdir()
    root.drop(builders.png(tmp_path / "c.png"), "case/c.png")
    root.wait(lambda: root.by_name().get("c.png", {}).get("status") == "CONVERTED")
    assert list(root.path.glob("status/ann/! no slide*FAILED*"))
    root.kill()
    root.start()
    root.drop(builders.png(tmp_path / "d.png"), "d.png")
    root.wait(lambda: root.by_name().get("d.png", {}).get("status") == "CONVERTED")
    assert root.by_name()["no slide.png"]["status"] == "ERROR_FORMAT"
    assert root.count("expired") == 0


def test_twenty_thousand_files_in_a_burst(root: Root) -> None:
    """All are found, no matter which events were dropped; a full reserve keeps them where they are."""
    port = free_port()
    root.configure(
        listen=f"127.0.0.1:{port}", inbox={"quiet_s": 0.31}, storage={"reserve_bytes": 10**15}
    )
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    root.start()
    for number in range(20_000):
        folder = inbox / f"case {number % 20}"
        if number < 20:
            folder.mkdir()
        (folder / f"{number}.svs").write_bytes(b"x")
    root.wait(lambda: metric(port, "cytowatch_inbox_waiting_files{") == 20_000)
    shutil.rmtree(inbox)
    root.wait(lambda: metric(port, "cytowatch_inbox_waiting_files{") == 0)
    assert root.manifests() == {}
    assert root.stop() == 0
