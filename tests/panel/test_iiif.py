"""The IIIF Image API at level 1, as the public validator checks it: its picture, its rules, its headers.

Source: https://github.com/IIIF/image-validator (the rules), https://iiif.io/api/image/3.0/compliance/
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.builders import others
from tests.lab.panel import Served
from tests.lab.root import Root

RANDOM = random.Random(3)
#: Ten by ten squares of 100 pixels, each of a colour of its own: [row][column].
COLOURS = [
    [tuple(RANDOM.randrange(8, 248) for _ in range(3)) for _ in range(10)] for _ in range(10)
]
SQUARES = np.repeat(np.repeat(np.array(COLOURS, np.uint8), 100, axis=0), 100, axis=1)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The squares as a flat image, which becomes a pyramid; as a native pyramid; and two scenes."""
    folder = tmp_path_factory.mktemp("iiif")
    root = Root(folder / "root")
    root.create()
    Image.fromarray(SQUARES).save(folder / "derived.png")
    with tifffile.TiffWriter(folder / "native.tif") as tiff:
        for step in (1, 4):
            tiff.write(
                np.ascontiguousarray(SQUARES[::step, ::step]), tile=(256, 256), compression="deflate",
                photometric="rgb", metadata=None, subfiletype=int(step > 1),
            )  # fmt: skip
    others.czi(folder / "scenes.czi", scenes=2)
    for name in ("derived.png", "native.tif", "scenes.czi"):
        root.drop(folder / name)
    assert root.run_until_idle() == 0, root.log.read_text()[-3000:]
    return root


@pytest.fixture(scope="module")
def ids(slides: Root) -> dict[str, str]:
    return {name: document["id"] for name, document in slides.by_name().items()}


@pytest.fixture(scope="module")
def panel(slides: Root) -> Iterator[Served]:
    served = Served(slides.path)
    yield served
    served.stop()


def _picture(panel: Served, id_: str, request: str) -> Image.Image:
    answer = panel.ask(f"/iiif/3/{id_}/{request}")
    assert answer.code == 200, (request, answer.text)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["link"] == '<http://iiif.io/api/image/3/level1.json>;rel="profile"'
    found = Image.open(io.BytesIO(answer.body))
    assert found.format == "JPEG"
    return found


def _check_square(picture: Image.Image, column: int, row: int) -> None:
    """Its commonest colour is that of the square, within the validator's six steps."""
    counts = picture.convert("RGB").getcolors(1_000_000)
    assert counts
    colour = max(counts)[1]
    assert all(abs(a - b) < 6 for a, b in zip(colour, COLOURS[row][column], strict=True))


@pytest.mark.parametrize("name", ["derived.png", "native.tif"])
def test_regions_and_sizes_show_the_right_squares(
    panel: Served, ids: dict[str, str], name: str
) -> None:
    """Regions by pixels, at full size and smaller; whole images by width, by height and by both."""
    id_ = ids[name]
    for _ in range(8):
        column, row = RANDOM.randrange(10), RANDOM.randrange(10)
        inside = f"{column * 100 + 13},{row * 100 + 13},74,74"
        shown = _picture(panel, id_, f"{inside}/max/0/default.jpg")
        assert shown.size == (74, 74)
        _check_square(shown, column, row)
        side = RANDOM.randrange(35, 90)
        square = f"{column * 100},{row * 100},100,100"
        for size in (f"{side},{side}", f"{side},", f",{side}"):
            shown = _picture(panel, id_, f"{square}/{size}/0/default.jpg")
            assert shown.size == (side, side)
            _check_square(shown, column, row)
    for size in ("500,", ",500", "500,500", "max"):
        shown = _picture(panel, id_, f"full/{size}/0/default.jpg")
        side = 1000 if size == "max" else 500
        assert shown.size == (side, side)
        step = side // 10
        for column, row in ((0, 0), (9, 9), (3, 7)):
            box = (column * step + 6, row * step + 6, (column + 1) * step - 6, (row + 1) * step - 6)
            _check_square(shown.crop(box), column, row)
    # Beyond the edge there is nothing: the region is cut.
    assert _picture(panel, id_, "950,900,100,200/max/0/color.jpg").size == (50, 100)
    assert _picture(panel, id_, "square/100,/0/default.jpg").size == (100, 100)


