"""Names in archives: with any bytes, each image is taken, under a name that can be read."""

from __future__ import annotations

import base64
import io
import os
import random
import tarfile
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytowatch.archives import code_pages, encodings
from cytowatch.config import from_mapping
from cytowatch.model import Outcome, UploadedFile
from cytowatch.record import entries as entries_module
from cytowatch.record import manifest, names, schema
from cytowatch.record.errors import ConfigError, ExtractionError
from cytowatch.record.originals import originals
from cytowatch.stages.extract import extract
from tests import builders
from tests.builders import vendors
from tests.builders.packs import UTF8, Packed, raw_tar, raw_zip, unicode_path

#: Names as labs give them, and the code page of the machine that packs them.
NAMES = {
    "cp932": ["ソ.jpg", "表.jpg", "能.jpg", "予.jpg", "十.jpg", "申.jpg", "貼.jpg", "構.jpg", "暴.jpg",
              "検体.jpg", "新しいフォルダ/表紙.jpg", "病理 組織①.svs", "胃_生検.ndpi", "HE染色_01.tif",
              "S26-12_検体A.jpg", "肝臓/スライド1.mrxs", "テスト.svs", "症例１.jpg", "大腸癌.jpg", "噂.jpg"],
    "gbk": ["病理.jpg", "检体.jpg", "切片 1.svs", "组织.tif", "肝脏.ndpi", "新建文件夹/样本.svs", "张三.jpg",
            "免疫组化.tif", "标本2024.svs", "李明_HE.svs", "扫描.jpg", "模板.jpg"],
    "big5": ["病理.jpg", "檢體.jpg", "組織切片.svs", "新增資料夾/樣本.svs", "許功蓋.jpg", "乳癌.svs"],
    "cp949": ["조직.jpg", "병리.svs", "새 폴더/검체.svs", "간암.tif", "위 생검.ndpi", "슬라이드1.svs", "환자_01.svs"],
    "cp866": ["Гастрит.jpg", "Новая папка/препарат 1.svs", "Печень.tif", "желудок.svs", "№1 Иванов.jpg"],
    "cp1251": ["Гастрит.jpg", "Новая папка/препарат 1.svs", "Печень.tif", "Образец.svs", "зразок.svs"],
    "koi8-r": ["Гастрит.jpg", "препарат 1.svs", "Печень.tif"],
    "cp437": ["Größe.svs", "Fälle.jpg", "Gewebe_Übersicht.jpg", "Präparat ä.svs", "Muñoz.jpg", "Straße.jpg"],
    "cp850": ["Größe.svs", "São João.jpg", "Sørensen.jpg", "Ávila.svs", "coração.jpg"],
    "cp1252": ["Größe.svs", "Gärtner.jpg", "São João.jpg", "Sørensen.jpg", "Übersicht.jpg", "Café – 1.svs"],
    "cp852": ["Łódź.jpg", "próbka wątroba.svs", "Kovács_gyűrű.jpg", "żołądek.svs"],
    "cp737": ["Δείγμα.jpg", "βιοψία.jpg"],
    "cp862": ["דגימה.jpg", "רקמה 1.svs"],
    "cp720": ["عينة.jpg", "نسيج.svs"],
    "cp874": ["ชิ้นเนื้อ.jpg", "โฟลเดอร์ใหม่/ตับ 1.svs", "สมชาย ใจดี.jpg", "กระเพาะอาหาร_01.tif"],
    "cp775": ["Žukauskas.jpg", "Kepenų biopsija.svs", "Šaltinis ą.jpg", "Kārkliņš.svs", "Nauja aplankų grupė/a.jpg"],
    "cp1254": ["Şahin.jpg", "doku örneği.svs", "Karaciğer.tif", "Yıldız Işık.jpg"],
    "cp1253": ["Δείγμα.jpg", "βιοψία ήπατος.jpg"],
    "cp1255": ["דגימה.jpg", "רקמה 1.svs", "כבד.jpg"],
    "cp1256": ["عينة.jpg", "نسيج.svs", "كبد 1.jpg"],
}  # fmt: skip


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return builders.jpeg(
        tmp_path_factory.mktemp("image") / "a.jpg", width=40, height=30
    ).read_bytes()


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives what an archive became: the outcome, and the manifests of its children by name."""

    def run(data: bytes, kind: str = "zip", **config: Any) -> tuple[Outcome, dict[str, Any]]:
        place = tmp_path / f"{random.random()}"
        (place / "source").mkdir(parents=True)
        (place / "out.1").mkdir()
        monkeypatch.chdir(place)
        (place / "source" / "b").write_bytes(data)
        file = entries_module.FileEntry(
            role="source",
            path="source/b",
            size_bytes=len(data),
            sha256=None,
            status="EXTRACTING_DATA",
        )
        made = manifest.new(
            id="20261123-141502-k3f9-b", user="ann", name="b", drop_path="ann/b", files=[file],
            now=datetime.now(UTC), software={},
        )  # fmt: skip
        made["format"] = entries_module.FormatEntry(
            id=kind, name=kind, native=False, evidence="", openslide_vendor=None
        )
        outcome = extract(
            UploadedFile(manifest=made, out="out.1", config=from_mapping({"extract": config}))
        )
        found = [
            manifest.read(place / "out.1/children" / id_) for id_ in outcome.changes["children"]
        ]
        for one in found:
            assert schema.problem(one) is None
            # With any name, it can be written down.
            str(one).encode()
        return outcome, {one["name"]: one for one in found}

    return run


@pytest.mark.parametrize("encoding", NAMES)
def test_names_of_a_code_page_are_read_as_they_were_written(
    encoding: str, unpacked: Any, image: bytes
) -> None:
    """All images come out, none ignored, each with its own name, its folder and its bytes."""
    wanted = [name.rpartition(".")[0] + ".jpg" for name in NAMES[encoding]]
    data = raw_zip(*(Packed(name=name.encode(encoding), data=image) for name in wanted))
    outcome, found = unpacked(data)
    assert outcome.changes["skipped"] == []
    assert {one["drop_path"] for one in found.values()} == {f"ann/b/{name}" for name in wanted}
    for name, one in found.items():
        assert base64.b64decode(one["name_base64"] or "") == (
            b"" if name.isascii() else name.encode(encoding)
        )
        assert "unnamed" not in one["id"]


@pytest.mark.parametrize("name", NAMES["cp932"])
def test_a_single_japanese_name_is_enough(name: str, unpacked: Any, image: bytes) -> None:
    """Half of them have the byte of a backslash as a second one, which separates nothing."""
    [found] = unpacked(raw_zip(Packed(name=name.encode("cp932"), data=image)))[1].values()
    assert found["drop_path"] == f"ann/b/{name}"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_utf8_without_its_flag(form: str, unpacked: Any, image: bytes) -> None:
    """As the Finder and `zip` on Linux write it, beside a name that is not UTF-8 too."""
    name = unicodedata.normalize(form, "Fälle ß 組織.jpg")
    other = "Gärtner.jpg".encode("latin-1")
    _, found = unpacked(
        raw_zip(Packed(name=name.encode(), data=image), Packed(name=other, data=image))
    )
    assert set(found) == {name, "Gärtner.jpg"}
    assert found[name]["name_base64"] is None
    assert base64.b64decode(found["Gärtner.jpg"]["name_base64"]) == other


def test_a_flag_for_utf8_that_is_wrong_costs_nothing(unpacked: Any, image: bytes) -> None:
    """The name is read as if it had none, and the other members come out."""
    bad = Packed(name="Gärtner.jpg".encode("latin-1"), data=image, flags=UTF8)
    _, found = unpacked(raw_zip(bad, Packed(name=b"ok.jpg", data=image)))
    assert set(found) == {"Gärtner.jpg", "ok.jpg"}


def test_a_long_name_of_windows(unpacked: Any, image: bytes) -> None:
    """A hundred characters are allowed there, and are three hundred bytes of UTF-8."""
    name = "検体" * 50 + ".jpg"
    [found] = unpacked(raw_zip(Packed(name=name.encode("cp932"), data=image)))[1].values()
    assert found["name"] == name
    [(_, exported)] = originals(found)
    assert os.fsencode(exported) == name.encode("cp932")


def test_a_wrong_guess_hides_no_image(unpacked: Any, image: bytes) -> None:
    """Half a character before an extension is not a folder with a hidden file in it."""
    data = raw_zip(Packed(name=b"\x83\\.jpg", data=image), Packed(name=b"d/\x83\\.jpg", data=image))
    outcome, found = unpacked(data, names="cp1252")
    assert outcome.changes["skipped"] == []
    assert {one["drop_path"] for one in found.values()} <= {"ann/b/ƒ_.jpg", "ann/b/d/ƒ_.jpg"}
    assert {base64.b64decode(one["name_base64"]) for one in found.values()} == {b"\x83\\.jpg"}


def test_very_many_and_very_long_names_are_soon_guessed() -> None:
    """A guess looks at some of them."""
    raws = [bytes([0x80 + n % 64, 0x5C]) * 8000 for n in range(300)]
    assert code_pages.guess(raws)
    assert len(encodings.decoded([entry(raw) for raw in raws], "auto")) == 300


def test_the_unicode_path_field(unpacked: Any, image: bytes) -> None:
    """It is the name if it was made for this one; a checksum of another name makes it stale."""
    good = Packed(name=b"__.jpg", data=image, extra=unicode_path(b"__.jpg", "病理.jpg"))
    stale = Packed(name=b"new.jpg", data=image, extra=unicode_path(b"old.jpg", "古い.jpg"))
    _, found = unpacked(raw_zip(good, stale))
    assert set(found) == {"病理.jpg", "new.jpg"}
    assert found["病理.jpg"]["name_base64"] is None


def test_the_unicode_path_field_is_doubted_as_names_are(unpacked: Any, image: bytes) -> None:
    """It can lead out as well as any other."""
    bad = Packed(name=b"a.jpg", data=image, extra=unicode_path(b"a.jpg", "../a.jpg"))
    with pytest.raises(ExtractionError) as raised:
        unpacked(raw_zip(bad))
    assert raised.value.reason == "path_traversal"


def test_a_backslash_separates_where_it_is_one(unpacked: Any, tmp_path: Path) -> None:
    """Old .NET writes it between the parts of a name, in a code page too: a set stays together."""
    vendors.mirax_mrxs(tmp_path / "w", "Probe ä 1")
    parts = [
        Packed(name=str(path.relative_to(tmp_path / "w")).replace("/", "\\").encode("cp850"),
               data=path.read_bytes())
        for path in sorted((tmp_path / "w").rglob("*")) if path.is_file()
    ]  # fmt: skip
    outcome, found = unpacked(raw_zip(*parts))
    assert list(found) == ["Probe ä 1.mrxs"]
    assert len(found["Probe ä 1.mrxs"]["files"]) == len(parts)
    assert outcome.changes["skipped"] == []


def test_a_configured_encoding_is_believed(unpacked: Any, image: bytes) -> None:
    """Where a guess would differ; what does not fit it is guessed all the same, and UTF-8 stays it."""
    turkish = "ığdır.jpg".encode("cp1254")
    data = raw_zip(Packed(name=turkish, data=image), Packed(name="組織.jpg".encode(), data=image))
    assert set(unpacked(data, names="cp1254")[1]) == {"ığdır.jpg", "組織.jpg"}
    assert set(unpacked(data)[1]) != {"ığdır.jpg", "組織.jpg"}
    unfit = raw_zip(Packed(name=b"\xff\xff.jpg", data=image))
    assert len(unpacked(unfit, names="cp932")[1]) == 1
    # Two bytes of Chinese that are a letter of UTF-8 as well.
    assert set(
        unpacked(raw_zip(Packed(name="模.jpg".encode("gbk"), data=image)), names="gbk")[1]
    ) == {"模.jpg"}


#: The name of a slide as the only one of its zip, and the code page of the machine.
SINGLE = [
    ("ชิ้นเนื้อ.svs", "cp874"), ("ตับอ่อน.jpg", "cp874"), ("Yıldız.svs", "cp1254"), ("Şahin.jpg", "cp1254"),
    ("Kalvėnas.svs", "cp775"), ("Γιώργος.svs", "cp1253"), ("כהן.svs", "cp1255"), ("الكبد.jpg", "cp1256"),
    ("Größe.svs", "cp850"), ("Größe.svs", "cp1252"), ("Lévêque.jpg", "cp850"), ("Muñoz.svs", "cp850"),
    ("Ågren.svs", "cp850"), ("Иванов.svs", "cp866"), ("Иванов.svs", "cp1251"), ("Коваленко.jpg", "cp1251"),
    ("太田.svs", "cp932"), ("表.jpg", "cp932"), ("病理.svs", "gbk"), ("組織.svs", "big5"), ("조직.svs", "cp949"),
    ("Παπαδόπουλος.svs", "cp737"), ("כהן.svs", "cp862"), ("Németh.svs", "cp852"),
]  # fmt: skip


@pytest.mark.parametrize("name, encoding", SINGLE)
def test_a_single_name_is_guessed(name: str, encoding: str) -> None:
    """A zip of one slide has no other names to compare it with."""
    raw = name.encode(encoding)
    assert [one.text for one in encodings.decoded([entry(raw)], "auto")] == [name]


@pytest.mark.parametrize(
    "value", ["cp932", "gbk", "cp437", "shift_jis", "utf-8", "latin-1", "auto"]
)
def test_encodings_that_can_be_configured(value: str) -> None:
    """Those in which ASCII is ASCII."""
    assert from_mapping({"extract": {"names": value}}).extract.names == value


@pytest.mark.parametrize(
    "value",
    ["", "cp0", "utf-16", "cp037", "rot13", "base64", "utf-7", "unicode_escape", "idna", 437, "hz"],
)
def test_encodings_that_make_no_sense(value: object) -> None:
    """Unknown ones, those that are not an encoding of text, and those that read ASCII as something else."""
    with pytest.raises(ConfigError) as raised:
        from_mapping({"extract": {"names": value}})
    assert "cp932" in str(raised.value)


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=5, unique=True))
@settings(deadline=None)
def test_no_name_is_too_odd(raws: list[bytes]) -> None:
    """No matter what the bytes are, there is a text for each, and the bytes of its last part are in it."""
    entries = [entry(raw) for raw in raws]
    for encoding in ("auto", "cp932", "gbk"):
        for raw, name in zip(raws, encodings.decoded(entries, encoding), strict=True):
            name.text.encode()
            assert name.raw == raw
            assert raw.endswith(name.tail(name.text.rpartition("/")[2]))


def entry(raw: bytes) -> Any:
    from cytowatch.archives.directory import Entry

    return Entry(
        name=raw, flags=0, method=0, crc=0, packed_bytes=0, size_bytes=0, at=0, mode=0, extra=b"",
        wide=False,
    )  # fmt: skip


def test_tars_with_names_that_are_not_utf8(unpacked: Any, image: bytes) -> None:
    """As a loose file: a mark for each byte, the bytes kept; two that look alike stay two."""
    data = raw_tar(
        ("Gärtner.jpg".encode("latin-1"), image), (b"G\xf6rtner.jpg", image),
        ("Größe/eins.jpg".encode("latin-1"), image), ("表.jpg".encode("cp932"), image),
        (b"._G\xe4rtner.jpg", b"x"), (b"G\xe4rtner.doc", b"hello there"),
        links=[(b"L\xe4nge.jpg", b"G\xe4rtner.jpg")],
    )  # fmt: skip
    outcome, _ = unpacked(data, "tar")
    places = [Path("out.1/children") / id_ for id_ in outcome.changes["children"]]
    found = [manifest.read(place) for place in places]
    kept = {base64.b64decode(one["name_base64"]) for one in found if one["name_base64"]}
    assert kept == {
        b"G\xe4rtner.jpg", b"G\xf6rtner.jpg", "表.jpg".encode("cp932"), b"L\xe4nge.jpg"
    }  # fmt: skip
    assert sorted(one["drop_path"] for one in found) == [
        "ann/b/Gr\ufffd\ufffde/eins.jpg", "ann/b/G\ufffdrtner.jpg", "ann/b/G\ufffdrtner.jpg",
        "ann/b/L\ufffdnge.jpg", "ann/b/\ufffd\\.jpg",
    ]  # fmt: skip
    assert {one["name"]: one["reason"] for one in outcome.changes["skipped"]} == {
        "._G\ufffdrtner.jpg": "ignored", "G\ufffdrtner.doc": "not_an_image: a text file",
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["BINARY", "ISO-IR 10646 2000 UTF-8"])
def test_pax_headers_whose_path_is_not_utf8(encoding: str, unpacked: Any, image: bytes) -> None:
    """Whether the header says so or not."""
    record = b"path=G\xe4rtner.jpg\n"
    said = f"hdrcharset={encoding}\n".encode()
    pax = b"".join(b"%d %s" % (len(one) + 3, one) for one in (said, record))
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(pax)
    info = tarfile.TarInfo("short.jpg")
    info.size = len(image)
    stream = io.BytesIO()
    stream.write(header.tobuf(tarfile.USTAR_FORMAT) + pax.ljust(512, b"\0"))
    stream.write(info.tobuf(tarfile.USTAR_FORMAT) + image + bytes(-len(image) % 512) + bytes(1024))
    [found] = unpacked(stream.getvalue(), "tar")[1].values()
    assert found["name"] == "G\ufffdrtner.jpg"
    assert base64.b64decode(found["name_base64"]) == b"G\xe4rtner.jpg"


@pytest.mark.parametrize(
    ("name", "slug"),
    [("検体.jpg", "JianTi"), ("Гастрит.svs", "Gastrit"), ("βιοψία.svs", "viopsia"), ("조직.svs", "JoJig"),
     ("病理.svs", "BingLi"), ("عينة.svs", "ynh"), ("Straße ①.svs", "Strasse-1"), ("ตัวอย่าง.svs", "tawoyang")],
)  # fmt: skip
def test_ids_can_be_found_by_eye(name: str, slug: str) -> None:
    """Every script has a form in ASCII."""
    assert names.slug(name) == slug
    assert names.ID_PATTERN.fullmatch(names.new_id(datetime.now(UTC), name, random.Random(1)))


@given(st.text(max_size=300))
@settings(deadline=None)
def test_every_name_has_a_safe_slug(name: str) -> None:
    """Lone surrogates, marks without a letter and endless names among them."""
    assert names.ID_PATTERN.fullmatch(names.new_id(datetime.now(UTC), name, random.Random(1)))
    assert os.sep not in names.slug(name)
