"""A user of this machine who owns what he dropped, and writes to it after it was claimed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import builders
from tests.lab.root import STAGES, Root, command
from tests.lab.writer import UID, Writer
from tests.needs import needs

#: As a daemon that is not root and has no capability: it may move the files of others, and not change them.
WITHOUT = ["setpriv", "--bounding-set", "-chown,-fowner,-lease,-dac_override,-dac_read_search"]


def dropped_by_another(root: Root, slide: Path, name: str) -> Path:
    """The slide in the inbox, whose owner is another user from the first moment that it is seen."""
    os.chown(slide, UID, UID)
    slide.chmod(0o644)
    target = root.path / "inbox" / "ann" / name
    target.parent.mkdir(exist_ok=True)
    os.rename(slide, target)
    return target


@needs("setpriv", root=True)
@pytest.mark.parametrize("make", [builders.aperio_svs, builders.png], ids=["native", "flat"])
def test_a_change_after_the_claim_is_found_before_it_is_published(
    root: Root, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """The daemon may not take the file: its owner writes, sets the times back, and the hash shows it."""
    root.environment = dict(STAGES)
    root.prefix = WITHOUT
    slide = make(tmp_path / ("a.svs" if make is builders.aperio_svs else "a.png"))
    (tmp_path / "b").write_bytes(slide.read_bytes())
    path = dropped_by_another(root, slide, f"slow-DEPLOYING{slide.suffix}")
    writer = Writer(path)
    try:
        root.start()
        root.wait(lambda: "DEPLOYING" in {one["status"] for one in root.manifests().values()})
        assert writer.tries("w") == "done"
        root.wait(
            lambda: "ERROR_DEPLOYMENT" in {one["status"] for one in root.manifests().values()}
        )
        [found] = root.manifests().values()
        assert found["error"]["reason"] == "changed"
        # The hash is of bytes that are gone; a retry takes it as it is now.
        assert found["files"][0]["sha256"] is None
        assert command(root, "retry", found["id"]).returncode == 0
        published = {"DEPLOYED", "CONVERTED"}
        again = {"DEPLOYED", "ERROR_CONVERSION"}
        root.wait(lambda: again & {one["status"] for one in root.manifests().values()})
        # One that is left alone is published, after it was read twice.
        dropped_by_another(root, tmp_path / "b", f"good{slide.suffix}")
        good = f"good{slide.suffix}"
        root.wait(lambda: root.by_name().get(good, {}).get("status") in published)
    finally:
        writer.close()
    # As the daemon may, which is not what root may who asks.
    assert "may not take the files of other users" in command(root, "check").stdout
    assert root.stop() == 0
    root.check_hashes()
    root.assert_clean()


@needs(root=True)
def test_a_daemon_that_may_takes_it_at_the_claim(root: Root, tmp_path: Path) -> None:
    """Its owner is denied every way to write from then on, and what is published has the bytes that he sent."""
    root.environment = dict(STAGES)
    slide = builders.aperio_svs(tmp_path / "a.svs")
    data = slide.read_bytes()
    writer = Writer(dropped_by_another(root, slide, "slow-DEPLOYING.svs"))
    try:
        root.start()
        for status in ("DEPLOYING", "DEPLOYED"):
            root.wait(lambda status=status: status in {one["status"] for one in root.manifests().values()})  # type: ignore[misc]  # fmt: skip
            assert {word: writer.tries(word) for word in "wmt"} == dict.fromkeys("wmt", "PermissionError")  # fmt: skip
        assert "the daemon takes each slide at the claim" in command(root, "check").stdout
    finally:
        writer.close()
    assert root.stop() == 0
    [found] = root.manifests().values()
    assert (found["_path"] / found["files"][0]["path"]).read_bytes() == data
    root.check_hashes()
    root.assert_clean()
