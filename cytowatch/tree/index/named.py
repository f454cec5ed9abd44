"""Names that contain some letters: found by their groups of three letters, without reading every row.

Source: https://www.sqlite.org/fts5.html, "The Trigram Tokenizer" and "External Content Tables"
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["condition", "create"]

#: The rows of `uploaded` are its content, so each name is stored only once.
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
#: If more names than this contain the letters, walking along the list finds the first page sooner.
_MANY = 5000


def create(database: sqlite3.Connection) -> None:
    """Make it, in the transaction that makes the index; an SQLite without trigrams works without it.

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
    """The SQL condition for rows whose names contain `letters`, in upper or lower case, and its values."""
    holds, values = "instr(lower(name), lower(?)) > 0", [letters]
    if len(letters) < _SHORTEST or "\0" in letters:
        return holds, values
    if not ask("SELECT 1 FROM sqlite_master WHERE name = ?", ["named"]):
        return holds, values
    # In double quotes every character is literal, and two double quotes stand for one.
    phrase = '"' + letters.replace('"', '""') + '"'
    some = "SELECT rowid FROM named WHERE named MATCH ?"
    [(many,)] = ask(f"SELECT COUNT(*) FROM ({some} LIMIT {_MANY})", [phrase]) or [(_MANY,)]
    if many == _MANY:
        return holds, values
    # Trigrams fold the case of all letters, lower() only that of ASCII.
    return f"rowid IN ({some}) AND {holds}", [phrase, *values]
