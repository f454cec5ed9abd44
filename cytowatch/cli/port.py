"""Who listens at the address of the metrics: nobody, the daemon of this tree, or another program."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
from dataclasses import dataclass

__all__ = ["SILENT", "Answer", "answer", "look"]

#: How long the daemon may take to answer.
_ANSWER_S = 3.0
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a daemon says in ``/healthz``: its process, its tree, and what is wrong, by a word for each."""

    pid: int
    root: str
    reasons: dict[str, str]

    def is_of(self, root: str) -> bool:
        """Whether it is the daemon of the tree at `root`."""
        return self.root != "" and os.path.realpath(self.root) == os.path.realpath(root)


#: Somebody listens, and says nothing in time.
SILENT = Answer(-1, "", {})


def answer(listen: str) -> Answer | None:
    """What the daemon that listens at ``ADDRESS:PORT`` says; `SILENT` if it hangs, None if it is none."""
    if not listen:
        return None
    address, _, number = listen.rpartition(":")
    address = address.strip("[]")
    return _answer_at(_ANYWHERE.get(address, address), int(number))


def look(listen: str, pid: int | None, found: Answer | None) -> tuple[bool | None, str]:
    """Whether ``ADDRESS:PORT`` is as it should be, in words; `pid` is the daemon's, if it runs; `found` answers there.

    None where it is neither right nor wrong.
    """
    address, _, number = listen.rpartition(":")
    address, at = address.strip("[]"), int(number)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, at))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return False, f"{listen} cannot be used: {error.strerror or error}"
        if found is SILENT and pid is not None:
            return (
                False,
                f"nobody answers on {listen} in time: the daemon (process {pid}) hangs, or another program listens there",
            )
        return _taken(listen, pid, found.pid if found and found is not SILENT else None)
    except (OverflowError, ValueError) as error:
        return False, f"{listen} cannot be used: {error}"
    if pid is None:
        return True, f"{listen} is free"
    said = f"the daemon (process {pid}) does not listen on {listen}: was metrics.listen changed since it started?"
    return None, said


def _taken(listen: str, pid: int | None, answers: int | None) -> tuple[bool | None, str]:
    if pid is not None and answers == pid:
        return True, f"the daemon (process {pid}) answers on {listen}"
    who = f"another cytowatch (process {answers})" if answers is not None else "another program"
    if pid is None:
        return None, f"{listen} is taken by {who}: a start would wait until it is free"
    return (
        False,
        f"{listen} is taken by {who}, not by the daemon (process {pid}): change metrics.listen",
    )


def _answer_at(host: str, at: int) -> Answer | None:
    connection = http.client.HTTPConnection(host, at, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/healthz")
        found = json.loads(connection.getresponse().read(1 << 20))
        pid, root, reasons = found["pid"], found.get("root", ""), found.get("reasons", {})
        told = {str(word): str(why) for word, why in reasons.items()}
    except TimeoutError:
        return SILENT
    except (
        OSError,
        http.client.HTTPException,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return None
    finally:
        connection.close()
    return Answer(pid, str(root), told) if type(pid) is int else None
