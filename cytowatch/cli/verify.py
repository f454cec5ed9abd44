"""The command that looks again at what is in storage: `cytowatch verify`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cytowatch import aside, durable, outside
from cytowatch.cli import known
from cytowatch.cli.app import (
    ConfigOption,
    JsonOption,
    RootOption,
    app,
    configuration,
    one,
    print_json,
    spool_of,
)
from cytowatch.cli.options import IdsOrNone, ProjectFilter, UserOption
from cytowatch.cli.page import bytes_text
from cytowatch.cli.show import console, safe, say
from cytowatch.outside import OutsideError
from cytowatch.record import manifest
from cytowatch.record.errors import RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.tree import find
from cytowatch.tree.find import Entry
from cytowatch.tree.spool import Spool

__all__: list[str] = []

_PAGE = 200
_STATE = "verify.json"
#: Half a million that are damaged.
_MOST_BYTES = 128 << 20


@app.command()
def verify(
    wanted: IdsOrNone = None,
    user: UserOption = None,
    project: ProjectFilter = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where the last run stopped.")
    ] = False,
    max_mb_per_s: Annotated[
        float, typer.Option(help="Read at most this many MB per second; 0: no limit.", min=0)
    ] = 0,
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hash everything in storage again and reopen every pyramid; exits 1 if anything is damaged or missing."""
    # Imported here: it starts a process that decodes, as the daemon does.
    from cytowatch.admin import verification
    from cytowatch.decoder.ends import Stopped
    from cytowatch.decoder.forks import Zygote

    spool = spool_of(root, config)
    if user is not None:
        known.user(spool, user)
    if project is not None:
        known.project(spool, project)
    _be_gentle()
    state = _begun(spool, {"user": user, "project": project, "ids": wanted or []}, resume=resume)
    stop = threading.Event()
    zygote = Zygote(configuration(root, config), stages="cytowatch.admin.verification")
    zygote.start()
    throttle = verification.Throttle(max_mb_per_s * 1e6)
    broken_off = False
    try:
        with _stopped_by_signals(stop), _bar(as_json) as advance:
            for entry in _published(spool, state):
                found = verification.Findings()
                if entry.damaged is not None:
                    found.problems.append(f"its manifest cannot be read: {entry.damaged}")
                with aside.fence("uploaded_file", entry.path.name, but=(Stopped,)) as fenced:
                    found = verification.verify(
                        entry.path, entry.manifest, zygote, findings=found,
                        throttle=throttle, progress=advance, stop=stop,
                    )  # fmt: skip
                if fenced.failed:
                    found.problems.append(f"it cannot be looked at: {fenced.why}")
                if found.problems and not _changed(entry):
                    state["damaged"].append({**_about(entry), "problems": found.problems})
                if found.unhashed:
                    state["unhashed"] += 1
                state["read_bytes"] += found.read_bytes
                state["files"] += 1
                state["after"] = entry.manifest["id"]
                _note(spool, state)
    except Stopped:
        broken_off = True
    finally:
        zygote.stop()
    if not broken_off:
        state["missing"] = _missing(spool, state)
        (spool.state / _STATE).unlink(missing_ok=True)
    _tell(state, broken_off, as_json=as_json)
    if broken_off:
        raise typer.Exit(130)
    raise typer.Exit(1 if state["damaged"] or state["missing"] else 0)


