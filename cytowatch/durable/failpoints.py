"""Named places where a test can kill the daemon or make a call fail; they do nothing in production.

``CYTOWATCH_FAILPOINTS="claim.renamed=kill@2,manifest.written=EIO"`` arms them when the process
starts: the second time that ``claim.renamed`` is reached the process kills itself, as a power cut
would, and the first time that ``manifest.written`` is reached the call seems to fail with EIO.

``CYTOWATCH_POISON="drop:bad.svs=ValueError@/tmp/poison"`` poisons one thing of many: where something
whose name contains ``bad.svs`` enters a loop as a *drop* (see `cytowatch.aside`), a ValueError is raised
as long as the file ``/tmp/poison`` is there. In place of *drop* one loop may be named by its function:
``cytowatch.inbox.intake.Intake._take_up``.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from types import FrameType

__all__ = ["NAMES", "POISON", "POISONS", "UPLOADS", "VARIABLE", "poisoned", "reached"]

VARIABLE = "CYTOWATCH_FAILPOINTS"
POISON = "CYTOWATCH_POISON"

#: The errors that can be raised where one thing enters a loop over many.
POISONS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        OverflowError,
        UnicodeError,
        MemoryError,
        AssertionError,
        OSError,
    )
}

#: Every place, in the order in which an uploaded file meets it.
NAMES = (
    "claim.prepared",  # <id>/ is in state/tmp with its journal, no file has moved
    "claim.renamed",  # one more file of the drop has moved
    "claim.durable",  # all files have moved, and are on disk
    "claim.unjournaled",  # the journal is gone, the claim is still in state/tmp
    "manifest.synced",  # the new manifest lies beside the old one
    "manifest.renamed",  # it has replaced the old one, the directory is not synced
    "stage.renamed",  # <id>/ has a new status, no directory is synced
    "attempt.counted",  # the attempt is on disk and has not begun
    "output.synced",  # the output of a stage is on disk and not accepted
    "output.accepted",  # the output is "derived", the manifest does not say so yet
    "source.named",  # the source has the extension of its format, the manifest does not say so yet
    "children.announced",  # the manifest of an archive names its members, none is handed out
    "child.published",  # one more member is handed out
    "folder.entered",  # the uploaded file of a dropped folder is made
    "hook.noted",  # a delivery is on disk, what it reports has not happened yet
    "project.linked",  # a project links to something that is not in storage yet
    "duplicate.linked",  # one directory of a duplicate is a link
    "source.given_up",  # the manifest no longer names a source that is to go
    "trash.renamed",  # something of our own is in the trash and not deleted
)
#: Every place on the way of an upload in the panel, in its order.
UPLOADS = (
    "upload.noted",  # the note of an upload has its name, its folder is not synced
    "upload.written",  # the bytes of a request are written and not synced
    "upload.kept",  # they are on disk, and no client knows it yet
    "upload.compared",  # the last byte is here and the hash is right
    "upload.whole",  # one file is marked as whole
    "upload.renamed",  # the drop has its name, the inbox is not synced
    "upload.durable",  # it is on disk, the record of the upload does not say so yet
)


def _armed(text: str) -> dict[str, tuple[str, int]]:
    found = {}
    for part in filter(None, text.split(",")):
        name, _, what = part.partition("=")
        action, _, count = what.partition("@")
        if name not in (*NAMES, *UPLOADS):
            raise ValueError(f"{VARIABLE}: there is no failpoint {name!r}")
        found[name] = (action, int(count or 1))
    return found


def _poisons(text: str) -> list[tuple[str, str, str, str]]:
    found = []
    for part in filter(None, text.split(",")):
        head, _, cause = part.partition("@")
        place, _, kind = head.rpartition("=")
        where, _, which = place.partition(":")
        if kind not in POISONS:
            raise ValueError(f"{POISON}: there is no poison {kind!r}")
        found.append((where, which, kind, cause))
    return found


_POISONED = _poisons(os.environ.get(POISON, ""))
_ARMED = _armed(os.environ.get(VARIABLE, ""))
_lock = threading.Lock()
_seen: dict[str, int] = {}


def reached(name: str) -> None:
    """Say that the place `name` is reached.

    Raises
    ------
    OSError
        A test has asked for it.
    """
    if name not in _ARMED:
        return
    action, count = _ARMED[name]
    with _lock:
        _seen[name] = _seen.get(name, 0) + 1
        if _seen[name] != count:
            return
    os.write(2, f"failpoint {name}\n".encode())
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    code = getattr(errno, action)
    raise OSError(code, os.strerror(code))


def poisoned(where: str, which: str, *, depth: int = 3) -> None:
    """Say that `which` enters the loop named `where`, in the function `depth` calls above.

    If a test has asked for it, the next line of that function raises one of `POISONS`: the first line
    inside of its `with`, as if the work itself had failed.
    """
    if not _POISONED:
        return
    frame = sys._getframe(depth)
    here = (where, f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")
    for place, part, kind, cause in _POISONED:
        if place in here and part in which and (not cause or os.path.exists(cause)):

            def fail(_frame: FrameType, event: str, _: object, kind: str = kind) -> None:
                if event == "line":
                    # Python ends the tracing itself when a trace function raises.
                    _raise(kind, where)

            frame.f_trace = fail
            sys.settrace(lambda *_: None)
            return


def _raise(kind: str, where: str) -> None:
    if kind == "UnicodeError":
        "\udce4".encode()
    raise POISONS[kind](f"poisoned {where}")
