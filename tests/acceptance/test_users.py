"""What one user's or one scanner's drops need of their own: [inbox.users.NAME]."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytowatch.config import Config, UserInbox, from_mapping, reloaded, render, to_mapping
from cytowatch.record.errors import ConfigError
from tests import builders
from tests.lab.root import Root
from tests.lab.told import free_port


def test_each_user_has_his_own_times_and_marker(root: Root, tmp_path: Path) -> None:
    """One is taken at once, one when its marker comes, one is not waited for; a reload changes it."""
    slow = "[inbox.users.Scanner2]\nquiet_s = 600.0\n"
    marked = '[inbox.users.marked]\ndone_marker = ".done"\n'
    short = "[inbox.users.short]\nincomplete_after_s = 1.0\n"
    listen = f"127.0.0.1:{free_port()}"
    root.configure(listen=listen, more=slow + marked + short)
    slide = builders.png(tmp_path / "a.png")
    for user in ("ann", "scanner2", "marked"):
        root.drop(slide, user=user)
    root.drop(slide, "cut.png", user="short").write_bytes(slide.read_bytes()[:-100])
    root.drop(slide, "cut.png", user="ann").write_bytes(slide.read_bytes()[:-100])
    root.start()
    root.wait(lambda: {one["user"] for one in root.manifests().values()} == {"ann", "short"})
    root.wait(lambda: root.by_name().get("cut.png", {}).get("status") == "ERROR_FORMAT")
    wanted = {("ann", "incomplete"), ("scanner2", "settling"), ("marked", "done_marker")}
    root.wait(lambda: {(one["user"], one["why"]) for one in root.waiting()} == wanted)
    # Names are compared casefolded, and the marker may go as well.
    root.configure(listen=listen, more="[inbox.users.SCANNER2]\nquiet_s = 0.5\n")
    root.reload()
    (root.path / "inbox" / "scanner2" / "a.png").touch()
    root.wait(lambda: len(root.manifests()) == 4)
    root.configure(listen=listen, more=marked)
    root.reload()
    late = root.drop(slide, "late.png", user="marked")
    root.wait(lambda: "done_marker" in {one["why"] for one in root.waiting()})
    root.two_more_scans()
    assert late.exists()
    late.with_name("late.png.done").touch()
    root.wait(lambda: len(root.manifests()) == 5)
    assert root.stop() == 0


def test_a_section_for_a_user_is_checked_and_written_down() -> None:
    """Every problem is reported with its key; what is rendered is read back the same."""
    one = from_mapping({"inbox": {"users": {"Ann B": {"quiet_s": 3.0, "done_marker": ""}}}})
    assert one.inbox.of("ann b").quiet_s == 3.0
    assert one.inbox.of("ann b").folder_quiet_s == one.inbox.folder_quiet_s
    assert one.inbox.of("bob") is one.inbox
    assert from_mapping(to_mapping(one)) == one
    tomli = pytest.importorskip("tomli")
    assert from_mapping(tomli.loads(render(one))) == one
    changed, keys, refused = reloaded(Config(), one)
    assert (changed.inbox.users, keys, refused) == (
        {"Ann B": UserInbox(quiet_s=3.0, done_marker="")},
        ["inbox.users"],
        [],
    )
    for wrong, said in (
        ({"a": {"quiet": 1.0}}, "inbox.users.a.quiet = 1.0: unknown key"),
        ({"a": {"quiet_s": 0.0}}, "inbox.users.a.quiet_s = 0.0: expected a number"),
        ({"a": {"done_marker": "x"}}, "inbox.users.a.done_marker = 'x': expected an ending"),
        ({"a": {}, "A": {}}, "inbox.users.a: expected one section for each user"),
        ({"a": 3}, "inbox.users = "),
    ):
        with pytest.raises(ConfigError, match=said):
            from_mapping({"inbox": {"users": wrong}})
