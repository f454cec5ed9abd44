"""``hash = "after"``: a native slide is published at once, and its hash comes by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests import builders
from tests.lab.root import Root, command


def test_it_is_deployed_first_and_hashed_later(root: Root, tmp_path: Path) -> None:
    """A kill between the two forgets nothing; a duplicate is named when both hashes are known."""
    root.configure(more="[convert]\nquality = 90")
    root.configure_also(storage={"hash": "after"})
    slide = builders.aperio_svs(tmp_path / "a.svs")
    # Large enough that its hash takes a while; a hole costs the disk nothing.
    with slide.open("r+b") as file:
        file.truncate(2 << 30)
    root.start()
    target = root.path / "inbox" / "ann" / "a.svs"
    target.parent.mkdir()
    slide.rename(target)
    root.wait(lambda: root.by_name().get("a.svs", {}).get("status") == "DEPLOYED")
    document = root.by_name()["a.svs"]
    [source] = [row for row in document["files"] if row["role"] == "source"]
    assert source["sha256"] is None
    [note] = (root.path / "state" / "requests").glob("*.hash")
    root.kill()
    with (document["_path"] / source["path"]).open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    root.start()
    root.wait(lambda: not note.exists())
    document = root.by_name()["a.svs"]
    assert document["sha256"] == digest
    [source] = [row for row in document["files"] if row["role"] == "source"]
    assert source["sha256"] == digest
    assert root.stop() == 0
    root.assert_clean()


def test_until_idle_waits_for_the_hash_and_duplicates_are_named(root: Root, tmp_path: Path) -> None:
    """Both have their hash at the end; one names the other."""
    root.configure_also(storage={"hash": "after"})
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.drop(slide, "one.svs")
    assert root.run_until_idle() == 0
    root.drop(slide, "two.svs")
    root.drop(builders.png(tmp_path / "b.png"))
    assert root.run_until_idle() == 0
    found = root.by_name()
    digest = hashlib.sha256(slide.read_bytes()).hexdigest()
    assert found["one.svs"]["sha256"] == found["two.svs"]["sha256"] == digest
    assert found["two.svs"]["duplicate_of"] == found["one.svs"]["id"]
    assert found["one.svs"]["duplicate_of"] is None
    assert found["b.png"]["sha256"]
    assert command(root, "check", "--deep").returncode == 0
    root.check_hashes()
    root.assert_clean()
