"""Whether a name and a password open the lab's own share: anyone who can write there can log in here.

Source: MS-SMB2 2.2.6, SESSION_FLAG_IS_GUEST; docs/smb.md
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from enum import Enum

import smbprotocol.exceptions as refusals
from smbprotocol.connection import Connection
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect
from spnego.exceptions import SpnegoError

__all__ = ["Tried", "try_password"]

_PATIENCE_S = 8
_PORT = 445


class Tried(Enum):
    """What came of a try; each value is the word in the log."""

    GOOD = "good"
    WRONG = "wrong"
    UNREACHABLE = "unreachable"


def _server(value: str) -> tuple[str, int, str]:
    """Host, port and share of `panel.smb_server`.

    >>> _server("files.lab"), _server("127.0.0.1:1445/inbox")
    (('files.lab', 445, ''), ('127.0.0.1', 1445, 'inbox'))
    """
    address, _, share = value.partition("/")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        return address.strip("[]"), _PORT, share
    return host.strip("[]"), int(port), share


def try_password(server: str, user: str, password: str) -> tuple[Tried, str]:
    """Try `user` and `password` at `server`; gives what came of it, and the server's words.

    A server that maps bad names to its guest says that they are good, so a guest is a wrong password:
    the session must be signed with a key that only the right password gives.
    """
    host, port, share = _server(server)
    connection = Connection(uuid.uuid4(), host, port, require_signing=True)
    try:
        connection.connect(timeout=_PATIENCE_S)
    except Exception as error:  # noqa: BLE001 - no matter what another server says, it is not reached
        _close(connection)
        return Tried.UNREACHABLE, f"{type(error).__name__}: {error}"
    try:
        session = Session(connection, username=user, password=password, require_encryption=False)
        session.connect()
        if share:
            TreeConnect(session, rf"\\{host}\{share}").connect()
    except (refusals.SMBAuthenticationError, refusals.AccessDenied, refusals.LogonFailure) as error:
        return Tried.WRONG, str(error)
    except (refusals.SMBResponseException, SpnegoError) as error:
        # No such user, a locked or expired account, a share that this user may not open.
        return Tried.WRONG, str(error)
    except (refusals.SMBException, OSError, ValueError) as error:
        return Tried.UNREACHABLE, str(error)
    finally:
        _close(connection)
    return Tried.GOOD, ""


def _close(connection: Connection) -> None:
    with suppress(Exception):
        connection.disconnect(close=True, timeout=1)
