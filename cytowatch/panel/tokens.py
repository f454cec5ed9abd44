"""Tokens for machines: ``state/tokens.json``, which holds hashes and never a token."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cytowatch import durable, outside
from cytowatch.outside import OutsideError
from cytowatch.record.errors import RootError
from cytowatch.record.manifest import utc
from cytowatch.tree.spool import Spool

__all__ = ["Token", "add", "is_ours", "listed", "revoke", "user_of"]

_FILE = "tokens.json"
_BEGINNING = "cyt_"
_MOST = 10_000
#: So many of them, with long names.
_MOST_BYTES = 16 << 20
#: The last use is written down once in so many seconds.
_USED_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token: its name and user, when it was made, ends and was last used, in ISO 8601."""

    name: str
    user: str
    sha256: str
    made_at: str
    ends_at: str | None = None
    used_at: str | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is still good at `now`."""
        return self.ends_at is None or now < datetime.fromisoformat(self.ends_at)


def is_ours(secret: str) -> bool:
    """Whether `secret` looks like one of our own; other bearers belong to a proxy."""
    return secret.startswith(_BEGINNING)


def _hash(secret: str) -> str:
    # A token has 256 random bits: no dictionary leads to it, so a slow hash would protect nothing.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def listed(spool: Spool) -> list[Token]:
    """Every token.

    Raises
    ------
    RootError
        The file cannot be read.
    """
    try:
        found = outside.read_json(spool.state / _FILE, most_bytes=_MOST_BYTES)
        return [_token(row) for row in found["tokens"]]
    except FileNotFoundError:
        return []
    except (OSError, OutsideError, KeyError, TypeError, ValueError) as error:
        said = f"{spool.state / _FILE} cannot be read: remove it, and make new tokens ({error})"
        raise RootError(said) from error


def _token(row: Any) -> Token:
    token = Token(**row)
    texts = (token.name, token.user, token.sha256, token.made_at)
    ends = (token.ends_at, token.used_at)
    if not all(isinstance(one, str) for one in (*texts, *(end for end in ends if end is not None))):
        raise ValueError("a token holds something else than texts")
    for moment in (token.made_at, *(end for end in ends if end is not None)):
        if datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError("a token holds a time that is not in UTC")
    return token


@contextmanager
def _changed(spool: Spool) -> Iterator[list[Token]]:
    """The tokens, to be changed; they are written when the block ends."""
    with durable.locked(spool.state):
        tokens = listed(spool)
        yield tokens
        _write(spool, tokens)


def _write(spool: Spool, tokens: list[Token]) -> None:
    text = json.dumps({"tokens": [asdict(one) for one in tokens]}, indent=1)
    durable.replace_durably(spool.state / _FILE, text, name=True, mode=0o600)


def add(spool: Spool, name: str, user: str, *, days: float | None, now: datetime) -> str:
    """Make a token for `user`; gives it, and keeps its hash.

    Raises
    ------
    RootError
        Another one is called so, or there are too many.
    """
    secret = _BEGINNING + secrets.token_urlsafe(32)
    ends_at = utc(now + timedelta(days=days)) if days is not None else None
    with _changed(spool) as tokens:
        if any(one.name == name for one in tokens):
            raise RootError(
                f"a token is called {name!r} already: revoke it first, or take another name"
            )
        if len(tokens) >= _MOST:
            raise RootError(f"there are {_MOST:,} tokens already: revoke some")
        tokens.append(
            Token(name=name, user=user, sha256=_hash(secret), made_at=utc(now), ends_at=ends_at)
        )
    return secret


def revoke(spool: Spool, name: str) -> Token:
    """Let the token `name` open nothing from now on.

    Raises
    ------
    RootError
        No token has that name.
    """
    with _changed(spool) as tokens:
        found = next((one for one in tokens if one.name == name), None)
        if found is None:
            raise RootError(f"there is no token {name!r}: `cytowatch token list` shows them")
        tokens.remove(found)
    return found


_noting = threading.Lock()
#: The tokens of a tree by their hashes, and which file they were read from.
_known: dict[Path, tuple[tuple[int, ...], dict[str, Token]]] = {}


def _by_hash(spool: Spool) -> dict[str, Token]:
    """Every token by its hash; the file is read again when it is another one. Raises as `listed`."""
    path = spool.state / _FILE
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return {}
    # Each change is another file: it is replaced, and never written to.
    which = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    held = _known.get(path)
    if held is None or held[0] != which:
        held = _known[path] = (which, {one.sha256: one for one in listed(spool)})
    return held[1]


def user_of(spool: Spool, secret: str) -> str | None:
    """Whose token `secret` is; None if it is unknown, revoked or expired.

    The file is looked at each time, so that a revoked token is refused at once.
    """
    now = datetime.now(UTC)
    wanted = _hash(secret)
    try:
        found = _by_hash(spool).get(wanted)
    except (OSError, RootError):
        return None
    if found is None or not found.holds(now):
        return None
    _note_use(spool, found, now)
    return found.user


def _note_use(spool: Spool, token: Token, now: datetime) -> None:
    last = token.used_at
    if last is not None and (now - datetime.fromisoformat(last)).total_seconds() < _USED_EVERY_S:
        return
    # A tree that is read-only keeps no last use.
    with _noting, suppress(OSError, RootError), _changed(spool) as tokens:
        for number, one in enumerate(tokens):
            if one.sha256 == token.sha256:
                tokens[number] = replace(one, used_at=utc(now))
