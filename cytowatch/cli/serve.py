"""The commands that run the daemon, or check whether it can run: run, init, check, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cytowatch.cli.app import (
    ConfigOption,
    JsonOption,
    RootOption,
    app,
    become_caller_again,
    become_owner,
    configuration,
    configuration_file,
    print_json,
)
from cytowatch.cli.show import safe, say
from cytowatch.config import Config, from_mapping, render
from cytowatch.record.errors import RootError
from cytowatch.tree.spool import Spool

__all__: list[str] = []


@app.command()
def run(
    root: RootOption = None,
    config: ConfigOption = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Process what is in the inboxes, then exit.")
    ] = False,
) -> None:
    """Run the daemon."""
    # Imported here: the other commands need neither watchdog nor Prometheus.
    from cytowatch import daemon

    chosen = configuration_file(root, config)

    def again() -> Config:
        # A file that was there and is gone is refused, and not taken for the defaults.
        return configuration(root, config or chosen)

    raise typer.Exit(
        daemon.run(
            again(),
            until_idle=until_idle,
            reload=again,
            # The owner of a root whose disk is mounted later is known later.
            prepare=_become_owner_or_end,
        )
    )


def _become_owner_or_end(config: Config) -> None:
    if unreadable := become_owner(Path(config.root)):
        raise RootError(unreadable)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="An empty directory, or a new one.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Write a configuration that explains itself to this file."),
    ] = None,
) -> None:
    """Create the tree in DIRECTORY; with --config, also write a configuration that explains itself."""
    absolute = directory.absolute()
    become_owner(absolute)
    spool = Spool.create(absolute)
    become_caller_again()
    say(f"{safe(str(spool.root))} is ready: each user is a folder in inbox/")
    if config is None:
        return
    if config.exists():
        raise RootError(f"{config} is there already; it was left as it is")
    config.write_text(render(from_mapping({"root": str(absolute)})))
    say(f"{safe(str(config))} is written")


@app.command()
def check(
    root: RootOption = None,
    config: ConfigOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check the whole tree, with every hash.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check whether cytowatch can run here, and what this machine supports."""
    # Imported here: it looks at all that the daemon needs, and no other command does.
    from cytowatch.cli import check as checks

    found = configuration(root, config)
    if unreadable := become_owner(Path(found.root)):
        # What is not loaded yet cannot be, so nothing more is looked at.
        results = [checks.Result("python", False, unreadable)]
    else:
        results = checks.run(found, deep=deep)
    if as_json:
        print_json([{"name": r.name, "good": r.good, "detail": r.detail} for r in results])
    else:
        mark = {True: "[green]good [/]", False: "[red]wrong[/]", None: "[dim]note [/]"}
        for result in results:
            line = f"{mark[result.good]}  {result.name:<13}  {safe(result.detail)}"
            say(line)
    raise typer.Exit(1 if any(result.good is False for result in results) else 0)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(help="The directory of the demonstration; it is made again each time.")
    ] = Path("demo-root"),
) -> None:
    """Watch slides travel from an inbox into storage; takes less than a minute."""
    # Imported here: it draws pictures, which no other command does.
    from cytowatch.cli import demo as show_it

    raise typer.Exit(show_it.run(directory.absolute()))
