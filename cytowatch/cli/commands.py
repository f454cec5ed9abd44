"""The commands themselves: each is a few lines around what the other modules do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from cytowatch import __version__, formats, projects, tree
from cytowatch.cli import check as checks
from cytowatch.cli import show as display
from cytowatch.cli.show import console, safe
from cytowatch.config import Config, from_mapping, load, render, to_mapping
from cytowatch.errors import FormatError, RootError
from cytowatch.formats import Probe, companions
from cytowatch.formats.completeness import missing
from cytowatch.spool import Spool
from cytowatch.status import Status

__all__ = ["app"]

app = typer.Typer(
    name="cytowatch",
    help="A drop folder that turns whole-slide images into deployed pyramids.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

T = TypeVar("T")
_SYSTEM_CONFIG = Path("/etc/cytowatch/cytowatch.toml")

RootOption = Annotated[
    Path | None, typer.Option("--root", help="The tree; overrides the configuration.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The configuration file; none is fine as well.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cytowatch {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A drop folder that turns whole-slide images into deployed pyramids."""


def configuration(root: Path | None, config: Path | None) -> Config:
    """What `--root`, `--config` and the environment say, in this order of weight.

    Raises
    ------
    ConfigError
        The file is wrong; every problem is named.
    """
    if config is None and (named := os.environ.get("CYTOWATCH_CONFIG")):
        config = Path(named)
    if config is None and _SYSTEM_CONFIG.exists():
        config = _SYSTEM_CONFIG
    found = load(config)
    given = str(root) if root else os.environ.get("CYTOWATCH_ROOT")
    if given:
        found = from_mapping({**to_mapping(found), "root": str(Path(given).absolute())})
    return found


def _spool(root: Path | None, config: Path | None) -> Spool:
    return Spool.open(Path(configuration(root, config).root))


def _json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=not sys.stdout.isatty()))


@app.command()
def run(
    root: RootOption = None,
    config: ConfigOption = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Ingest what is there, then exit.")
    ] = False,
) -> None:
    """Be the daemon."""
    # Imported here: the other commands need neither watchdog nor Prometheus.
    from cytowatch import daemon

    def again() -> Config:
        return configuration(root, config)

    raise typer.Exit(daemon.run(again(), until_idle=until_idle, reload=again))


@app.command()
def init(directory: Path, config: ConfigOption = None) -> None:
    """Make the tree in DIRECTORY; with --config also write a configuration that explains itself."""
    absolute = directory.absolute()
    spool = Spool.create(absolute)
    console.print(f"{safe(str(spool.root))} is ready: each user is a folder in inbox/")
    if config is None:
        return
    if config.exists():
        raise RootError(f"{config} is there already; it was left as it is")
    config.write_text(render(from_mapping({"root": str(absolute)})))
    console.print(f"{safe(str(config))} is written")


