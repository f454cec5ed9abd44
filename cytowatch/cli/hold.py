"""Holding the work of a user back, and letting it go on."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cytowatch.cli import known
from cytowatch.cli.app import (
    ConfigOption,
    RootOption,
    app,
    spool_of,
)
from cytowatch.cli.options import (
    UserOption,
)
from cytowatch.cli.show import safe, say
from cytowatch.record import names
from cytowatch.tree import find, pauses
from cytowatch.tree.spool import Spool

__all__ = ["tell_pauses"]


def tell_pauses(held: pauses.Pauses) -> None:
    if held.everyone:
        say("paused: everyone. Work in progress will be finished; nothing new is started.")
    elif held.users:
        say(f"paused: {safe(', '.join(sorted(held.users)))}. All others go on.")
    else:
        say("nobody is paused")


@app.command()
def pause(
    user: UserOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until everything in progress is finished.")
    ] = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Hold back everyone or one user: nothing new is claimed or started until `resume`."""
    spool = spool_of(root, config)
    if user is not None:
        known.user(spool, user)
    tell_pauses(pauses.pause(spool, user))
    if wait:
        while _is_in_work(spool, user):
            time.sleep(0.2)
        say("nothing is in work")


def _is_in_work(spool: Spool, user: str | None) -> bool:
    """Whether the daemon treats anything, of `user` or at all, or has not seen the pause yet."""
    live = find.live(spool)
    if find.daemon_pid(spool) is None or live is None or "paused" not in live:
        return False
    users = frozenset(live["paused"].get("users", ()))
    held = pauses.Pauses(everyone=live["paused"].get("everyone", False), users=users)
    if not (held.everyone if user is None else held.covers(user)):
        return True
    if user is None:
        return bool(live.get("workers", {}).get("busy"))
    with find.indexed(spool) as index:
        # What is held up is not being treated, and may be so for long.
        rows = index.select(
            ids=list(live.get("progress", {}).keys() - live.get("held_up", {}).keys())
        )
    return bool(names.alike((row.user for row in rows), user))


@app.command()
def resume(user: UserOption = None, root: RootOption = None, config: ConfigOption = None) -> None:
    """Let everyone or one user continue."""
    spool = spool_of(root, config)
    # A user who is paused may continue, even if the inbox is gone.
    if user is not None and not names.alike(pauses.read(spool).users, user):
        known.user(spool, user)
    tell_pauses(pauses.resume(spool, user))
