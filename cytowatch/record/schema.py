"""Whether a manifest is one: held against its schema, ``manifest.schema.json`` beside this module."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cytowatch import outside
from cytowatch.record import shape
from cytowatch.record.entries import Manifest

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator as Validator

__all__ = ["problem"]

_LONGEST_PROBLEM = 500


def problem(manifest: Manifest) -> str | None:
    """The first thing that is wrong with it, in words that can be shown; None if nothing is.

    It must have the shape that `manifest.read` wants, and follow the JSON Schema. Only the first is looked for:
    to list all that can be wrong in an answer of a megabyte takes seconds and gigabytes.
    """
    import jsonschema_rs

    try:
        shape.check(cast("dict[str, Any]", manifest))
        _validator().validate(manifest)
    except jsonschema_rs.ValidationError as error:
        where = "/".join(map(str, error.instance_path)) or "."
        return outside.text(f"{where}: {error.message}", most=_LONGEST_PROBLEM)
    except ValueError as error:
        # Of `shape`; or a key is not text, or a text has half of a character, and JSON holds neither.
        return outside.text(str(error), most=_LONGEST_PROBLEM)
    return None


@functools.cache
def _validator() -> Validator:
    # Imported here: only the daemon, checks and tests validate, and it costs 20 ms to import.
    import jsonschema_rs

    schema = Path(__file__).with_name("manifest.schema.json").read_text("utf-8")
    return jsonschema_rs.Draft202012Validator(json.loads(schema))
