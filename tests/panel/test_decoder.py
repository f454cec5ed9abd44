"""The decoder of an open slide: it ends when nobody looks, and sees nothing but its own slide."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import openslide
import pytest

from cytowatch.config import Config
from cytowatch.panel.pixels import drawing
from cytowatch.panel.pixels.pool import DecoderError, Pool
from tests import builders
from tests.builders import vendors


@pytest.fixture
def slides(tmp_path: Path) -> tuple[Path, Path]:
    """The directories of two uploaded files, each with the same slide."""
    first, second = tmp_path / "first", tmp_path / "second"
    for one in (first, second):
        (one / "source").mkdir(parents=True)
        (one / "manifest.json").write_text("{}")
    builders.pyramidal_tiff(first / "source" / "slide.tif")
    shutil.copyfile(first / "source" / "slide.tif", second / "source" / "slide.tif")
    return first, second


def question(home: Path, file: str = "source/slide.tif") -> dict[str, Any]:
    """A corner of the slide at `file`."""
    with openslide.OpenSlide(home / "source" / "slide.tif") as slide:
        levels = slide.level_dimensions
    box = {"level": 0, "box": [0, 0, 64, 64], "size": [64, 64]}
    return {"file": file, "levels": levels, "bits": 8, **box}


def read_bytes() -> int:
    """How many bytes this process has read until now, from the disk or the page cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_strips_that_tiles_share_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of tiles of a wide NDPI, asked for twice: the second time nothing of the pixels is read again."""
    # As on a machine with two cores, on any.
    monkeypatch.setattr(drawing, "MOST_DECODERS", 4)
    drawing._kept.cache_clear()
    path = vendors.ndpi(tmp_path / "wide.ndpi", width=20_480, height=512)
    with openslide.OpenSlide(path) as slide:
        levels = slide.level_dimensions
    image = drawing.open_image(drawing.Facts(file=str(path), bits=8, levels=levels))

    def row() -> int:
        before = read_bytes()
        for column in range(40):
            image.draw(0, (512 * column, 0, 512, 512), (512, 512))
        return read_bytes() - before

    first, again = row(), row()
    drawing._kept.cache_clear()
    assert first > 100_000
    assert again < first / 10


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until(done: Any) -> None:
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.02)


def test_it_ends_a_minute_after_the_last_question(slides: tuple[Path, Path]) -> None:
    """Not before, and a question begins the minute again; the one that is looked at stays, and one that ended comes again."""
    first, second = slides
    now = [1000.0]
    looks = [0]

    def clock() -> float:
        looks[0] += 1
        return now[0]

    async def look_twice() -> None:
        """The pool asks for the time at each look for what is idle."""
        before = looks[0]
        await until(lambda: looks[0] >= before + 2)

    async def run() -> None:
        # It looks as often as its `idle_s` if that is short: a second here is a minute of the panel's.
        pool = Pool(Config(), idle_s=0.1, clock=clock)
        try:
            picture = await pool.picture("a", first, question(first))
            await pool.picture("b", second, question(second))
            pids = pool.pids
            now[0] += 0.09
            await look_twice()
            assert pool.pids == pids, "it was ended too early"
            await pool.picture("b", second, question(second))
            now[0] += 0.09
            await until(lambda: "a" not in pool.pids)
            await until(lambda: not is_there(pids["a"]))
            assert pool.pids == {"b": pids["b"]}
            assert is_there(pids["b"])
            assert await pool.picture("a", first, question(first)) == picture
            assert pool.pids["a"] != pids["a"]
            now[0] += 1
            await until(lambda: not pool.pids)
        finally:
            await pool.close()

    asyncio.run(run())


def test_by_default_that_is_a_minute() -> None:
    """The clock of a pool of the panel's own, without waiting for it."""

    async def run() -> float:
        pool = Pool(Config())
        await pool.close()
        return pool._idle_s

    assert asyncio.run(run()) == 60


def test_it_sees_only_its_own_slide(slides: tuple[Path, Path], tmp_path: Path) -> None:
    """No matter what file it is asked for: neither the next slide's by any way, nor its own manifest, nor the machine's."""
    first, second = slides
    (first / "source" / "link.tif").symlink_to(second / "source" / "slide.tif")
    (first / "source" / "hosts").symlink_to("/etc/passwd")
    shutil.copyfile(first / "source" / "slide.tif", first / "beside.tif")
    elsewhere = tmp_path / "slide.tif"
    shutil.copyfile(first / "source" / "slide.tif", elsewhere)

    async def run() -> None:
        pool = Pool(Config())
        try:
            right = await pool.picture("a", first, question(first))
            # Its own file is seen by any way: what is refused below is refused for where it leads.
            for own in ("../first/source/slide.tif", str(first / "source" / "slide.tif")):
                assert await pool.picture("a", first, question(first, own)) == right
            for other in (
                "../second/source/slide.tif", str(second / "source" / "slide.tif"), "source/link.tif",
                "source/hosts", "manifest.json", "beside.tif", str(elsewhere), "/proc/self/environ",
                f"/proc/{pool.pids['a']}/root{elsewhere}", "/etc/passwd",
            ):  # fmt: skip
                with pytest.raises(DecoderError):
                    await pool.ask("a", first, question(first, other))
            assert await pool.picture("a", first, question(first)) == right
            [pid] = pool.pids.values()
            about = Path(f"/proc/{pid}/status").read_text()
            assert "NoNewPrivs:\t1" in about
            assert "Seccomp:\t2" in about
        finally:
            await pool.close()

    asyncio.run(run())
