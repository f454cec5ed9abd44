"""Pages: Jinja2 templates, in which every name of a file is text and never HTML."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from cytowatch import __version__
from cytowatch.lifecycle.summary import bytes_text, time_text
from cytowatch.panel.context import Context, person_of
from cytowatch.record import reasons
from cytowatch.record.names import printable
from cytowatch.record.status import Status

__all__ = ["environment", "page"]


def _status(name: str) -> Status:
    return Status[name]


def _kind(status: Status) -> str:
    """The colour of a status: a class of the stylesheet."""
    if status.is_error:
        return "bad"
    return "good" if status.is_success else "busy"


def _words(status: Status) -> str:
    """A status as a person reads it: the label in small letters.

    >>> _words(Status.DETECTING_FORMAT), _words(Status.ERROR_FORMAT)
    ('Detecting format', 'Error: format')
    """
    said = status.label.capitalize()
    return said.replace("Error ", "Error: ")


def _ago(at: str, now: datetime) -> str:
    """How long ago `at` was, in words.

    >>> _ago("2026-11-23T14:15:02.000Z", datetime(2026, 11, 23, 14, 17, 2, tzinfo=UTC))
    '2 min ago'
    """
    seconds = (now - datetime.fromisoformat(at)).total_seconds()
    if seconds < 5:
        return "just now"
    if seconds < 90:
        return f"{seconds:.0f} s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 129_600:
        return f"{seconds / 3600:.0f} h ago"
    return f"{seconds / 86_400:.0f} days ago"


def _moment(at: str) -> str:
    """A time in UTC to the second.

    >>> _moment("2026-11-23T14:15:02.000Z")
    '2026-11-23 14:15:02'
    """
    return datetime.fromisoformat(at).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _lasted(seconds: float | None) -> str:
    """How long something took.

    >>> _lasted(0.042), _lasted(7.24), _lasted(None)
    ('42 ms', '7.2 s', '')
    """
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else time_text(seconds)


def environment() -> Environment:
    """The templates and what they can call."""
    made = Environment(
        loader=PackageLoader("cytowatch.panel"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        status=_status,
        kind=_kind,
        words=_words,
        moment=_moment,
        lasted=_lasted,
        bytes=bytes_text,
        left=time_text,
        # Letters that would turn the direction of a line, or hide, are shown as what they are.
        plain=printable,
    )
    made.globals.update(version=__version__, reason_of=reasons.of)
    return made


_ENVIRONMENT = environment()


def page(
    context: Context,
    request: Request,
    template: str,
    *,
    status_code: int = 200,
    **values: Any,
) -> HTMLResponse:
    """The page `template` with what all pages show."""
    now = datetime.now(UTC)
    text = _ENVIRONMENT.get_template(template).render(
        panel=context.panel,
        base=context.panel.base_path,
        person=person_of(request) if "person" in request.scope["state"] else None,
        path=request.scope["path"].removeprefix(context.panel.base_path),
        now=now,
        ago=lambda at: _ago(at, now),
        **values,
    )
    # One odd name costs its own letters, and not the page.
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status_code)
