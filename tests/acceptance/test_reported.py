"""What labs and other projects reported of their own ingest, tried on a whole daemon."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tests import builders
from tests.builders import dicom, vendors
from tests.builders.packs import Packed, raw_zip
from tests.lab.root import HANGS_S, Root, command
from tests.needs import needs

_SLIDE_ID = b"0123456789abcdef0123456789ABCDEF"
#: Nobody of this machine.
_OTHER = 4242
_UTF8_FLAG = 0x800


def shown(document: dict[str, Any]) -> np.ndarray:
    """What a viewer shows of the first image."""
    with openslide.OpenSlide(document["_path"] / document["images"][0]["file"]) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(((one.astype(float) - other.astype(float)) ** 2).mean())
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def test_two_patients_of_one_name_stay_two(root: Root, tmp_path: Path) -> None:
    """Two zips, in each a broken ``1.mrxs`` that lacks what the other has: retried, returned, dropped once more."""
    root.configure(inbox="incomplete_after_s = 0.7\nfolder_quiet_s = 0.3")
    for patient, without in (("A", "Data0001.dat"), ("B", "Data0000.dat")):
        made = tmp_path / patient
        vendors.mirax_mrxs(made, "1")
        for path in (made / "1").iterdir():
            path.write_bytes(path.read_bytes().replace(_SLIDE_ID, patient.encode() * 32))
        (made / "1" / without).unlink()
        shutil.make_archive(str(tmp_path / f"case {patient}"), "zip", root_dir=made)
        root.drop(tmp_path / f"case {patient}.zip")
    assert root.run_until_idle() == 1
    assert command(root, "retry", "--reason", "incomplete").returncode == 2
    for id_, document in root.manifests().items():
        if document["status"].startswith("ERROR"):
            assert command(root, "return", id_).returncode == 0
    inbox = root.path / "inbox" / "ann"
    (inbox / "_returned").rename(inbox / "once more")
    assert root.run_until_idle() == 1
    slides = [one for one in root.manifests().values() if one["name"].startswith("1")]
    assert [one["status"] for one in slides] == ["ERROR_FORMAT"] * 2
    for one in slides:
        files = [(one["_path"] / row["path"]).read_bytes() for row in one["files"]]
        patients = {mark for mark in (b"A" * 32, b"B" * 32) for data in files if mark in data}
        assert len(patients) == 1, one["files"]
    root.assert_clean()


@needs("zip")
def test_names_in_zips(root: Root, tmp_path: Path) -> None:
    """Info-ZIP's own in two locales; a wrong flag; the name said once more as UTF-8; one name in two folders."""
    image = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    wanted = ["日本 組織.jpg", "Fälle ß.jpg"]
    for locale in ("C", "C.UTF-8"):
        folder = tmp_path / locale
        folder.mkdir()
        for name in wanted:
            (folder / name).write_bytes(image)
        vendors.mirax_mrxs(folder, "Größe 表")
        subprocess.run(
            ["zip", "-q", "-r", str(tmp_path / f"{locale}.zip"), "."],
            cwd=folder, env={**os.environ, "LC_ALL": locale}, check=True,
        )  # fmt: skip
        root.drop(tmp_path / f"{locale}.zip", user=f"info-{locale}")
    latin = Packed(name="Gärtner.jpg".encode("latin-1"), data=image, flags=_UTF8_FLAG)
    repeated = "病理.jpg".encode()
    extra = struct.pack("<HHBI", 0x7075, 5 + len(repeated), 1, zlib.crc32(b"__.jpg")) + repeated
    zips = {
        "flag": raw_zip(latin, Packed(name=b"ok.jpg", data=image)),
        "field": raw_zip(Packed(name=b"__.jpg", data=image, extra=extra)),
        "same": raw_zip(*(Packed(name=b"day%d/scan.jpg" % n, data=image) for n in (1, 2))),
    }
    for user, data in zips.items():
        (tmp_path / "x.zip").write_bytes(data)
        root.drop(tmp_path / "x.zip", user=user)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    found: dict[str, list[str]] = {}
    for one in root.manifests().values():
        assert one["skipped"] == []
        if one["parent_id"] is not None:
            found.setdefault(one["user"], []).append(one["name"])
            assert one["id"].split("-", 3)[3] != "unnamed"
    for locale in ("C", "C.UTF-8"):
        assert sorted(found[f"info-{locale}"]) == sorted([*wanted, "Größe 表.mrxs"])
    assert (sorted(found["flag"]), found["field"]) == (["Gärtner.jpg", "ok.jpg"], ["病理.jpg"])
    lay = {one["drop_path"] for one in root.manifests().values() if one["user"] == "same"}
    assert lay >= {"same/x.zip/day1/scan.jpg", "same/x.zip/day2/scan.jpg"}
    root.assert_clean()


