"""Log-ins: a signed cookie for twelve hours, and patience with those who guess."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from itsdangerous import BadData, TimestampSigner

from cytowatch import durable, outside
from cytowatch.panel.who import is_name
from cytowatch.record import names
from cytowatch.tree.spool import Spool

__all__ = ["COOKIE", "LASTS_S", "Sessions", "Slowed"]

COOKIE = "cytowatch_panel"
LASTS_S = 12 * 3600
_KEY_BYTES = 32
_TRIES = 5
#: After five wrong tries the next one is answered after so long, twice as long each time.
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 600.0
_MOST_KNOWN = 20_000


class Sessions:
    """Guards the key that signs cookies.

    It lies in ``state/panel.key`` so that a restart logs nobody out; where nothing can be written
    there it lasts as long as the process.
    """

    def __init__(self, spool: Spool) -> None:
        self._signer = TimestampSigner(
            _key(spool.state / "panel.key"), salt="cytowatch.panel", digest_method=hashlib.sha256
        )

    def cookie_for(self, user: str) -> str:
        """The value of a cookie that says: this is `user`."""
        return self._signer.sign(user.encode().hex()).decode()

    def user_of(self, header: str) -> str | None:
        """Whose cookie is among those of a Cookie header, if it is ours and not too old."""
        if COOKIE not in header:
            return None
        try:
            value = SimpleCookie(header[:8192])[COOKIE].value
            said = self._signer.unsign(value, max_age=LASTS_S)
            user = bytes.fromhex(said.decode()).decode()
        except (CookieError, KeyError, BadData, ValueError):
            return None
        return user if is_name(user) else None


def _key(path: Path) -> bytes:
    key = secrets.token_bytes(_KEY_BYTES)
    # Of two panels that start together the second one takes the key of the first.
    with suppress(OSError), durable.locked(path.parent):
        known = _known(path)
        if known is not None:
            return known
        durable.replace_durably(path, key, name=False, mode=0o600)
    return key


def _known(path: Path) -> bytes | None:
    with suppress(OSError, ValueError):
        found = outside.read_file(path, most_bytes=1000)
        return found if len(found) == _KEY_BYTES else None
    return None


class Slowed:
    """Guards how often a name, or an address, may try a password.

    The pause holds before the server is asked, so a guesser cannot lock a person out of the share.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        #: Wrong tries, and when the next one is answered.
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()
        #: How many tries are with the server now.
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def trying(self, name: str, address: str) -> Iterator[bool]:
        """Whether a try may be made now: one of a name at a time, and few of an address.

        Those that are with the server at the same time are not known to be wrong, so each would be free.
        """
        whom = (names.fold(name), names.fold(address))
        with self._lock:
            free = not self._under_way[whom[0]] and self._under_way[whom[1]] < _TRIES
            if free:
                self._under_way.update(whom)
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self._under_way.subtract(whom)
                    self._under_way += Counter()

    def wait_s(self, *whom: str) -> float:
        """Seconds until a try of all of `whom` is answered; 0 for at once."""
        with self._lock:
            ends = [self._known[one][1] for one in map(names.fold, whom) if one in self._known]
        return max(0.0, max(ends, default=0.0) - self._now())

    def failed(self, *whom: str) -> None:
        """A password of `whom` was wrong."""
        with self._lock:
            for one in map(names.fold, whom):
                count = self._known.pop(one, (0, 0.0))[0] + 1
                over = count - _TRIES
                pause = (
                    min(_FIRST_PAUSE_S * 2.0 ** min(over, 20), _LONGEST_PAUSE_S) if over >= 0 else 0
                )
                self._known[one] = (count, self._now() + pause)
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def succeeded(self, *whom: str) -> None:
        """A password of `whom` was right."""
        with self._lock:
            for one in map(names.fold, whom):
                self._known.pop(one, None)
