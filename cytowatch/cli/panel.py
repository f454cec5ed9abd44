"""The commands around the panel: `panel` serves it, `token` makes and revokes tokens for machines."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cytowatch.cli.app import (
    ConfigOption,
    JsonOption,
    RootOption,
    app,
    become_owner,
    configuration,
    configuration_file,
    print_json,
    spool_of,
)
from cytowatch.cli.show import safe, say
from cytowatch.config import Config
from cytowatch.record.errors import RootError

__all__: list[str] = []

_EXTRA = "the panel needs more packages: pip install 'cytowatch[panel]'"


@app.command()
def panel(
    root: RootOption = None,
    config: ConfigOption = None,
    listen: Annotated[
        str | None, typer.Option(help="ADDRESS:PORT or unix:/PATH; overrides panel.listen.")
    ] = None,
    actions: Annotated[
        bool,
        typer.Option("--actions", help='With panel.auth = "none": let anyone on this machine act.'),
    ] = False,
) -> None:
    """Serve the storage panel: the tree in a browser."""
    try:
        from cytowatch.panel import serve
    except ModuleNotFoundError as error:
        raise RootError(f"{_EXTRA} ({error.name} is missing)") from error

    chosen = configuration_file(root, config)

    def again() -> Config:
        found = configuration(root, config or chosen)
        if listen is None:
            return found
        return dataclasses.replace(found, panel=dataclasses.replace(found.panel, listen=listen))

    found = again()
    if unreadable := become_owner(Path(found.root)):
        raise RootError(unreadable)
    raise typer.Exit(serve.run(Path(found.root), found, actions=actions, reload=again))


token = typer.Typer(help="Manage tokens for programs that use the panel.", no_args_is_help=True)
app.add_typer(token, name="token")


@token.command("add")
def token_add(
    name: Annotated[str, typer.Argument(help="The name of the token, for `list` and `revoke`.")],
    user: Annotated[str, typer.Option("--user", help="Whose files it may see.")],
    days: Annotated[
        float | None,
        typer.Option(
            "--days", help="The token expires after this many days.", min=0.001, max=36500
        ),
    ] = None,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a token. The last line is the token; it is shown only this once."""
    from cytowatch.panel import tokens, who

    if not who.is_name(user):
        raise RootError(f"{user!r} cannot be the name of a user")
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise RootError(f"{name!r} cannot be the name of a token: 1 to 100 printable characters")
    spool = spool_of(root, config)
    secret = tokens.add(spool, name, user, days=days, now=datetime.now(UTC))
    until = f" for {days:g} days" if days is not None else ""
    say(f"The token {safe(name)} may see the files of {safe(user)}{until}. Keep it secret:")
    print(secret)


@token.command("list")
def token_list(
    root: RootOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the tokens: name, user, when each was made, expires and was last used."""
    from cytowatch.panel import tokens

    found = tokens.listed(spool_of(root, config))
    if as_json:
        rows = [dataclasses.asdict(one) for one in found]
        print_json([{key: row[key] for key in row if key != "sha256"} for row in rows])
        return
    for one in found:
        ends = f"ends {one.ends_at}" if one.ends_at else "does not end"
        used = f"last used {one.used_at}" if one.used_at else "never used"
        say(
            f"{safe(one.name)}  {safe(one.user)}  made {one.made_at}  {ends}  {used}",
        )
    if not found:
        say("there are no tokens")


@token.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(help="The name of the token.")],
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Revoke a token: it opens nothing from now on."""
    from cytowatch.panel import tokens

    found = tokens.revoke(spool_of(root, config), name)
    say(f"the token {safe(found.name)} of {safe(found.user)} opens nothing any more")
