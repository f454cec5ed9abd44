"""Tiles of every native format, of a set and of derived pyramids, held against independent readers."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from cytowatch.panel import serve
from tests import builders
from tests.builders import others, vendors
from tests.lab.panel import Served
from tests.lab.root import HANGS_S, Root

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared/samples"
WIDE = builders.picture(900, 700)[:, :, 0].astype(np.uint16) * 40 + 300

#: Name of the drop: whether its tiles are served as they lie in the file.
AS_THEY_LIE = {
    "pyramid.tif": True,
    "aperio.svs": True,
    "philips.tiff": True,
    "huron.tif": True,
    "flat.jpg": True,
    "grey.pgm": True,
    "scenes.czi": True,
    "hamamatsu.ndpi": False,
    "leica.scn": False,
    "ventana.bif": False,
    "trestle.tif": False,
    "sakura.svslide": False,
    "deflate.tif": False,
    "wide.tif": False,
    "CMU-1.vms": False,
    "CMU-1.mrxs": False,
    "CMU-2.vmu": False,
    "level0.dcm": False,
    "real.svs": True,
    "real.ndpi": False,
}


def _drops(folder: Path) -> None:
    builders.pyramidal_tiff(folder / "pyramid.tif")
    builders.aperio_svs(folder / "aperio.svs")
    vendors.philips_tiff(folder / "philips.tiff")
    vendors.huron_tiff(folder / "huron.tif")
    builders.jpeg(folder / "flat.jpg", width=900, height=700)
    others.pgm(folder / "grey.pgm")
    others.czi(folder / "scenes.czi", scenes=2)
    vendors.ndpi(folder / "hamamatsu.ndpi")
    vendors.leica_scn(folder / "leica.scn")
    vendors.ventana_bif(folder / "ventana.bif")
    vendors.trestle(folder / "trestle.tif")
    vendors.sakura(folder / "sakura.svslide")
    with tifffile.TiffWriter(folder / "deflate.tif") as tiff:
        for step in (1, 2):
            tiff.write(
                np.ascontiguousarray(builders.picture(600, 500)[::step, ::step]), tile=(256, 256),
                compression="deflate", photometric="rgb", metadata=None, subfiletype=step - 1,
            )  # fmt: skip
    tifffile.imwrite(folder / "wide.tif", WIDE)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """One of each, deployed by a real daemon."""
    folder = tmp_path_factory.mktemp("pixels")
    root = Root(folder / "root")
    root.create()
    root.configure(inbox="folder_quiet_s = 0.5")
    ann = root.path / "inbox" / "ann"
    ann.mkdir()
    (folder / "drops").mkdir()
    _drops(folder / "drops")
    for path in (folder / "drops").iterdir():
        shutil.copy(path, ann / path.name)
    vendors.vms(ann / "vms")
    vendors.vmu(ann / "vmu")
    vendors.mirax_mrxs(ann / "mrxs")
    vendors.dicom_wsi(ann / "case")
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    return root


@pytest.fixture(scope="module")
def found(slides: Root) -> dict[str, dict[str, Any]]:
    """The manifest of each drop by its name."""
    return {name: one for name, one in slides.by_name().items() if one["images"]}


@pytest.fixture(scope="module")
def panel(slides: Root) -> Iterator[Served]:
    served = Served(slides.path)
    yield served
    served.stop()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def encoded(right: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(right.round().astype(np.uint8)).save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()


def info(panel: Served, document: dict[str, Any]) -> dict[str, Any]:
    answer = panel.ask(f"/tiles/{document['id']}/info.json")
    assert answer.code == 200, answer.text
    return answer.json


def expected(
    document: dict[str, Any], image: dict[str, Any], level: int, box: tuple[int, int, int, int]
) -> np.ndarray:
    """What an independent reader shows in a box of a level."""
    x, y, width, height = box
    path = document["_path"] / image["file"]
    if image["bits_per_sample"] > 8:
        with tifffile.TiffFile(path) as tiff:
            whole = tiff.pages[level].asarray().astype(float)
            smallest = tiff.pages[len(image["levels"]) - 1].asarray()
        low, high = np.percentile(smallest, (0.1, 99.9))
        shown = ((whole[y : y + height, x : x + width] - low) * 255 / (high - low)).clip(0, 255)
        return np.repeat(shown[:, :, None], 3, axis=2)
    with openslide.OpenSlide(path) as slide:
        scale = slide.level_downsamples[level]
        read = slide.read_region((round(x * scale), round(y * scale)), level, (width, height))
        colour = slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        below = Image.new("RGBA", read.size, f"#{colour}")
        return np.asarray(Image.alpha_composite(below, read).convert("RGB")).astype(int)


def test_every_tile_of_every_format_shows_the_right_pixels(
    panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """A tile as it lies differs from OpenSlide by nothing at all; one that was decoded hardly."""
    assert found.keys() == {name for name in AS_THEY_LIE if not name.startswith("real")}
    for name, document in found.items():
        told = info(panel, document)
        assert len(told["images"]) == len(document["images"]) == (2 if name == "scenes.czi" else 1)
        for image, shown in zip(document["images"], told["images"], strict=True):
            for number, level in enumerate(shown["levels"]):
                _check_level(panel, document, image, shown, number, level)


def _check_level(
    panel: Served, document: dict[str, Any], image: dict[str, Any], shown: dict[str, Any],
    number: int, level: dict[str, int],
) -> None:  # fmt: skip
    across, down = _tiles(level)
    for row in range(down):
        for column in range(across):
            _check_tile(panel, document, image, shown, (number, column, row))


def _tiles(level: dict[str, int]) -> tuple[int, int]:
    """How many tiles a level has across and down."""
    return -(-level["width"] // level["tile_width"]), -(-level["height"] // level["tile_height"])


def _check_tile(
    panel: Served, document: dict[str, Any], image: dict[str, Any], shown: dict[str, Any],
    place: tuple[int, int, int],
) -> None:  # fmt: skip
    number, column, row = place
    level = shown["levels"][number]
    wide, tall = level["tile_width"], level["tile_height"]
    answer = panel.ask(f"{shown['tiles']}/{number}/{column}_{row}.jpg")
    assert (answer.code, answer.headers["content-type"]) == (200, "image/jpeg")
    x, y = column * wide, row * tall
    box = (x, y, min(wide, level["width"] - x), min(tall, level["height"] - y))
    mine = pixels(answer.body)
    right = expected(document, image, number, box)
    off = np.abs(mine[: box[3], : box[2]] - right)
    where = (document["name"], place, off.max(), off.mean())
    if AS_THEY_LIE[document["name"]]:
        assert mine.shape[:2] == (tall, wide), where
        assert off.max() == 0, where
    else:
        assert mine.shape[:2] == (box[3], box[2]), where
        # No more than a JPEG of quality 90 makes of the right pixels itself.
        lossy = np.abs(pixels(encoded(right)) - right)
        assert abs(off.mean() - lossy.mean()) < 0.2, where
        assert off.max() <= lossy.max() + 2, where


def test_a_tile_beyond_the_last_one_is_not_there(
    panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """Nor one of a level or a scene that is not there, however it is written."""
    for name in ("aperio.svs", "hamamatsu.ndpi"):
        base = f"/tiles/{found[name]['id']}"
        for path in (
            "0/0/99_0", "0/0/0_99", "0/9/0_0", "7/0/0_0", "-1/0/0_0", "0/-1/0_0", "0/0/-1_0",
            "0/0/0_-1", "0/0/0", "0/0/0_0_0", "0/0/NaN_0", "0/0/1e3_0", "0/0/0x0_0", "0/0/+1_0",
            "0/0/%D9%A1_0", "0/0/%20_0", f"0/0/{'9' * 5000}_0", f"{'9' * 400}/0/0_0", "0//0_0",
            "0/0/0_0%00", "..%2f0/0/0_0", "0/0/%2e%2e_0",
        ):  # fmt: skip
            answer = panel.ask(f"{base}/{path}.jpg")
            assert answer.code == 404, (path, answer.code)
    for id_ in ("..", "20260101-000000-aaaa-x", "%2e%2e", "a" * 300, "x%00y", "~0"):
        assert panel.ask(f"/tiles/{id_}/0/0/0_0.jpg").code in (400, 404)
        assert panel.ask(f"/tiles/{id_}/info.json").code in (400, 404)
    assert panel.lines("panel_unexpected") == []


def test_a_picture_is_kept_by_the_browser_and_by_nobody_else(
    panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """The tag comes from the hash of the file: another picture has another one, the same has the same."""
    one, other = found["aperio.svs"], found["pyramid.tif"]
    first = panel.ask(f"/tiles/{one['id']}/0/0/0_0.jpg")
    assert first.headers["cache-control"] == "private, max-age=86400, immutable"
    tag = first.headers["etag"]
    for path in (f"{one['id']}/0/0/1_0", f"{one['id']}/0/1/0_0", f"{other['id']}/0/0/0_0"):
        assert panel.ask(f"/tiles/{path}.jpg").headers["etag"] != tag
    for known in (tag, f'"x", {tag}', f"W/{tag}"):
        again = panel.ask(f"/tiles/{one['id']}/0/0/0_0.jpg", If_None_Match=known)
        assert (again.code, again.body, again.headers["etag"]) == (304, b"", tag)
    assert panel.ask(f"/tiles/{one['id']}/0/0/0_0.jpg", If_None_Match='"x"').code == 200


def test_an_answer_is_not_held_back() -> None:
    """Small answers go out at once (TCP_NODELAY): without it each took 40 ms, a whole delayed acknowledgement."""
    made = serve._socket("127.0.0.1:0")
    made.listen()
    with made, socket.create_connection(made.getsockname()):
        accepted, _ = made.accept()
        with accepted:
            # What asyncio looks at before it sets the option.
            assert accepted.proto == socket.IPPROTO_TCP


def test_samples_of_16_bits_are_shown_in_the_window_that_is_asked_for(
    panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """The default one comes from the smallest level; what is not a window is refused in words."""
    document = found["wide.tif"]
    base = f"/tiles/{document['id']}/0"
    window = panel.ask(f"{base}/window.json").json
    low, high = np.percentile(WIDE, (0.1, 99.9))
    assert window["low"] == pytest.approx(low, abs=300)
    assert window["high"] == pytest.approx(high, abs=300)
    assert window["most"] == 65535
    asked = panel.ask(f"{base}/0/0_0.jpg?low=4000&high=6000")
    shown = pixels(asked.body)[:, :, 0]
    right = ((WIDE[: shown.shape[0], : shown.shape[1]].astype(float) - 4000) * 255 / 2000).clip(
        0, 255
    )
    assert np.abs(shown - right).mean() < 2
    assert asked.headers["etag"] != panel.ask(f"{base}/0/0_0.jpg").headers["etag"]
    for query in (
        "low=6000&high=4000", "low=1", "high=NaN&low=1", "low=1e5&high=2e9", "low=&high=5",
        "low=0&high=inf", f"low=0&high={'9' * 400}", "low=5&high=5", "low=%00&high=1",
    ):  # fmt: skip
        assert panel.ask(f"{base}/0/0_0.jpg?{query}").code == 400, query
    # An image of eight bits has none.
    svs = found["aperio.svs"]["id"]
    assert panel.ask(f"/tiles/{svs}/0/window.json").code == 404
    plain = panel.ask(f"/tiles/{svs}/0/0/0_0.jpg")
    assert panel.ask(f"/tiles/{svs}/0/0/0_0.jpg?low=5&high=6").body == plain.body


def test_scenes_have_thumbnails(panel: Served, found: dict[str, dict[str, Any]]) -> None:
    """Each shows all of its own scene; they are told apart by colour here."""
    told = info(panel, found["scenes.czi"])
    mean = []
    for image in told["images"]:
        answer = panel.ask(f"{image['tiles']}/thumbnail.jpg")
        shown = pixels(answer.body)
        assert shown.shape[:2] == (171, 240)
        mean.append(shown[:20, :, 0].mean() - shown[:20, :, 2].mean())
        assert answer.headers["etag"]
    assert abs(mean[0] - mean[1]) > 50


def test_label_and_macro_are_shown_only_where_that_is_wished(
    slides: Root, panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """By default their addresses do not exist, and nothing names them."""
    philips = found["philips.tiff"]
    assert {row["role"] for row in philips["files"]} >= {"label", "macro"}
    assert info(panel, philips)["associated"] == []
    for role in ("label", "macro", "thumbnail", "pyramid", "source"):
        assert panel.ask(f"/tiles/{philips['id']}/{role}.jpg").code == 404
    served = Served(slides.path, more="labels = true")
    try:
        told = info(served, philips)["associated"]
        assert [one["role"] for one in told] == ["label", "macro"]
        for one in told:
            answer = served.ask(one["address"])
            path = philips["_path"] / "derived" / f"{one['role']}.jpg"
            assert (answer.code, answer.body) == (200, path.read_bytes())
        for role in ("thumbnail", "pyramid", "source", "..", "label%2f..%2fmacro"):
            assert served.ask(f"/tiles/{philips['id']}/{role}.jpg").code == 404
        # A slide without a label has none here.
        assert info(served, found["pyramid.tif"])["associated"] == []
    finally:
        served.stop()


def _decoders(panel: Served) -> dict[int, str]:
    """The decoder processes of a panel, by number: the directory that each stands in."""
    assert panel.process
    mark = f"CYTOWATCH_PARENT={panel.process.pid}\0".encode()
    zygotes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    zygotes.append(entry.name)
            except OSError:
                continue
    inside = {}
    for zygote in zygotes:
        # What was there a moment ago may have ended since.
        with suppress(FileNotFoundError):
            for child in Path(f"/proc/{zygote}/task", str(zygote), "children").read_text().split():
                with suppress(FileNotFoundError):
                    inside[int(child)] = os.readlink(f"/proc/{child}/cwd")
    return inside


def test_a_decoder_that_dies_costs_one_picture(
    slides: Root, found: dict[str, dict[str, Any]]
) -> None:
    """It was killed between two questions: one tile is grey and not kept, the next one is right."""
    document = found["hamamatsu.ndpi"]
    path = f"/tiles/{document['id']}/0/0/0_0.jpg"
    served = Served(slides.path)
    try:
        right = served.ask(path)
        [(pid, where)] = _decoders(served).items()
        assert where == str(document["_path"])
        os.kill(pid, signal.SIGKILL)
        grey = served.ask(path)
        assert (grey.code, grey.headers["cache-control"]) == (200, "no-store")
        assert "etag" not in grey.headers
        assert np.ptp(pixels(grey.body)) == 0
        assert pixels(grey.body).shape == pixels(right.body).shape
        again = served.ask(path)
        assert again.body == right.body
        [line] = served.lines("tile_lost")
        assert (line["id"], line["at_level"]) == (document["id"], 0)
        assert "signal 9" in line["detail"]
        # One that crashes again and again is left alone for a while, and forks nothing.
        for _ in range(5):
            for decoder in _decoders(served):
                os.kill(decoder, signal.SIGKILL)
            served.ask(path)
            served.ask(path)
        assert "left alone" in served.lines("tile_lost")[-1]["detail"]
        # No other slide is concerned.
        other = served.ask(f"/tiles/{found['leica.scn']['id']}/0/0/0_0.jpg")
        assert "etag" in other.headers
    finally:
        served.stop()
    assert _gone(_decoders, served)


def _gone(look: Any, panel: Served) -> bool:
    """Nothing that a panel started outlives it."""
    end = time.monotonic() + HANGS_S
    while look(panel) and time.monotonic() < end:
        time.sleep(0.05)
    return not look(panel)


def test_a_panel_that_is_killed_leaves_no_decoder(
    slides: Root, found: dict[str, dict[str, Any]]
) -> None:
    """With -9, in the middle of drawing."""
    served = Served(slides.path)
    assert served.process
    try:
        served.ask(f"/tiles/{found['hamamatsu.ndpi']['id']}/0/0/0_0.jpg")
        pids = list(_decoders(served))
        assert pids
        served.process.kill()
        served.process.wait(HANGS_S)
    finally:
        served.stop()
    end = time.monotonic() + HANGS_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_thousands_of_questions_at_once_are_answered_or_told_to_wait(
    panel: Served, found: dict[str, dict[str, Any]]
) -> None:
    """Of many slides at a time, each decoded: no more decoders than there may be, and nothing breaks."""
    drawn = [document["id"] for name, document in found.items() if not AS_THEY_LIE[name]]
    codes: list[int] = []
    most = 0

    def ask(number: int) -> None:
        for turn in range(60):
            id_ = drawn[(number + turn) % len(drawn)]
            answer = panel.ask(f"/tiles/{id_}/0/0/0_0.jpg?{number}-{turn}")
            codes.append(answer.code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for one in threads:
        one.start()
    while any(one.is_alive() for one in threads):
        most = max(most, len(_decoders(panel)))
        time.sleep(0.05)
    assert len(codes) == 24 * 60
    assert set(codes) <= {200, 503}
    assert codes.count(200) > len(codes) * 0.9
    # Some that were ended a moment ago may still be on their way out.
    assert 1 < most <= 2 * max(4, 2 * (os.cpu_count() or 1))
    assert panel.lines("panel_unexpected") == []


def test_a_slide_that_changes_under_the_panel_leads_nowhere(
    slides: Root, found: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """A link in the place of its file, a manifest that names a file elsewhere: 404, and not that file."""
    copy = tmp_path / "root"
    shutil.copytree(slides.path, copy, symlinks=True)
    home = copy / "storage" / "ann"
    svs, ndpi = found["aperio.svs"]["id"], found["hamamatsu.ndpi"]["id"]
    [source] = (home / svs / "source").iterdir()
    secret = tmp_path / "secret.svs"
    source.rename(secret)
    source.symlink_to(secret)
    manifest = home / ndpi / "manifest.json"
    document = json.loads(manifest.read_text())
    document["images"][0]["file"] = f"../{found['pyramid.tif']['id']}/source/pyramid.tif"
    manifest.write_text(json.dumps(document))
    served = Served(copy)
    try:
        for id_ in (svs, ndpi):
            assert served.ask(f"/tiles/{id_}/0/0/0_0.jpg").code == 404
            assert served.ask(f"/iiif/3/{id_}/full/max/0/default.jpg").code == 404
    finally:
        served.stop()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real slides are beside the repository only")
def test_real_slides(tmp_path: Path) -> None:
    """An SVS whose tiles are RGB in abbreviated streams, and a fluorescence NDPI."""
    root = Root(tmp_path / "root")
    root.create()
    [svs], [ndpi] = SAMPLES.glob("svs/*.svs"), SAMPLES.glob("ndpi/*.ndpi")
    root.drop(svs, "real.svs")
    root.drop(ndpi, "real.ndpi")
    assert root.run_until_idle() == 0
    served = Served(root.path)
    try:
        for document in root.by_name().values():
            [shown] = info(served, document)["images"]
            for number in range(len(shown["levels"]))[-2:]:
                across, down = _tiles(shown["levels"][number])
                for column, row in ((0, 0), (across // 2, down // 2), (across - 1, down - 1)):
                    _check_tile(
                        served, document, document["images"][0], shown, (number, column, row)
                    )
    finally:
        served.stop()