def test_tiles_that_info_names_are_served(panel: Served, ids: dict[str, str]) -> None:
    """At each scale factor all of them together are the whole picture; those that lie so are not decoded."""
    for name in ("derived.png", "native.tif"):
        told = panel.ask(f"/iiif/3/{ids[name]}/info.json").json
        [tiles] = told["tiles"]
        assert len(tiles["scaleFactors"]) > 1
        for factor in tiles["scaleFactors"]:
            whole = Image.new("RGB", (-(-1000 // factor), -(-1000 // factor)))
            step = tiles["width"] * factor
            for y in range(0, 1000, step):
                for x in range(0, 1000, step):
                    w, h = min(step, 1000 - x), min(step, 1000 - y)
                    size = f"{-(-w // factor)},{-(-h // factor)}"
                    request = f"{x},{y},{w},{h}/{size}/0/default.jpg"
                    whole.paste(_picture(panel, ids[name], request), (x // factor, y // factor))
            for column, row in ((0, 0), (9, 9), (2, 5), (5, 2)):
                side = 100 // factor
                edge = side // 4
                box = (
                    column * side + edge,
                    row * side + edge,
                    (column + 1) * side - edge,
                    (row + 1) * side - edge,
                )
                mean = np.asarray(whole.crop(box)).reshape(-1, 3).mean(axis=0)
                assert np.abs(mean - COLOURS[row][column]).max() < 8, (name, factor, column, row)
        for one in told["sizes"]:
            shown = _picture(panel, ids[name], f"full/{one['width']},{one['height']}/0/default.jpg")
            assert shown.size == (one["width"], one["height"])
    as_it_lies = panel.ask(f"/iiif/3/{ids['derived.png']}/0,0,256,256/256,256/0/default.jpg").body
    assert as_it_lies == panel.ask(f"/tiles/{ids['derived.png']}/0/0/0_0.jpg").body


def test_the_image_information_is_complete(panel: Served, ids: dict[str, str]) -> None:
    """Required fields, their types, and an id that is the address it came from."""
    id_ = ids["native.tif"]
    answer = panel.ask(f"/iiif/3/{id_}/info.json")
    assert answer.code == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    told = answer.json
    address = f"http://{panel.address}/iiif/3/{id_}"
    assert told["@context"] == "http://iiif.io/api/image/3/context.json"
    assert (told["id"], told["type"]) == (address, "ImageService3")
    assert (told["protocol"], told["profile"]) == ("http://iiif.io/api/image", "level1")
    assert (told["width"], told["height"]) == (1000, 1000)
    # The pyramid's own: it steps by four.
    assert told["tiles"] == [{"width": 256, "height": 256, "scaleFactors": [1, 4]}]
    assert {"width": 250, "height": 250} in told["sizes"]
    for key in ("maxWidth", "maxHeight", "maxArea"):
        assert isinstance(told[key], int)
    linked = panel.ask(f"/iiif/3/{id_}/info.json", Accept="application/ld+json")
    assert linked.headers["content-type"].startswith("application/ld+json")
    assert linked.json == told


def test_the_base_address_leads_to_the_information(panel: Served, ids: dict[str, str]) -> None:
    """By a redirect to its whole address; of what is not there by 404."""
    id_ = ids["native.tif"]
    answer = panel.ask(f"/iiif/3/{id_}")
    assert answer.code == 303
    assert answer.headers["location"] == f"http://{panel.address}/iiif/3/{id_}/info.json"
    assert panel.ask("/iiif/3/20260101-000000-aaaa-none").code == 404


def test_pages_elsewhere_may_read_the_answers(panel: Served, ids: dict[str, str]) -> None:
    """On information and pictures, by GET and by OPTIONS; so do refusals, or nobody could read why."""
    id_ = ids["native.tif"]
    for path in (
        "info.json",
        "full/100,/0/default.jpg",
        "full/9999,/0/default.jpg",
        "random/max/0/default.jpg",
    ):
        for method in ("GET", "OPTIONS"):
            answer = panel.ask(f"/iiif/3/{id_}/{path}", method, origin="http://iiif.io")
            assert answer.headers["access-control-allow-origin"] == "*", (path, method)
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert "access-control-allow-credentials" not in answer.headers
    preflight = panel.ask(f"/iiif/3/{id_}/info.json", "OPTIONS", origin="http://iiif.io")
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    # Everything else of the panel is for its own pages.
    told = panel.ask(f"/tiles/{id_}/info.json", origin="http://iiif.io")
    assert "access-control-allow-origin" not in told.headers


def test_what_is_refused_says_so_with_the_right_code(panel: Served, ids: dict[str, str]) -> None:
    """Random words are 400, unknown images 404, an enlargement 400, and 501 where its sign asks for it."""
    id_ = ids["native.tif"]
    word = "".join(RANDOM.choice("ABCXYZabc:;=@[]_^0123456789") for _ in range(8))
    for path, code in {
        f"{quote(word)}/max/0/default.jpg": 400,
        f"full/{quote(word)}/0/default.jpg": 400,
        f"full/max/{quote(word)}/default.jpg": 400,
        f"full/max/0/{quote(word)}.jpg": 400,
        f"full/max/0/default.{quote(word)}": 400,
        "full/full/0/default.jpg": 400,
        "full/1200,/0/default.jpg": 400,
        "full/,1200/0/default.jpg": 400,
        "full/1200,1200/0/default.jpg": 400,
        "full/pct:200/0/default.jpg": 400,
        "full/!2000,3000/0/default.jpg": 400,
        "full/%5E1200,/0/default.jpg": 501,
        "1000,0,10,10/max/0/default.jpg": 400,
        "0,0,0,10/max/0/default.jpg": 400,
        "0,0,10,10/0,/0/default.jpg": 400,
    }.items():
        answer = panel.ask(f"/iiif/3/{id_}/{path}")
        assert answer.code == code, (path, answer.code)
        assert json.loads(answer.body)["error"]
    for other in (
        word,
        f"{id_}x",
        f"{id_}~7",
        f"{id_}~",
        f"{id_}~-1",
        f"{id_}~{'9' * 400}",
        f"{id_}%2F0",
    ):
        code = panel.ask(f"/iiif/3/{quote(other, safe='%')}/info.json").code
        assert code == 404, other
    assert panel.lines("panel_unexpected") == []


def test_escapes_and_scenes_in_the_name(panel: Served, ids: dict[str, str]) -> None:
    """Letters may be escaped; each scene is an image of its own, and the first one needs no number."""
    id_ = ids["scenes.czi"]
    escaped = "".join(f"%{ord(one):02X}" for one in id_)
    assert panel.ask(f"/iiif/3/{escaped}/info.json").code == 200
    told = [panel.ask(f"/iiif/3/{id_}{scene}/info.json").json for scene in ("", "~0", "~1", "%7E1")]
    assert told[0]["id"].endswith(id_)
    assert [one["id"].rpartition("/")[2] for one in told[1:]] == [
        f"{id_}~0",
        f"{id_}~1",
        f"{id_}~1",
    ]
    first, second = (
        np.asarray(_picture(panel, f"{id_}~{scene}", "full/70,50/0/default.jpg")).astype(int)
        for scene in (0, 1)
    )
    assert np.abs(first[:10] - second[:10]).mean() > 20


def test_behind_a_proxy_the_address_is_the_one_that_people_see(
    slides: Root, ids: dict[str, str]
) -> None:
    """Its scheme, host and path; and a token opens an image that belongs to nobody else."""
    more = 'auth = "proxy"\nbase_path = "/slides"\nuser_header = "X-Forwarded-User"'
    served = Served(slides.path, more=more)
    id_ = ids["derived.png"]
    try:
        path = f"/slides/iiif/3/{id_}/info.json"
        forwarded: dict[str, Any] = {
            "X_Forwarded_Proto": "https", "X_Forwarded_Host": "slides.lab.example",
        }  # fmt: skip
        told = served.as_user("ann", path, **forwarded)
        assert told.json["id"] == f"https://slides.lab.example/slides/iiif/3/{id_}"
        moved = served.as_user("ann", f"/slides/iiif/3/{id_}", **forwarded)
        assert moved.headers["location"] == f"{told.json['id']}/info.json"
        odd = served.as_user("ann", path, X_Forwarded_Proto="javascript", X_Forwarded_Host="a.b")
        assert odd.json["id"].startswith("http://a.b/")
        # Somebody else's: not there, and neither are its tiles.
        for other in (
            path,
            f"/slides/iiif/3/{id_}/full/10,/0/default.jpg",
            f"/slides/iiif/3/{id_}",
        ):
            assert served.as_user("bob", other).code == 404
            assert served.ask(other).code == 401
        for other in ("info.json", "0/thumbnail.jpg", "0/0/0_0.jpg"):
            assert served.as_user("ann", f"/slides/tiles/{id_}/{other}").code == 200
            assert served.as_user("bob", f"/slides/tiles/{id_}/{other}").code == 404
        assert served.as_user("bob", f"/slides/files/{id_}/view").code == 404
        secret = served.token("viewer", "ann")
        answer = served.ask(path, Authorization=f"Bearer {secret}", origin="http://viewer.example")
        assert answer.code == 200
        # What a browser asks beforehand says nothing, and needs no name.
        assert served.ask(path, "OPTIONS", origin="http://viewer.example").code == 204
    finally:
        served.stop()
