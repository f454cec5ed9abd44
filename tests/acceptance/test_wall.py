"""A decoder process that was taken over says and makes what it likes: each costs one error of its own file."""

from __future__ import annotations

import hashlib
import re
import time
import zipfile
from pathlib import Path

import pytest

from tests import builders
from tests.lab import stages
from tests.lab.root import STAGES, Root
from tests.lab.told import json_lines

MISBEHAVING = dict(STAGES)
#: A daemon needs some 80 MiB; one message of lists, or a file of zeros, would make gigabytes of it.
MOST_KIB = 400 << 10


def high_water_kib(root: Root) -> int:
    assert root.process
    text = Path(f"/proc/{root.process.pid}/status").read_text()
    [found] = re.findall(r"VmHWM:\s+(\d+) kB", text)
    return int(found)


def all_ended(root: Root, names: list[str]) -> bool:
    found = root.by_name()
    return all(found.get(name, {}).get("status", "").startswith("ERROR") for name in names)


def assert_held(root: Root, tmp_path: Path, names: list[str], stage: str) -> None:
    """All of `names` have been dropped: each ends in an error, others are served, the daemon ends and starts."""
    builders.png(tmp_path / "good.png")
    root.drop(tmp_path / "good.png", user="bob")
    root.wait(lambda: root.by_name().get("good.png", {}).get("status") == "CONVERTED")
    root.wait(lambda: all_ended(root, names))
    assert high_water_kib(root) < MOST_KIB
    for name in names:
        document = root.by_name()[name]
        assert document["status"] == stage, (name, document["error"])
        said = document["error"]["reason"] + document["error"]["detail"]
        assert said.isprintable(), name
        assert len(said) < 5000, name
        assert document["user"] == "ann"
    began = time.monotonic()
    assert root.stop() == 0
    assert time.monotonic() - began < 15
    live = (root.path / "state" / "live.json").read_text()
    assert "\x1b" not in live + root.log.read_text()
    root.environment = {}
    root.drop(tmp_path / "good.png", "after.png", user="bob")
    root.start()
    root.wait(lambda: root.by_name().get("after.png", {}).get("status") == "CONVERTED")
    assert root.stop() == 0
    assert not [one for one in root.path.rglob("*") if one.is_fifo() or one.is_socket()]
    root.assert_clean()


@pytest.mark.slow
def test_what_a_decoder_says_costs_one_error(root: Root, tmp_path: Path) -> None:
    """Numbers that are none, endless and huge messages, faults that are not there, texts that act on a terminal; threads without end."""
    root.environment = MISBEHAVING
    root.configure(engine="max_attempts = 1\nno_progress_s = 3.0\nworkers = 4")
    builders.png(tmp_path / "a.png")
    names = [f"said-{word}.png" for word in stages.SAID]
    for name in names:
        root.drop(tmp_path / "a.png", name)
    root.start()
    assert_held(root, tmp_path, names, "ERROR_CONVERSION")
    told = {name: document["error"]["reason"] for name, document in root.by_name().items()
            if document["error"]}  # fmt: skip
    assert told["said-infinite.png"] == "unexpected"
    assert told["said-room.png"] == "larger_than_disk"
    assert told["said-fault.png"] == told["said-oddfault.png"] == "faults_repeatedly"
    assert told["said-still.png"] == told["said-drip.png"] == "no_progress"
    assert told["said-reason.png"] == "unexpected"
    assert told["said-detail.png"] == "damaged"
    assert "threads, more than" in root.by_name()["said-threads.png"]["error"]["detail"]


def test_a_restart_gives_a_false_fault_no_further_tries(root: Root, tmp_path: Path) -> None:
    """What a decoder reports and the daemon does not find is counted on disk, over kills as well."""
    root.environment = MISBEHAVING
    root.configure(engine="max_attempts = 2")
    builders.png(tmp_path / "a.png")
    root.drop(tmp_path / "a.png", "said-fault.png")
    lives = 0
    while not all_ended(root, ["said-fault.png"]):
        lives += 1
        told = root.log.read_text().count("held_up") if lives > 1 else 0
        root.start()
        root.wait(
            lambda told=told: (
                root.log.read_text().count("held_up") > told or all_ended(root, ["said-fault.png"])
            )
        )
        root.kill()
        # A life may see two of them.
        assert lives <= 6
    error = root.by_name()["said-fault.png"]["error"]
    assert error["reason"] == "faults_repeatedly"
    assert "the last of 6 attempts" in error["detail"]
    # The last kill may have come between the move and its row in the index; a start mends that.
    assert root.run_until_idle() == 0
    root.assert_clean()


@pytest.mark.slow
def test_what_a_decoder_made_costs_one_error(root: Root, tmp_path: Path) -> None:
    """Pipes, links, folders, sockets, other names and sizes in the place of the pyramid that it names."""
    root.environment = MISBEHAVING
    root.configure(engine="max_attempts = 1")
    builders.png(tmp_path / "a.png")
    names = [f"made-{word}.png" for word in stages.MADE if word != "inside"]
    for name in names:
        root.drop(tmp_path / "a.png", name)
    root.start()
    assert_held(root, tmp_path, names, "ERROR_CONVERSION")


