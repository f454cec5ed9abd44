"""Rules for the values of keys: each returns None, or what was expected, in words."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

from cytowatch.record.status import Status

__all__ = [
    "DEPTH",
    "DIR_MODE",
    "FILE_MODE",
    "FINAL",
    "LARGEST",
    "argv",
    "auto",
    "encoding",
    "finals",
    "flag",
    "key",
    "listen",
    "name_list",
    "number",
    "one_of",
    "text",
    "whole",
]

#: Returns what was expected, or None if the value is valid.
Rule = Callable[[Any], str | None]


#: The deepest value is a list in a section in a list of sections.
DEPTH = 8
#: The largest whole number: everything that is counted or measured here fits into 64 bits.
LARGEST = (1 << 63) - 1


def key(default: Any, doc: str, rule: Rule, *, reloadable: bool = False) -> Any:
    """A field of a section: its default, its comment, its rule, and whether SIGHUP can change it."""
    metadata = {"doc": doc, "rule": rule, "reloadable": reloadable}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def number(least: float, most: float = 1e9) -> Rule:
    wanted = f"a number from {least:g} to {most:,.0f}"

    def rule(value: Any) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        return None if good and least <= value <= most else wanted

    return rule


def whole(least: int, most: int = LARGEST) -> Rule:
    wanted = f"a whole number from {least} to {most:,}"

    def rule(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool)
        return None if good and least <= value <= most else wanted

    return rule


def one_of(*choices: str) -> Rule:
    wanted = " or ".join(f'"{choice}"' for choice in choices)
    return lambda value: None if value in choices and isinstance(value, str) else wanted


def text(pattern: str, wanted: str) -> Rule:
    return lambda value: None if isinstance(value, str) and re.fullmatch(pattern, value) else wanted


_LARGEST_PORT = 65_535


def listen(value: Any) -> str | None:
    wanted = f'ADDRESS:PORT with a port up to {_LARGEST_PORT}, or ""'
    if not isinstance(value, str) or not re.fullmatch(r"(.*:[0-9]{1,5})?", value):
        return wanted
    return wanted if value and int(value.rpartition(":")[2]) > _LARGEST_PORT else None


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def name_list(value: Any) -> str | None:
    good = isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)
    return None if good else "a list of name patterns"


def auto(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024
    return None if value == "auto" or good else '"auto" or a whole number from 1 to 1024'


#: Encodings that write other characters with ASCII bytes.
_SPELLED = frozenset(("hz", "idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"))


def encoding(value: Any) -> str | None:
    """Whether an encoding leaves every ASCII character as it is."""
    ascii_ = bytes(range(32, 127))
    try:
        good = value == "auto" or (
            codecs.lookup(value).name not in _SPELLED and ascii_.decode(value) == ascii_.decode()
        )
    except (LookupError, UnicodeError, TypeError, ValueError):
        good = False
    return None if good else '"auto", or an encoding such as "cp932", "gbk" or "cp850"'


# A file or directory that the daemon itself could not read or enter would block every drop, and each try would leave a claim.
FILE_MODE = text(
    "0[4-7][0-7]{2}", 'an octal mode in quotes, which lets its owner read, such as "0640"'
)


DIR_MODE = text(
    "07[0-7]{2}", 'an octal mode in quotes, which lets its owner do everything, such as "0750"'
)


FINAL = tuple(status.name for status in Status if status.is_final)


def finals(value: Any) -> str | None:
    good = isinstance(value, tuple) and value and all(item in FINAL for item in value)
    return None if good else f"a list of {', '.join(FINAL)}"


def argv(value: Any) -> str | None:
    good = isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)
    return None if good else "a list of words: the absolute path of the program, then its arguments"
