"""A file that was cut differs from a whole one by its structure, no matter what its size says."""

from __future__ import annotations

import errno
import gzip
import io
import os
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cytowatch import formats
from cytowatch.formats.completeness import short
from cytowatch.formats.completeness.whole import missing
from cytowatch.formats.structure.places import misplaced
from cytowatch.formats.structure.tiff import Tiff
from tests import builders
from tests.builders import others, vendors

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared/samples"


def lacking(data: bytes) -> str | None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return missing(file.fileno(), len(data))


def holed(data: bytes, keep: int) -> str | None:
    """What is missing of a file whose size was set, and of which `keep` bytes were written."""
    with tempfile.TemporaryFile() as file:
        file.write(data[:keep])
        file.flush()
        file.truncate(len(data))
        return missing(file.fileno(), len(data))


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", os.urandom(5000))
    return path


def tarred(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(others.jp2(path.with_suffix(".jp2")), "a.jp2")
    return path


def plain_jpeg(path: Path) -> bytes:
    builders.jpeg(path)
    return path.read_bytes()


def plain(path: Path) -> Path:
    numbers = b"\n".join(b"%d 7" % (number % 256) for number in range(6000))
    path.write_bytes(b"P2\n# a comment 1 2 3\n120 100\n255\n" + numbers + b"\n")
    return path


def with_attachments(path: Path) -> Path:
    label = others.czi(path.with_suffix(".label"), width=60, height=40)
    return others.attach(others.czi(path), Label=label)


def rows(path: Path) -> Path:
    """White, so that no zero in it is honest."""
    path.write_bytes(b"P5 300 200 255\n" + b"\xff" * 60_000)
    return path


MAKERS: list[Callable[[Path], Path]] = [
    builders.jpeg,
    builders.png,
    builders.planar_tiff,
    builders.pyramidal_tiff,
    builders.aperio_svs,
    builders.hamamatsu_ndpi,
    zipped,
]
#: Of these a hole is seen, and zeros that were written as well unless they may be black pixels.
MORE: list[Callable[[Path], Path]] = [
    tarred, plain, with_attachments, others.jp2, others.jp2_tiled, others.czi, others.ome_jpeg,
    others.ome_pyramid, vendors.ndpi, vendors.leica_scn, vendors.ventana_bif, vendors.trestle,
]  # fmt: skip
UNPACKED: list[Callable[[Path], Path]] = [
    rows, others.bmp, others.pgm, others.ppm, others.ome_flat, builders.planar_tiff,
    builders.hamamatsu_ndpi, vendors.sakura, vendors.huron_tiff, vendors.philips_tiff,
]  # fmt: skip
SETS: list[Callable[[Path], Path]] = [
    vendors.vms, vendors.vmu, vendors.mirax_mrxs, vendors.dicom_wsi,
]  # fmt: skip


def whole_files(folder: Path) -> Iterator[Path]:
    """Every file that is whole: made here, and the good and tricky samples where they are."""
    for number, make in enumerate([*MAKERS, *MORE, *UNPACKED]):
        yield make(folder / f"{number}")
    for number, make in enumerate(SETS):
        make(folder / f"set{number}")
    yield from (path for path in folder.glob("set*/**/*") if path.is_file())
    for mode in ("L", "P", "1"):
        yield others.bmp(folder / f"bmp{mode}", mode=mode)
    yield others.jp2(folder / "j2k", bare=True)
    for path in SAMPLES.glob("*/**/*"):
        if path.is_file() and "bad" not in path.parts:
            yield path


@pytest.mark.parametrize("make", MAKERS)
def test_whole_is_whole_and_cut_is_not(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Cut at a third, a half, near the end; filled up with zeros as a size set before content."""
    data = make(tmp_path / "slide").read_bytes()
    assert lacking(data) is None
    for keep in (len(data) // 3, len(data) // 2, len(data) - 40):
        assert lacking(data[:keep]), keep
    if data[:1] in (b"\xff", b"\x89", b"P"):
        assert lacking(data[: len(data) // 2] + b"\0" * (len(data) // 2))


def test_nothing_that_is_whole_is_called_incomplete(tmp_path: Path) -> None:
    """All that the builders make, and real files."""
    told = {path.name: lacking(path.read_bytes()) for path in whole_files(tmp_path)}
    assert {name: said for name, said in told.items() if said} == {}


@pytest.mark.parametrize("make", [*MAKERS[:-1], *MORE, *UNPACKED])
def test_a_size_that_was_set_before_the_content(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    """What nobody wrote is a hole and not there; packed pixels or a directory of zeros neither."""
    data = make(tmp_path / "slide").read_bytes()
    for share in (0.1, 0.3, 0.5, 0.6, 0.75, 0.9):
        keep = int(len(data) * share)
        assert lacking(data[:keep]), share
        assert holed(data, keep), share
        if make in MORE:
            assert lacking(data[:keep] + bytes(len(data) - keep)), share


@pytest.mark.parametrize("make", SETS)
def test_a_hole_in_a_file_of_a_set(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Data files say nothing of their length; that their end was never written is seen."""
    make(tmp_path)
    large = max((path for path in tmp_path.rglob("*")), key=lambda path: path.stat().st_size)
    data = large.read_bytes()
    assert holed(data, len(data) // 2)


def test_black_that_was_written_is_there() -> None:
    """Zeros are pixels where nothing is packed."""
    assert lacking(b"P5 300 200 255\n" + bytes(60_000)) is None
    # A hole is none.
    said = holed(b"P5 300 200 255\n" + bytes(60_000), 30_000)
    assert said
    assert "its size was set, and nothing was written behind" in said


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/samples here")
@pytest.mark.parametrize(
    "name",
    [
        "svs/libvips__CMU-1-Small-Region.svs", "tiff_pyramidal/openslide-python__boxes.tiff",
        "jp2/pillow__test-card-lossy-tiled.jp2", "jp2/sharp__relax_tileparts.jp2",
        "czi/aicspylibczi__RGB-8bit.czi", "czi/aicspylibczi__tiles.czi",
        "ndpi/slideio-tutorial__test3-DAPI-2-(387).ndpi",
        "ome_tiff/slideio-tutorial__4D-series.ome.tiff",
        "ome_tiff/galaxy-image-analysis__res.ome.tiff",
        "vsi/vsi-ets-test-jpg2k/_vsi-ets-test-jpg2k_/stack1/frame_t_0.ets",
    ],
)  # fmt: skip
def test_real_slides_with_zeros_at_their_end(name: str) -> None:
    """Written as zeros, not as a hole; what cannot be distinguished from black pixels is left out."""
    data = (SAMPLES / name).read_bytes()
    # The one with an ICC profile at its end: such a profile may end in a hundred zeros.
    for share in (0.1, 0.3, 0.6, 0.9, *([] if "boxes" in name else [0.99])):
        keep = int(len(data) * share)
        assert lacking(data[:keep] + bytes(len(data) - keep)), share


def test_a_cut_through_the_attachments_of_a_czi(tmp_path: Path) -> None:
    """They lie behind all images."""
    data = with_attachments(tmp_path / "a.czi").read_bytes()
    for keep in (len(data) - 40, len(data) - 400, len(data) - 4000):
        assert lacking(data[:keep]), keep
        # The last name in the directory ends with zeros anyway.
        if len(data) - keep > 128:
            assert lacking(data[:keep] + bytes(len(data) - keep)), keep


def test_a_gzip_of_several_members_with_padding(tmp_path: Path) -> None:
    """The last member may hold any length; zeros behind it are what tapes leave."""
    inner = gzip.decompress(tarred(tmp_path / "a.tgz").read_bytes())
    several = gzip.compress(inner[:20_001]) + gzip.compress(inner[20_001:])
    odd = several + gzip.compress(b"\0" * 777)
    blocks = several + gzip.compress(b"")
    for data in (several, odd, blocks):
        assert lacking(data) is None
        assert lacking(data + bytes(5000)) is None
        assert lacking(data[: len(several) - 5000])
    with io.BytesIO() as text, gzip.GzipFile(fileobj=text, mode="wb") as packed:
        packed.write(b"no tar at all" * 100)
        packed.flush()
        assert lacking(text.getvalue()[:-4]) is None


@pytest.mark.parametrize("kind", ["jpeg", "zip", "tgz"])
def test_a_page_that_the_disk_cannot_give_is_not_the_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read ends before it, without a word; the file waits for the disk, and is not to be copied again."""
    data = {
        "jpeg": lambda: builders.jpeg(tmp_path / "a", width=900, height=900).read_bytes(),
        "zip": lambda: zipped(tmp_path / "a").read_bytes() + bytes(20_000),
        "tgz": lambda: gzip.compress(os.urandom(257) + b"ustar" + os.urandom(40_000))[:-3],
    }[kind]()
    bad = len(data) - 9000

    def torn(descriptor: int, count: int, at: int) -> bytes:
        if at <= bad < at + count:
            if at == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            count = bad - at
        return read(descriptor, count, at)

    read = os.pread
    monkeypatch.setattr(os, "pread", torn)
    with pytest.raises(OSError, match="Input/output error"):
        lacking(data)


def test_a_small_file_that_is_packed_with_gzip() -> None:
    """It is whole, and need not be a tar; one that is cut may be anything."""
    packed = gzip.compress(b"a few words")
    assert lacking(packed) is None
    assert lacking(packed[:-12])


def test_a_jpeg_with_bytes_between_its_segments_that_is_cut(tmp_path: Path) -> None:
    """Decoders skip them, and the end is missing all the same."""
    data = plain_jpeg(tmp_path / "a.jpg")
    at = data.index(b"\xff\xdb")
    for stray in (b"stray", b"\0\1\2", b"\xff\0\7", b"\xff\xff\xff"):
        odd = data[:at] + stray + data[at:]
        assert lacking(odd) is None
        assert lacking(odd[: at + 600]), stray
        assert lacking(odd[:-2]), stray
    # Not an honest file: only the first of them are skipped.
    assert lacking(data[:at] + b"\7\xff\1" * 300_000) is None


def test_the_last_bytes_of_an_ndpi(tmp_path: Path) -> None:
    """They are the high halves of the values of its last directory, without which OpenSlide refuses it."""
    data = vendors.ndpi(tmp_path / "a.ndpi").read_bytes()
    assert lacking(data) is None
    for cut in (1, 4, 16):
        assert lacking(data[:-cut])


@pytest.mark.parametrize("record", [512, 10_240, 65_536, 1 << 20])
def test_a_tar_whose_size_was_set_first(record: int) -> None:
    """Where its copy broke off between two members, the zeros behind them look like its end."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.tif")
            info.size = 300_001
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    members = 4 * (512 + 300_032)
    data = stream.getvalue()[:members]
    whole = data + bytes(-(-(members + 1024) // record) * record - members)
    assert lacking(whole) is None
    assert lacking(whole + b"joined" + bytes(30_000) + b"\1") is None
    for keep in (members // 4, members // 2, members // 2 + 512, members // 2 + 5000):
        short = whole[:keep] + bytes(len(whole) - keep)
        # Of records of a megabyte one is as long as what is missing.
        if record < 1 << 20:
            assert lacking(short), keep
            assert holed(whole, keep), keep


def test_the_second_volume_of_a_tar_waits_for_nothing() -> None:
    """It begins in the middle of a member and ends in the middle of one."""
    info = tarfile.TarInfo("a.tif")
    info.type, info.size = b"M", 600
    assert lacking(info.tobuf(tarfile.GNU_FORMAT) + bytes(512)) is None


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_plain_numbers_are_counted(kind: int) -> None:
    """One for each sample; those of a bitmap need nothing between them."""
    samples = 12 * 10 * (3 if kind == 3 else 1)
    head = b"P1 12 10\n" if kind == 1 else b"P%d\n12 10\n255\n" % kind
    values = b"1" * samples if kind == 1 else b" ".join([b"128"] * samples)
    assert lacking(head + values) is None
    for share in (0.1, 0.6, 0.9):
        assert lacking(head + values[: int(len(values) * share)]), share
    assert lacking(head[:-2])


@pytest.mark.parametrize("text", [b"P5 hello", b"P6 is a kind of image\n", b"P2 12 and more\n"])
def test_a_text_that_begins_like_a_pnm(text: bytes) -> None:
    """It is not an image, and lacks nothing."""
    assert lacking(text) is None
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        probe = formats.Probe(file.fileno())
        assert formats.matching(probe) == []
    assert formats.looks_like(probe).startswith("a text or a damaged PNM")


def test_a_run_length_coded_bitmap_that_is_cut() -> None:
    """Its header states how long the codes are; where that is wrong, they end with 0 1."""
    codes = b"\x04\x07\0\0" * 200 + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, 4, 200, 1, 8, 1, len(codes), 0, 0, 256, 0)
    data = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54 + 1024) + info + bytes(range(256)) * 4 + codes
    assert lacking(data) is None
    assert lacking(data[:-200])
    overstated = data[:34] + struct.pack("<I", 10_000) + data[38:]
    assert lacking(overstated) is None


def test_a_directory_of_zeros_is_none_yet(tmp_path: Path) -> None:
    """As the first, as the next, and as that of a lower level."""
    data = others.ome_pyramid(tmp_path / "a.tif").read_bytes()
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        [sub, *_] = Tiff(file.fileno(), len(data)).directories[0].numbers(330)
    first = int.from_bytes(data[4:8], "little")
    for at in (first, sub):
        assert lacking(data[:at] + bytes(1000) + data[at + 1000 :]), at
    # A next one that lies in zeros.
    made = builders.planar_tiff(tmp_path / "b.tif").read_bytes()
    first = int.from_bytes(made[4:8], "little")
    count = int.from_bytes(made[first : first + 2], "little")
    link = first + 2 + 12 * count
    linked = made[:link] + struct.pack("<I", len(made)) + made[link + 4 :] + bytes(100)
    assert lacking(linked)


def test_zeros_that_are_honest_stay(tmp_path: Path) -> None:
    """A sparse tile has neither a place nor a length; an empty text with data behind it is one."""
    data = bytearray(builders.pyramidal_tiff(tmp_path / "a.tif").read_bytes())
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        tags = Tiff(file.fileno(), len(data)).directories[0].tags
    for tag in (tags[324], tags[325]):
        size = (tag.end - tag.offset) // tag.count
        data[tag.end - size : tag.end] = bytes(size)
    assert lacking(bytes(data)) is None


@pytest.mark.parametrize("make", [builders.jpeg, builders.png, builders.aperio_svs])
def test_junk_after_the_end_is_harmless(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Some writers pad; what was meant to be there is there."""
    assert lacking(make(tmp_path / "slide").read_bytes() + b"\0" * 3000) is None


def test_the_end_of_an_embedded_thumbnail_is_not_the_end(tmp_path: Path) -> None:
    """An EXIF thumbnail is a JPEG with an EOI of its own, in a segment before the first scan."""
    whole = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    thumbnail = b"Exif\0\0" + b"\xff\xd8\xff\xd9"
    data = whole[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:]
    assert lacking(data) is None
    assert lacking(data[:-2])


def test_only_zeros_is_not_content_yet() -> None:
    """A client that sets the size first leaves a file of zeros until it writes."""
    assert lacking(b"\0" * 100_000) == "its content (still only zeros)"


def test_what_nobody_knows_is_whole() -> None:
    """Its fate is an error with a reason, not an endless wait."""
    assert lacking(b"Dear scanner") is None
    assert lacking(b"") is None


@given(
    st.binary(max_size=400),
    st.sampled_from(
        [
            b"II*\0",
            b"MM\0+",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"PK\x03\x04",
            b"",
            b"ZISRAWFILE",
            b"\x00\x00\x00\x0cjP  ",
            b"\xff\x4f\xff\x51",
            b"SIS\0",
            b"BM",
            b"P2 ",
            b"P5 ",
            b"\x1f\x8b\x08\0\0\0\0\0\0\3",
            b"SQLite format 3\0",
            b"GN\x02\0",
            bytes(127) + b"1DICM\2\0\x10\0UI\x16\x001.2.840.10008.1.2.4.50",
            b"[GENERAL]",
        ]
    ),
)
def test_garbage_never_raises(data: bytes, magic: bytes) -> None:
    """No matter what the bytes claim, the answer is a phrase or None."""
    found = lacking(magic + data)
    assert found is None or found


def test_a_single_strip_whose_length_is_left_out(tmp_path: Path) -> None:
    """Its directory is whole, and readers take the rest of the file."""
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "metadata": None, "rowsperstrip": 40}
    tifffile.imwrite(path, builders.picture(60, 40), **options)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].aspage().tags[279].overwrite(0)
    assert lacking(path.read_bytes()) is None


def test_what_may_end_in_zeros(tmp_path: Path) -> None:
    """An ICC profile whose last text has no Unicode, a last tag that is blank, a tar of more than 8 GiB."""
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "metadata": None, "compression": "zlib"}
    profile = (34675, 7, 300, bytes(range(1, 223)) + bytes(78), True)
    tifffile.imwrite(path, builders.picture(60, 40), extratags=[profile], **options)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 34675, 7, 300))
    struct.pack_into("<I", data, at + 8, len(data))
    assert lacking(bytes(data) + profile[3]) is None
    member = tarfile.TarInfo("a.jpg")
    member.size = 300
    head = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    head[124:136] = b"00000000000\0"
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    assert lacking(bytes(head) + b"\xff\xd8" + bytes([0x80]) * 3000) is None


@pytest.mark.parametrize("name", ["BM_scan.tif", "P5 100 100 255 a.tif"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_one_whatever_its_first_member_is_called(name: str, form: int) -> None:
    """Its name is what the tar begins with; a cut is seen in it all the same."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        member = tarfile.TarInfo(name)
        member.size = 5000
        archive.addfile(member, io.BytesIO(bytes(range(250)) * 20))
    data = out.getvalue()
    assert lacking(data) is None
    assert lacking(data[:3000]) == "the end of a member of the tar"


def test_the_members_of_a_tar_are_counted_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """To go on for as many as somebody makes would hold a thread of the daemon for as long."""
    monkeypatch.setattr(short, "_MOST_MEMBERS", 100)
    cut = tarfile.TarInfo("a").tobuf()
    assert lacking(cut * 99) == "the end of the tar"
    assert lacking(cut * 100) is None


def test_long_lists_are_read_a_part_at_a_time(tmp_path: Path) -> None:
    """Two hundred thousand strips: as Python's numbers the two lists would take 14 MB, and as pairs 24 more."""
    count, begin = 200_000, 8 + 2 + 12 * 9 + 4
    first = begin + 8 * count
    tags = (
        (256, 4, 1, 3), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, count, begin), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, begin + 4 * count),
    )  # fmt: skip
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.write(struct.pack("<2sHIH", b"II", 42, 8, len(tags)))
        file.write(b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4))
        file.write(struct.pack(f"<{count}I", *range(first, first + 3 * count, 3)))
        file.write(struct.pack(f"<{count}I", *[3] * count))
        file.write(b"abc" * count)
    with path.open("rb") as file:
        size = path.stat().st_size
        tracemalloc.start()
        try:
            assert missing(file.fileno(), size) is None
            [page] = Tiff(file.fileno(), size).directories
            assert misplaced(page.segments(), tiled=page.tiled) is None
            assert sum(at + length for at, length in page.segments()) == sum(
                range(first + 3, first + 3 + 3 * count, 3)
            )
        finally:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert most < 6_000_000


@pytest.mark.parametrize(
    ("places", "tiled", "said"),
    [
        ([], False, None),
        ([(8, 3), (11, 3)], False, None),
        ([(8, 0), (11, 0)], False, None),
        ([(8, 3), (11, 0)], False, "the length of its strip 1 is not stated"),
        ([(8, 0), (11, 3)], False, "the length of its strip 0 is not stated"),
        ([(0, 3)], False, "the place of its strip 0 is not stated"),
        ([(0, 0), (8, 3)], True, None),
        ([(0, 0), (0, 0)], True, "none of its tiles is in the file"),
        ([(0, 3)], True, "the place of its tile 0 is not stated"),
        ([(8, 3), (11, 0)], True, "the length of its tile 1 is not stated"),
    ],
)
def test_places_that_are_not_stated(
    places: list[tuple[int, int]], *, tiled: bool, said: str | None
) -> None:
    """A tile may be left out, a strip may not; old writers state no lengths of strips at all."""
    assert misplaced(iter(places), tiled=tiled) == said