def test_only_what_is_named_is_published(root: Root, tmp_path: Path) -> None:
    """A file, a link, folders 1,500 levels deep, one without permissions, a name of 255 bytes go; the log says so."""
    root.environment = MISBEHAVING
    builders.png(tmp_path / "a.png")
    names = ["unnamed-few.png", "unnamed-deep.png", "unnamed-long.png", "made-inside.png"]
    for name in names:
        root.drop(tmp_path / "a.png", name)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    for name in names:
        document = root.by_name()[name]
        assert document["status"] == "CONVERTED"
        named = {row["path"] for row in document["files"]}
        there = {str(one.relative_to(document["_path"])) for one in document["_path"].rglob("*")
                 if not one.is_dir() or one.parent.name == "derived"}  # fmt: skip
        assert there == named | {"manifest.json"}, name
    lines = [line for line in json_lines(root.log) if line["event"] == "output_unnamed"]
    assert {line["count"] for line in lines} == {1, 2}
    root.check_hashes()
    root.assert_clean()


@pytest.mark.slow
def test_what_a_decoder_makes_of_members_costs_one_error(root: Root, tmp_path: Path) -> None:
    """Manifests that are none or say what is not their own, members that are there already or lead out."""
    root.environment = MISBEHAVING
    root.configure(engine="max_attempts = 1")
    builders.png(tmp_path / "a.png")
    names = [f"member-{word}.zip" for word in stages.MEMBERS]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    for name in names:
        root.drop(tmp_path / "a.zip", name)
    root.start()
    assert_held(root, tmp_path, names, "ERROR_EXTRACTION")
    assert {path.name for path in (root.path / "storage").iterdir()} == {"bob"}
    assert not list((root.path / "projects").iterdir())


def test_a_large_answer_goes_by_a_file(root: Root, tmp_path: Path) -> None:
    """One that is larger than any message is taken all the same, and its file is not published."""
    root.environment = MISBEHAVING
    builders.png(tmp_path / "a.png")
    root.drop(tmp_path / "a.png", "large.png")
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    document = root.by_name()["large.png"]
    assert document["status"] == "CONVERTED"
    assert sum(len(one) for one in document["warnings"]) > 1 << 20
    assert not list(document["_path"].rglob("answer.json"))
    root.assert_clean()


def test_what_a_dying_decoder_still_writes_is_hashed_too(root: Root, tmp_path: Path) -> None:
    """Its threads write to the pyramid until the process is gone: the manifest has the hash of what is there."""
    root.environment = MISBEHAVING
    builders.png(tmp_path / "a.png")
    names = [f"scribble-{number}.png" for number in range(4)]
    for name in names:
        root.drop(tmp_path / "a.png", name)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    for name in names:
        document = root.by_name()[name]
        assert document["status"] == "CONVERTED"
        [pyramid] = [row for row in document["files"] if row["role"] == "pyramid"]
        assert (document["_path"] / pyramid["path"]).read_bytes()[-8:] != bytes(8)
        assert all(row["sha256"] is not None for row in document["files"])
    root.check_hashes()
    root.assert_clean()


@pytest.mark.parametrize("duplicates", ["link", "reject", "keep"])
def test_a_hash_that_is_a_lie_links_and_refuses_nothing(
    root: Root, tmp_path: Path, duplicates: str
) -> None:
    """A decoder states the hash of another slide: its own ends in an error, or states it for nothing; the other stays."""
    root.environment = MISBEHAVING
    root.configure(storage={"duplicates": duplicates})
    good = builders.aperio_svs(tmp_path / "good.svs")
    other = builders.aperio_svs(tmp_path / "other.svs", width=1300)
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    lie = f"claims-{digest}.svs"
    root.drop(good)
    root.start()
    root.wait(lambda: root.by_name().get("good.svs", {}).get("status") == "DEPLOYED")
    root.drop(other, lie)
    root.wait(
        lambda: root.by_name().get(lie, {}).get("status", "").startswith(("ERROR", "DEPLOYED"))
    )
    if duplicates != "keep":
        found = root.by_name()[lie]
        assert found["error"]["reason"] == "output_refused", found["error"]
        assert {line["first"] for line in json_lines(root.log) if line["event"] == "not_the_same"}
    for name in ("twin.svs", "good.svs"):
        if name == "twin.svs":
            # A true duplicate is one still.
            root.drop(good, "twin.svs")
            root.wait(lambda: root.by_name().get("twin.svs", {}).get("status", "").startswith(("ERR", "DEPLOYED")))  # fmt: skip
        source = root.by_name()[name]["_path"] / root.by_name()[name]["files"][0]["path"]
        assert source.read_bytes() == good.read_bytes()
    twin = root.by_name()["twin.svs"]
    assert twin["status"] == ("ERROR_FORMAT" if duplicates == "reject" else "DEPLOYED")
    assert (twin["_path"] / "source").is_symlink() is (duplicates == "link")
    assert root.stop() == 0
