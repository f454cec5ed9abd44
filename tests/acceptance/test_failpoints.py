"""Killed at, and failed at, every place that `cytowatch.durable.failpoints` names."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cytowatch.admin import invariants
from cytowatch.durable import failpoints
from cytowatch.tree.spool import Spool
from tests import builders
from tests.builders import vendors
from tests.lab.root import Root


def prepare(root: Root, tmp_path: Path) -> list[str]:
    """A slide in storage already; then all that goes through every place: the hashes of it all.

    A second slide of the same content (linked), one for a project, a flat image, a set, an archive
    that is not kept, and a case folder.
    """
    root.configure(
        inbox="folder_quiet_s = 0.5",
        more='[extract]\nkeep_archive = false\n[feedback]\ndir = ""\n',
        engine="max_attempts = 100",
    )
    root.configure_also(storage={"duplicates": "link"})
    slide = builders.aperio_svs(tmp_path / "a.svs", width=512, height=512)
    root.drop(slide, "first.svs")
    assert root.run_until_idle() == 0
    inbox = root.path / "inbox" / "ann"
    root.drop(slide, "same.svs")
    (inbox / "@liver").mkdir()
    builders.aperio_svs(inbox / "@liver" / "p.svs", width=520, height=512)
    builders.png(inbox / "b.png")
    vendors.mirax_mrxs(inbox, "M")
    (inbox / "case").mkdir()
    builders.jpeg(inbox / "case" / "1.jpg", width=300)
    builders.jpeg(inbox / "case" / "2.jpg", width=310)
    (tmp_path / "z").mkdir()
    builders.jpeg(tmp_path / "z" / "x.jpg", width=320)
    builders.jpeg(tmp_path / "z" / "y.jpg", width=330)
    shutil.make_archive(str(tmp_path / "c"), "zip", root_dir=tmp_path / "z")
    dropped = [path for path in [*inbox.rglob("*"), *(tmp_path / "z").iterdir()] if path.is_file()]
    shutil.copyfile(tmp_path / "c.zip", inbox / "c.zip")
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in dropped]


def all_is_well(root: Root, dropped: list[str], *, more: int = 0) -> None:
    """All are where they belong, with `more` that were dropped later."""
    root.assert_clean()
    found = list(root.manifests().values())
    assert sorted((one["name"], one["status"]) for one in found) == [
        ("1.jpg", "CONVERTED"),
        ("2.jpg", "CONVERTED"),
        ("M.mrxs", "DEPLOYED"),
        ("b.png", "CONVERTED"),
        ("c.zip", "EXTRACTED"),
        ("case", "EXTRACTED"),
        ("first.svs", "DEPLOYED"),
        *((f"more{number}.jpg", "CONVERTED") for number in range(more)),
        ("p.svs", "DEPLOYED"),
        ("same.svs", "DEPLOYED"),
        ("x.jpg", "CONVERTED"),
        ("y.jpg", "CONVERTED"),
    ]
    stored = {
        hashlib.sha256((one["_path"] / row["path"]).read_bytes()).hexdigest()
        for one in found
        for row in one["files"]
        if row["role"] == "source"
    }
    assert set(dropped) <= stored
    assert [path for path in (root.path / "inbox").rglob("*") if path.is_file()] == []


def arm(root: Root, names: list[str], what: str) -> None:
    root.environment = {failpoints.VARIABLE: ",".join(f"{name}={what}" for name in names)}


@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_every_place(root: Root, tmp_path: Path, count: int) -> None:
    """One start after the other, each cut off at the next place, until none is left."""
    dropped = prepare(root, tmp_path)
    left = list(failpoints.NAMES)
    # Of these there is but one in the whole run.
    left = [n for n in left if count == 1 or n not in ("folder.entered", "project.linked")]
    cut: list[str] = []
    more = 0
    while True:
        # A folder's own rename is one of many: cut off there first, it would be entered already.
        after = ["stage.renamed"] if count == 1 and "folder.entered" in left else []
        arm(root, [name for name in left if name not in after], f"kill@{count}")
        code = root.run_until_idle()
        if code == 0 and count == 1 and more < 9 and any(n.startswith("claim.") for n in left):
            # Several are claimed at a time: those that stood further behind were finished by the next start.
            one = builders.jpeg(root.path / "inbox" / "ann" / f"more{more}.jpg", width=400 + more)
            dropped.append(hashlib.sha256(one.read_bytes()).hexdigest())
            more += 1
            continue
        if code == 0:
            break
        assert code == -signal.SIGKILL, root.log.read_text()[-3000:]
        assert list(invariants.broken(Spool.open(root.path), at_rest=False)) == []
        # Only the last of the places that were passed can have killed it.
        cut.append(root.last_failpoint())
        left.remove(cut[-1])
    all_is_well(root, dropped, more=more)
    if count == 1:
        assert left == [], "these were never reached"


def test_a_set_cut_off_at_each_of_its_renames(root: Root) -> None:
    """However many of its files had moved: it is whole in the end, and there once."""
    vendors.mirax_mrxs(root.path / "inbox" / "ann", "M")
    files = len([path for path in (root.path / "inbox").rglob("*") if path.is_file()])
    for count in range(1, files + 1):
        arm(root, ["claim.renamed"], f"kill@{count}")
        assert root.run_until_idle() == -signal.SIGKILL
    root.environment = {}
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    assert document["status"] == "DEPLOYED"
    assert len(document["files"]) >= files
    root.assert_clean()


@pytest.mark.parametrize("what", ["EIO", "ENOSPC@2", "EROFS@3"])
def test_failed_at_every_place(root: Root, tmp_path: Path, what: str) -> None:
    """Each place fails once, in one run: nothing ends in an error, and the daemon lives on."""
    dropped = prepare(root, tmp_path)
    arm(root, list(failpoints.NAMES), what)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    all_is_well(root, dropped)


@pytest.mark.parametrize("what", ["ENOSPC@2", "EIO@2"])
def test_a_folder_whose_end_fails_once(root: Root, what: str) -> None:
    """With nothing else to do, `--until-idle` still waits for the second try."""
    root.configure(inbox="folder_quiet_s = 0.5")
    case = root.path / "inbox" / "ann" / "case"
    case.mkdir(parents=True)
    builders.jpeg(case / "1.jpg", width=300)
    # The first one is its image's.
    arm(root, ["hook.noted"], what)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    assert "set_aside" in root.log.read_text()
    assert sorted(one["status"] for one in root.manifests().values()) == ["CONVERTED", "EXTRACTED"]
    root.assert_clean()


def test_a_name_that_is_none_is_refused() -> None:
    """A test that arms what is not there would test nothing."""
    told = subprocess.run(
        [sys.executable, "-c", "import cytowatch.durable.failpoints"],
        env={failpoints.VARIABLE: "no.such=kill"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no failpoint 'no.such'" in told.stderr
