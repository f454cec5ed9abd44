"""What all commands share: the application, its options, and which uploaded file is meant."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytowatch import __version__
from cytowatch.cli import python
from cytowatch.durable import denied
from cytowatch.outside import printable
from cytowatch.record.errors import RootError
from cytowatch.record.status import STAGE_STATUSES
from cytowatch.tree import find
from cytowatch.tree.spool import Spool

if TYPE_CHECKING:
    from cytowatch.config import Config

__all__ = [
    "ConfigOption",
    "JsonOption",
    "RootOption",
    "app",
    "become_caller_again",
    "become_owner",
    "configuration",
    "configuration_file",
    "one",
    "print_json",
    "readable",
    "spool_of",
]

app = typer.Typer(
    name="cytowatch",
    help="A drop folder that turns whole-slide images into deployed pyramids.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SYSTEM_CONFIG = Path("/etc/cytowatch/cytowatch.toml")
#: The configuration of a tree that is named on the command line, in that tree.
_OF_A_TREE = "cytowatch.toml"
_MOST_NAMED = 5

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="The tree; overrides the configuration. Without --config, only the cytowatch.toml "
        "in it is read, if there is one.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The configuration file. By default /etc/cytowatch/cytowatch.toml, if there "
        "is one and no --root.",
    ),
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


def configuration_file(root: Path | None, config: Path | None) -> Path | None:
    """The file that the command line and the environment mean; None for the defaults.

    A root that is named on the command line brings its own configuration, ``ROOT/cytowatch.toml``, or
    none: hooks of this machine's own service must never fire for a trial tree.

    Source: docs/reference/configuration.md
    """
    if config is not None:
        return config
    if root is None and (named := os.environ.get("CYTOWATCH_CONFIG")):
        return Path(named)
    given = _root_given(root)
    usual = given / _OF_A_TREE if given else _SYSTEM_CONFIG
    return usual if os.path.lexists(usual) else None


def configuration(root: Path | None, config: Path | None) -> Config:
    """The configuration that the command line and the environment mean.

    Raises
    ------
    ConfigError
        The file is wrong; every problem is named.
    """
    # Imported here: anyone who says the root needs nothing else of it, and it takes a tenth of a `list`.
    from cytowatch.config import from_mapping, load, to_mapping

    found = load(configuration_file(root, config))
    if given := _root_given(root):
        found = from_mapping({**to_mapping(found), "root": str(given)})
    return found


def _root_given(root: Path | None) -> Path | None:
    """The root that the command line or the environment names; it outweighs any configuration."""
    said = root or os.environ.get("CYTOWATCH_ROOT")
    return Path(said).absolute() if said else None


def become_owner(root: Path) -> str | None:
    """As root, act as the owner of the tree at `root`: new files in it must belong to that owner.

    A file of root's in ``state/`` is one that the daemon cannot write to. The way back stays
    open, for a command that writes elsewhere as well. Gives what is wrong, in words, if the owner
    cannot read this Python: then what is not loaded yet cannot be.
    """
    try:
        owner = os.stat(root)
    except OSError:
        return None
    if os.geteuid() != 0 or owner.st_uid == 0:
        return None
    needed = python.parts()
    name = f"the user {owner.st_uid}"
    with suppress(KeyError):
        name = pwd.getpwuid(owner.st_uid).pw_name
        os.initgroups(name, owner.st_gid)
    os.setresgid(owner.st_gid, owner.st_gid, 0)
    os.setresuid(owner.st_uid, owner.st_uid, 0)
    path = python.unreadable(needed)
    return python.advice(name, path) if path else None


def become_caller_again() -> None:
    """Undo `become_owner`."""
    if os.getresuid()[2] == 0:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


def spool_of(root: Path | None, config: Path | None) -> Spool:
    """The tree that is meant, which must be there; from now on this process is its owner's."""
    given = _root_given(root) if config is None else None
    where = given or Path(configuration(root, config).root)
    become_owner(where)
    spool = Spool.open(where)
    _ensure_readable(spool)
    return spool


def _ensure_readable(spool: Spool) -> None:
    """Refuse to show a tree that this user may not see as an empty one.

    Raises
    ------
    RootError
        The uploaded files, or what is known of them, cannot be read.
    """
    for path in (spool.storage, spool.stages, spool.state, *map(spool.stage, STAGE_STATUSES)):
        if said := denied.barred(path, write=False):
            raise RootError(f"{said}; run this command as root, or as the user of the daemon")


def print_json(document: Any) -> None:
    """Print `document`; on a terminal with its letters as they are."""
    print(json.dumps(document, indent=2, ensure_ascii=not sys.stdout.isatty()))


def one(spool: Spool, wanted: str) -> find.Entry:
    """The one uploaded file that `wanted` means.

    Raises
    ------
    RootError
        It means none, or several.
    """
    with find.indexed(spool) as index:
        found = [entry for row in index.find(wanted) if (entry := find.entry(spool, row))]
        if not found and "/" in wanted:
            # As `list` shows what lay in a folder or an archive.
            named = index.find(wanted.rpartition("/")[2])
            entries = (entry for row in named if (entry := find.entry(spool, row)))
            found = [one for one in entries if wanted in _paths(one)]
        gone = [one for one in index.missing() if wanted in (one.id, one.name)]
    if gone and not found:
        raise RootError(
            f"{gone[0].id} vanished from storage: restore it from a backup, or forget it with "
            f"`cytowatch remove {gone[0].id}`"
        )
    if not found:
        raise RootError(
            f"no uploaded file has the id or the name {wanted!r}: `cytowatch list` shows all, and "
            f"`cytowatch list --name {shlex.quote(printable(wanted))}` those with this in their name"
        )
    if len(found) > 1:
        ids = ", ".join(map(_called, found[:_MOST_NAMED]))
        more = ", …" if len(found) > _MOST_NAMED else ""
        raise RootError(
            f"{len(found)} uploaded files are called {wanted!r}: give one of {ids}{more}"
        )
    return found[0]


def _paths(entry: find.Entry) -> tuple[str, str]:
    """Where it was dropped, from the inboxes on and from the user's inbox on."""
    path = entry.manifest["drop_path"]
    return path, path.partition("/")[2]


def _called(entry: find.Entry) -> str:
    """Its id, and where it was dropped if that says more than its name."""
    user, path, id_ = entry.manifest["user"], _paths(entry)[1], entry.manifest["id"]
    return id_ if path in ("", entry.manifest["name"]) else f"{id_} ({printable(f'{user}/{path}')})"


def readable(entry: find.Entry) -> find.Entry:
    """`entry`, if its manifest can be read.

    Raises
    ------
    RootError
        It cannot; the message says why, and what to do.
    """
    if entry.damaged is None:
        return entry
    raise RootError(
        f"the manifest of {entry.manifest['id']} is damaged: restore its manifest.json from a backup; "
        f"the files themselves lie in {entry.path} ({entry.damaged})"
    )