def test_sets_as_vendors_and_copiers_leave_them(root: Root, tmp_path: Path) -> None:
    """A VSI that is its own image, frames as TIFFs, a list of channels, an MRXS without its head; tiles in PNG; case."""
    root.configure(inbox="incomplete_after_s = 1.0\nfolder_quiet_s = 0.5")
    inbox = root.path / "inbox" / "ann"
    inbox.mkdir()
    picture, preview = builders.picture(900, 700), builders.picture(501, 512)
    strips: dict[str, Any] = {"photometric": "rgb", "metadata": None, "rowsperstrip": 64}
    with tifffile.TiffWriter(inbox / "Export_01.vsi") as tiff:
        tiff.write(picture, description="", **strips)
        tiff.write(builders.picture(200, 100), **strips)
    tifffile.imwrite(inbox / "fluorescent.vsi", preview, **strips)
    (inbox / "_fluorescent_" / "stack1").mkdir(parents=True)
    tifffile.imwrite(
        inbox / "_fluorescent_" / "stack1" / "frame_t_0.tif",
        picture,
        photometric="rgb",
        tile=(256, 256),
    )
    for channel in ("DAPI", "FITC"):
        vendors.ndpi(inbox / f"S1-{channel}.ndpi")
    (inbox / "S1.ndpis").write_bytes(
        b"[NanoZoomer Digital Pathology Image Set]\r\nNoImages=2\r\nImage0=S1-DAPI.ndpi\r\n"
        b"Image1=S1-FITC.ndpi\r\n"
    )
    vendors.mirax_mrxs(inbox, "lost").unlink()
    tiles_in_png(inbox, "png")
    vendors.mirax_mrxs(inbox, "Case").rename(inbox / "case.mrxs")
    vendors.mirax_mrxs(inbox, "UPPER").rename(inbox / "UPPER.MRXS")
    vendors.mirax_mrxs(inbox, "lower")
    for name in ("Slidedat.ini", "Index.dat"):
        (inbox / "lower" / name).rename(inbox / "lower" / name.upper())
    assert root.run_until_idle() == 1
    found = root.by_name()
    for name in ("Export_01.vsi", "fluorescent.vsi"):
        assert found[name]["status"] == "CONVERTED"
        assert "never came" in found[name]["warnings"][0]
    assert psnr(shown(found["Export_01.vsi"]), picture) > 40
    assert psnr(shown(found["frame_t_0.tif"]), picture) > 40
    assert found["S1-DAPI.ndpi"]["status"] == found["S1-FITC.ndpi"]["status"] == "DEPLOYED"
    assert "missing lost.mrxs" in found["lost"]["error"]["detail"]
    slide = builders.picture(1024, 1024)
    assert psnr(shown(found["png.mrxs"]), slide) == 99.0
    for name in ("case.mrxs", "UPPER.MRXS", "lower.mrxs"):
        assert found[name]["status"] == "DEPLOYED", found[name]["error"]
        assert psnr(shown(found[name]), slide) > 35
        assert command(root, "export", name, str(tmp_path / "out")).returncode == 0
    out = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert {"Case/Index.dat", "UPPER.MRXS", "lower/SLIDEDAT.INI", "lower/INDEX.DAT"} <= out
    lists = found["S1.ndpis"]["error"]
    assert lists["reason"] == "unsupported_format"
    assert "S1-DAPI.ndpi" in lists["detail"]
    root.assert_clean()


def tiles_in_png(folder: Path, stem: str) -> Path:
    """An MRXS whose tiles are PNG, beside a preview that is a JPEG."""

    packer: Callable[..., bytes] = vendors._jpeg

    def packed(pixels: np.ndarray, **options: object) -> bytes:
        # Pictures beside the slide stay JPEG.
        if pixels.shape[0] < 200:
            return packer(pixels, **options)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    try:
        vendors._jpeg = packed
        head = vendors.mirax_mrxs(folder, stem)
    finally:
        vendors._jpeg = packer
    ini = folder / stem / "Slidedat.ini"
    ini.write_text(ini.read_text().replace("IMAGE_FORMAT=JPEG", "IMAGE_FORMAT=PNG"))
    return head


