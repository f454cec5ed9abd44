"""The whole way, as a lab would use it: a real daemon, real drops, what is on disk afterwards."""

from __future__ import annotations

import grp
import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import openslide
import pytest
import pyvips
import tifffile

from tests import builders
from tests.lab.pictures import Pictures
from tests.lab.root import Root
from tests.lab.told import json_lines


def page(address: str) -> str:
    with urlopen(address, timeout=10) as answer:
        return answer.read().decode()


def test_a_native_slide_is_renamed_and_never_copied(pictures: Pictures, tmp_path: Path) -> None:
    """The inode in storage is the inode that was dropped, under a wrong name as well."""
    slide = builders.aperio_svs(tmp_path / "CMU-1.svs")
    inodes = {}
    for name in ("CMU-1.svs", "wrong.jpg", "no extension"):
        inodes[name] = os.stat(pictures.drop(slide, name)).st_ino
    assert pictures.treated() == 0
    found = pictures.by_name()
    for name, inode in inodes.items():
        document = found[name]
        assert document["status"] == "DEPLOYED"
        assert document["format"]["id"] == "aperio-svs"
        [source] = [row for row in document["files"] if row["role"] == "source"]
        assert source["path"].endswith(".svs")
        assert os.stat(document["_path"] / source["path"]).st_ino == inode
        assert (document["_path"] / "derived" / "thumbnail.jpg").is_file()
    pictures.check_hashes()


def test_a_flat_image_becomes_a_pyramid_beside_it(pictures: Pictures, tmp_path: Path) -> None:
    """CONVERTED, with a DEPLOYED pyramid that OpenSlide opens, and the original beside it."""
    original = builders.planar_tiff(tmp_path / "flat.tif", width=1500, height=1100)
    before = original.read_bytes()
    pictures.drop(original)
    assert pictures.treated() == 0
    document = pictures.by_name()["flat.tif"]
    assert document["status"] == "CONVERTED"
    rows = {row["role"]: row for row in document["files"]}
    assert rows["pyramid"]["status"] == "DEPLOYED"
    assert (document["_path"] / rows["source"]["path"]).read_bytes() == before
    with openslide.OpenSlide(document["_path"] / rows["pyramid"]["path"]) as slide:
        assert slide.dimensions == (1500, 1100)
        assert slide.level_count == len(document["images"][0]["levels"]) > 1
    assert [entry["status"] for entry in document["history"]] == [
        "UPLOADED",
        "DETECTING_FORMAT",
        "CONVERTING",
        "DEPLOYING",
        "CONVERTED",
    ]
    pictures.check_hashes()


def test_every_member_of_a_zip_becomes_an_uploaded_file(pictures: Pictures, tmp_path: Path) -> None:
    """The zip ends EXTRACTED, its members where each of them belongs, with their parent named."""
    made = tmp_path / "batch.zip"
    with zipfile.ZipFile(made, "w") as archive:
        archive.write(builders.aperio_svs(tmp_path / "a.svs"), "case/a.svs")
        archive.write(builders.jpeg(tmp_path / "b.jpg"), "b.jpg")
        archive.writestr("notes.txt", "nothing to see")
    pictures.drop(made)
    assert pictures.treated() == 0
    found = pictures.by_name()
    parent = found["batch.zip"]
    assert (parent["status"], parent["format"]["id"]) == ("EXTRACTED", "zip")
    assert sorted(parent["children"]) == sorted(found[name]["id"] for name in ("a.svs", "b.jpg"))
    assert {found["a.svs"]["parent_id"], found["b.jpg"]["root_id"]} == {parent["id"]}
    assert (found["a.svs"]["status"], found["b.jpg"]["status"]) == ("DEPLOYED", "CONVERTED")
    assert [entry["name"] for entry in parent["skipped"]] == ["notes.txt"]
    pictures.check_hashes()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n", "PDF"),
        (b"", "empty"),
        (b"Dear scanner, this is only text.\n" * 40, "text"),
    ],
)
def test_anything_else_ends_in_an_error_that_names_what_it_looked_like(
    root: Root, content: bytes, word: str
) -> None:
    """ERROR_FORMAT, the original untouched, and the exit code says that something was wrong."""
    target = root.path / "inbox" / "ann" / "slide.svs"
    target.parent.mkdir()
    target.write_bytes(content)
    assert root.run_until_idle() == 1
    document = root.by_name()["slide.svs"]
    assert (document["status"], document["_stage"]) == ("ERROR_FORMAT", "error-format")
    assert word.lower() in document["error"]["detail"].lower()
    [source] = document["files"]
    assert (document["_path"] / source["path"]).read_bytes() == content
    root.assert_clean()


def test_a_half_written_slide_waits_and_is_taken_when_it_is_whole(
    root: Root, tmp_path: Path
) -> None:
    """A connection cut mid-write looks like a close: the structure tells, and the rest may come."""
    whole = builders.aperio_svs(tmp_path / "a.svs").read_bytes()
    target = root.path / "inbox" / "ann" / "a.svs"
    target.parent.mkdir()
    target.write_bytes(whole[: len(whole) // 2])
    assert root.run_until_idle() == 0
    assert target.is_file()
    assert root.manifests() == {}
    told = subprocess.run(
        root.command("status", "--json", "--root", str(root.path)), capture_output=True, check=True
    )
    assert "incomplete" in told.stdout.decode()
    with target.open("ab") as rest:
        rest.write(whole[len(whole) // 2 :])
    assert root.run_until_idle() == 0
    assert root.by_name()["a.svs"]["status"] == "DEPLOYED"


def test_what_stays_incomplete_ends_in_an_error_that_says_what_is_missing(
    root: Root, tmp_path: Path
) -> None:
    """After `incomplete_after_s` it is ERROR_FORMAT `incomplete`."""
    root.configure(inbox="incomplete_after_s = 1.0")
    whole = builders.png(tmp_path / "a.png").read_bytes()
    target = root.path / "inbox" / "ann" / "a.png"
    target.parent.mkdir()
    target.write_bytes(whole[:-20])
    assert root.run_until_idle() == 1
    error = root.by_name()["a.png"]["error"]
    assert error["reason"] == "incomplete"
    assert "IEND" in error["detail"]


def test_an_open_writer_keeps_the_drop_in_its_inbox(root: Root, tmp_path: Path) -> None:
    """However long it pauses: while somebody has it open for writing it is not taken."""
    slide = builders.jpeg(tmp_path / "a.jpg")
    root.drop(slide)
    with (root.path / "inbox" / "ann" / "a.jpg").open("r+b"):
        root.start()
        live = root.path / "state" / "live.json"
        root.wait(lambda: live.exists() and "open_for_writing" in live.read_text())
        assert root.manifests() == {}
    root.wait(lambda: root.by_name().get("a.jpg", {}).get("status") == "CONVERTED")


def test_links_and_pipes_stay_where_they_are(root: Root, tmp_path: Path) -> None:
    """What is not a regular file waits, is never followed, and hangs nothing."""
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    builders.jpeg(tmp_path / "a.jpg")
    (inbox / "link.jpg").symlink_to(tmp_path / "a.jpg")
    os.link(tmp_path / "a.jpg", inbox / "hard.jpg")
    os.mkfifo(inbox / "pipe.jpg")
    root.drop(builders.jpeg(tmp_path / "b.jpg"))
    assert root.run_until_idle() == 0
    assert sorted(p.name for p in inbox.iterdir()) == ["hard.jpg", "link.jpg", "pipe.jpg"]
    assert list(root.by_name()) == ["b.jpg"]


def test_odd_names_are_kept_in_the_manifest_and_never_on_disk(root: Root, tmp_path: Path) -> None:
    """Newlines, options, page suffixes and bytes that are not UTF-8: all are ingested."""
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    data = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    odd = [b"a[page=3].jpg", b"line\nbreak.jpg", b"-rf.jpg", b"caf\xe9.jpg", b"%s" * 40, b"x" * 255]
    for name in odd:
        (Path(os.fsdecode(os.path.join(os.fsencode(inbox), name)))).write_bytes(data)
    assert root.run_until_idle() == 0
    documents = list(root.manifests().values())
    assert len(documents) == len(odd)
    assert {document["status"] for document in documents} == {"CONVERTED"}
    assert all(document["id"].isascii() and "\n" not in document["id"] for document in documents)
    assert len(json_lines(root.log)) == len(root.log.read_text().splitlines())


@pytest.mark.parametrize("watch", ["auto", "polling"])
def test_a_user_who_comes_later_and_an_inbox_that_is_replaced(
    root: Root, tmp_path: Path, watch: str
) -> None:
    """A folder that is new, and a root of inboxes that is another one now: both are noticed."""
    root.configure(inbox=f'watch = "{watch}"')
    root.start()
    slide = builders.jpeg(tmp_path / "a.jpg")
    root.drop(slide, "first.jpg", user="bob")
    root.wait(lambda: root.by_name().get("first.jpg", {}).get("status") == "CONVERTED")
    inbox = root.path / "inbox"
    inbox.rename(tmp_path / "old")
    inbox.mkdir()
    root.drop(slide, "second.jpg", user="cyd")
    root.wait(lambda: root.by_name().get("second.jpg", {}).get("status") == "CONVERTED")
    root.wait(lambda: '"watcher_replaced"' in root.log.read_text())
    root.drop(slide, "third.jpg", user="cyd")
    root.wait(lambda: root.by_name().get("third.jpg", {}).get("status") == "CONVERTED")
    assert root.by_name()["third.jpg"]["user"] == "cyd"


def test_a_full_reserve_holds_everything_back_and_says_so(root: Root, tmp_path: Path) -> None:
    """Below `reserve_bytes` nothing new is claimed; /healthz says why."""
    root.configure(listen="127.0.0.1:0", storage={"reserve_bytes": 1 << 60})
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    root.start()
    address = next(line["address"] for line in json_lines(root.log) if line["event"] == "listening")

    def told() -> dict:
        try:
            return json.loads(page(f"http://{address}/healthz"))
        except HTTPError as error:
            with error:
                assert error.code == 503
                return json.loads(error.read())

    root.wait(lambda: "reserve" in told()["reasons"].get("disk", ""))
    assert root.manifests() == {}
    assert root.stop() == 0


def test_what_is_deployed_can_be_read_by_the_configured_group(root: Root, tmp_path: Path) -> None:
    """Its files and folders belong to the group, with the configured modes and no others."""
    root.configure(inbox={"folder_quiet_s": 0.2}, storage={"group": "daemon", "file_mode": "0440"})
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(builders.png(tmp_path / "d.png", width=300), "d.png")
        archive.write(builders.aperio_svs(tmp_path / "e.svs", width=900), "e.svs")
    root.drop(tmp_path / "c.zip")
    case = root.path / "inbox" / "ann" / "@study" / "case"
    case.mkdir(parents=True)
    builders.png(case / "f.png", width=310)
    root.drop(builders.png(tmp_path / "a.png"))
    root.drop(builders.aperio_svs(tmp_path / "b.svs"))
    assert root.run_until_idle() == 0
    assert len(root.manifests()) == 7
    wanted = grp.getgrnam("daemon").gr_gid
    for top in ("storage", "projects"):
        for folder, _, files in os.walk(root.path / top):
            assert os.stat(folder).st_gid == wanted, folder
            assert os.stat(folder).st_mode & 0o777 == 0o750, folder
            for name in files:
                found = os.stat(os.path.join(folder, name))
                assert found.st_gid == wanted, (folder, name)
                assert found.st_mode & 0o777 == 0o440, (folder, name)


def test_sources_go_only_where_the_configuration_says_so(root: Root, tmp_path: Path) -> None:
    """`keep_source` and `keep_archive` off: the pyramid and the members stay, manifests say so."""
    root.configure(more="[convert]\nkeep_source = false\n[extract]\nkeep_archive = false")
    made = tmp_path / "b.zip"
    with zipfile.ZipFile(made, "w") as archive:
        archive.write(builders.aperio_svs(tmp_path / "a.svs"), "a.svs")
        archive.write(builders.jpeg(tmp_path / "b.jpg"), "b.jpg")
    root.drop(made)
    assert root.run_until_idle() == 0
    found = root.by_name()
    roles = {name: sorted(row["role"] for row in one["files"]) for name, one in found.items()}
    assert roles["b.zip"] == []
    assert roles["b.jpg"] == ["pyramid", "thumbnail"]
    assert "source" in roles["a.svs"], "a native slide is always kept"
    for name in ("b.zip", "b.jpg"):
        assert list((found[name]["_path"] / "source").iterdir()) == []
    root.check_hashes()


def test_what_is_dropped_for_a_project_is_linked_to_it(root: Root, tmp_path: Path) -> None:
    """By relative links, members of an archive too; the folder in the inbox stays."""
    inbox = root.path / "inbox" / "ann" / "@liver"
    inbox.mkdir(parents=True)
    builders.aperio_svs(inbox / "a.svs")
    with zipfile.ZipFile(inbox / "b.zip", "w") as archive:
        archive.write(builders.jpeg(tmp_path / "b.jpg"), "b.jpg")
    assert root.run_until_idle() == 0
    assert list(inbox.iterdir()) == []
    links = {path.name.rpartition("~")[0]: path for path in root.path.glob("projects/liver/*")}
    assert sorted(links) == ["a.svs", "b.zip - b.jpg"]
    for name, link in links.items():
        assert not os.readlink(link).startswith("/")
        # A member's link says which archive it came in.
        member = root.by_name()[name.rpartition(" - ")[2]]
        assert link.resolve() == member["_path"].resolve()
        assert member["projects"] == ["liver"]


def test_metrics_and_health_are_served(root: Root, tmp_path: Path) -> None:
    """Counts by status are there from the start, and follow what happens."""
    root.configure(listen="127.0.0.1:0")
    root.start()
    address = next(line["address"] for line in json_lines(root.log) if line["event"] == "listening")
    text = page(f"http://{address}/metrics")
    assert 'cytowatch_files{status="CONVERTED"} 0.0' in text
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    root.wait(lambda: root.by_name().get("a.jpg", {}).get("status") == "CONVERTED")

    def counted() -> bool:
        told = page(f"http://{address}/metrics")
        return 'cytowatch_uploads_total{format="jpeg",status="CONVERTED"} 1.0' in told

    root.wait(counted)
    healthy = json.loads(page(f"http://{address}/healthz"))
    assert (healthy["status"], healthy["reasons"]) == ("ok", {})


def test_two_daemons_cannot_share_a_root(root: Root) -> None:
    """The second exits 2 and says who holds it."""
    root.start()
    assert root.process
    second = subprocess.run(
        root.command("run", "--root", str(root.path), "--config", str(root.config)),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2
    assert str(root.process.pid) in second.stderr.decode()
    assert root.stop() == 0


def test_mpp_is_never_invented(pictures: Pictures, tmp_path: Path) -> None:
    """A camera's 72 dpi is not a pixel size: null in the manifest and absent from the pyramid."""
    pixels = (np.indices((300, 400)).sum(0) % 255).astype(np.uint8)
    pyvips.Image.new_from_array(pixels).copy(xres=72 / 25.4, yres=72 / 25.4).jpegsave(
        str(tmp_path / "camera.jpg")
    )
    pictures.drop(tmp_path / "camera.jpg")
    assert pictures.treated() == 0
    document = pictures.by_name()["camera.jpg"]
    assert document["images"][0]["mpp_x"] is None
    pyramid = next(row["path"] for row in document["files"] if row["role"] == "pyramid")
    with openslide.OpenSlide(document["_path"] / pyramid) as slide:
        assert "openslide.mpp-x" not in slide.properties
    with tifffile.TiffFile(document["_path"] / pyramid) as tiff:
        assert all(page.tags["ResolutionUnit"].value == 1 for page in tiff.pages)


def test_sighup_takes_over_what_may_change(root: Root, tmp_path: Path) -> None:
    """The rest is named, a wrong file changes nothing, and the daemon goes on."""
    root.configure(inbox="incomplete_after_s = 1000")
    root.start()
    assert root.process
    data = builders.aperio_svs(tmp_path / "a.svs").read_bytes()
    root.drop(builders.jpeg(tmp_path / "b.jpg"))
    root.wait(lambda: [one for one in root.manifests().values() if one["status"] == "CONVERTED"])
    root.configure(inbox={"incomplete_after_s": "soon"})
    root.process.send_signal(signal.SIGHUP)
    root.wait(lambda: "reload_refused" in root.log.read_text())
    root.configure(inbox={"incomplete_after_s": 0.5}, engine={"workers": 7})
    root.process.send_signal(signal.SIGHUP)
    root.wait(lambda: '"reloaded"' in root.log.read_text())
    [line] = [one for one in json_lines(root.log) if one["event"] == "reloaded"]
    assert line["changed"] == ["inbox.incomplete_after_s"]
    assert line["needs_a_restart"] == ["engine.workers"]
    (root.path / "inbox" / "ann" / "half.svs").write_bytes(data[: len(data) // 2])
    root.wait(lambda: root.by_name().get("half.svs", {}).get("status") == "ERROR_FORMAT")
    assert root.stop() == 0
