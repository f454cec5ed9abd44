"""Names that hold some letters in their middle: found by their groups of three, not by reading every row.

Source: https://www.sqlite.org/fts5.html, "The Trigram Tokenizer" and "External Content Tables"
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["condition", "create"]

#: The rows of `uploaded` are its content, so that a name is stored once.
_SCHEMA = (
    "CREATE VIRTUAL TABLE named USING fts5 "
    "(name, content = uploaded, content_rowid = rowid, tokenize = 'trigram')",
    "CREATE TRIGGER named_more AFTER INSERT ON uploaded BEGIN "
    "INSERT INTO named (rowid, name) VALUES (new.rowid, new.name); END",
    "CREATE TRIGGER named_fewer AFTER DELETE ON uploaded BEGIN "
    "INSERT INTO named (named, rowid, name) VALUES ('delete', old.rowid, old.name); END",
    "CREATE TRIGGER named_other AFTER UPDATE OF name ON uploaded WHEN old.name IS NOT new.name BEGIN "
    "INSERT INTO named (named, rowid, name) VALUES ('delete', old.rowid, old.name); "
    "INSERT INTO named (rowid, name) VALUES (new.rowid, new.name); END",
)
#: Letters that are found at once; fewer of them stand in so many names that a walk along the list meets some.
_SHORTEST = 3
#: If more names than these hold the letters, the first page is found sooner by walking along the list.
_MANY = 5000


def create(database: sqlite3.Connection) -> None:
    """Make it, in the transaction that makes the index; an SQLite without trigrams does without.

    Raises
    ------
    sqlite3.Error
        The file cannot be written.
    """
    database.execute("SAVEPOINT named")
    try:
        for statement in _SCHEMA:
            database.execute(statement)
    except sqlite3.OperationalError as error:
        # Before 3.34 there are no trigrams, and a distribution may leave out all of FTS5.
        if "no such" not in f"{error}":
            raise
        database.execute("ROLLBACK TO named")
    database.execute("RELEASE named")


def condition(
    ask: Callable[[str, Sequence[Any]], list[Any]], letters: str
) -> tuple[str, list[str]]:
    """What holds in SQL of the rows whose names contain `letters`, in any case, and its values."""
    holds, values = "instr(lower(name), lower(?)) > 0", [letters]
    if len(letters) < _SHORTEST or "\0" in letters:
        return holds, values
    if not ask("SELECT 1 FROM sqlite_master WHERE name = ?", ["named"]):
        return holds, values
    # In double quotes everything is a letter, and two of them are one.
    phrase = '"' + letters.replace('"', '""') + '"'
    some = "SELECT rowid FROM named WHERE named MATCH ?"
    [(many,)] = ask(f"SELECT COUNT(*) FROM ({some} LIMIT {_MANY})", [phrase]) or [(_MANY,)]
    if many == _MANY:
        return holds, values
    # Trigrams fold the case of all letters, lower() that of ASCII only.
    return f"rowid IN ({some}) AND {holds}", [phrase, *values]
