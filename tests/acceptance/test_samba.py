"""As scanners do it: a real Samba, and clients that behave in every way that was seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import builders
from tests.builders import vendors
from tests.lab import samba
from tests.lab.root import Root
from tests.lab.samba import Samba
from tests.lab.told import free_port
from tests.needs import unless

pytestmark = [
    unless(samba.missing()),
    # A connection that is cut leaves handles that nobody can close any more.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def share(root: Root, tmp_path: Path) -> Iterator[Samba]:
    user = samba.getpass.getuser()
    for part in ("inbox", "status", "storage"):
        (root.path / part / user).mkdir(exist_ok=True, mode=0o770)
    tmp_path.chmod(0o755)
    made = Samba(tmp_path / "samba", root.path)
    yield made
    made.stop()


@pytest.fixture
def slide(tmp_path: Path) -> bytes:
    return builders.aperio_svs(tmp_path / "slide.svs").read_bytes()


def deployed(root: Root, count: int = 1) -> list[dict]:
    root.wait(
        lambda: (
            sum(one["status"] in ("DEPLOYED", "CONVERTED") for one in root.manifests().values())
            >= count
        )
    )
    return list(root.manifests().values())


def whole(root: Root, data: bytes, count: int = 1) -> None:
    """So many slides were deployed, each with all of its bytes, and nothing else happened."""
    found = deployed(root, count)
    assert len(found) == count
    for one in found:
        assert (one["_path"] / one["files"][0]["path"]).read_bytes() == data
    assert root.stop() == 0
    root.assert_clean()


def test_open_for_a_long_time_with_pauses(root: Root, share: Samba, slide: bytes) -> None:
    """However long nothing comes: as long as the scanner has it open it is not taken."""
    root.start()
    with share.open("scan.svs", share_access=None) as file:
        file.write(slide[:65536])
        file.flush()
        root.wait(lambda: [w for w in root.waiting() if w["why"] == "open_for_writing"])
        assert root.manifests() == {}
        file.write(slide[65536:])
    whole(root, slide)


def test_size_before_content_and_a_time_of_2018(root: Root, share: Samba, slide: bytes) -> None:
    """What a copier announces is not there yet; the times that it sets mean nothing."""
    import smbclient

    root.start()
    with share.open("scan.svs", "wb", share_access="r") as file:
        file.truncate(len(slide))
        file.seek(0)
        file.write(slide[:65536])
        file.flush()
        smbclient.utime(share.path("scan.svs"), (1_515_000_000, 1_515_000_000), **share.session)
        root.wait(root.waiting)
        file.write(slide[65536:])
    smbclient.utime(share.path("scan.svs"), (1_515_000_000, 1_515_000_000), **share.session)
    whole(root, slide)


def test_a_size_that_is_never_filled(root: Root, share: Samba, slide: bytes) -> None:
    """The connection is cut after the size was set: zeros are not a slide."""
    root.start()
    file = share.open("scan.svs")
    file.truncate(len(slide))
    file.seek(0)
    file.write(slide[: len(slide) // 2])
    file.flush()
    share.cut()
    root.wait(lambda: [w for w in root.waiting() if w["why"] == "incomplete"])
    assert root.manifests() == {}
    share.put("scan.svs", slide)
    whole(root, slide)


def test_append_in_many_rounds(root: Root, share: Samba, slide: bytes) -> None:
    """Each close looks like the last one."""
    root.start()
    step = len(slide) // 6 + 1
    for begin in range(0, len(slide), step):
        with share.open("scan.svs", "ab") as file:
            file.write(slide[begin : begin + step])
    whole(root, slide)


def test_a_temporary_name_and_then_the_real_one(root: Root, share: Samba, slide: bytes) -> None:
    """As copiers do; the temporary one is never taken, and waits visibly if it stays."""
    import smbclient

    root.configure(listen=f"127.0.0.1:{free_port()}")
    root.start()
    share.put("scan.svs.part", slide)
    root.wait(lambda: [one["why"] for one in root.waiting()] == ["temporary_name"])
    root.two_more_scans()
    assert root.manifests() == {}
    smbclient.rename(share.path("scan.svs.part"), share.path("scan.svs"), **share.session)
    whole(root, slide)


def test_overwritten_while_the_first_is_in_work(root: Root, share: Samba, slide: bytes) -> None:
    """It is another slide; the first one is what it was."""
    root.start()
    share.put("scan.svs", slide)
    root.wait(root.manifests)
    share.put("scan.svs", slide)
    whole(root, slide, 2)


@pytest.mark.parametrize("finished", [True, False])
def test_cut_in_the_middle(root: Root, share: Samba, slide: bytes, finished: bool) -> None:
    """On disk it looks like a close. It waits with a reason; finished later it is whole."""
    root.configure(inbox="" if finished else "incomplete_after_s = 1.5")
    root.start()
    file = share.open("scan.svs")
    file.write(slide[: len(slide) * 2 // 3])
    file.flush()
    share.cut()
    if not finished:
        root.wait(lambda: [o for o in root.manifests().values() if o["status"] == "ERROR_FORMAT"])
        [document] = root.manifests().values()
        assert document["error"]["reason"] == "incomplete"
        assert root.stop() == 0
        return
    [waits] = root.wait(lambda: [w for w in root.waiting() if w["why"] == "incomplete"])
    assert waits["detail"].startswith("missing ")
    with share.open("scan.svs", "r+b") as file:
        file.seek(len(slide) * 2 // 3)
        file.write(slide[len(slide) * 2 // 3 :])
    whole(root, slide)


def test_a_set_file_by_file(root: Root, share: Samba, tmp_path: Path) -> None:
    """The head first, its folder after it."""
    import smbclient

    made = vendors.mirax_mrxs(tmp_path / "m").parent
    root.start()
    share.put("CMU-1.mrxs", (made / "CMU-1.mrxs").read_bytes())
    smbclient.mkdir(share.path("CMU-1"), **share.session)
    for name in ("Data0001.dat", "Index.dat", "Slidedat.ini", "Data0000.dat"):
        root.wait(root.waiting)
        assert root.manifests() == {}
        share.put(f"CMU-1/{name}", (made / "CMU-1" / name).read_bytes())
    [document] = deployed(root)
    assert document["format"]["id"] == "mirax-mrxs"
    assert root.stop() == 0
    root.assert_clean()


def test_a_case_folder(root: Root, share: Samba, slide: bytes) -> None:
    """Its slides come with pauses; the folder is gone when nothing more comes."""
    import smbclient

    root.configure(inbox="folder_quiet_s = 1.5")
    root.start()
    smbclient.mkdir(share.path("case"), **share.session)
    for number in range(3):
        share.put(f"case/{number}.svs", slide)
        root.wait(lambda n=number: f"{n}.svs" in root.by_name())
    root.wait(lambda: root.by_name().get("case", {}).get("status") == "EXTRACTED")
    assert len(root.by_name()["case"]["children"]) == 3
    root.wait(lambda: not smbclient.listdir(share.path(""), **share.session))
    assert root.stop() == 0
    root.assert_clean()


def test_many_at_once(root: Root, share: Samba, tmp_path: Path) -> None:
    """Two hundred slides from four scanners at the same time: each once, each whole."""
    small = builders.aperio_svs(tmp_path / "s.svs", width=256, height=256).read_bytes()
    root.start()

    def scanner(which: int) -> None:
        for number in range(50):
            share.put(f"{which}-{number}.svs", small)
        share.leave()

    threads = [threading.Thread(target=scanner, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole(root, small, 200)
    assert len(root.by_name()) == 200


def test_a_viewer_that_leaves_it_open(root: Root, share: Samba, slide: bytes) -> None:
    """Somebody who only reads holds nothing up."""
    share.put("scan.svs", slide)
    with share.open("scan.svs", "rb", share_access="rwd") as file:
        assert file.read(10) == slide[:10]
        root.start()
        deployed(root)
    whole(root, slide)


def test_deleted_while_it_settles(root: Root, share: Samba, slide: bytes) -> None:
    """Nothing is claimed, and nothing waits any more."""
    import smbclient

    # So long that it settles for as long as this test takes.
    root.configure(
        listen=f"127.0.0.1:{free_port()}", inbox={"quiet_s": 600, "fallback_quiet_s": 600}
    )
    root.start()
    share.put("scan.svs", slide)
    root.wait(lambda: [one for one in root.waiting() if one["why"] == "settling"])
    smbclient.remove(share.path("scan.svs"), **share.session)
    root.wait(lambda: not root.waiting())
    root.two_more_scans()
    assert root.waiting() == []
    assert root.manifests() == {}
    assert root.stop() == 0


def test_encrypted(root: Root, tmp_path: Path, slide: bytes) -> None:
    """With `smb encrypt = required`."""
    user = samba.getpass.getuser()
    for part in ("inbox", "status", "storage"):
        (root.path / part / user).mkdir(exist_ok=True)
    made = Samba(tmp_path / "samba", root.path, encrypt=True)
    try:
        root.start()
        made.put("scan.svs", slide)
        whole(root, slide)
    finally:
        made.stop()


def test_what_the_technician_and_the_researcher_see(root: Root, share: Samba, slide: bytes) -> None:
    """The note in the status share, the slide in the storage share; neither can be written to."""
    import smbclient
    from smbprotocol.exceptions import SMBOSError

    root.start()
    share.put("scan.svs", slide)
    [document] = deployed(root)
    note = "scan.svs - DEPLOYED.txt"
    status = share.path("", "cytowatch-status")
    root.wait(lambda: note in smbclient.listdir(status, **share.session))
    inside = f"{document['id']}/{document['files'][0]['path']}"
    path = share.path(inside, "cytowatch-storage")
    with smbclient.open_file(path, mode="rb", **share.session) as file:
        assert file.read() == slide
    for share_name in ("cytowatch-status", "cytowatch-storage"):
        with pytest.raises(SMBOSError):
            smbclient.open_file(share.path("x", share_name), mode="wb", **share.session)
    assert root.stop() == 0


def test_samba_takes_every_line(share: Samba) -> None:
    """A global parameter in a share's section would be ignored, and smbd says so at each start."""
    assert "found in service section" not in share.said
    assert "Unknown parameter" not in share.said
    log = "".join(path.read_text() for path in (share.folder / "log").glob("log.*"))
    assert "found in service section" not in log


