"""The command line: ``cytowatch COMMAND``; exit codes 0 good, 1 something wrong, 2 usage."""

from __future__ import annotations

import os
import sys

from cytowatch.cli import streams
from cytowatch.record.errors import ConfigError, CytowatchError, SeveralErrors

__all__ = ["main"]

_MOST_ASIDE = 20


def main() -> None:
    """Run the command in ``sys.argv``; no matter what happens, no traceback is shown."""
    streams.read_names_as_utf8()
    streams.prepare()
    try:
        code = _run()
        # Text still in the buffer is part of the command: an error in writing it could not be caught later.
        sys.stdout.flush()
    except BrokenPipeError:
        # Anyone who read our output has gone, as `head` does; there is nothing left to say.
        code = _close_output()
    except PermissionError as error:
        code = _say(_of_python(error) or _denied(error), 2)
    except OSError as error:
        if _is_nowhere():
            code = _say(
                "the directory that this command was started in no longer exists: change to another",
                2,
            )
        else:
            where = f"{error.filename}: " if error.filename else _written(error)
            code = _say(f"{where}{error.strerror or error}", 1)
        _close_output()
    except KeyboardInterrupt:
        code = _say("broken off", 130)
    except Exception as error:  # noqa: BLE001 - the last word: a file to send instead of a traceback
        code = _say(said, 2) if (said := _of_python(error)) else _report(error)
    _say_what_was_set_aside()
    if sys.argv[1:2] in (["list"], ["status"]):
        # They hold nothing any more, and Python would take a seventh of their time to say so.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    from cytowatch.cli.commands import application

    if _is_one_empty(sys.argv[1:]):
        # Taken for "none", it would mean everyone, or all: often it is a variable of a script that is not set.
        return _say("an argument is empty: give it a value, or leave it out", 2)
    try:
        application(sys.argv[1] if len(sys.argv) > 1 else None)(prog_name="cytowatch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ConfigError as error:
        for problem in error.problems:
            _say(problem, 2)
        return 2
    except SeveralErrors as error:
        for one in error.errors:
            _say(str(one), 2)
        return 2
    except CytowatchError as error:
        return _say(str(error), 2)
    return 0


def _is_one_empty(arguments: list[str]) -> bool:
    """Whether a word is empty, or an option's value is, as in ``--user=``."""
    return any(not one or (one.startswith("--") and one.endswith("=")) for one in arguments)


def _is_nowhere() -> bool:
    """Whether the working directory was removed: a relative path then means nothing."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _say(text: str, code: int) -> int:
    from cytowatch.record.names import printable

    print(f"cytowatch: {printable(text)}", file=sys.stderr)
    return code


def _say_what_was_set_aside() -> None:
    """What this command passed over; a daemon has logged it, and a shell that completes words shows nothing."""
    if sys.argv[1:2] == ["run"] or "_CYTOWATCH_COMPLETE" in os.environ:
        return
    from cytowatch import aside

    found = aside.all_of()
    if not found:
        return
    from cytowatch.cli.page import aside_text

    for one in found[:_MOST_ASIDE]:
        _say(f"set aside: {aside_text(one.where, one.which, one.why)}", 0)
    if len(found) > _MOST_ASIDE:
        _say(f"{len(found) - _MOST_ASIDE:,} more were set aside", 0)


def _close_output() -> int:
    """Let nothing more go where nothing can be written, not even at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _written(error: OSError) -> str:
    """What could not be written, where `error` names no path: what was printed, or a file of the tree."""
    import traceback

    package = os.path.dirname(os.path.dirname(__file__))
    below = [
        os.path.relpath(one.filename, package) for one in traceback.extract_tb(error.__traceback__)
    ]
    of_tree = any(not one.startswith(("..", "cli", "_")) and "/" in one for one in below)
    return "the tree cannot be written to: " if of_tree else "the output cannot be written: "


def _denied(error: PermissionError) -> str:
    """Who may not use what, in words."""
    from cytowatch.durable import denied

    return denied.words(error)


def _of_python(error: Exception) -> str | None:
    """What is wrong with this Python, if the owner of the tree cannot read it and `error` came of that."""
    python = sys.modules.get("cytowatch.cli.python")
    found = python.complaint if python else None
    return found if isinstance(error, ImportError | PermissionError) else None


def _report(error: Exception) -> int:
    import tempfile

    said = _described(error)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="cytowatch-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(said)
        attached = f"{file.name} (it holds names of files, so look through it first)"
    except OSError:
        # No directory for temporary files can be written to: the report is shown.
        print(said, file=sys.stderr)
        attached = "the lines above (they hold names of files, so look through them first)"
    return _say(
        f"unexpected error ({type(error).__name__}: {error}). Please"
        f" report it at {_address()} and attach {attached}; say what you did, and if one slide "
        "causes it, name its scanner and software.",
        1,
    )


def _described(error: Exception) -> str:
    """What a report needs: the versions, the command and where it went wrong."""
    import platform
    import traceback

    from cytowatch import __version__

    command = " ".join(["cytowatch", *sys.argv[1:]])
    about = f"cytowatch {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return f"{about}\n{command}\n\n{''.join(traceback.format_exception(error))}"


def _address() -> str:
    """Where errors are reported, as the metadata of the package says."""
    import importlib.metadata

    urls = importlib.metadata.metadata("cytowatch").get_all("Project-URL") or []
    found = dict(one.split(", ", 1) for one in urls if ", " in one)
    return str(found.get("Issues", "the address that `pip show cytowatch` names"))
