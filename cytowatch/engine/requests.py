"""What a command asks of the daemon: a file in ``state/requests/``, answered by another one.

Where no daemon runs the command holds its lock and does it itself.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from cytowatch.engine import after
from cytowatch.errors import CytowatchError, RootError
from cytowatch.index import Index
from cytowatch.names import UploadedFileId
from cytowatch.spool import Spool
from cytowatch.status import Status

__all__ = ["answer_all", "ask", "perform"]

_PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.05


def perform(
    spool: Spool, index: Index, request: dict[str, Any], *, now: datetime
) -> dict[str, Any]:
    """Do what is asked: ``{"said": …}``, or ``{"error": …}`` with the reason for a person."""
    try:
        id_ = UploadedFileId(str(request.get("id", "")))
        match request.get("do"):
            case "retry":
                return {"said": after.retry(spool, id_, now=now)}
            case "return":
                return {"said": after.hand_back(spool, id_)}
            case "remove":
                after.remove(spool, id_, index, even_linked=bool(request.get("anyway")))
                return {"said": "removed"}
            case "reindex":
                # A daemon does it beside all else, once this is answered.
                return {"said": "begun"}
            case other:
                return {"error": f"nobody knows what {other!r} is"}
    except CytowatchError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"{error.strerror or error}: {error.filename or ''}"}


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
                    index.reconcile(anew=True)
                    answer = {"said": "done"}
            finally:
                index.close()
    except RootError:
        answer = _by_daemon(spool, request)
    if "error" in answer:
        raise RootError(answer["error"])
    return answer


def _by_daemon(spool: Spool, request: dict[str, Any]) -> dict[str, Any]:
    token = secrets.token_hex(8)
    temporary = spool.requests / f".{token}"
    temporary.write_text(json.dumps(request))
    asked = spool.requests / f"{token}.json"
    temporary.rename(asked)
    answered = spool.requests / f"{token}.answer"
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(answered.read_text())
            answered.unlink()
            return found
        time.sleep(_LOOK_EVERY_S)
    with suppress(FileNotFoundError):
        asked.unlink()
        raise RootError("the daemon did not answer; nothing was done")
    raise RootError("the daemon took the request and has not answered yet: see `cytowatch status`")


def answer_all(
    spool: Spool, index: Index, *, now: datetime
) -> Iterator[tuple[dict[str, Any], dict[str, Any], Status | None]]:
    """Perform every request that lies there; gives each, its answer, and the status before."""
    for name in sorted(os.listdir(spool.requests)):
        if not name.endswith(".json"):
            continue
        path = spool.requests / name
        try:
            request = json.loads(path.read_text())
            if not isinstance(request, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            request, answer = {}, {"error": f"the request cannot be read: {error}"}
            before = None
        else:
            before = after.status_of(spool, UploadedFileId(str(request.get("id", ""))))
            answer = perform(spool, index, request, now=now)
        # Gone before it is answered: a crash between the two leaves it undone or done, never twice.
        path.unlink(missing_ok=True)
        temporary = path.with_suffix(".partial")
        temporary.write_text(json.dumps(answer))
        temporary.rename(path.with_suffix(".answer"))
        yield request, answer, before
