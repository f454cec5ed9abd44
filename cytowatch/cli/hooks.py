"""The command that shows hooks: what is still to be delivered, and what was given up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cytowatch import hooks
from cytowatch.cli.app import (
    ConfigOption,
    JsonOption,
    RootOption,
    app,
    configuration,
    print_json,
    spool_of,
)
from cytowatch.cli.show import safe, say

__all__: list[str] = []


@app.command("hooks")
def hooks_(
    retry: Annotated[
        bool, typer.Option("--retry", help="Deliver again what was given up.")
    ] = False,
    hook: Annotated[str | None, typer.Option("--hook", help="Only for this hook.")] = None,
    root: RootOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show notifications that are pending or were given up; exits 1 if any was given up."""
    found = configuration(root, config)
    spool = spool_of(root, config)
    given_up = [one for one in hooks.dead(spool) if hook in (None, one.hook)]
    if retry:
        for one in given_up:
            hooks.revive(spool, one)
        given_up = []
    waiting = [one for one in hooks.pending(spool) if hook in (None, one.hook)]
    known = {one.name for one in found.hooks}
    page: dict[str, Any] = {
        "hooks": sorted(known),
        "pending": [asdict(one) for one in waiting],
        "dead": [asdict(one) for one in given_up],
    }
    if as_json:
        print_json(page)
    else:
        _show(page)
    raise typer.Exit(1 if given_up else 0)


def _show(page: dict[str, Any]) -> None:
    known = page["hooks"]
    say(f"hooks    {', '.join(known) or 'none is configured'}")
    for one in page["pending"]:
        lost = "" if one["hook"] in known else " [yellow](no hook of that name any more)[/]"
        tried = f", {one['tries']} tries, last: {safe(one['said'])}" if one["tries"] else ""
        say(f"to tell  {safe(one['hook'])} of {safe(one['id'])} {one['status']}{tried}{lost}")
    for one in page["dead"]:
        say(
            f"[red]given up[/] {safe(one['hook'])} of {safe(one['id'])} {one['status']} after "
            f"{one['tries']} tries: {safe(one['said'])}"
        )
    if page["dead"]:
        say("[dim]`cytowatch hooks --retry` lets them be tried again[/]")
