"""``/login`` and ``/logout``, with `auth = "share"`: a form, tried against the lab's own SMB server."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cytowatch.observe import logs
from cytowatch.panel import forms
from cytowatch.panel.context import Context
from cytowatch.panel.gate import is_trusted
from cytowatch.panel.measures import Measures
from cytowatch.panel.rendering import page
from cytowatch.panel.sessions import COOKIE, LASTS_S, Slowed
from cytowatch.panel.share import Tried, try_password
from cytowatch.panel.threads import asking
from cytowatch.panel.who import is_name
from cytowatch.record import names
from cytowatch.record.names import fold

__all__ = ["routes"]

_MOST_PASSWORD = 512
_WRONG = "The name or the password is wrong. They are the same as for the share."
_UNREACHABLE = "The file server does not answer, so nobody can log in. Tell your administrator."


def routes(context: Context, measures: Measures) -> list[Route]:
    """The form, and the end of a log-in."""
    slowed = Slowed()

    def form(request: Request) -> Response:
        _only_with_share(context)
        return _form(context, request, forms.text(request.query_params.get("next"), 2000))

    async def log_in(request: Request) -> Response:
        _only_with_share(context)
        fields = await forms.read(request)
        user = forms.text(fields.get("user"), 100)
        password = fields.get("password", "")
        wanted = forms.text(fields.get("next"), 2000)
        whom = (f"name {fold(user)}", f"address {_address(context, request)}")
        with slowed.trying(*whom) as free:
            wait = slowed.wait_s(*whom)
            if wait or not free:
                _tell(measures, request, "slowed", user, "")
                why = "Too many wrong tries." if wait else "Another try is under way."
                wait = max(1.0, wait)
                said = f"{why} Try again in {wait:.0f} s."
                return _form(context, request, wanted, said, 429, {"Retry-After": f"{wait:.0f}"})
            return await tried_now(request, user, password, wanted, whom)

    async def tried_now(
        request: Request, user: str, password: str, wanted: str, whom: tuple[str, str]
    ) -> Response:
        """Ask the server."""
        if not is_name(user) or not 0 < len(password) <= _MOST_PASSWORD:
            tried, detail = Tried.WRONG, "not a name or a password"
        else:
            server = context.panel.smb_server
            tried, detail = await asking(try_password, server, user, password)
        _tell(measures, request, tried.value, user, detail)
        match tried:
            case Tried.GOOD:
                slowed.succeeded(*whom)
                return _welcome(context, request, user, wanted)
            case Tried.WRONG:
                slowed.failed(*whom)
                return _form(context, request, wanted, _WRONG, 401)
            case _:
                return _form(context, request, wanted, _UNREACHABLE, 503)

    def log_out(request: Request) -> Response:
        answer = RedirectResponse(f"{context.panel.base_path}/login", 303)
        answer.delete_cookie(COOKIE, path=context.panel.base_path or "/")
        return answer

    return [
        Route("/login", form, name="login"),
        Route("/login", log_in, methods=["POST"], name="login"),
        Route("/logout", log_out, methods=["POST"], name="login"),
    ]


def _only_with_share(context: Context) -> None:
    if context.panel.auth != "share":
        raise HTTPException(404)


def _address(context: Context, request: Request) -> str:
    """Where the person sits: behind a trusted proxy, the last address that it names."""
    named = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    if named and is_trusted(request.scope, context.panel.trusted_proxies):
        return named[:60]
    return request.client.host if request.client else "unix"


def _is_encrypted(context: Context, request: Request) -> bool:
    """Whether the browser used TLS, as far as a trusted proxy says so."""
    if is_trusted(request.scope, context.panel.trusted_proxies):
        return request.headers.get("x-forwarded-proto", "").lower() == "https"
    return request.url.scheme == "https"


def _welcome(context: Context, request: Request, user: str, wanted: str) -> Response:
    answer = RedirectResponse(f"{context.panel.base_path}{forms.back_to(wanted)}", 303)
    answer.set_cookie(
        COOKIE, context.sessions.cookie_for(user), max_age=LASTS_S, path=context.panel.base_path or "/",
        secure=_is_encrypted(context, request), httponly=True, samesite="strict",
    )  # fmt: skip
    return answer


def _form(
    context: Context,
    request: Request,
    wanted: str,
    said: str = "",
    code: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    found = page(context, request, "login.html", status_code=code, wanted=wanted, said=said)
    found.headers.update(headers or {})
    return found


def _tell(measures: Measures, request: Request, result: str, user: str, detail: str) -> None:
    measures.logins.labels(result).inc()
    log = logs.get()
    tell = log.info if result == "good" else log.warning
    address = request.client.host if request.client else None
    tell(
        "login", result=result, user=names.printable(user), address=address,
        detail=names.printable(detail[:300]),
    )  # fmt: skip
