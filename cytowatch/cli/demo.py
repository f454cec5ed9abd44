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
from collections.abc import Callable
from pathlib import Path

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cytowatch.cli import show as display
from cytowatch.cli.page import bytes_text, colour
from cytowatch.cli.show import console, safe
from cytowatch.cli.slides import drop_all, slides_in
from cytowatch.durable import trees
from cytowatch.record.errors import RootError
from cytowatch.record.status import Status
from cytowatch.tree import find
from cytowatch.tree.find import Entry
from cytowatch.tree.spool import Spool

__all__ = ["run"]

_MARKER = ".cytowatch-demo"
_LONGEST_S = 180.0

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
        slides = list(slides_in(Path(made)))
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


def _watch(spool: Spool, slides: list[tuple[Path, str]], process: subprocess.Popen[bytes]) -> None:
    dropped = threading.Event()
    threading.Thread(target=drop_all, args=(spool, slides, dropped), daemon=True).start()
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
