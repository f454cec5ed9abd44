"""A demonstration: slides are made, dropped as a scanner would, and watched on their way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cytowatch.cli import show as display
from cytowatch.cli.page import bytes_text, colour
from cytowatch.cli.show import console, safe
from cytowatch.durable import trees
from cytowatch.record.errors import RootError
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.find import Entry
from cytowatch.tree.spool import Spool

__all__ = ["run"]

_MARKER = ".cytowatch-demo"
_LARGE = (20_480, 15_360)
_LONGEST_S = 180.0
_PIECES = 24

_CONFIG = """root = {root}
[inbox]
quiet_s = 1.0
rescan_s = 2.0
[storage]
reserve_bytes = 0
[metrics]
listen = ""
[log]
format = "json"
"""


def run(directory: Path) -> int:
    """Show the way of a few slides in a tree at `directory`; 0 when all ended as they should.

    Raises
    ------
    RootError
        `directory` holds something that is not an earlier demonstration.
    """
    _make_room(directory)
    root = directory / "root"
    spool = Spool.create(root)
    config = directory / "demo.toml"
    config.write_text(_CONFIG.format(root=f'"{root}"'))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slides-", dir=directory) as made:
        console.print("[bold]Making slides[/] like those of a scanner ...")
        slides = list(_slides(Path(made)))
        total = sum(path.stat().st_size for path, _ in slides)
        console.print(
            f"{len(slides)} files, {bytes_text(total)}, in {time.monotonic() - began:.0f} s. "
            "Now the daemon starts, and two scanners write to their inboxes.\n"
        )
        for _, user in slides:
            (spool.inbox / user).mkdir(exist_ok=True)
        with (directory / "daemon.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cytowatch", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _watch(spool, slides, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    found = sorted(find.entries(spool), key=lambda entry: entry.manifest["id"])
    _tell(directory, root, found)
    console.print(f"[dim]The demonstration took {time.monotonic() - began:.0f} s.[/]")
    good = sum(entry.status.is_success for entry in found)
    return 0 if good == len(found) - 1 and len(found) == len(slides) + 3 else 1


def _make_room(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        if not (directory / _MARKER).exists():
            raise RootError(f"{directory} is not empty and no earlier demonstration: name another")
        trees.remove(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).touch()


def _tissue(width: int, height: int, seed: int) -> Any:
    """Something like an H&E section: pink tissue on white, with purple nuclei."""
    random = np.random.default_rng(seed)
    shape = (height // 16 + 2, width // 16 + 2)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    wave = np.sin(columns / 61 + seed) + np.cos(rows / 47) + np.sin((rows + columns) / 83)
    radius = np.hypot(rows / shape[0] - 0.5, columns / shape[1] - 0.5)
    tissue = np.clip((wave * 0.12 + 0.42 - radius) * 9, 0, 1)[..., None]
    nuclei = (random.random(shape) > 0.93)[..., None] * tissue
    fibres = random.normal(0, 5, (*shape, 1)) * tissue
    white, pink, purple = (np.array(c) for c in ((243, 242, 244), (226, 158, 190), (92, 60, 132)))
    colours = white * (1 - tissue) + pink * tissue + fibres
    colours = colours * (1 - nuclei) + purple * nuclei
    small = pyvips.Image.new_from_array(np.clip(colours, 0, 255).astype(np.uint8))
    return small.resize(16, kernel="linear").crop(0, 0, width, height).copy(interpretation="srgb")


def _slides(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, whose scanner drops it), the large one first."""
    large = folder / "section-A.tif"
    _tissue(*_LARGE, 1).copy(xres=4000, yres=4000).tiffsave(str(large), compression="none")
    yield large, "ann"
    svs = folder / "biopsy-7.svs"
    _write_svs(svs, _tissue(6000, 4500, 2).numpy())
    yield svs, "bob"
    jpeg = folder / "gross photo.jpg"
    _tissue(2400, 1800, 3).jpegsave(str(jpeg), Q=92)
    yield jpeg, "ann"
    batch = folder / "batch-3.zip"
    with zipfile.ZipFile(batch, "w") as archive:
        for name, size, seed in (("core-1.png", 1600, 4), ("core-2.jpg", 2000, 5)):
            path = folder / name
            _tissue(size, size, seed).write_to_file(str(path))
            archive.write(path, f"batch-3/{name}")
        pyramid = folder / "core-3.tif"
        _tissue(3000, 2500, 6).copy(xres=2000, yres=2000).tiffsave(
            str(pyramid), tile=True, pyramid=True, compression="jpeg", Q=90
        )
        archive.write(pyramid, "batch-3/core-3.tif")
        archive.writestr("batch-3/notes.txt", "cores of one block\n")
    yield batch, "bob"
    damaged = folder / "damaged.jpg"
    data = bytearray(jpeg.read_bytes())
    # Whole by its markers, so that it is taken; what lies between them is not what was written.
    del data[len(data) // 3 : -2]
    damaged.write_bytes(data)
    yield damaged, "bob"


def _write_svs(path: Path, pixels: Any) -> None:
    height, width = pixels.shape[:2]
    about = f"Aperio Image Library v11.2.1\r\n{width}x{height}|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as tiff:
        for index, step in enumerate((1, 16, 4)):
            tiles = {"rowsperstrip": 16} if index == 1 else {"tile": (256, 256)}
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                description=about,
                metadata=None,
                software="",
                **tiles,
            )


