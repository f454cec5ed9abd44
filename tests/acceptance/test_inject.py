"""The n-th system call is failed, or the daemon is killed at it, from outside: `strace -e inject`.

After each: a start without strace, and everything must hold that `cytowatch check --deep` asks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests import builders
from tests.builders import vendors
from tests.lab.root import Root
from tests.needs import needs

needs_strace = needs("strace")


def drop_all(root: Root, tmp_path: Path, *, archive: bool) -> dict[str, str]:
    """A native slide, a flat image, a set and an archive; the hash of each dropped file by name."""
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir(exist_ok=True)
    builders.aperio_svs(inbox / "a.svs", width=512, height=512)
    builders.png(inbox / "b.png")
    vendors.mirax_mrxs(inbox, "M")
    if archive:
        (tmp_path / "z").mkdir()
        builders.jpeg(tmp_path / "z" / "x.jpg")
        shutil.make_archive(str(tmp_path / "c"), "zip", root_dir=tmp_path / "z")
        shutil.copyfile(tmp_path / "c.zip", inbox / "c.zip")
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in inbox.rglob("*")
        if path.is_file()
    }


def all_is_well(root: Root, dropped: dict[str, str]) -> None:
    """Every dropped byte is in storage, every slide exactly once, nothing half-done is left."""
    root.assert_clean()
    found = list(root.manifests().values())
    told = sorted((one["name"], one["status"]) for one in found)
    packed = [("c.zip", "EXTRACTED"), ("x.jpg", "CONVERTED")] if "c.zip" in dropped else []
    assert told == [
        ("M.mrxs", "DEPLOYED"), ("a.svs", "DEPLOYED"), ("b.png", "CONVERTED"), *packed,
    ]  # fmt: skip
    stored = {
        hashlib.sha256((one["_path"] / row["path"]).read_bytes()).hexdigest()
        for one in found
        for row in one["files"]
        if row["role"] == "source"
    }
    assert set(dropped.values()) <= stored
    assert list((root.path / "inbox" / "ann").iterdir()) == []


def run_with(root: Root, call: str, what: str, when: int) -> None:
    """The daemon until it is idle, or dead; `when` counts the calls of each of its threads."""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    if call == "openat":
        # Of the hundreds that each start makes, those in the folders of the tree count.
        tree = [root.path / "inbox" / "ann" / "M", root.path / "storage" / "ann"]
        tree += [*root.path.glob("*/"), *root.path.glob("*/*/")]
        strace += [word for place in dict.fromkeys(tree) for word in ("-P", str(place))]
    inject = ["-e", f"inject={call}:{what}:when={when}"]
    command = root.command(
        "run", "--root", str(root.path), "--config", str(root.config), "--until-idle"
    )
    with root.log.open("ab") as log:
        try:
            process = subprocess.Popen(
                [*strace, *inject, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f"it hangs: {root.log.read_text()[-2000:]}")


#: In CI; `make inject` tries many more, up to the last call that there is.
CASES = [
    *(("renameat2", "signal=SIGKILL", n) for n in (1, 3, 8)),
    *(("rename", "signal=SIGKILL", n) for n in (2, 5)),
    *(("fsync", "signal=SIGKILL", n) for n in (3, 12, 17, 30)),
    *(("unlink", "signal=SIGKILL", n) for n in (1, 2)),
    *(("renameat2", "error=EIO", n) for n in (2, 5)),
    ("rename", "error=ENOSPC", 2),
    *(("fsync", "error=EIO", n) for n in (4, 9)),
    ("fsync", "error=ENOSPC", 2),
    ("mkdir", "error=ENOSPC", 2),
    ("mkdir", "signal=SIGKILL", 17),
    *(("openat", "signal=SIGKILL", n) for n in (5, 13, 40)),
    *(("openat", "error=EIO", n) for n in (4, 9, 50)),
    ("unlink", "error=EIO", 2),
]
if os.environ.get("CYTOWATCH_INJECT") == "all":
    CASES = [
        *((call, "signal=SIGKILL", n) for call in ("renameat2", "rename", "fsync", "unlink", "mkdir", "openat") for n in range(1, 45)),
        *((call, error, n) for call in ("renameat2", "rename", "fsync", "mkdir", "unlink", "openat") for error in ("error=EIO", "error=ENOSPC") for n in range(1, 20)),
    ]  # fmt: skip


@needs_strace
@pytest.mark.parametrize(("call", "what", "when"), CASES)
def test_the_nth_call(root: Root, tmp_path: Path, call: str, what: str, when: int) -> None:
    """Killed at it, or told that it failed: a start later nothing is lost and nothing doubled."""
    # Each child counts again: what always fails in the one that unpacks is a disk that is always full.
    always = call == "mkdir" or (call == "rename" and when == 1)
    dropped = drop_all(root, tmp_path, archive=not always or "signal" in what)
    run_with(root, call, what, when)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    for id_, one in root.manifests().items():
        if (one["error"] or {}).get("reason") == "crashed_repeatedly":
            # strace puts the number -1 in the place of a call that is to fail, and the filter of a decoder ends it
            # for that. And where a decoder gets as far as the daemon does not, each of them is killed at the same
            # call. Then an admin retries the file.
            again = root.command("retry", id_, "--root", str(root.path))
            subprocess.run(again, check=True, stdout=subprocess.DEVNULL)
            assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    all_is_well(root, dropped)