def test_dicom_without_loss_of_a_pixel(root: Root) -> None:
    """Frames of JPEG 2000 with a reversible colour transform (YBR_RCT) are shown as they were scanned."""
    folder = root.path / "inbox" / "ann"

    def packed(pixels: np.ndarray) -> bytes:
        found: bytes = imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(pixels), reversible=True, mct=True, codecformat="j2k"
        )
        return found

    dicom.dicom_wsi(folder, encode=packed, photometric="YBR_RCT")
    for path in folder.iterdir():
        baseline, lossless = b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.90"
        path.write_bytes(path.read_bytes().replace(baseline, lossless))
    root.configure(inbox="folder_quiet_s = 0.3")
    assert root.run_until_idle() == 0
    [document] = root.manifests().values()
    assert (document["status"], document["format"]["native"]) == ("DEPLOYED", True)
    assert np.array_equal(shown(document), builders.picture(512, 512))
    root.assert_clean()


def prefix_of(uid: int, *before: str) -> list[str]:
    """What lets a command run as the user `uid` in a mount namespace of its own, after the commands `before`.

    Where the interpreter lies in a folder that is closed to others, they only see it in there.
    """
    needed = {Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]}
    closed = {
        folder
        for path in needed
        for folder in path.parents
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH
    }
    steps = ["set -e", "mount --make-rprivate /", *before]
    for folder in sorted(closed)[:1]:
        inside = sorted(path for path in needed if folder in path.parents)
        aside = [tempfile.mkdtemp(prefix="t-reported-") for _ in inside]
        steps += [f"mount --bind {path} {other}" for path, other in zip(inside, aside, strict=True)]
        steps += [f"mount -t tmpfs -o mode=0755 tmpfs {folder}"]
        for path, other in zip(inside, aside, strict=True):
            steps += [f"mkdir -p {path}", f"mount --bind {other} {path}"]
    steps.append(f'exec setpriv --reuid={uid} --regid={uid} --clear-groups "$@"')
    return ["unshare", "--mount", "sh", "-c", "\n".join(steps), "sh"]


@pytest.fixture
def others_root() -> Iterator[Root]:
    """A tree that an ordinary user owns, where that user can reach it."""
    with tempfile.TemporaryDirectory(prefix="t-reported-") as top:
        os.chmod(top, 0o755)
        made = Root(Path(top) / "root")
        made.create()
        (made.path / "inbox" / "ann").mkdir()
        yield made
        if made.process and made.process.poll() is None:
            made.process.kill()
            made.process.wait(HANGS_S)


def give(path: Path) -> None:
    subprocess.run(["chown", "-R", f"{_OTHER}:{_OTHER}", str(path)], check=True)