def test_a_researcher_sees_storage_and_projects_and_nothing_else(
    root: Root, share: Samba, slide: bytes
) -> None:
    """A second account: slides of all users, through a project's link too; never to be written."""
    import smbclient
    from smbprotocol.exceptions import SMBOSError

    (root.path / "cytowatch.toml").write_text("# a hook's secret\n")
    (root.path / "inbox" / share.user / "@heart").mkdir()
    root.start()
    share.put("@heart/scan.svs", slide)
    [document] = deployed(root)
    other = share.as_researcher()

    def listed(name: str) -> set[str]:
        found = smbclient.listdir(share.path(name, "cytowatch-slides"), **other)
        return set(found)

    def read(name: str) -> bytes:
        path = share.path(name, "cytowatch-slides")
        with smbclient.open_file(path, mode="rb", **other) as file:
            return bytes(file.read())

    try:
        root.wait(lambda: list((root.path / "projects").glob("heart/*")))
        assert listed("") == {"storage", "projects"}
        inside = document["files"][0]["path"]
        assert read(f"storage/{share.user}/{document['id']}/{inside}") == slide
        [shown] = listed("projects/heart")
        assert read(f"projects/heart/{shown}/{inside}") == slide
        hidden = ("inbox", "stages", "status", "state", "cytowatch.toml", "FORMAT")
        for name in hidden:
            with pytest.raises(SMBOSError):
                smbclient.stat(share.path(name, "cytowatch-slides"), **other)
        for name in ("x", f"storage/{share.user}/x", f"projects/heart/{shown}/{inside}"):
            with pytest.raises(SMBOSError):
                smbclient.open_file(share.path(name, "cytowatch-slides"), mode="r+b", **other)
        # A link that leads out of the share is not followed, no matter who made it.
        (root.path / "projects" / "heart" / "out").symlink_to("/etc")
        (root.path / "projects" / "heart" / "in").symlink_to("../../state")
        for name in ("out/passwd", "in/lock"):
            with pytest.raises(SMBOSError):
                read(f"projects/heart/{name}")
        # This user has no inbox, so can drop nothing either.
        with pytest.raises(SMBOSError):
            smbclient.listdir(share.path(""), **other)
    finally:
        share.leave()
    # Anyone who is not in the group sees none of it.
    with pytest.raises(SMBOSError):
        smbclient.listdir(share.path("", "cytowatch-slides"), **share.session)
    assert root.stop() == 0
