"""`cytowatch send`: files and folders to a panel, from a machine without a share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.progress import TimeRemainingColumn as Left

from cytowatch.cli.app import app
from cytowatch.cli.parcels import Item, SendError, item_of
from cytowatch.cli.show import console, safe, say
from cytowatch.cli.tus import Server
from cytowatch.record.errors import RootError

__all__: list[str] = []

_EVERY_S = 1.0
#: So many times in a row a drop may be neither in its inbox nor anything else, as it is for a moment at its claim.
_GONE_AFTER = 60


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders; each becomes one drop.")],
    to: Annotated[str, typer.Option("--to", help="The address of the panel.")],
    project: Annotated[str, typer.Option("--project", help="Show them in this project.")] = "",
    token: Annotated[
        str,
        typer.Option("--token", envvar="CYTOWATCH_TOKEN", help="A token of `cytowatch token add`."),
    ] = "",
    user: Annotated[
        str, typer.Option("--user", help='Whose inbox, where panel.auth = "none".')
    ] = "",
    parallel: Annotated[
        int, typer.Option("--parallel", help="Send this many files at a time.", min=1, max=16)
    ] = 3,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they are deployed.")] = False,
) -> None:
    """Send files and folders to a panel; run it again to continue where it stopped.

    Exit code 0: the server has every byte with the right hash, and with --wait everything is deployed.
    """
    try:
        server = Server(to, token, tell=_say)
    except SendError as error:
        raise RootError(str(error)) from error
    more = {key: value for key, value in (("project", project), ("user", user)) if value}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        Left(),
    )
    with (
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bars,
        ThreadPoolExecutor(parallel) as pool,
    ):
        try:
            good = list(pool.map(lambda path: _one(server, path, more, bars, wait=wait), paths))
        except KeyboardInterrupt:
            server.stop()
            pool.shutdown(cancel_futures=True)
            raise
    raise typer.Exit(0 if all(good) else 1)


def _one(server: Server, path: Path, more: dict[str, str], bars: Progress, *, wait: bool) -> bool:
    """Send what is at `path`; gives whether all went well, and says so in one line."""
    try:
        item = _read(server, path, bars)
        at = _send(server, item, more, bars)
        drop = server.seen(at)["drop"]
        if drop is None:
            raise SendError("not every file has arrived: send it again")
        if item.skipped:
            _say(f"{path}: left out {len(item.skipped)} temporary files or links")
        if wait:
            _wait(server, at)
        _say(f"{path}: {'deployed' if wait else 'sent'}, as {drop}")
    except SendError as error:
        _say(f"{path}: {error}")
        return False
    return True


def _read(server: Server, path: Path, bars: Progress) -> Item:
    """What is at `path`; to hash it may take minutes."""
    task = bars.add_task(f"reading {safe(path.name)}", total=None)
    try:
        return item_of(path, server.go_on)
    finally:
        bars.remove_task(task)


def _send(server: Server, item: Item, more: dict[str, str], bars: Progress) -> str:
    task = bars.add_task(safe(item.name), total=item.size)
    before, at = 0, ""
    for part in item.parts:
        at = server.send(item, part, more, partial(_show, bars, task, before))
        before += part.size
    bars.remove_task(task)
    return at


def _show(bars: Progress, task: TaskID, before: int, here: int) -> None:
    bars.update(task, completed=before + here)


def _wait(server: Server, at: str) -> None:
    """Wait until everything of the drop has ended.

    Raises
    ------
    SendError
        Something failed, with the reason.
    """
    said, gone = None, 0
    while True:
        found = server.seen(at)
        files = found["files"]
        if found["taken"] and not files and found.get("left"):
            raise SendError("there is no image in it; it stays in the inbox")
        gone = gone + 1 if found["taken"] and not files else 0
        if gone == _GONE_AFTER:
            raise SendError("it was sent, and is in no list now: somebody has taken it away")
        if bad := [one for one in files if one["failed"]]:
            why = bad[0]["reason"] or bad[0]["label"]
            raise SendError(f"{bad[0]['name']} failed: {why} {bad[0]['do'] or ''}".rstrip())
        if found["taken"] and files and all(one["final"] for one in files):
            return
        if found["waits"] and found["waits"] != said:
            said = found["waits"]
            _say(f"{found['drop']} waits: {said}")
        time.sleep(_EVERY_S)


def _say(text: str) -> None:
    say(safe(text))
