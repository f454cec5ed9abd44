"""What is fuzzed: each parser of our own, which may refuse bytes in its own words and in no other way.

A target takes bytes and returns, no matter what they are. What it raises is a defect.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from cytowatch import config, formats, outside
from cytowatch.archives import Budget, DamagedMember, tars, zips
from cytowatch.config import keys
from cytowatch.decoder import answers, facts, made, wire
from cytowatch.decoder.ends import DecoderCrashed
from cytowatch.decoder.pace import DecoderTimedOut
from cytowatch.formats import Probe, limits
from cytowatch.formats.completeness import whole
from cytowatch.formats.sets import groups
from cytowatch.formats.structure import jpeg
from cytowatch.outside import OutsideError
from cytowatch.pyramid import copied, orientation, resolution
from cytowatch.pyramid.readers import (
    bmp,
    czi,
    jp2_boxes,
    jp2_codestream,
    jp2_colours,
    ome,
    ome_xml,
    pnm,
)
from cytowatch.record import manifest, names, reasons, schema
from cytowatch.record.entries import Manifest
from cytowatch.record.errors import (
    ConfigError,
    ConversionError,
    ExtractionError,
    FormatError,
    IngestError,
    TransientError,
)
from cytowatch.record.manifest import ManifestError
from cytowatch.record.status import ERROR_OF
from cytowatch.stages.detect import identify
from tests.lab import claims

__all__ = ["TARGETS", "seeds"]

_LIMITS = keys.Limits(archive_max_bytes=4 << 20, archive_max_entries=200)
#: Where files are made for each input; None is the disk.
_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
_CONFIG = config.Config(limits=keys.Limits(max_pixels=1 << 22))


@contextmanager
def _file(data: bytes) -> Iterator[tuple[int, str]]:
    """The bytes as a file that exists nowhere: (descriptor, path)."""
    descriptor = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def _named(data: bytes) -> Iterator[str]:
    """The bytes as a file with a name, for readers that follow links to it."""
    with tempfile.NamedTemporaryFile(dir=_MEMORY) as file:
        file.write(data)
        file.flush()
        yield file.name


def probe(data: bytes) -> None:
    """Detection, completeness, limits and the words for what it looks like."""
    with _file(data) as (descriptor, _):
        found = Probe(descriptor, name="a.bin")
        whole.missing(descriptor, found.size_bytes)
        formats.looks_like(found)
        if found.tiff is not None:
            limits.of_structure(found.tiff, keys.Limits())
        with suppress(FormatError):
            identify(found)


def indexes(data: bytes) -> None:
    """The index files of sets: what they refer to, and whether that leads out."""
    with _file(data) as (descriptor, _):
        for name in ("a.vms", "a.vmu", "Slidedat.ini"):
            found = Probe(descriptor, name=name)
            with suppress(FormatError):
                groups.unsafe(groups.referred(found))


def zipped(data: bytes) -> None:
    """A zip: directory, names, members; the budget is never exceeded."""
    budget = Budget(limits=_LIMITS, archive_bytes=len(data))
    with suppress(ExtractionError), zips.opened(io.BytesIO(data)) as archive:
        for member in zips.members(archive, budget):
            _inside(member.path)
            with suppress(DamagedMember):
                zips.unpack(archive, member, io.BytesIO(), budget=budget, progress=lambda _: None)
            assert budget.spent_bytes <= _LIMITS.archive_max_bytes


def tarred(data: bytes) -> None:
    """A tar, packed or not."""
    budget = Budget(limits=_LIMITS, archive_bytes=len(data))
    with suppress(ExtractionError), tars.opened(io.BytesIO(data)) as archive:
        for member in tars.members(archive, budget):
            _inside(member.path)
            with suppress(DamagedMember):
                tars.unpack(archive, member, io.BytesIO(), budget=budget, progress=lambda _: None)


def _inside(path: str) -> None:
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    # Only what cannot be decoded keeps one, which may be half of a character.
    assert "\\" not in path or any("\udc80" <= char <= "\udcff" for char in path)
    assert ".." not in path.split("\\")
    assert path.isprintable() or not any(ord(char) < 32 for char in path)


def bitmap(data: bytes) -> None:
    """A BMP's header, and its rows if there are any."""
    _rows(bmp.open_bmp, data)


