"""Every loop of the daemon's side of the package, found by reading it, and why those without a fence need none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cytowatch

PACKAGE = Path(cytowatch.__file__).parent
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
#: What a loop goes through that is only ours: names in capitals, statuses, numbers, what is written out.
_OURS = re.compile(
    r"(?:sorted|enumerate|list|tuple|reversed|zip)?\(?(?:\w+\.)?_?[A-Z][A-Z0-9_]+(?:\.\w+\(\))?\)?"
    r"|Status(?:\.__members__)?|range\(.*\)|(?:dataclasses\.)?fields\(.*\)|\([^()]*\)|\[[^\[\]]*\]"
)
_READS = re.compile(r"\b(?:spool|index|find|hooks|scan|durable|os|samba)\b")


def goes_through(loop: ast.AST) -> list[str]:
    """What `loop` goes through, as it is written."""
    match loop:
        case ast.For():
            return [ast.unparse(loop.iter)]
        case ast.While():
            return [f"while {ast.unparse(loop.test)}"]
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return [ast.unparse(one.iter) for one in loop.generators]
        case _:
            return []


def functions(path: Path, *, whole: bool = False) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each function of a module by its name in its package; what is inside of one belongs to it.

    Of the module only the package is named, so that a function can move to another module of it; with `whole`
    the module is named.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    package = ".".join(parts).removesuffix(".__init__") if whole else parts[0]
    for top in ast.parse(path.read_text()).body:
        inside = top.body if isinstance(top, ast.ClassDef) else [top]
        owner = f"{package}.{top.name}" if isinstance(top, ast.ClassDef) else package
        for one in inside:
            if isinstance(one, ast.FunctionDef):
                yield f"{owner}.{one.name}", one


def short(function: str) -> str:
    """The name of a function by its package only."""
    package, *rest = function.split(".")
    while len(rest) > 1 and not rest[0].lstrip("_")[:1].isupper():
        del rest[0]
    return ".".join([package, *rest])


def loops(apart: frozenset[str]) -> dict[str, set[str]]:
    """By function what its loops go through that may come from outside; modules and packages `apart` are left out.

    Of the commands those count that read the tree: what shows what was read can end nothing but its command.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = path.relative_to(PACKAGE).with_suffix("").parts
        if any(".".join(names[:count]) in apart for count in range(1, len(names) + 1)):
            continue
        for name, function in functions(path):
            through = {
                one
                for loop in ast.walk(function)
                if isinstance(loop, _LOOPS)
                for one in goes_through(loop)
                if not _OURS.fullmatch(one) and (names[0] != "cli" or _READS.search(one))
            }
            if through:
                found.setdefault(name, set()).update(through)
    return found


def fences() -> set[str]:
    """Every function that puts a fence around one thing of many, with its module."""
    return {
        name
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "aside.py" and "aside.fence(" in path.read_text()
        for name, function in functions(path, whole=True)
        if "aside.fence(" in ast.unparse(function)
    }
