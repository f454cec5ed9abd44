"""What a command asks of the daemon: a file in ``state/requests/``, answered by another one.

Where no daemon runs the command holds its lock and does it itself.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cytowatch import aside, durable, outside
from cytowatch.admin import ended, give_back, projects, retry
from cytowatch.admin.remove import remove
from cytowatch.outside import OutsideError
from cytowatch.record.errors import CytowatchError, RootError
from cytowatch.record.manifest import ManifestError
from cytowatch.record.names import ID_PATTERN, UploadedFileId
from cytowatch.record.status import Status
from cytowatch.transitions import notes
from cytowatch.tree import pauses
from cytowatch.tree.index.index import Index
from cytowatch.tree.spool import Spool

__all__ = ["Answered", "answer_all", "ask", "by_daemon", "perform", "sweep"]

_PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.05
#: Anyone who asked has gone long before.
_LEFT_AFTER_S = 600.0
_LEFT = re.compile(r".*\.(answer|partial)")
_ABOUT_ONE = frozenset({"retry", "return", "remove", "link", "unlink"})
_ABOUT_PROJECTS = frozenset({"link", "unlink"})
_ABOUT_USERS = frozenset({"pause", "resume"})
_LONGEST_NAME = 255
_LONGEST_SAID = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request, the name of its file, its answer, and the status that its uploaded file had before."""

    name: str
    request: dict[str, Any]
    answer: dict[str, Any]
    before: Status | None


def perform(
    spool: Spool, index: Index, request: dict[str, Any], *, now: datetime
) -> dict[str, Any]:
    """Do what is asked: ``{"said": …}``, or ``{"error": …}`` with the reason for a person."""
    try:
        wanted = checked(request)
        id_ = UploadedFileId(wanted.get("id", ""))
        match wanted["do"]:
            case "retry":
                return {"said": retry.retry(spool, id_, now=now)}
            case "return":
                return {"said": give_back.hand_back(spool, id_)}
            case "remove":
                remove(spool, id_, index, even_linked=wanted["anyway"])
                return {"said": "removed"}
            case "link" | "unlink":
                change = projects.link if wanted["do"] == "link" else projects.unlink
                return {"said": change(spool, ended.published(spool, id_), wanted["project"])}
            case "pause" | "resume":
                change_pause = pauses.pause if wanted["do"] == "pause" else pauses.resume
                held = change_pause(spool, wanted.get("user"))
                return {"said": "everyone" if held.everyone else ", ".join(sorted(held.users))}
            case _:
                # A daemon does it beside all else, once this is answered.
                return {"said": "begun"}
    except (CytowatchError, OutsideError) as error:
        return {"error": outside.text(str(error), most=_LONGEST_SAID)}
    except ManifestError as error:
        said = f"its manifest is damaged: restore its manifest.json from a backup ({error})"
        return {"error": outside.text(said, most=_LONGEST_SAID)}
    except OSError as error:
        said = f"{error.filename or spool.root}: {error.strerror or error}"
        return {"error": outside.text(said, most=_LONGEST_SAID)}


def checked(request: dict[str, Any]) -> dict[str, Any]:
    """What `request` asks for, with nothing else in it.

    Raises
    ------
    OutsideError
        It asks for what there is not, or of what cannot be an uploaded file.
    """
    do, id_, anyway = request.get("do"), request.get("id"), request.get("anyway", False)
    # Who asked, for the log; only the panel knows it.
    by = {"by": _name(request, "by")} if request.get("by") is not None else {}
    if do == "reindex":
        return {"do": do, **by}
    if isinstance(do, str) and do in _ABOUT_USERS:
        user = {"user": _name(request, "user")} if request.get("user") is not None else {}
        return {"do": do, **user, **by}
    if not isinstance(do, str) or do not in _ABOUT_ONE:
        raise OutsideError(f"the request is unknown: {outside.text(do, most=40)}")
    if not isinstance(id_, str) or not ID_PATTERN.fullmatch(id_):
        raise OutsideError(f"there is no uploaded file {outside.text(id_, most=100)}")
    if not isinstance(anyway, bool):
        raise OutsideError("anyway is neither true nor false")
    if do in _ABOUT_PROJECTS:
        return {"do": do, "id": id_, "project": _name(request, "project"), **by}
    return {"do": do, "id": id_, "anyway": anyway, **by}


def _name(request: dict[str, Any], key: str) -> str:
    found = request.get(key)
    if not isinstance(found, str) or not 0 < len(found) <= _LONGEST_NAME or not found.isprintable():
        raise OutsideError(f"{key} is not a name: {outside.text(found, most=100)}")
    return found


def ask(spool: Spool, request: dict[str, Any], *, now: Callable[[], datetime]) -> dict[str, Any]:
    """Let the daemon do it, or do it here if none runs.

    Raises
    ------
    RootError
        It is refused, with the reason; or the daemon does not answer.
    """
    try:
        with spool.lock():
            index = Index(spool)
            try:
                index.reconcile()
                answer = perform(spool, index, request, now=now())
                index.look([request["id"]] if "id" in request else [])
                if request["do"] == "reindex":
                    index.reconcile(from_scratch=True)
                    answer = {"said": "done"}
            finally:
                index.close()
            if index.fault is not None and request["do"] == "remove" and "error" not in answer:
                _note_removal(spool, str(request["id"]))
    except RootError:
        answer = by_daemon(spool, request)
    if "error" in answer:
        raise RootError(str(answer["error"]))
    return answer


def _note_removal(spool: Spool, id_: str) -> None:
    """Let an index that could not be opened before, on a full disk, know that nothing vanished: now there is room."""
    index = Index(spool)
    try:
        index.expect_removal(id_)
        # If it had to be made again, this takes over what the old one knew, the removed one with it.
        index.reconcile()
        index.forget(id_)
    finally:
        index.close()


def by_daemon(
    spool: Spool, request: dict[str, Any], *, patience_s: float = _PATIENCE_S
) -> dict[str, Any]:
    """Leave `request` for the daemon and wait for its answer, which may be ``{"error": …}``.

    Raises
    ------
    RootError
        It does not answer in `patience_s`.
    """
    token = secrets.token_hex(8)
    asked = spool.requests / f"{token}.json"
    try:
        durable.replace_file(asked, json.dumps(request))
    except OSError as error:
        raise RootError(f"{spool.requests}: {error.strerror}; nothing was done") from error
    answered = spool.requests / f"{token}.answer"
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with suppress(FileNotFoundError):
            try:
                found = outside.read_json(answered)
            except OutsideError as error:
                raise RootError(f"the daemon's answer cannot be read: {error}") from error
            answered.unlink()
            return found
        time.sleep(_LOOK_EVERY_S)
    with suppress(FileNotFoundError):
        asked.unlink()
        raise RootError("the daemon did not answer; nothing was done")
    raise RootError("the daemon took the request and has not answered yet: see `cytowatch status`")


def answer_all(spool: Spool, index: Index, *, now: datetime) -> Iterator[Answered]:
    """Perform every request that lies there; gives each with its answer.

    What is not a request is refused (see `notes.refuse`); one that goes wrong otherwise is set aside.
    """
    names = sorted(name for name in os.listdir(spool.requests) if name.endswith(".json"))
    aside.keep_only("request", os.listdir(spool.requests))
    for name in names:
        if not aside.may_try("request", name):
            continue
        done: Answered | None = None
        with aside.fence("request", name):
            done = _answered(spool, index, spool.requests / name, now)
        if done is not None:
            yield done


def _answered(spool: Spool, index: Index, path: Path, now: datetime) -> Answered | None:
    before: Status | None = None
    request: dict[str, Any] = {}
    try:
        request = checked(outside.read_json(path))
    except FileNotFoundError:
        # The command waits no longer.
        return None
    except OutsideError as error:
        said = f"the request was refused and lies in {notes.refuse(spool, path)}: {error}"
        answer = {"error": outside.text(said, most=_LONGEST_SAID)}
    else:
        if "id" in request:
            before = ended.status_of(spool, UploadedFileId(request["id"]))
        answer = perform(spool, index, request, now=now)
        # Gone before it is answered: a crash between the two leaves it undone or done, never twice.
        path.unlink(missing_ok=True)
    durable.replace_file(path.with_suffix(".answer"), json.dumps(answer))
    return Answered(name=path.name, request=request, answer=answer, before=before)


def sweep(spool: Spool, *, now_s: float) -> None:
    """Remove what commands have left that were killed: answers that were never fetched, and files half-written.

    `now_s` is the time of the clock that files have.
    """
    for entry in os.scandir(spool.requests):
        if not _LEFT.fullmatch(entry.name):
            continue
        with (
            aside.fence("request", entry.name, but=(FileNotFoundError,)),
            suppress(FileNotFoundError),
        ):
            age_s = now_s - entry.stat(follow_symlinks=False).st_mtime
            # One from the future was written before the clock was set back.
            if abs(age_s) > _LEFT_AFTER_S:
                spool.discard(Path(entry.path))
