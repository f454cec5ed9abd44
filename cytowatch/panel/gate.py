"""The gate: every request passes here first, and leaves here with its headers and its line in the log.

It decides which host is meant, who asks, and whether a change comes from a page of this panel. A
page behind it never sees a request that has no `person`.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cytowatch.observe import logs
from cytowatch.panel import tokens
from cytowatch.panel.context import Context
from cytowatch.panel.measures import Measures
from cytowatch.panel.refused import refused, why_unreachable
from cytowatch.panel.who import Person, Proof, is_name, person
from cytowatch.record.errors import RootError
from cytowatch.record.names import printable

__all__ = ["Gate", "Refusal", "host_of", "is_loopback", "is_trusted"]

#: Nothing from elsewhere, no script and no style in a page, no frame around it.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
#: These are answered without a login.
_OPEN = ("/static/", "/login", "/healthz", "/metrics")
#: A proxy adds one of these, so such a request does not come from this machine itself.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)
_UNEXPECTED = (
    "An unexpected error. Nothing was changed, and it is not your doing: try again, "
    "or tell your administrator, because the log of the panel names the error."
)
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Exception):
    """A request that reaches no page; `why` is shown to its sender."""

    code: int
    why: str


def is_loopback(scope: Scope) -> bool:
    """Whether a request comes from this machine itself, and not through a proxy on it."""
    headers = Headers(scope=scope)
    if any(name in headers for name in _FORWARDED):
        return False
    client = scope.get("client")
    return client is None or _is_in(client[0], ("127.0.0.0/8", "::1"))


def _is_in(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    return any(found in ipaddress.ip_network(one, strict=False) for one in networks)


def is_trusted(scope: Scope, trusted: tuple[str, ...]) -> bool:
    """Whether the other end of the connection may say who a user is."""
    client = scope.get("client")
    if client is None or not client[0]:
        return "unix" in trusted
    return _is_in(client[0], tuple(one for one in trusted if one != "unix"))


def host_of(value: str) -> str:
    """The name in a Host header, without its port; nothing if there can be no such name.

    >>> host_of("Panel.lab:9780"), host_of("[::1]:9780"), host_of("[::1"), host_of("a/b")
    ('panel.lab', '::1', '', '')
    """
    found = _HOST.fullmatch(value)
    return (found[1] or found[2]).lower().rstrip(".") if found else ""


def _in_utf8(value: str) -> str:
    """A header as proxies write it: Starlette reads each byte as a letter of Latin-1.

    >>> _in_utf8("ren\\xc3\\xa9"), _in_utf8("ren\\xe9"), _in_utf8("ann")
    ('ren\xe9', 'ren\xe9', 'ann')
    """
    with suppress(UnicodeDecodeError):
        return value.encode("latin-1").decode()
    return value


class Gate:
    """Guards that no page runs before host, person and origin are decided."""

    def __init__(self, app: ASGIApp, context: Context, measures: Measures) -> None:
        self._app = app
        self._context = context
        self._measures = measures
        self._log = logs.get()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = _Answer(send)
        scope.setdefault("state", {})
        self._place(scope)
        try:
            await self._pass(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - one request goes wrong, and no other
            await self._unexpected(scope, receive, answer, error)
        finally:
            self._tell(scope, answer, time.perf_counter() - began)

    def _place(self, scope: Scope) -> None:
        """Let the routes see the path below `base_path`, whether or not the proxy cuts that off."""
        base = self._context.panel.base_path
        if not base:
            return
        path = scope["path"]
        if not path.startswith(f"{base}/"):
            scope["path"] = f"{base}/" if path == base else f"{base}{path}"
        scope["root_path"] = base

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        inner = scope["path"].removeprefix(self._context.panel.base_path) or "/"
        try:
            self._check_host(scope)
            if scope["method"] == "OPTIONS" and inner.startswith("/iiif/"):
                # A browser asks this before it sends a token, and never says who asks.
                await self._app(scope, receive, answer)
                return
            # A token is looked for on the disk.
            has_token = "authorization" in Headers(scope=scope)
            is_open = inner.startswith(_OPEN)
            who = (
                await run_in_threadpool(self._who, scope, is_open=is_open)
                if has_token
                else self._who(scope, is_open=is_open)
            )
            if scope["method"] not in _READING:
                self._check_origin(scope, who)
        except Refusal as refusal:
            await refused(self._context, scope, refusal.code, refusal.why)(scope, receive, answer)
            return
        if who is None and not is_open:
            await self._ask_who(scope, inner)(scope, receive, answer)
            return
        if who is not None:
            scope["state"]["person"] = who
        await self._app(scope, receive, answer)

    def _check_host(self, scope: Scope) -> None:
        """Refuse names of other hosts, which a page elsewhere may have pointed at this address."""
        panel = self._context.panel
        headers = Headers(scope=scope)
        given = headers.getlist("host")
        if len(given) > 1:
            raise Refusal(code=400, why="Host is there more than once.")
        host = host_of(given[0]) if given else ""
        if given and not host:
            raise Refusal(code=400, why="Host cannot be the name of a machine.")
        if panel.hosts:
            good = host in {one.lower() for one in panel.hosts} | _LOOPBACK_NAMES
        else:
            # Without a log-in the name is all that keeps pages of other sites out.
            listen = host_of(panel.listen)
            socket = panel.listen.startswith("unix:")
            good = panel.auth != "none" or socket or host in {*_LOOPBACK_NAMES, listen}
        if not good:
            shown = printable(host[:80])
            raise Refusal(
                code=400, why=f"This panel does not answer to the name {shown}: see panel.hosts."
            )

    def _who(self, scope: Scope, *, is_open: bool) -> Person | None:
        """Who asks; None until that is known, which the addresses that are `open` need not."""
        context, panel = self._context, self._context.panel
        headers = Headers(scope=scope)
        named = [_in_utf8(one) for one in headers.getlist(panel.user_header)]
        trusted = is_trusted(scope, panel.trusted_proxies)
        if panel.auth == "proxy" and named and not trusted:
            raise Refusal(code=403, why=f"{panel.user_header} is taken from trusted proxies only.")
        if len(headers.getlist("authorization")) > 1:
            raise Refusal(code=400, why="Authorization is there more than once.")
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (tokens.is_ours(secret) or panel.auth != "proxy"):
            user = tokens.user_of(context.spool, secret)
            if user is None:
                raise Refusal(code=401, why="This token is unknown, revoked or expired.")
            return person(user, Proof.TOKEN, panel)
        match panel.auth:
            case "none":
                return person("", Proof.NONE, panel, actions=context.actions)
            case "proxy":
                if len(named) > 1:
                    raise Refusal(code=400, why=f"{panel.user_header} is there more than once.")
                # Caddy passes on the name of a header that is missing, in braces, for its value.
                absent = not named or named[0].strip().startswith("{")
                if absent and is_open:
                    # Prometheus and a health check ask the panel itself, and no proxy stands between.
                    return None
                if not trusted or absent or not is_name(named[0].strip()):
                    raise Refusal(
                        code=401,
                        why=f"The proxy does not say who asks: it must set {panel.user_header}.",
                    )
                return person(named[0].strip(), Proof.PROXY, panel)
            case _:
                user = context.sessions.user_of(headers.get("cookie", ""))
                return person(user, Proof.COOKIE, panel) if user else None

    def _check_origin(self, scope: Scope, who: Person | None) -> None:
        """Refuse a change that no page of this panel has asked for."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None and who is not None and who.proof is Proof.TOKEN:
            # No browser adds a token by itself.
            return
        here = {headers.get("host", "").lower()}
        if is_trusted(scope, self._context.panel.trusted_proxies):
            here.add(headers.get("x-forwarded-host", "").lower())
        from_ = ""
        with suppress(ValueError):
            whole = urlsplit(origin or "")
            from_ = whole.netloc.lower() if whole.scheme in ("http", "https") else ""
        site = headers.get("sec-fetch-site", "same-origin")
        if not from_ or from_ not in here or site != "same-origin":
            raise Refusal(code=403, why="This change does not come from a page of this panel.")

    def _ask_who(self, scope: Scope, inner: str) -> Response:
        """The way to the log-in for a person, 401 for a program."""
        accepts = Headers(scope=scope).get("accept", "")
        wants_page = "text/html" in accepts and scope["method"] in _READING
        if not wants_page or inner.startswith(("/api/", "/iiif/", "/uploads")):
            return JSONResponse(
                {"error": "log in, or send a token"}, 401, {"WWW-Authenticate": "Bearer"}
            )
        query = scope["query_string"].decode("latin-1")
        wanted = inner + (f"?{query}" if query else "")
        base = self._context.panel.base_path
        return RedirectResponse(f"{base}/login?next={quote(wanted, safe='')}", 303)

    async def _unexpected(
        self, scope: Scope, receive: Receive, answer: _Answer, error: Exception
    ) -> None:
        if isinstance(error, OSError | RootError) and (
            why := await run_in_threadpool(why_unreachable, self._context)
        ):
            code, said = 503, f"The storage cannot be reached. Tell your administrator: {why}."
        else:
            self._tell_unexpected(scope, error)
            code, said = 500, _UNEXPECTED
        if answer.begun:
            return
        try:
            found = refused(self._context, scope, code, said)
        except Exception as another:  # noqa: BLE001 - even a page that cannot be made is answered
            self._tell_unexpected(scope, another)
            found = PlainTextResponse(f"{said}\n", code)
        await found(scope, receive, answer)

    def _tell_unexpected(self, scope: Scope, error: Exception) -> None:
        self._measures.errors.inc()
        self._log.error(
            "panel_unexpected",
            path=printable(scope["path"][:200]),
            error=type(error).__name__,
            detail=printable(str(error)[:500]),
        )

    def _tell(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        """One line in the log, with neither a query (names of patients) nor a cookie."""
        who: Person | None = scope["state"].get("person")
        route = self._measures.done(scope, answer.code, seconds)
        if route == "static":
            return
        client = scope.get("client")
        tell = self._log.info if answer.code < 500 else self._log.warning
        # What a viewer asks a thousand times is counted in metrics, and here only for debugging.
        if route in ("tile", "metrics", "live") and answer.code < 400:
            tell = self._log.debug
        tell(
            "request", method=scope["method"], path=printable(scope["path"][:300]), code=answer.code,
            seconds=round(seconds, 4), bytes=answer.bytes, user=printable(who.name) if who else None,
            by=who.proof.value if who else None, address=client[0] if client else None,
        )  # fmt: skip


class _Answer:
    """Adds the headers that every answer has, and remembers what it was."""

    def __init__(self, send: Callable[[Message], Awaitable[None]]) -> None:
        self._send = send
        self.code = 0
        self.bytes = 0
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Send one message on."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.code = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)