def netpbm(data: bytes) -> None:
    """A PNM's header, and its rows."""
    _rows(pnm.open_pnm, data)


def _rows(reader: Callable[[str, config.Config], object], data: bytes) -> None:
    with _file(data) as (_, path), suppress(ConversionError):
        opened = reader(path, _CONFIG)
        for scene in opened.scenes:  # type: ignore[attr-defined]
            region = scene.region
            rows = region.rows(0, min(region.height, 16))
            assert rows.shape[1] == region.width
        opened.close()  # type: ignore[attr-defined]


def codestream(data: bytes) -> None:
    """The boxes and markers of a JPEG 2000; what is decoded of it is another one's."""
    with (
        _file(data) as (descriptor, _),
        suppress(struct.error, ValueError, IndexError, ConversionError),
    ):
        boxes, begin, end = jp2_boxes.read(descriptor, len(data))
        stream = jp2_codestream.main_header(descriptor, begin, end)
        jp2_codestream.find_parts(stream, end)
        depths = [depth for depth, _, _ in stream.components]
        stored = jp2_colours.samples(boxes.inside, depths)
        kind = np.uint8 if stored.bits <= 8 else np.uint16 if stored.bits <= 16 else np.uint32
        stored.plain(np.zeros((2, 3, stored.stored), kind))


