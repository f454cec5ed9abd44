"""Making deliveries: running a command with the manifest on its standard input, or POSTing a CloudEvent.

Each hook has its own thread, so a slow hook never holds up another one, nor a slide.

Source: cloudevents.io, version 1.0; standardwebhooks.com
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cytowatch import aside, outside, threads
from cytowatch.config.keys import Hook
from cytowatch.hooks.pending import Pending, bury, pending, place_of, save
from cytowatch.record.entries import Manifest
from cytowatch.record.skipped import losses
from cytowatch.tree.spool import Spool

__all__ = ["Courier", "DeliveryError", "event", "headers"]

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 600.0
_LOOK_EVERY_S = 0.5
_MOST_OUTPUT_BYTES = 4096
_MOST_SECRET_BYTES = 4096


class DeliveryError(Exception):
    """A delivery did not arrive; the message says why in a few words."""


def event(one: Pending, found: Manifest) -> bytes:
    """The manifest as a CloudEvent, in JSON."""
    status = one.status.lower().replace("_", "-")
    return json.dumps(
        {
            "specversion": "1.0",
            "id": one.key,
            "source": "/cytowatch",
            "type": f"cytowatch.uploaded-file.{status}",
            "time": found["history"][-1]["at"],
            "subject": one.id,
            "datacontenttype": "application/json",
            # An extension attribute: how many members of an archive could not be unpacked.
            "lost": losses(found),
            "data": found,
        }
    ).encode()


def headers(one: Pending, body: bytes, secret: bytes | None, *, now_s: int) -> dict[str, str]:
    """The headers of a delivery, signed if there is a secret.

    Source: the Standard Webhooks specification, "Verifying signatures": HMAC-SHA256 over
    ``id.timestamp.body``.
    """
    found = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": "cytowatch",
        "webhook-id": one.key,
        "webhook-timestamp": str(now_s),
    }
    if secret is not None:
        signed = b".".join((one.key.encode(), str(now_s).encode(), body))
        digest = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
        found["webhook-signature"] = f"v1,{digest}"
    return found


def _secret(hook: Hook) -> bytes | None:
    if not hook.secret_file:
        return None
    try:
        said = outside.read_file(hook.secret_file, most_bytes=_MOST_SECRET_BYTES, follow=True)
        return base64.b64decode(said.strip().removeprefix(b"whsec_"), validate=True)
    except (OSError, ValueError) as error:
        raise DeliveryError(f"its secret_file cannot be used: {error}") from error


def _post(hook: Hook, one: Pending, found: Manifest) -> str:
    body = event(one, found)
    sent = headers(one, body, _secret(hook), now_s=int(time.time()))
    where = urlsplit(hook.url)
    try:
        # Proxies of the environment and redirects are ignored: a hook goes to the URL that it states.
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                where.hostname or "", where.port, timeout=hook.timeout_s,
                context=ssl.create_default_context(),
            )
            if where.scheme == "https"
            else http.client.HTTPConnection(where.hostname or "", where.port, timeout=hook.timeout_s)
        )  # fmt: skip
        try:
            path = where.path or "/"
            connection.request("POST", f"{path}?{where.query}" if where.query else path, body, sent)
            answer = connection.getresponse()
            answer.read(_MOST_OUTPUT_BYTES)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DeliveryError(f"{type(error).__name__}: {error}"[:200]) from error
    if not 200 <= answer.status < 300:
        raise DeliveryError(f"HTTP {answer.status}")
    return f"HTTP {answer.status}"


def _run(hook: Hook, one: Pending, path: Path, found: Manifest) -> str:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "CYTOWATCH_ID": one.id,
        "CYTOWATCH_STATUS": one.status,
        "CYTOWATCH_USER": one.user,
        "CYTOWATCH_PATH": os.fspath(path),
        "CYTOWATCH_LOST": str(losses(found)),
    }
    try:
        process = subprocess.Popen(
            hook.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise DeliveryError(f"{hook.command[0]}: {error.strerror}") from error
    except ValueError as error:
        # It contains a name that an environment cannot hold.
        raise DeliveryError(f"{hook.command[0]}: {error}"[:200]) from error
    try:
        said, _ = process.communicate(json.dumps(found).encode(), timeout=hook.timeout_s)
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"it took more than {hook.timeout_s:g} s and was ended") from None
    except OSError as error:
        raise DeliveryError(f"it closed its standard input: {error.strerror}") from error
    finally:
        # Anything that it started and left behind is ended with it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = said[-_MOST_OUTPUT_BYTES:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    if process.returncode != 0:
        raise DeliveryError(f"exit code {process.returncode}: {ascii(last)[1:-1]}"[:200])
    return "exit code 0"


class Courier:
    """Ensures that every pending delivery is tried until it arrives or is given up.

    Parameters
    ----------
    told
        Called, from any thread, with a delivery and ``delivered``, ``failed`` or ``dead``.
    """

    def __init__(
        self, spool: Spool, hooks: tuple[Hook, ...], told: Callable[[Pending, str], None]
    ) -> None:
        self._spool = spool
        self._hooks = hooks
        self._told = told
        self._stops: dict[Hook, threading.Event] = {}
        self._due: dict[str, float] = {}
        #: Deliveries whose change of status had not happened yet when they were looked at.
        self._early: set[str] = set()

    def start(self) -> None:
        """Start delivering."""
        for hook in self._hooks:
            stop = self._stops[hook] = threading.Event()
            threading.Thread(
                target=threads.forever,
                args=(f"hook {hook.name}", partial(self._serve, hook, stop), stop),
                name=f"hook-{hook.name}",
                daemon=True,
            ).start()  # fmt: skip

    def stop(self) -> None:
        """Start no further delivery; one that is under way is repeated at the next start."""
        for stop in self._stops.values():
            stop.set()
        self._stops.clear()

    def reconfigure(self, hooks: tuple[Hook, ...]) -> None:
        """Deliver by `hooks` from now on; deliveries of a hook that is gone wait until it is configured again."""
        if hooks != self._hooks:
            self.stop()
            self._hooks = hooks
            self.start()

    def idle(self) -> bool:
        """Whether nothing is left that could be delivered at once."""
        now = time.monotonic()
        names = {hook.name for hook in self._hooks}
        waiting = [one for one in pending(self._spool) if one.hook in names]
        return all(
            (self._due.get(one.file_name, now) > now or not aside.may_try("hook", one.file_name))
            # A delivery that was looked at a moment too early is postponed, not forgotten.
            and (one.file_name not in self._early or place_of(self._spool, one) is None)
            for one in waiting
        )

    def _serve(self, hook: Hook, stop: threading.Event) -> None:
        while not stop.wait(_LOOK_EVERY_S):
            with aside.fence("part", f"hook {hook.name}"):
                self._deliver(hook, stop)

    def _deliver(self, hook: Hook, stop: threading.Event) -> None:
        """Try all deliveries of `hook` that are due."""
        for one in pending(self._spool):
            if stop.is_set():
                return
            if one.hook == hook.name and self._is_due(one):
                with aside.fence("hook", one.file_name):
                    self._try(hook, one)

    def _is_due(self, one: Pending) -> bool:
        now = time.monotonic()
        return self._due.get(one.file_name, 0.0) <= now and aside.may_try("hook", one.file_name)

    def _try(self, hook: Hook, one: Pending) -> None:
        found = place_of(self._spool, one)
        if found is None:
            # It was noted a moment before the rename; or the file was removed since, and nothing need be delivered.
            self._due[one.file_name] = time.monotonic() + _FIRST_PAUSE_S
            self._early.add(one.file_name)
            if (
                datetime.now(UTC) - datetime.fromisoformat(one.noted_at)
            ).total_seconds() > _LONGEST_PAUSE_S:
                self._forget(one)
            return
        self._early.discard(one.file_name)
        try:
            said = _post(hook, one, found[1]) if hook.url else _run(hook, one, *found)
        except DeliveryError as error:
            tried = replace(one, tries=one.tries + 1, said=str(error))
            if tried.tries >= hook.max_attempts:
                bury(self._spool, tried)
                self._due.pop(one.file_name, None)
                self._told(tried, "dead")
                return
            save(self._spool, tried)
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**one.tries)
            self._due[one.file_name] = time.monotonic() + pause_s * random.uniform(0.8, 1.2)
            self._told(tried, "failed")
            return
        self._forget(one)
        self._told(replace(one, tries=one.tries + 1, said=said), "delivered")

    def _forget(self, one: Pending) -> None:
        (self._spool.state / "hooks" / one.file_name).unlink(missing_ok=True)
        self._due.pop(one.file_name, None)
        self._early.discard(one.file_name)
