"""The zygote: a small process that has the decoders loaded and forks one decoder process per uploaded file.

It has one thread and never runs an image operation, because processes forked after one hung. It is
started by the daemon's main thread as ``python -m cytowatch.decoder.zygote DESCRIPTOR MODULE`` and
takes three requests: ``fork``, ``reap``, and ``bury``, which has no answer. The module has the table ``STAGES``, or its
own ``serve`` for processes that do something other than stages.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cytowatch import outside
from cytowatch.config import Config, from_mapping
from cytowatch.decoder import sandbox, seccomp, stagehand

__all__ = ["main", "start_time"]

#: The work of a decoder process: it answers at a socket, may write below a name, and has the configuration.
Serve = Callable[[socket.socket, str, Config], None]

_LARGEST_REQUEST = 1 << 16
#: The number of checks for the end of a killed process before the daemon has to ask again.
_ROUNDS = 200
_ROUND_S = 0.001
#: How often buried processes are checked, while there are any.
_LOOK_AT_DYING_S = 0.05
_LONGEST_REASON = 300
#: imagecodecs loads a codec at its first use, which would otherwise happen again in every decoder process.
#: The last one keeps libvips' own messages from ending any of them.
_PRELOADED = (
    "numpy", "pyvips", "tifffile", "openslide", "imagecodecs._jpeg8", "PIL.Image", "cytowatch.pyramid.complaints",
)  # fmt: skip


def start_time(pid: int) -> int:
    """When `pid` was started, in clock ticks since boot: together, the two identify a process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


#: The processes that were forked and not reaped yet; no other process is ever killed.
_forked: set[int] = set()
#: Killed processes whose end nobody waits for.
_dying: set[int] = set()
#: Killed processes whose end somebody asks for; with their wait status once they have ended.
_ending: dict[int, int | None] = {}


def _started(pid: int) -> int:
    """`start_time`, or 0 where ``/proc`` is hidden from the one who forked it."""
    try:
        return start_time(pid)
    except OSError:
        return 0


def main(descriptor: int, module: str) -> None:
    """Serve requests until the daemon closes its end."""
    sandbox.die_with_parent(int(os.environ.pop("CYTOWATCH_PARENT")))
    # A process that a decoder started, where no filter forbids it, is passed to us when the decoder ends.
    sandbox.adopt_orphans()
    requests = socket.socket(fileno=descriptor)
    try:
        for name in _PRELOADED:
            importlib.import_module(name)
        serve = _served_by(module)
        seccomp.prepare()
    except Exception as error:
        # So that the daemon, which waits for it, learns why it does not start.
        said = outside.text(f"{type(error).__name__}: {error}", most=_LONGEST_REASON)
        requests.send(json.dumps({"failed": said}).encode())
        raise
    # Loaded objects stay: a garbage collection in a forked process would touch, and so copy, all their pages.
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threads = len(os.listdir("/proc/self/task"))
    requests.send(json.dumps({"ready": os.getpid(), "threads": threads}).encode())
    while True:
        while _dying and not select.select([requests], [], [], _LOOK_AT_DYING_S)[0]:
            _collect()
        message, descriptors, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 1)
        if not message:
            return
        request = json.loads(message)
        try:
            if "fork" in request:
                answer = _fork(request, descriptors[0], requests, serve)
            elif "bury" in request:
                _bury(request["bury"])
                answer = None
            else:
                answer = _reap(request["reap"])
        except OSError as error:
            answer = {"error": f"{error.strerror or error}"}
        finally:
            for received in descriptors:
                os.close(received)
        if answer is not None:
            requests.send(json.dumps(answer).encode())
        _collect()


def _served_by(module: str) -> Serve:
    """What the children do: `serve` of the module, or the stages in its table."""
    found = importlib.import_module(module)
    own: Serve | None = getattr(found, "serve", None)
    return own or functools.partial(stagehand.serve, stages=found.STAGES)


def _fork(
    request: dict[str, Any], channel: int, requests: socket.socket, serve: Serve
) -> dict[str, Any]:
    zygote = os.getpid()
    config = _configuration(request["config"])
    pid = os.fork()
    if pid:
        _forked.add(pid)
        return {"pid": pid, "start_time": _started(pid)}
    status = 70
    try:
        requests.detach()
        os.dup2(channel, 3)
        os.closerange(4, 1024)
        os.chdir(request["fork"])
        nice = request["nice"]
        sandboxed = sandbox.enter(config, request["out"], parent=zygote, nice=nice)
        if config.sandbox.require and not sandboxed:
            os._exit(71)
        serve(socket.socket(fileno=3), request["out"], config)
        status = 0
    finally:
        os._exit(status)


@functools.lru_cache(maxsize=1)
def _configuration(text: str) -> Config:
    """The configuration in `text`, which is the same for one decoder after another."""
    return from_mapping(json.loads(text))


def _reap(pid: int) -> dict[str, Any]:
    """Its wait status; nothing while it, or anything that it started, is not gone: then the daemon asks again.

    Nothing here waits long for a process. One that is killed in the middle of an fsync lives as long as
    that takes, and other decoders must be forked meanwhile.
    """
    if _kill(pid):
        _ending[pid] = None
    if pid not in _ending:
        return {"error": f"{pid} was not forked by this process"}
    if _ending[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return {}
        _ending[pid] = status
    if not _end_orphans():
        return {}
    return {"status": _ending.pop(pid)}


def _collect() -> None:
    """Reap the buried processes that have ended, with everything that they started."""
    gone = [pid for pid in _dying if os.waitpid(pid, os.WNOHANG)[0]]
    _dying.difference_update(gone)
    if gone:
        _end_orphans()


def _end_orphans() -> bool:
    """End every process that the kernel passed to us: a decoder that has ended had started it.

    Even one that keeps forking is ended: each round kills everything that was there when it began. Returns
    whether all are gone.
    """
    for _ in range(_ROUNDS):
        strangers = _ours() - _forked - _dying - _ending.keys()
        if not strangers:
            return True
        for pid in strangers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended = 0
        for pid in strangers:
            with suppress(ChildProcessError):
                ended += os.waitpid(pid, os.WNOHANG)[0] != 0
        if not ended:
            time.sleep(_ROUND_S)
    return False


def _ours() -> set[int]:
    """The processes whose parent is this one. Source: proc(5), ``/proc/[pid]/task/[tid]/children``."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return {int(one) for one in file.read().split()}
    except OSError:
        # If /proc is hidden, only the filter of system calls keeps a decoder from starting any.
        return set()


def _bury(pid: int) -> None:
    if _kill(pid):
        _dying.add(pid)


def _kill(pid: int) -> bool:
    if pid not in _forked:
        return False
    _forked.discard(pid)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    # Before it has made its own group, the group's kill finds nobody.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