def sidecar(data: bytes) -> None:
    """A manifest as it is read from disk, and held against its schema."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder, suppress(ManifestError):
        (Path(folder) / manifest.FILE_NAME).write_bytes(data)
        schema.problem(manifest.read(Path(folder)))


def settings(data: bytes) -> None:
    """A configuration."""
    with _file(data) as (_, path), suppress(ConfigError):
        config.load(Path(path))


def message(data: bytes) -> None:
    """What a decoder process says, as bytes on the pipe."""
    ours, theirs = socket.socketpair()
    with ours, theirs, suppress(wire.ProtocolError):
        theirs.sendall(data[:65536])
        theirs.shutdown(socket.SHUT_WR)
        while (said := wire.receive(ours, most_bytes=1 << 20)) is not None:
            _understood(said)


def answer(data: bytes) -> None:
    """The same, where the bytes are JSON already: what is understood of it can be written and shown."""
    with suppress(wire.ProtocolError):
        _understood(wire.parsed(data))


_KNOWN = manifest.new(
    id="20261123-141502-k3f9-CMU-1", user="ann", name="a.png", drop_path="ann/a.png", software={},
    now=datetime(2026, 11, 23, tzinfo=UTC),
    files=[claims.SOURCE],
)  # fmt: skip


def _understood(said: dict[str, Any]) -> None:
    with suppress(OutsideError):
        assert 0 <= answers.share(said.get("progress")) <= 1
    with suppress(OutsideError):
        assert min(answers.room_asked_for(said)) >= 0
    for status, of_worker in itertools.product(ERROR_OF, (False, True)):
        try:
            outcome = answers.understood(status, said, of_worker=of_worker)
            facts.check(status, _KNOWN, outcome, most_children=100)
        except IngestError as error:
            assert reasons.of(error.reason)
            assert error.detail.isprintable()
        except TransientError as fault:
            assert fault.detail.isprintable()
        except (DecoderCrashed, DecoderTimedOut) as end:
            assert str(end).isprintable()
        else:
            document = {**_KNOWN, **outcome.changes}
            assert schema.problem(document) is None  # type: ignore[arg-type]
            json.dumps(document, allow_nan=False).encode()


_ARCHIVE: Manifest = {**_KNOWN, "drop_path": "ann/a.zip", "name": "a.zip"}


def member(data: bytes) -> None:
    """The manifest of a member of an archive, as its decoder process has written it."""
    try:
        found = outside.parse_json(data)
    except OutsideError:
        return
    child = "20261123-141502-k3f9-a"
    if isinstance(found, dict) and made._differs(_ARCHIVE, child, found) is None:
        schema.problem(cast("Manifest", found))


def name(data: bytes) -> None:
    """The name of a dropped file: every name becomes one of our own, and one that can be shown."""
    text, _ = names.decode(data.replace(b"\0", b"").replace(b"/", b"")[:255] or b"x")
    slug = names.slug(text)
    assert slug
    assert not slug.startswith(("-", "."))
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    shown = names.printable(text)
    assert shown == names.printable(shown)
    assert all(char == " " or char.isprintable() for char in shown)
    kept = names.file_name(text)
    assert len(kept.encode()) <= 180
    assert "/" not in kept


def attachments(data: bytes) -> None:
    """The list of attachments of a CZI."""
    with _file(data) as (descriptor, _):
        for found, begin, length in czi._attachments(descriptor):
            assert begin >= 0
            assert length >= 0
            assert isinstance(found, str)


def omexml(data: bytes) -> None:
    """What an OME-XML says of its images."""
    for known in ome_xml.images(data.decode("utf-8", "replace")):
        assert known.acquired_at is None or len(known.acquired_at) <= 40


def turned(data: bytes) -> None:
    """Which way a JPEG or PNG says that it must be turned."""
    with _file(data) as (_, path):
        assert orientation.of_file(path) in (None, *range(1, 9))


def calibrated(data: bytes) -> None:
    """The pixel size that a TIFF states, in the tags of the standard or elsewhere."""
    with _file(data) as (_, path):
        found = resolution.stated(path, 1, 1)
        assert found is None or found == resolution.plausible(found.x, found.y)


def jpegs(data: bytes) -> None:
    """What a JPEG states, and how its colours are stated."""
    with suppress(ValueError):
        found = jpeg.head(data)
        if found is not None:
            assert found.samples in (1, 3)
            assert len(found.ids) == found.samples
            assert {copied.photometric(found, stated) for stated in range(8)} <= {None, 2, 6}


def tiles(data: bytes) -> None:
    """An OME-TIFF whose JPEG tiles are copied: what leaves it is whole, or refused."""
    with _file(data) as (descriptor, _):
        found = Probe(descriptor, name="a.ome.tif")
        missing = whole.missing(descriptor, found.size_bytes)
        if found.tiff is None or found.tiff.broken or missing is not None:
            # Such a one is never opened: a chain of directories that ends beyond the file keeps its reader for hours.
            return
    with _named(data) as path, suppress(ConversionError):
        opened = ome.open_ome(path, _CONFIG)
        for level in opened.scenes[0].copied():
            with suppress(copied.Unlike):
                assert level.checked(0).startswith(b"\xff\xd8")
                rows = level.rows(0, min(level.height, level.tile[1]))
                assert rows.shape == (len(rows), level.width, level.samples)
        opened.close()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "probe": probe,
    "indexes": indexes,
    "zipped": zipped,
    "tarred": tarred,
    "bitmap": bitmap,
    "netpbm": netpbm,
    "codestream": codestream,
    "sidecar": sidecar,
    "settings": settings,
    "message": message,
    "answer": answer,
    "member": member,
    "name": name,
    "attachments": attachments,
    "omexml": omexml,
    "jpegs": jpegs,
    "turned": turned,
    "calibrated": calibrated,
    "tiles": tiles,
}


def _turned(path: Path, kind: str) -> Path:
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 8)).save(path, kind, exif=exif.tobytes())
    return path


def _attached(made: Path) -> Path:
    """A CZI that is small enough to keep its list of attachments, which is at its end."""
    from tests.builders import others

    outer, inner = (others.czi(made / name, width=4, height=4) for name in ("o.czi", "u.czi"))
    return others.attach(outer, Label=inner, SlidePreview=inner)


def seeds(folder: Path) -> None:
    """Write what each target begins with: small files as our builders make them."""
    from tests import builders
    from tests.builders import others, vendors

    made = folder / "made"
    made.mkdir(parents=True)
    files = {
        "probe": [
            builders.aperio_svs(made / "a.svs", width=64, height=64),
            builders.planar_tiff(made / "b.tif", width=32, height=32),
            builders.png(made / "c.png"), builders.jpeg(made / "d.jpg"), others.czi(made / "e.czi"),
            others.jp2(made / "f.jp2"), others.bmp(made / "g.bmp"), vendors.ndpi(made / "h.ndpi"),
        ],
        "bitmap": [others.bmp(made / "k.bmp")],
        "netpbm": [others.pgm(made / "l.pgm"), others.ppm(made / "m.ppm")],
        "codestream": [others.jp2(made / "n.jp2")],
        "attachments": [_attached(made)],
        "turned": [_turned(made / "r.png", "PNG"), _turned(made / "s.jpg", "JPEG")],
        "calibrated": [builders.planar_tiff(made / "t.tif", width=8, height=8, description="ImageJ=1\nunit=um\n", metadata=None)],
        "jpegs": [builders.jpeg(made / "p.jpg", width=16, height=16)],
        "tiles": [others.ome_jpeg(made / "q.ome.tif", width=100, height=70, tile=64, level=30)],
    }  # fmt: skip
    vendors.mirax_mrxs(made, "M")
    vms = vendors.vms(made / "V.vms")
    files["indexes"] = [*made.rglob("Slidedat.ini"), vms]
    for target in TARGETS:
        (folder / target).mkdir()
        for path in files.get(target, []):
            (folder / target / path.name).write_bytes(path.read_bytes()[:8192])
    import tarfile
    import zipfile

    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(folder / "zipped" / f"{kind}.zip", "w", kind) as archive:
            archive.writestr("a/b.txt", b"hello " * 20)
            archive.writestr("c.txt", b"x")
    for mode in ("w", "w:gz"):
        with tarfile.open(folder / "tarred" / f"{mode.replace(':', '')}.tar", mode) as packed:
            info = tarfile.TarInfo("a/b.txt")
            info.size = 5
            packed.addfile(info, io.BytesIO(b"hello"))
    (folder / "settings" / "default.toml").write_text(config.render())
    document = {"schema_version": 1, "id": "20261123-141502-k3f9-CMU-1", "status": "DEPLOYED"}
    (folder / "sidecar" / "short.json").write_text(json.dumps(document))
    text = json.dumps({"progress": 0.5}).encode()
    (folder / "message" / "one").write_bytes(struct.pack("<I", len(text)) + text)
    whole = {
        "detected": ("CONVERTING", {"format": claims.FORMAT, "sha256": None}),
        "converted": ("DEPLOYING", {
            "files": [claims.SOURCE, claims.PYRAMID], "images": [claims.IMAGE], "warnings": ["w"],
            "conversion": claims.CONVERSION, "sha256": None,
        }),
        "deployed": ("DEPLOYED", {
            "images": [{**claims.IMAGE, "file": claims.SOURCE["path"]}], "verification": claims.VERIFICATION,
        }),
        "members": ("EXTRACTED", {"children": [_KNOWN["id"]], "skipped": []}),
    }  # fmt: skip
    for what, (status, changes) in whole.items():
        said = {"outcome": {"status": status, "changes": changes}}
        (folder / "answer" / what).write_text(json.dumps(said))
    of_member = manifest.new(
        id="20261123-141502-k3f9-a", user="ann", name="a.png", drop_path="ann/a.zip/a.png", files=[claims.SOURCE],
        now=datetime(2026, 11, 23, tzinfo=UTC), software={}, parent=_ARCHIVE,
    )  # fmt: skip
    (folder / "member" / "whole").write_text(json.dumps(of_member))
    for what, said in {
        "crashed": {"crashed": 139},
        "slow": {"timed_out": ["timed_out", 5]},
    }.items():
        (folder / "answer" / what).write_text(json.dumps(said))
    error = {"error": {"reason": "damaged", "detail": "\x1b", "retryable": True}, "trace": "t\n"}
    (folder / "answer" / "error").write_text(json.dumps(error))
    (folder / "omexml" / "one").write_text(
        '<OME xmlns="x"><Instrument><Objective ID="O:1" NominalMagnification="20"/></Instrument>'
        '<Image Name="a"><AcquisitionDate>2020-01-01</AcquisitionDate><ObjectiveSettings ID="O:1"/>'
        '<Pixels PhysicalSizeX="0.5" PhysicalSizeY="500" PhysicalSizeYUnit="nm"/></Image></OME>'
    )
    (folder / "name" / "odd").write_bytes("Größe [page=3]\n\u202e.svs".encode())
