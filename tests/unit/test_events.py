"""Every line of the log is documented: the source is walked through, not trusted."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from cytowatch.observe.events import EVENTS

PACKAGE = Path(__file__).parents[2] / "cytowatch"
LEVELS = {"debug", "info", "warning", "error", "critical"}


def is_log(node: ast.expr) -> bool:
    """``self._log``, ``parts.log``, ``log`` or ``structlog.get_logger()``."""
    match node:
        case ast.Attribute(attr="_log" | "log") | ast.Name(id="log"):
            return True
        case ast.Call(func=ast.Attribute(attr="get_logger")):
            return True
    return False


def logged() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The levels and the named fields of each event, as the source has them."""
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            # tell = log.warning if ... else log.info
            tells = {
                choice.attr
                for node in ast.walk(function)
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "tell"
                for choice in ast.walk(node.value)
                if isinstance(choice, ast.Attribute)
                and choice.attr in LEVELS
                and is_log(choice.value)
            }
            for node in ast.walk(function):
                if not (isinstance(node, ast.Call) and node.args):
                    continue
                match node.func:
                    case ast.Attribute(value=value, attr=level) if level in LEVELS and is_log(
                        value
                    ):
                        said = {level}
                    case ast.Name(id="tell"):
                        said = tells
                    case _:
                        continue
                word = ast.literal_eval(node.args[0])
                levels[word] |= said
                fields[word] |= {one.arg for one in node.keywords if one.arg}
    return levels, fields


def test_every_line_is_documented_and_none_is_made_up() -> None:
    """Words and levels are the same; each field that the source names is in the list."""
    levels, fields = logged()
    assert levels == {event.word: set(event.levels) for event in EVENTS}
    for event in EVENTS:
        assert fields[event.word] <= set(event.fields), event.word


def test_the_walk_finds_what_is_there() -> None:
    """Or the test above could not fail."""
    levels, fields = logged()
    assert levels["ended"] == {"info", "warning"}
    assert "report" in fields["unexpected"]
    assert len(levels) > 25