@app.command()
def check(
    root: RootOption = None,
    config: ConfigOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Look through the whole tree, with every hash.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look whether cytowatch can run here, and what this machine allows."""
    results = checks.run(configuration(root, config), deep=deep)
    if as_json:
        _json([{"name": r.name, "good": r.good, "detail": r.detail} for r in results])
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for result in results:
            mark = {True: "[green]good[/]", False: "[red]wrong[/]", None: "[dim]note[/]"}
            table.add_row(mark[result.good], result.name, safe(result.detail))
        console.print(table)
    raise typer.Exit(1 if any(result.good is False for result in results) else 0)


@app.command()
def status(
    root: RootOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """What is in work, what waits and why."""
    spool = _spool(root, config)
    page = display.status_page(
        spool, list(tree.entries(spool)), tree.daemon_pid(spool), tree.live(spool)
    )
    if as_json:
        _json(page)
        return
    running = page["daemon"]["running"]
    told = f"running, process {page['daemon']['pid']}" if running else "[yellow]not running[/]"
    console.print(f"daemon   {told}")
    console.print(f"disk     {display.bytes_text(page['disk_free_bytes'])} free")
    for name, reason in page["health"].items():
        console.print(f"[red]{name}[/]  {safe(reason)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in Status:
        if page["files"][one.name]:
            table.add_row(f"[{display.colour(one)}]{one.label}[/]", str(page["files"][one.name]))
    console.print(table)
    for id_, at in page["in_work"].items():
        console.print(f"in work  {safe(id_)}  {at['status']} {at['share']:.0%}")
    for id_, why in page["held_up"].items():
        console.print(f"held up  {safe(id_)}  {why['why']}: {safe(why['detail'])}")
    for drop in page["waiting"]:
        console.print(f"waiting  {safe(drop['path'])}  {drop['why']}: {safe(drop['detail'])}")


@app.command("list")
def list_(
    root: RootOption = None,
    config: ConfigOption = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    wanted: Annotated[
        str | None, typer.Option("--status", help="Only those in this status.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first; 0: all.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """The uploaded files: in work, in storage and in error alike, newest first."""
    if wanted is not None:
        wanted = wanted.upper().replace(" ", "_").replace("-", "_")
        if wanted not in Status.__members__:
            raise typer.BadParameter(f"{wanted} is none of {', '.join(Status.__members__)}")
    found = [
        entry
        for entry in tree.entries(_spool(root, config))
        if (user is None or entry.manifest["user"] == user)
        and (wanted is None or entry.status.name == wanted)
        and (project is None or project in entry.manifest["projects"])
    ]
    found.sort(key=lambda entry: entry.manifest["id"], reverse=True)
    found = found[:limit] if limit else found
    if as_json:
        _json([entry.document for entry in found])
    else:
        console.print(display.list_table(found))


@app.command()
def show(
    wanted: Annotated[str, typer.Argument(metavar="ID")],
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One uploaded file: its tree, its history, and if it is in error why."""
    spool = _spool(root, config)
    entry = _one(spool, wanted)
    if as_json:
        _json(entry.document)
        return
    about = entry.manifest
    console.print(display.tree(entry, list(tree.entries(spool))))
    console.print(f"\nid        {safe(about['id'])}\nuser      {safe(about['user'])}")
    console.print(
        f"dropped   {safe(about['drop_path'])}, {display.bytes_text(about['size_bytes'])}"
    )
    console.print(f"lies in   {safe(str(entry.path))}")
    for warning in about["warnings"]:
        console.print(f"[yellow]note[/]      {safe(warning)}")
    for skipped in about["skipped"]:
        console.print(f"[yellow]skipped[/]   {safe(skipped['name'])}: {safe(skipped['reason'])}")
    if about["error"]:
        console.print(f"[red]reason[/]    {about['error']['reason']}")
        console.print(f"          {safe(about['error']['detail'])}")
        for file in about["files"]:
            console.print(f"original  {safe(str(entry.path / file['path']))}, untouched")
    console.print()
    console.print(display.history_table(entry))


IdArguments = Annotated[list[str], typer.Argument(metavar="ID...")]


def _one(spool: Spool, wanted: str) -> tree.Entry:
    found = tree.find(spool, wanted)
    if len(found) != 1:
        said = "nothing is" if not found else f"{len(found)} uploaded files are"
        raise RootError(f"{said} called {wanted!r}: `cytowatch list` shows the ids")
    return found[0]


def _asked(spool: Spool, what: str, id_: str, **more: Any) -> str:
    # Imported here: only the commands that change something need it.
    from cytowatch.engine import requests

    request = {"do": what, "id": id_, **more}
    return str(requests.ask(spool, request, now=lambda: datetime.now(UTC))["said"])


def _reason(entry: tree.Entry) -> str | None:
    return entry.manifest["error"]["reason"] if entry.manifest["error"] else None


@app.command()
def retry(
    wanted: Annotated[list[str] | None, typer.Argument(metavar="[ID...]")] = None,
    status_: Annotated[
        str | None, typer.Option("--status", help="All that are in this error.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="All that failed for this reason.")] = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Send what ended in an error back to the stage that failed, or an incomplete one to its inbox."""
    spool = _spool(root, config)
    entries = [_one(spool, one) for one in wanted or []]
    if status_ or reason:
        label = (status_ or "").upper().replace(" ", "_").replace("-", "_")
        entries += [
            entry
            for entry in tree.entries(spool)
            if entry.status.is_error
            and (not label or entry.status.name == label)
            and (not reason or _reason(entry) == reason)
        ]
    if not entries:
        raise RootError("nothing to retry: give an ID, --status or --reason")
    for entry in entries:
        said = _asked(spool, "retry", entry.manifest["id"])
        console.print(f"{safe(entry.manifest['name'])} goes back to {safe(said)}")


@app.command("return")
def return_(wanted: IdArguments, root: RootOption = None, config: ConfigOption = None) -> None:
    """Hand the original of an error back to its user, into inbox/<user>/_returned/."""
    spool = _spool(root, config)
    for one in wanted:
        entry = _one(spool, one)
        said = _asked(spool, "return", entry.manifest["id"])
        console.print(f"{safe(entry.manifest['name'])} is in {safe(said)}")


@app.command()
def remove(
    wanted: IdArguments,
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if a project shows it.")] = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove uploaded files that came to their end, with their originals, for good."""
    spool = _spool(root, config)
    for one in wanted:
        entry = _one(spool, one)
        _asked(spool, "remove", entry.manifest["id"], anyway=anyway)
        console.print(f"{safe(entry.manifest['name'])} is removed")


@app.command()
def export(
    wanted: Annotated[str, typer.Argument(metavar="ID")],
    directory: Path,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy the original, byte for byte and under its dropped name, into DIRECTORY."""
    from cytowatch.engine import after

    entry = _one(_spool(root, config), wanted)
    directory.mkdir(parents=True, exist_ok=True)
    for row, name in after.originals(entry.manifest):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise RootError(f"{target} is there already; nothing is replaced")
        with open(entry.path / row["path"], "rb") as source, open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, 4 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if row["sha256"] is not None:
            with open(target, "rb") as copy:
                if hashlib.file_digest(copy, "sha256").hexdigest() != row["sha256"]:
                    raise RootError(f"{target} has other bytes than the original had")
        console.print(f"{safe(str(target))}, {display.bytes_text(row['size_bytes'])}")


ProjectOption = Annotated[str, typer.Option("--project", help="The project.")]


def _deployed(spool: Spool, wanted: str) -> list[tree.Entry]:
    """What `wanted` means: one uploaded file, or of an archive or a folder all that came out of it."""
    entry = _one(spool, wanted)
    if entry.status is not Status.EXTRACTED:
        return [entry]
    every = {one.manifest["id"]: one for one in tree.entries(spool)}
    inside = {entry.manifest["id"]}
    for id_ in sorted(every):
        if every[id_].manifest["parent_id"] in inside:
            inside.add(id_)
    good = (Status.DEPLOYED, Status.CONVERTED)
    return [every[id_] for id_ in sorted(inside) if every[id_].status in good]


@app.command()
def link(
    wanted: Annotated[str, typer.Argument(metavar="ID")],
    project: ProjectOption,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Show a deployed image in one more project; of an archive or a folder, all that is in it."""
    spool = _spool(root, config)
    for entry in _deployed(spool, wanted):
        name = projects.link(spool, entry.path, project)
        console.print(f"{safe(entry.manifest['name'])} is in the project {safe(name)}")


@app.command()
def unlink(
    wanted: Annotated[str, typer.Argument(metavar="ID")],
    project: ProjectOption,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Take an image out of a project; the image itself stays."""
    spool = _spool(root, config)
    for entry in _deployed(spool, wanted):
        name = projects.unlink(spool, entry.path, project)
        console.print(f"{safe(entry.manifest['name'])} is no more in the project {safe(name)}")


@app.command()
def detect(files: list[Path], as_json: JsonOption = False) -> None:
    """What FILES are, and what would be done with them; nothing is moved and no pixel decoded."""
    told = [_told(path) for path in files]
    if as_json:
        _json(told)
    else:
        for one in told:
            good = one["format"] is not None and one["missing"] is None
            mark = "green" if good else "red"
            console.print(f"{safe(one['file'])}: [{mark}]{safe(one['says'])}[/]")
    wrong = any(one["format"] is None or one["missing"] is not None for one in told)
    raise typer.Exit(1 if wrong else 0)


def _told(path: Path) -> dict[str, Any]:
    from cytowatch.stages.detect import identify

    answer: dict[str, Any] = {
        "file": str(path), "format": None, "evidence": None, "treated": None, "missing": None,
        "reason": None,
    }  # fmt: skip
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return {**answer, "reason": "unreadable", "says": f"{error.strerror}"}
    try:
        if not path.is_file():
            said = "no regular file"
            return {**answer, "reason": "not_a_regular_file", "says": said}
        beside = _beside(path)
        probe = Probe(descriptor, name=path.name, beside=beside, path=str(path))
        lacking = missing(descriptor, probe.size_bytes) or _set_lacks(path, beside)
        found, evidence = identify(probe)
    except FormatError as error:
        return {**answer, "reason": error.reason, "says": error.detail}
    finally:
        os.close(descriptor)
    says = f"{found.name} ({evidence}): {found.treated}"
    if lacking is not None:
        says = f"{found.name} ({evidence}), but not whole: missing {lacking}"
    return {
        **answer,
        "format": found.id,
        "evidence": evidence,
        "treated": found.treated,
        "missing": lacking,
        "says": says,
    }


def _beside(path: Path) -> frozenset[str]:
    """The files of its folder, and those in the folders that bear its name."""
    folder = path.absolute().parent
    found = {entry.name for entry in os.scandir(folder) if entry.is_file()}
    for name in (path.stem, f"_{path.stem}_"):
        for top, _, files in os.walk(folder / name):
            found |= {os.path.relpath(os.path.join(top, file), folder) for file in files}
    return frozenset(found)


def _set_lacks(head: Path, beside: frozenset[str]) -> str | None:
    """What the set that the file belongs to still lacks, if it is one."""
    folder = head.absolute().parent

    def look(path: str, function: Callable[[Probe], T]) -> T:
        with open(folder / path, "rb") as file:
            return function(Probe(file.fileno(), name=os.path.basename(path)))

    sizes = {name: (folder / name).stat().st_size for name in beside}
    for group in companions.groups(sizes, look):
        if head.name in group.members:
            return group.missing
    return None


@app.command("formats")
def formats_(as_json: JsonOption = False) -> None:
    """The table of supported formats."""
    rows = [
        {
            "id": one.id,
            "format": one.name,
            "samples": one.samples,
            "marker": one.marker,
            "treated": one.treated,
            "read by": one.reader,
        }
        for one in formats.FORMATS
    ]
    if as_json:
        _json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.upper(), overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*(safe(value) for value in row.values()))
    console.print(table)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="Made anew each time.")] = Path("demo-root"),
) -> None:
    """Watch real slides travel from an inbox into storage; takes under a minute."""
    # Imported here: it draws pictures, which no other command does.
    from cytowatch.cli import demo as show_it

    raise typer.Exit(show_it.run(directory.absolute()))
