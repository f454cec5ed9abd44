"""Small slides of the vendors whose real files are not available: only what OpenSlide 4 needs.

Source: https://openslide.org/formats/ (a page per vendor), found out against OpenSlide 4.0.1.
"""

from __future__ import annotations

import io
import sqlite3
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.builders import picture
from tests.builders.dicom import dicom_wsi

__all__ = [
    "dicom_wsi",
    "huron_tiff",
    "leica_scn",
    "mirax_mrxs",
    "ndpi",
    "philips_tiff",
    "sakura",
    "trestle",
    "ventana_bif",
    "vms",
    "vmu",
]

_TILE = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}


def _halved(pixels: np.ndarray, step: int) -> np.ndarray:
    return np.ascontiguousarray(pixels[::step, ::step])


def leica_scn(path: Path, *, width: int = 1024, height: int = 768) -> Path:
    """A macro whose view equals the collection, and a brightfield main image of two levels."""
    nm = 500
    wide, tall = width * nm * 2, height * nm * 2
    macro = 128

    def dimensions(sizes: list[tuple[int, int]], first: int) -> str:
        return "".join(
            f'<dimension r="{r}" ifd="{first + r}" sizeX="{w}" sizeY="{h}"/>'
            for r, (w, h) in enumerate(sizes)
        )

    main = [(width, height), (width // 2, height // 2)]
    xml = f"""<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:1">
<collection name="one" sizeX="{wide}" sizeY="{tall}">
<barcode></barcode>
<image name="macro"><creationDate>2013-01-01T00:00:00Z</creationDate><device model="m" version="1"/>
<pixels sizeX="{macro}" sizeY="96">{dimensions([(macro, 96)], 0)}</pixels>
<view sizeX="{wide}" sizeY="{tall}" offsetX="0" offsetY="0"/>
<scanSettings><objectiveSettings><objective>1</objective></objectiveSettings>
<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image>
<image name="main"><creationDate>2013-01-01T00:00:00Z</creationDate><device model="m" version="1"/>
<pixels sizeX="{width}" sizeY="{height}">{dimensions(main, 1)}</pixels>
<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{width * nm // 2}" offsetY="1000"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image>
</collection></scn>"""
    pixels = picture(width, height)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(picture(macro, 96), description=xml, **{**_TILE, "tile": (128, 96)}, software="")
        scale = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
        tiff.write(pixels, **_TILE, software="", **scale)
        tiff.write(_halved(pixels, 2), **_TILE, software="", subfiletype=1)
    return path


def philips_tiff(path: Path, *, width: int = 1024, height: int = 768, acquired: str = "") -> Path:
    """Three levels at 0.25 um/px, with label and macro as pages."""

    def level(number: int) -> str:
        mm = 0.00025 * 2**number
        return (
            f'<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING"'
            f' Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">&quot;{mm}&quot; &quot;{mm}'
            f'&quot;</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" '
            f'Group="0x1001" Element="0x8B11" PMSVR="IUInt16">{number}</Attribute></DataObject>'
        )

    levels = "".join(level(number) for number in range(3))
    when = (
        '<Attribute Name="DICOM_ACQUISITION_DATETIME" Group="0x0008" Element="0x002A" '
        f'PMSVR="IString">{acquired}</Attribute>'
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">'
        f'PHILIPS</Attribute>{when}<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" '
        'Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" '
        'Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
        '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">&quot;0.00025&quot; &quot;0.00025&quot;</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        f'Element="0x8B01" PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    pixels = picture(width, height)
    with tifffile.TiffWriter(path) as tiff:
        for number in range(3):
            tiff.write(
                _halved(pixels, 2**number), description=xml if not number else "",
                software="Philips DP v1.0", subfiletype=1 if number else 0, **_TILE,
            )  # fmt: skip
        strips = {"photometric": "rgb", "metadata": None, "rowsperstrip": 32, "software": ""}
        tiff.write(picture(120, 90), description="Macro", subfiletype=1, **strips)
        tiff.write(picture(60, 90), description="Label", subfiletype=1, **strips)
    return path


def ventana_bif(path: Path, *, width: int = 1024, height: int = 768, scanned: str = "") -> Path:
    """A thumbnail with iScan XML, and two levels of tiles that touch without an overlap."""
    iscan = (
        '<?xml version="1.0" encoding="UTF-8"?><Metadata><iScan ScanRes="0.25" Magnification="40" '
        'UnitNumber="1" BuildVersion="3.3" ScannerModel="VENTANA iScan HT" '
        f'ScanDate="{scanned}"><AOI0 AOIScanned="1" '
        'AOI_X1="0"/></iScan></Metadata>'
    )
    across, down = width // 256, height // 256

    def joint(one: int, two: int, direction: str) -> str:
        return (
            f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{direction}" '
            f'Tile1="{one}" Tile2="{two}" OverlapX="0" OverlapY="0"/>'
        )

    # Tiles are counted from the bottom left, in rows that turn.
    def number(column: int, row: int) -> int:
        return row * across + (column if row % 2 == 0 else across - 1 - column) + 1

    joints = "".join(
        joint(number(c, r), number(c + 1, r), "RIGHT")
        for r in range(down)
        for c in range(across - 1)
    ) + "".join(
        joint(number(c, r), number(c, r + 1), "UP") for r in range(down - 1) for c in range(across)
    )
    encode = (
        '<?xml version="1.0" encoding="UTF-8"?><EncodeInfo Ver="2"><SlideStitchInfo>'
        f'<ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{down}" NumCols="{across}" Width="256" '
        f'Height="256" Pos-X="0" Pos-Y="0">{joints}</ImageInfo></SlideStitchInfo><AoiOrigin>'
        '<AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    pixels = picture(width, height)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            picture(200, 150), description="Label Image", photometric="rgb", metadata=None,
            rowsperstrip=32, software="", extratags=[(700, 1, None, iscan.encode(), True)],
        )  # fmt: skip
        for level in range(2):
            extra = [(700, 1, None, encode.encode(), True)] if not level else []
            tiff.write(
                _halved(pixels, 2**level), description=f"level={level} mag={40 // 2**level} quality=90",
                software="", extratags=extra, subfiletype=1 if level else 0, **_TILE,
            )  # fmt: skip
    return path


def huron_tiff(path: Path, *, width: int = 1024, height: int = 768) -> Path:
    """Two levels, a thumbnail in strips as the second directory, a label and a macro."""
    pixels = picture(width, height)
    strips = {"photometric": "rgb", "metadata": None, "rowsperstrip": 32, "software": ""}
    make = [(271, 2, None, "Huron Digital Pathology", True)]
    about = "Huron\nTissueScope LE\nMPP = 0.5"
    resolution = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, description=about, software="", extratags=make, **resolution, **_TILE)
        tiff.write(picture(200, 150), **strips, extratags=make)
        tiff.write(_halved(pixels, 4), software="", extratags=make, **_TILE)
        tiff.write(picture(60, 90), subfiletype=1, **strips, extratags=make)
        tiff.write(picture(120, 90), subfiletype=9, **strips, extratags=make)
    return path


def trestle(path: Path, *, width: int = 1024, height: int = 768) -> Path:
    """Two levels without overlaps."""
    pixels = picture(width, height)
    about = "Background Color=FFFFFF;White Balance=FFFFFF;Objective Power=20;OverlapsXY= 0 0 0 0"
    with tifffile.TiffWriter(path) as tiff:
        for level in range(2):
            tiff.write(
                _halved(pixels, 2**level), description=about if not level else None,
                software="MedScan Systems", **_TILE,
            )  # fmt: skip
    return path


def _jpeg(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, subsampling=0, **options)
    return stream.getvalue()


def vms(folder: Path, stem: str = "CMU-1", *, width: int = 512, height: int = 384) -> Path:
    """Two JPEGs side by side with restart markers, a map, a macro and an optimisation file."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = picture(2 * width, height)
    blocks = width // 8
    records = bytearray()
    for x in range(2):
        part = pixels[:, x * width : (x + 1) * width]
        jpeg = _jpeg(part, restart_marker_blocks=blocks)
        (folder / f"{stem}({x},0).jpg").write_bytes(jpeg)
        # Where each row of blocks begins, in records of 40 bytes.
        records += b"".join(struct.pack("<q32x", at) for at in _restarts(jpeg))
    (folder / f"{stem}_map2.jpg").write_bytes(_jpeg(_halved(pixels, 8), restart_marker_blocks=16))
    (folder / f"{stem}_macro.jpg").write_bytes(_jpeg(picture(160, 90)))
    (folder / f"{stem}.opt").write_bytes(bytes(records))
    head = folder / f"{stem}.vms"
    head.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=2\nNoJpegRows=1\n"
        f"ImageFile={stem}(0,0).jpg\nImageFile(1,0)={stem}(1,0).jpg\nMapFile={stem}_map2.jpg\n"
        f"MacroImage={stem}_macro.jpg\nOptimisationFile={stem}.opt\n"
        f"PhysicalWidth={2 * width * 500}\nPhysicalHeight={height * 500}\nSourceLens=20\n"
    )
    return head


def mirax_mrxs(
    folder: Path, stem: str = "CMU-1", *, data_files: int = 2, created: str = ""
) -> Path:
    """Two zoom levels of 256-pixel tiles, spread over data files, with a macro."""
    inside = folder / stem
    inside.mkdir(parents=True, exist_ok=True)
    uid = "0123456789abcdef0123456789ABCDEF"
    across, down, side = 4, 4, 256
    pixels = picture(across * side, down * side)
    data: list[bytearray] = [bytearray(uid.encode()) for _ in range(data_files)]
    records: list[list[tuple[int, int, int, int]]] = []
    count = 0
    for level in range(2):
        step = 2**level
        level_pixels = _halved(pixels, step)
        rows = []
        for y in range(0, down, step):
            for x in range(0, across, step):
                left, top = x * side // step, y * side // step
                jpeg = _jpeg(level_pixels[top : top + side, left : left + side])
                number = count % data_files
                count += 1
                rows.append((y * across + x, len(data[number]), len(jpeg), number))
                data[number] += jpeg
        records.append(rows)
    macro = _jpeg(picture(160, 90))
    macro_at = len(data[0])
    data[0] += macro
    for number, content in enumerate(data):
        (inside / f"Data{number:04}.dat").write_bytes(bytes(content))
    (inside / "Index.dat").write_bytes(_mirax_index(uid, records, (macro_at, len(macro), 0)))
    slidedat = _slidedat(uid, across, down, side, data_files)
    about = f"SLIDE_NAME=x\nSLIDE_CREATIONDATETIME={created}\n" if created else "SLIDE_NAME=x\n"
    (inside / "Slidedat.ini").write_text(slidedat.replace("SLIDE_NAME=x\n", about))
    head = folder / f"{stem}.mrxs"
    head.write_bytes(_jpeg(picture(64, 64)))
    return head


def _mirax_index(
    uid: str, records: list[list[tuple[int, int, int, int]]], macro: tuple[int, int, int]
) -> bytes:
    index = bytearray(b"01.02" + uid.encode())
    roots = len(index)
    index += bytes(8)

    def put(*values: int) -> int:
        at = len(index)
        index.extend(struct.pack(f"<{len(values)}i", *values))
        return at

    heads = []
    for rows in records:
        page = put(len(rows), 0, *(value for row in rows for value in row))
        heads.append(put(0, page))
    struct.pack_into("<i", index, roots, put(*heads))
    page = put(1, 0, 0, 0, *macro)
    struct.pack_into("<i", index, roots + 4, put(put(0, page)))
    return bytes(index)


def _slidedat(uid: str, across: int, down: int, side: int, data_files: int) -> str:
    level = (
        "OVERLAP_X=0\nOVERLAP_Y=0\nMICROMETER_PER_PIXEL_X={mpp}\nMICROMETER_PER_PIXEL_Y={mpp}\n"
        "IMAGE_FILL_COLOR_BGR=16777215\nDIGITIZER_WIDTH={side}\nDIGITIZER_HEIGHT={side}\n"
        "IMAGE_FORMAT=JPEG\nIMAGE_CONCAT_FACTOR={factor}\n"
    )
    files = "".join(f"FILE_{n}=Data{n:04}.dat\n" for n in range(data_files))
    return (
        f"\ufeff[GENERAL]\nSLIDE_ID={uid}\nSLIDE_VERSION=01.02\nSLIDE_NAME=x\n"
        f"IMAGENUMBER_X={across}\nIMAGENUMBER_Y={down}\nOBJECTIVE_MAGNIFICATION=20\n"
        "CameraImageDivisionsPerSide=1\nSLIDE_CREATION_FINISHED=True\n"
        "[HIERARCHICAL]\nHIER_COUNT=1\nNONHIER_COUNT=1\nINDEXFILE=Index.dat\n"
        "HIER_0_NAME=Slide zoom level\nHIER_0_COUNT=2\nHIER_0_SECTION=ZOOM\n"
        "HIER_0_VAL_0=ZoomLevel_0\nHIER_0_VAL_0_SECTION=LEVEL_0\n"
        "HIER_0_VAL_1=ZoomLevel_1\nHIER_0_VAL_1_SECTION=LEVEL_1\n"
        "NONHIER_0_NAME=Scan data layer\nNONHIER_0_COUNT=1\nNONHIER_0_SECTION=SCAN\n"
        "NONHIER_0_VAL_0=ScanDataLayer_SlideThumbnail\nNONHIER_0_VAL_0_SECTION=THUMB\n"
        "[THUMB]\nTHUMBNAIL_IMAGE_TYPE=JPEG\n"
        f"[DATAFILE]\nFILE_COUNT={data_files}\n{files}"
        f"[LEVEL_0]\n{level.format(mpp=0.5, side=side, factor=0)}"
        f"[LEVEL_1]\n{level.format(mpp=1.0, side=side, factor=1)}"
    )


def ndpi(
    path: Path, *, width: int = 1024, height: int = 768, written: str = "", about: str = ""
) -> Path:
    """Two levels, each one JPEG strip with restart markers, and a macro.

    `written` is the DateTime of the TIFF, `about` the property map of Hamamatsu (tag 65449).
    """
    images = [(width, height, 20.0), (width // 4, height // 4, 5.0), (160, 96, -1.0)]
    pixels = picture(width, height)
    data = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    previous = 4
    for wide, tall, lens in images:
        part = picture(wide, tall) if lens < 0 else _halved(pixels, width // wide)
        jpeg = _jpeg(part, restart_marker_blocks=max(1, wide // 8 // 2))
        at = len(data)
        data += jpeg
        begins = _restarts(jpeg)
        starts_at = len(data)
        data += struct.pack(f"<{len(begins)}I", *begins)
        tags = [
            (256, 4, 1, wide), (257, 4, 1, tall), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6),
            (271, 2, 4, int.from_bytes(b"Ham\0", "little")), (273, 4, 1, at), (277, 3, 1, 3),
            (278, 4, 1, tall), (279, 4, 1, len(jpeg)),
            (282, 5, 1, (20_000 if lens > 0 else 100, 1)),
            (283, 5, 1, (20_000 if lens > 0 else 100, 1)), (296, 3, 1, 3),
            (65420, 4, 1, 1), (65422, 9, 1, 0), (65423, 9, 1, 0), (65424, 9, 1, 0), (65421, 11, 1, int.from_bytes(struct.pack("<f", lens), "little")),
            (65426, 4, len(begins), starts_at if len(begins) > 1 else begins[0]),
        ]  # fmt: skip
        for number, text in ((306, written), (65449, about)):
            if text:
                where = len(data)
                data += text.encode() + b"\0"
                tags.append((number, 2, len(text) + 1, where))
        tags.sort(key=lambda tag: tag[0])
        entries = bytearray()
        for number, kind, count, value in tags:
            if isinstance(value, tuple):
                where = len(data)
                data += struct.pack("<2I", *value)
                value = where  # noqa: PLW2901
            entries += struct.pack("<HHII", number, kind, count, value)
        struct.pack_into("<Q", data, previous, len(data))
        data += struct.pack("<H", len(tags)) + entries
        previous = len(data)
        data += bytes(8) + bytes(4 * len(tags))
    path.write_bytes(bytes(data))
    return path


def _restarts(jpeg: bytes) -> list[int]:
    """Where each restart interval begins: behind the scan header, and behind each RSTn."""
    scan = jpeg.index(b"\xff\xda")
    first = scan + 2 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0]
    found = [first]
    for at in range(first, len(jpeg) - 1):
        if jpeg[at] == 0xFF and 0xD0 <= jpeg[at + 1] <= 0xD7:
            found.append(at + 2)
    return found


def vmu(folder: Path, stem: str = "CMU-2", *, width: int = 512, height: int = 384) -> Path:
    """Two NGR images, of 12 bits in 16, in columns of 256 pixels; and a macro."""
    folder.mkdir(parents=True, exist_ok=True)

    def ngr(name: str, pixels: np.ndarray, column: int) -> None:
        tall, wide = pixels.shape[:2]
        head = struct.pack("<2sHiii", b"GN", 2, wide, tall, column).ljust(24, b"\0")
        head = (head + struct.pack("<i", 32)).ljust(32, b"\0")
        stored = pixels.astype("<u2") << 4
        columns = [stored[:, x : x + column].tobytes() for x in range(0, wide, column)]
        (folder / name).write_bytes(head + b"".join(columns))

    pixels = picture(width, height)
    ngr(f"{stem}.ngr", pixels, 256)
    ngr(f"{stem}_map.ngr", _halved(pixels, 4), 64)
    (folder / f"{stem}_macro.jpg").write_bytes(_jpeg(picture(160, 90)))
    head = folder / f"{stem}.vmu"
    head.write_text(
        "[Uncompressed Virtual Microscope Specimen]\nNoLayers=1\nBitsPerPixel=36\n"
        f"PixelOrder=RGB\nImageFile={stem}.ngr\nMapFile={stem}_map.ngr\n"
        f"MacroImage={stem}_macro.jpg\nPhysicalWidth={width * 500}\n"
        f"PhysicalHeight={height * 500}\nSourceLens=20\n"
    )
    return head


def sakura(path: Path, *, width: int = 512, height: int = 512) -> Path:
    """An SQLite database whose tiles are one JPEG a colour."""
    pixels = picture(width, height)
    with sqlite3.connect(path) as made:
        made.executescript(
            "CREATE TABLE DataManagerSQLiteConfigXPO (TableName TEXT);"
            "INSERT INTO DataManagerSQLiteConfigXPO VALUES ('slide');"
            "CREATE TABLE slide (id TEXT PRIMARY KEY, size INTEGER, data BLOB);"
            "CREATE TABLE SVSlideDataXPO (OID INTEGER, SlideId TEXT, Date TEXT, Description TEXT,"
            " Creator TEXT, DiagnosisCode TEXT, Keywords TEXT, m_labelScan INTEGER,"
            " m_overviewScan INTEGER);"
            "CREATE TABLE SVHRScanDataXPO (OID INTEGER, ParentSlide INTEGER, ScanId TEXT, Date TEXT,"
            " Name TEXT, Description TEXT, ResolutionMmPerPix REAL, NominalLensMagnification REAL);"
            "INSERT INTO SVSlideDataXPO VALUES (1, 's', '', '', '', '', '', 1, 2);"
            "INSERT INTO SVHRScanDataXPO VALUES (1, 1, 'x', '', '', '', 0.0005, 20);"
        )

        def put(name: str, data: bytes) -> None:
            made.execute("INSERT INTO slide VALUES (?, ?, ?)", (name, len(data), data))

        put("++MagicBytes", b"SVGigaPixelImage")
        put("Header", struct.pack("<5I", 256, width, height, 0, 1))
        for level in (1, 2):
            part = _halved(pixels, level)
            for y in range(0, part.shape[0], 256):
                for x in range(0, part.shape[1], 256):
                    for colour in range(3):
                        tile = part[y : y + 256, x : x + 256, colour]
                        stream = io.BytesIO()
                        Image.fromarray(tile).save(stream, "JPEG", quality=95)
                        put(f"T;{x * level}|{y * level};{level};{colour};0", stream.getvalue())
    made.close()
    return path