def _drop(spool: Spool, slides: list[tuple[Path, str]], done: threading.Event) -> None:
    """Write each file as a scanner does: under its own name, in pieces, with pauses."""

    def one(path: Path, user: str) -> None:
        pieces = _PIECES if path.stat().st_size > 1_000_000 else 3
        step = -(-path.stat().st_size // pieces)
        with path.open("rb") as source, (spool.inbox / user / path.name).open("wb") as target:
            while piece := source.read(step):
                target.write(piece)
                target.flush()
                time.sleep(0.08)

    threads = [threading.Thread(target=one, args=slide, daemon=True) for slide in slides]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    done.set()


def _watch(spool: Spool, slides: list[tuple[Path, str]], process: subprocess.Popen[bytes]) -> None:
    dropped = threading.Event()
    threading.Thread(target=_drop, args=(spool, slides, dropped), daemon=True).start()
    end = time.monotonic() + _LONGEST_S
    shown: dict[str, str] = {}

    def over(found: list[Entry]) -> bool:
        roots = [one for one in found if one.manifest["parent_id"] is None]
        whole = dropped.is_set() and len(roots) == len(slides)
        handed_out = sum(len(one.manifest["children"]) for one in roots)
        return (
            whole
            and len(found) == len(roots) + handed_out
            and all(one.status.is_final for one in found)
        )

    def look() -> list[Entry]:
        return sorted(find.entries(spool), key=lambda entry: entry.manifest["received_at"])

    if console.is_terminal:
        with Live(console=console, refresh_per_second=8) as live:
            _until(lambda found: live.update(_table(spool, found)), look, over, process, end)
    else:
        _until(lambda found: _lines(found, shown), look, over, process, end)


def _until(
    draw: Callable[[list[Entry]], None],
    look: Callable[[], list[Entry]],
    over: Callable[[list[Entry]], bool],
    process: subprocess.Popen[bytes],
    end: float,
) -> None:
    while time.monotonic() < end:
        found = look()
        draw(found)
        if over(found):
            return
        if process.poll() is not None:
            raise RootError("the daemon ended by itself: see daemon.log")
        time.sleep(0.1)
    raise RootError(f"it took more than {_LONGEST_S:g} s: see daemon.log")


def _lines(found: list[Entry], shown: dict[str, str]) -> None:
    """Without a terminal: one line for each change of status."""
    for entry in found:
        id_ = entry.manifest["id"]
        if shown.get(id_) != entry.status.name:
            shown[id_] = entry.status.name
            console.print(
                f"{entry.manifest['name']:<18} {entry.manifest['user']:<5} {entry.status.label}"
            )


def _table(spool: Spool, found: list[Entry]) -> Table:
    table = Table(box=None, pad_edge=False, expand=False)
    for name, width in (("FILE", 17), ("USER", 5), ("STATUS", 17), ("", 16), ("FORMAT", 17)):
        table.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
    told = find.live(spool) or {}
    for drop in told.get("waiting", []):
        name = os.path.basename(drop["path"])
        size = bytes_text(drop["size_bytes"])
        table.add_row(
            safe(name), safe(drop["user"]), "[yellow]in the inbox[/]", "", f"[dim]{size}[/]"
        )
    for entry in found:
        about = entry.manifest
        share = told.get("progress", {}).get(about["id"], {}).get("share", 0.0)
        if entry.status.is_final:
            share = 1.0
        bar = ProgressBar(total=1.0, completed=share, width=16)
        indent = "  " if about["parent_id"] else ""
        table.add_row(
            indent + safe(about["name"]),
            safe(about["user"]),
            f"[{colour(entry.status)}]{entry.status.label}[/]",
            bar,
            f"[dim]{about['format']['id'] if about['format'] else ''}[/]",
        )
    return table


def _tell(directory: Path, root: Path, found: list[Entry]) -> None:
    console.print("\n[bold]What lies in storage now[/]")
    for entry in found:
        if entry.manifest["parent_id"] is None and entry.status.is_success:
            console.print(display.tree(entry, found, console.width))
            console.print(f"  [dim]{safe(os.path.relpath(entry.path, root))}/[/]")
    for entry in found:
        if entry.status.is_error and entry.manifest["error"]:
            error = entry.manifest["error"]
            console.print(
                f"\n[bold]{safe(entry.manifest['name'])}[/]  [red]{entry.status.label}[/]"
            )
            console.print(f"  {error['reason']}: {safe(error['detail'])}")
            for file in entry.manifest["files"]:
                where = os.path.relpath(entry.path / file["path"], root)
                console.print(f"  its original is untouched: [dim]{safe(where)}[/]")
    shown = os.path.relpath(root)
    beside = Path(sys.executable).with_name("cytowatch")
    program = "cytowatch" if shutil.which("cytowatch") else os.path.relpath(beside)
    best = next((e for e in found if e.status is Status.CONVERTED), None)
    console.print("\n[bold]What to type next[/]")
    for words in (
        f"{program} list --root {shown}",
        f"{program} show --root {shown} {best.manifest['id'].split('-')[2] if best else 'ID'}",
        f"{program} run --root {shown}      # then drop slides into {shown}/inbox/ann",
    ):
        console.print(f"  {words}", soft_wrap=True)