def _be_gentle() -> None:
    """Scanners and conversions go first."""
    with suppress(OSError):
        os.nice(10)
    with suppress(OSError):
        subprocess.run(
            ["ionice", "-c", "3", "-p", str(os.getpid())],
            check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _begun(spool: Spool, what: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """Where to begin: again, or where the last one was broken off."""
    if resume:
        try:
            found = outside.read_json(spool.state / _STATE, most_bytes=_MOST_BYTES)
            _check(found)
        except FileNotFoundError:
            raise RootError("nothing was broken off, so there is nothing to resume") from None
        except OutsideError as error:
            raise RootError(
                f"state/{_STATE} cannot be used: verify without --resume ({error})"
            ) from error
        return found
    return {
        "what": what, "began": manifest.utc(datetime.now(UTC)), "after": "", "files": 0,
        "read_bytes": 0, "unhashed": 0, "damaged": [], "missing": [],
    }  # fmt: skip


_NAMES = ("id", "user", "name", "path")
_KINDS = {
    "what": dict, "began": str, "after": str, "files": int, "read_bytes": int, "unhashed": int,
    "damaged": list, "missing": list,
}  # fmt: skip


def _check(state: dict[str, Any]) -> None:
    if any(type(state.get(key)) is not kind for key, kind in _KINDS.items()):
        raise OutsideError("a key is missing, or of another type")
    what = state["what"]
    if not all(type(what.get(key)) in (str, type(None)) for key in ("user", "project")):
        raise OutsideError("what: user or project is of another type")
    texts = [what.get("ids")]
    for one_ in state["damaged"]:
        if type(one_) is not dict or any(type(one_.get(key)) is not str for key in _NAMES):
            raise OutsideError("damaged: a row is of another type")
        texts.append(one_.get("problems"))
    for some in texts:
        if type(some) is not list or any(type(text) is not str for text in some):
            raise OutsideError("a list holds something else than texts")


def _note(spool: Spool, state: dict[str, Any]) -> None:
    durable.replace_file(spool.state / _STATE, json.dumps(state))


def _published(spool: Spool, state: dict[str, Any]) -> Iterator[Entry]:
    """All that is asked for and in storage, by id, from where it was broken off."""
    what = state["what"]
    ids = [one(spool, name).manifest["id"] for name in what["ids"]] or None
    if what["project"]:
        shown = find.project_ids(spool, what["project"])
        ids = [id_ for id_ in shown if ids is None or id_ in ids]
    after = state["after"]
    while True:
        with find.indexed(spool) as index:
            rows = index.select(
                where={"user": find.spellings(spool, what["user"])} if what["user"] else {},
                ids=ids, after=after, ascending=True, limit=_PAGE,
            )  # fmt: skip
        for row in rows:
            found = find.entry(spool, row) if row.status.is_success else None
            if found is not None and found.status.is_success:
                yield found
        if not rows:
            return
        after = rows[-1].id


def _missing(spool: Spool, state: dict[str, Any]) -> list[dict[str, str]]:
    """What is asked for, was in storage, and is not there; what a project showed is not known any more."""
    what = state["what"]
    users = find.spellings(spool, what["user"]) if what["user"] else None
    with find.indexed(spool) as index:
        gone = {one.id: one.document for one in index.missing()}
        for row in index.held():
            if not (spool.storage / row.user / row.id).is_dir() and find.entry(spool, row) is None:
                about = {"id": row.id, "user": row.user, "name": row.name}
                gone[row.id] = {**about, "status": row.status.name}
    return [
        one
        for id_, one in sorted(gone.items())
        if (not what["ids"] or id_ in what["ids"]) and (users is None or one["user"] in users)
    ]


def _changed(entry: Entry) -> bool:
    """Whether it was removed or changed by a command while it was looked at."""
    try:
        return manifest.read(entry.path) != entry.manifest
    except FileNotFoundError:
        return not entry.path.exists()
    except (ManifestError, OSError):
        # It is damaged now, no matter what it was a moment ago.
        return False


def _about(entry: Entry) -> dict[str, Any]:
    about = entry.manifest
    return {
        "id": about["id"], "user": about["user"], "name": about["name"], "path": str(entry.path)
    }  # fmt: skip


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(as_json: bool) -> Iterator[Any]:
    """A counter of the bytes on a terminal; nothing elsewhere."""
    if as_json or not console.is_terminal:
        yield lambda _count: None
        return
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (TextColumn("looking"), DownloadColumn(), Speed(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("verify", total=None)
        yield lambda count: progress.advance(task, count)


def _tell(state: dict[str, Any], broken_off: bool, *, as_json: bool) -> None:
    document = {
        key: state[key]
        for key in ("began", "files", "read_bytes", "unhashed", "damaged", "missing")
    }
    if as_json:
        print_json({**document, "broken_off": broken_off})
        return
    for one_ in state["damaged"]:
        say(f"[red]damaged[/]  {safe(one_['name'])}  {safe(one_['id'])}")
        for problem in one_["problems"]:
            say(f"         {safe(problem)}")
        say(f"         it lies in {safe(one_['path'])}")
    for gone in state["missing"]:
        say(f"[red]missing[/]  {safe(gone['name'])}  {safe(gone['id'])}  of {safe(gone['user'])}")
    some = "1 uploaded file" if state["files"] == 1 else f"{state['files']:,} uploaded files"
    looked = f"{some}, {bytes_text(state['read_bytes'])} read"
    if broken_off:
        say(f"{looked}; stopped early: `cytowatch verify --resume` continues")
    elif state["damaged"] or state["missing"]:
        counts = [f"{len(state[what])} {what}" for what in ("damaged", "missing") if state[what]]
        say(
            f"{looked}, [red]{', '.join(counts)}[/]: restore them from a backup, or drop "
            "the slides again"
        )
    else:
        say(f"{looked}, all as they were published")
    if state["unhashed"]:
        say(f"of {state['unhashed']:,} no hash was noted: their bytes cannot be compared")