@needs("unshare", "mount", "setpriv", "tar", root=True)
def test_odd_tars_as_an_ordinary_user(others_root: Root, tmp_path: Path) -> None:
    """A Mac's, one of a read-only disc, one with hard links, one in Latin-1, a sparse one: every image comes out."""
    root = others_root
    inbox = root.path / "inbox" / "ann"
    image = builders.jpeg(tmp_path / "a.jpg").read_bytes()

    def add(tar: tarfile.TarFile, name: str, data: bytes | None = image, **more: Any) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data or b"")
        for key, value in more.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(data or b""))

    with tarfile.open(inbox / "mac.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "./._one.jpg", b"\0\5\x16\7\0\2\0\0Mac OS X")
        headers = {"LIBARCHIVE.xattr.com.apple.quarantine": "MDA4Mw"}
        add(tar, "./one.jpg", pax_headers=headers)
    with tarfile.open(inbox / "disc.tar", "w") as tar:
        add(tar, "cd", None, type=tarfile.DIRTYPE, mode=0o555)
        add(tar, "cd/sub", None, type=tarfile.DIRTYPE, mode=0)
        add(tar, "cd/sub/two.jpg", mode=0)
    with tarfile.open(inbox / "links.tar", "w") as tar:
        add(tar, "three.jpg")
        add(tar, "copy of three.jpg", None, type=tarfile.LNKTYPE, linkname="three.jpg")
    latin = tarfile.GNU_FORMAT
    with tarfile.open(inbox / "latin.tar", "w", format=latin, encoding="latin-1") as tar:
        add(tar, "Gärtner.jpg")
    sparse = tmp_path / "sparse.pgm"
    rows = np.full((1000, 1000), 7, np.uint8)
    rows[300:700] = 0
    sparse.write_bytes(b"P5\n1000 1000\n255\n" + rows.tobytes())
    subprocess.run(["cp", "--sparse=always", str(sparse), str(tmp_path / "holes")], check=True)
    (tmp_path / "holes").rename(sparse)
    assert sparse.stat().st_blocks * 512 < 700_000
    subprocess.run(
        ["tar", "-C", str(tmp_path), "-S", "-cf", str(inbox / "sparse.tar"), "sparse.pgm"],
        check=True,
    )
    give(root.path)
    root.prefix = prefix_of(_OTHER)
    assert root.run_until_idle() == 0, root.log.read_text()[-2000:]
    found = root.by_name()
    names = (
        "one.jpg",
        "two.jpg",
        "three.jpg",
        "copy of three.jpg",
        "G\ufffdrtner.jpg",
        "sparse.pgm",
    )
    assert [found[name]["status"] for name in names] == ["CONVERTED"] * len(names)
    for name in names[:-1]:
        assert found[name]["sha256"] == hashlib.sha256(image).hexdigest()
        assert found[name]["_path"].stat().st_uid == _OTHER
    assert found["sparse.pgm"]["sha256"] == hashlib.sha256(sparse.read_bytes()).hexdigest()
    assert [one["reason"] for one in found["mac.tar"]["skipped"]] == ["ignored"]
    assert found["G\ufffdrtner.jpg"]["name_base64"] is not None
    root.assert_clean()


@needs("unshare", "mount", "setpriv", root=True)
def test_inboxes_that_are_set_up_wrongly_say_how(others_root: Root, tmp_path: Path) -> None:
    """Files and folders of others, a sticky folder, mounts and a link, seen by an ordinary user; and put right."""
    root = others_root
    top = root.path / "inbox"
    slide = builders.png(tmp_path / "a.png").read_bytes()

    def user(name: str) -> Path:
        (top / name).mkdir()
        return top / name

    def put(folder: Path) -> Path:
        path = folder / f"{folder.name}.png"
        path.write_bytes(slide)
        return path

    bound = root.path.parent / "bound"
    bound.mkdir()
    put(bound)
    elsewhere = root.path.parent / "elsewhere"
    elsewhere.mkdir()
    put(elsewhere)
    for name in ("readonly", "rootdir", "rootfile", "sticky", "mounted", "bound", "good"):
        folder = user(name)
        if name not in ("mounted", "bound"):
            put(folder)
    (user("rofolder") / "f").mkdir()
    put(top / "rofolder" / "f")
    (top / "linked").symlink_to(elsewhere)
    give(root.path)
    give(bound)
    (top / "readonly" / "readonly.png").chmod(0o444)
    for path, mode in (("rootdir", 0o755), ("sticky", 0o1777), ("sticky/sticky.png", 0o666),
                       ("rootfile/rootfile.png", 0o600)):  # fmt: skip
        os.chown(top / path, 0, 0)
        (top / path).chmod(mode)
    (top / "rofolder" / "f").chmod(0o555)
    mounted = shlex.quote(str(top / "mounted"))
    root.prefix = prefix_of(
        _OTHER,
        f"mount -t tmpfs -o uid={_OTHER},gid={_OTHER} tmpfs {mounted}",
        f"cp {shlex.quote(str(top / 'good' / 'good.png'))} {mounted}/mounted.png",
        f"chown {_OTHER} {mounted}/mounted.png",
        f"mount --bind {shlex.quote(str(bound))} {shlex.quote(str(top / 'bound'))}",
    )
    wanted = {
        "bound/bound.png": "other_filesystem", "mounted/mounted.png": "other_filesystem",
        "rofolder/f/f.png": "not_permitted", "rootdir/rootdir.png": "not_permitted",
        "sticky/sticky.png": "not_permitted", "rootfile/rootfile.png": "unreadable",
        "linked": "not_a_regular_file",
    }  # fmt: skip
    root.start()
    root.wait(lambda: {one["path"]: one["why"] for one in root.waiting()} == wanted)
    # What waits is reported before the last of the others is done.
    root.wait(
        lambda: (
            {one["user"] for one in root.manifests().values() if one["status"] == "CONVERTED"}
            == {"readonly", "good"}
        )
    )
    # Put right while it runs, and taken without another word.
    for path in ("rootdir", "rootfile/rootfile.png"):
        os.chown(top / path, _OTHER, _OTHER)
    (top / "rofolder" / "f").chmod(0o755)
    right = {"rootdir.png", "rootfile.png", "f.png"}
    root.wait(
        lambda: right <= {n for n, one in root.by_name().items() if one["status"] == "CONVERTED"},
        timeout_s=100,
    )
    assert root.stop() == 0
    assert (elsewhere / "elsewhere.png").exists()
