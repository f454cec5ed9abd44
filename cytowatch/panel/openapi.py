"""``/api/v1/openapi.json``: OpenAPI 3.1, whose schemas are those of `cytowatch schema`."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from cytowatch.record.status import Status

__all__ = ["document"]

_SAID = {
    "type": "object",
    "required": ["said"],
    "properties": {"said": {"type": "string"}},
    "description": "What the daemon answered.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What is wrong, in words."}},
}
_PROJECT = {
    "type": "object",
    "required": ["name", "files"],
    "properties": {"name": {"type": "string"}, "files": {"type": "integer", "minimum": 0}},
}
_REASON = {
    "type": "object",
    "required": ["reason", "means", "technician", "admin"],
    "properties": {name: {"type": "string"} for name in ("reason", "means", "technician", "admin")},
}
_UPLOAD = {
    "type": "object",
    "required": [
        "id", "name", "user", "project", "share", "received_bytes", "size_bytes", "files", "whole_files", "since", "last_at",
    ],
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string", "description": "Of the file, or of the folder."},
        "user": {"type": "string", "description": "Whose inbox it goes into."},
        "project": {"type": ["string", "null"]},
        "share": {"type": "number", "minimum": 0, "maximum": 1, "description": "How much of it is here."},
        "received_bytes": {"type": ["integer", "null"], "minimum": 0, "description": "Null for a folder."},
        "size_bytes": {"type": ["integer", "null"], "minimum": 0, "description": "Null for a folder: its size is not announced."},
        "files": {"type": "integer", "minimum": 1, "description": "Files in the folder; 1 for a file."},
        "whole_files": {"type": "integer", "minimum": 0, "description": "How many of them are complete."},
        "since": {"type": "string", "format": "date-time", "description": "When it began."},
        "last_at": {"type": "string", "format": "date-time", "description": "When bytes came last."},
    },
}  # fmt: skip


def _moved(value: Any, prefix: str) -> Any:
    """`value` with every reference to where OpenAPI keeps schemas."""
    match value:
        case dict():
            moved = {
                key: _moved(inner, prefix)
                for key, inner in value.items()
                if key not in ("$schema", "$id")
            }
            target = value.get("$ref")
            if isinstance(target, str):
                if target == "urn:cytowatch:manifest:1":
                    moved["$ref"] = "#/components/schemas/manifest"
                elif target.startswith("#/$defs/"):
                    moved["$ref"] = (
                        f"#/components/schemas/{prefix}{target.removeprefix('#/$defs/')}"
                    )
            return moved
        case list():
            return [_moved(inner, prefix) for inner in value]
        case _:
            return value


def _read(*names: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        importlib.resources.files("cytowatch").joinpath(*names).read_text()
    )
    return found


def _schemas() -> dict[str, Any]:
    commands = _read("cli", "commands.schema.json")
    manifest = _read("record", "manifest.schema.json")
    own = manifest.pop("$defs", {})
    return {
        **{name: _moved(one, "") for name, one in commands["$defs"].items()},
        "manifest": _moved(manifest, "manifest_"),
        **{f"manifest_{name}": _moved(one, "manifest_") for name, one in own.items()},
        "status_page": _moved(commands["commands"]["status"], ""),
        "files": _moved(commands["commands"]["list"], ""),
        "said": _SAID,
        "error": _ERROR,
        "projects": {"type": "array", "items": _PROJECT},
        "uploads": {"type": "array", "items": _UPLOAD},
        "reasons": {"type": "array", "items": _REASON},
    }


def _answers(schema: str, *codes: int) -> dict[str, Any]:
    words = {
        400: "The question makes no sense.", 401: "Nobody is known: send a token.",
        403: "This person may not do it.", 404: "There is none, or it is somebody else's.",
        409: "The daemon refuses, with the reason.", 503: "No daemon runs, or it does not answer.",
    }  # fmt: skip

    def answer(name: str, said: str) -> dict[str, Any]:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        return {"description": said, "content": content}

    refused = {str(code): answer("error", words[code]) for code in (401, *codes)}
    return {"200": answer(schema, "The answer."), **refused}


def _parameter(name: str, said: str, where: str = "query", **schema: Any) -> dict[str, Any]:
    return {
        "name": name, "in": where, "description": said, "required": where == "path",
        "schema": schema or {"type": "string"},
    }  # fmt: skip


_ID = _parameter("id", "The id of an uploaded file.", "path")


def _filters() -> list[dict[str, Any]]:
    words = ["deployed", "in-progress", "error", *(one.name for one in Status)]
    return [
        _parameter("status", "A status, or a group of them.", type="string", enum=words),
        _parameter("user", "Whose."),
        _parameter("project", "Only what this project shows."),
        _parameter("format", "The id of a format."),
        _parameter("reason", "Only what failed for this."),
        _parameter("name", "Only those with this in their name."),
        _parameter("since", "Received from this day or moment on (UTC)."),
        _parameter("until", "Received until the end of this day, or before this moment (UTC)."),
        _parameter("parent", "Only what came out of this archive or folder."),
        _parameter("sort", "What it is sorted by.", type="string", enum=["received", "name", "status", "ended"]),
        _parameter("order", "`up` or `down`.", type="string", enum=["up", "down"]),
        *_pages(),
    ]  # fmt: skip


def _pages() -> list[dict[str, Any]]:
    return [
        _parameter("limit", "At most so many.", type="integer", minimum=0, maximum=500, default=50),
        _parameter("offset", "Leave out so many before.", type="integer", minimum=0, maximum=100_000),
    ]  # fmt: skip


def _reading(said: str, schema: str, *codes: int, parameters: Any = ()) -> dict[str, Any]:
    return {
        "get": {
            "summary": said,
            "parameters": list(parameters),
            "responses": _answers(schema, *codes),
        }
    }


def _acting(said: str, *codes: int, fields: Mapping[str, bool], of_file: bool) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": [name for name, needed in fields.items() if needed],
        "properties": {name: {"type": "string"} for name in fields},
    }
    found: dict[str, Any] = {
        "summary": said,
        "parameters": [_ID] if of_file else [],
        "responses": _answers("said", 403, *codes, 409, 503),
    }
    if fields:
        found["requestBody"] = {
            "required": any(fields.values()),
            "content": {"application/json": {"schema": schema}},
        }
    return {"post": found}


@functools.lru_cache(maxsize=4)
def document(base: str, version: str) -> dict[str, Any]:
    """The whole description, of a panel below the path `base`."""
    project = {"project": True}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cytowatch panel",
            "version": version,
            "description": "What the panel shows, for programs. Send `Authorization: Bearer TOKEN`; "
            "`cytowatch token add` makes one. A request for another user's file gets 404.",
        },
        "servers": [{"url": f"{base}/api/v1"}],
        "security": [{"token": []}],
        "paths": {
            "/status": _reading("What is in work, what waits and why.", "status_page"),
            "/files": _reading(
                "Uploaded files, newest first.", "files", 400, parameters=_filters()
            ),
            "/files/{id}": _reading("One uploaded file.", "uploaded_file", 404, parameters=[_ID]),
            "/files/{id}/retry": _acting("Try again what failed.", 404, fields={}, of_file=True),
            "/files/{id}/return": _acting("Hand the original back.", 404, fields={}, of_file=True),
            "/files/{id}/link": _acting(
                "Show it in a project.", 400, 404, fields=project, of_file=True
            ),
            "/files/{id}/unlink": _acting(
                "Take it out of a project.", 400, 404, fields=project, of_file=True
            ),
            "/pause": _acting(
                "Hold back a user, or everyone.", fields={"user": False}, of_file=False
            ),
            "/resume": _acting(
                "Let a user go on, or everyone.", fields={"user": False}, of_file=False
            ),
            "/uploads": _reading(
                "What is being uploaded through the panel and is not complete, what grew last first.",
                "uploads",
                400,
                parameters=_pages(),
            ),
            "/projects": _reading("Projects.", "projects"),
            "/reasons": _reading("Why an uploaded file can fail.", "reasons"),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }
