"""The command line: ``cytowatch COMMAND``; exit codes 0 good, 1 something wrong, 2 usage."""

from __future__ import annotations

import os
import sys

from cytowatch.errors import ConfigError, CytowatchError

__all__ = ["main"]


def main() -> None:
    """Run the command in ``sys.argv``; whatever happens, nobody sees a traceback."""
    from cytowatch.cli.commands import app

    try:
        app(prog_name="cytowatch")
    except ConfigError as error:
        for problem in error.problems:
            print(f"cytowatch: {problem}", file=sys.stderr)
        code = 2
    except CytowatchError as error:
        print(f"cytowatch: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; there is nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except PermissionError as error:
        print(f"cytowatch: {error.filename}: {error.strerror}", file=sys.stderr)
        code = 2
    except Exception as error:  # noqa: BLE001 - the last word: a file to send instead of a traceback
        import tempfile
        import traceback

        with tempfile.NamedTemporaryFile(
            "w", prefix="cytowatch-error-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exc(file=file)
        print(
            f"cytowatch: an error that nobody foresaw ({type(error).__name__}: {error}). "
            f"Please send {file.name} with a word on what you did.",
            file=sys.stderr,
        )
        code = 1
    else:
        return
    sys.exit(code)
