"""What a command and the daemon are started with: streams, a locale, a directory, arguments; and never a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builders
from tests.lab.root import Root

#: An encoding that lacks nearly everything, as a cron job or a bare container has it.
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


def shell(
    root: Root, script: str, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command, started by `script`, in which ``"$@"`` stands for it."""
    done = subprocess.run(
        ["sh", "-c", script, "sh", *root.command(*words, "--root", str(root.path))],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "unexpected error" not in done.stdout + done.stderr, done.stderr
    return done


@pytest.fixture
def dropped(root: Root, tmp_path: Path) -> Root:
    """A picture with a name in two scripts, and a text that is an error."""
    root.drop(builders.jpeg(tmp_path / "a.jpg"), "Käse 検体.jpg")
    (root.path / "inbox" / "ann" / "note.txt").write_text("words of a person\n" * 20)
    assert root.run_until_idle() == 1
    return root


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command(dropped: Root, closed: str) -> None:
    """Some supervisors and scripts start programs so; nothing else is opened in the place of a stream."""
    for words in (("list",), ("list", "--json"), ("show", "note.txt"), ("status",)):
        assert shell(dropped, f'"$@" {closed}', *words).returncode == 0, words
    assert shell(dropped, f'"$@" {closed}', "remove", "note.txt").returncode == 2


def test_the_daemon_with_closed_streams_takes_what_is_there(root: Root, tmp_path: Path) -> None:
    """Its descriptors 0 to 2 are never a slide or the index: a library may write to them."""
    script = """import os, sys
from cytowatch.cli import streams
streams.prepare()
fds = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
os.write(int(sys.argv[1]), " ".join(fds).encode())
sys.stdin.read(), sys.stdout.write("x"), sys.stderr.write("x")"""
    reading, writing = os.pipe()
    subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, str(writing)],
        check=True, pass_fds=[writing],
    )  # fmt: skip
    assert os.read(reading, 1000).decode().split() == [os.devnull] * 3
    os.close(reading)
    os.close(writing)
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    done = shell(root, '"$@" <&- >&- 2>&-', "run", "--until-idle", "--config", str(root.config))
    assert done.returncode == 0
    assert [one["status"] for one in root.manifests().values()] == ["CONVERTED"]


def test_letters_that_the_locale_lacks_are_shown_as_their_numbers(dropped: Root) -> None:
    """In every command, on both streams; JSON is the same in any locale."""
    for words, code in (
        (("list",), 0),
        (("show", "note.txt"), 0),
        (("show", "検体"), 2),
    ):
        done = shell(dropped, '"$@"', *words, **ASCII)
        assert done.returncode == code, done.stderr
        assert done.stdout.isascii()
        assert done.stderr.isascii()
    assert "K\\xe4se \\u691c\\u4f53.jpg" in shell(dropped, '"$@"', "list", **ASCII).stdout
    listed = [
        json.loads(shell(dropped, '"$@"', "list", "--json", **env).stdout) for env in (ASCII, {})
    ]
    assert listed[0] == listed[1]


@pytest.mark.parametrize("running", [False, True])
def test_names_are_utf8_in_any_locale(root: Root, tmp_path: Path, running: bool) -> None:
    """Of users, files, notes and projects, by the daemon and by commands: what clients of a share write is UTF-8."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    inbox = root.path / "inbox" / "Müller"
    (inbox / "@Lunge ß").mkdir(parents=True)
    builders.jpeg(inbox / "@Lunge ß" / "検体.jpg")
    root.configure(inbox={"folder_quiet_s": 0.5})
    root.environment = locale
    if running:
        root.start()
        root.wait(
            lambda: (
                "検体.jpg" in root.by_name() and root.by_name()["検体.jpg"]["status"] == "CONVERTED"
            )
        )
        assert root.stop() == 0
    else:
        assert root.run_until_idle() == 0
    found = root.by_name()["検体.jpg"]
    assert (found["user"], found["projects"], found["drop_path"]) == (
        "Müller", ["Lunge ß"], "Müller/@Lunge ß/検体.jpg",
    )  # fmt: skip
    assert [path.name for path in (root.path / "projects").iterdir()] == ["Lunge ß"]
    assert root.count("set_aside") == 0
    assert any(
        "検体" in path.name or "Lunge ß" in path.name for path in root.path.glob("status/Müller/*")
    )
    for words in (
        ("show", "検体.jpg"),
        ("list", "--user", "Müller"),
        ("list", "--project", "Lunge ß"),
    ):
        done = shell(root, '"$@"', *words, **locale)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert found["id"] in done.stdout


def test_a_working_directory_that_is_gone(dropped: Root, tmp_path: Path) -> None:
    """With a whole path nothing needs it; without one the command says what is wrong."""
    gone = tmp_path / "gone"
    script = 'mkdir -p "$GONE" && cd "$GONE" && rmdir "$GONE" && "$@"'
    for words in (("list",), ("check",)):
        assert shell(dropped, script, *words, GONE=str(gone)).returncode == 0, words
    done = shell(dropped, f"{script} --root beside", "list", GONE=str(gone))
    assert done.returncode == 2
    assert "no longer exists" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("remove", "--yes", ""), ("retry", ""), ("list", "--user", ""), ("list", "--user="), ("pause", "--user", "")],
)  # fmt: skip
def test_an_empty_argument_means_nobody_and_never_everyone(
    dropped: Root, words: tuple[str, ...]
) -> None:
    """It is a variable of a script that is not set: `remove ""` once meant the only file that there was."""
    there = sorted(dropped.manifests())
    done = shell(dropped, '"$@"', *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "an argument is empty" in done.stderr
    assert sorted(dropped.manifests()) == there


def test_one_that_is_named_twice_is_asked_for_once_and_each_refusal_is_a_line(
    dropped: Root,
) -> None:
    """By its id and by its name it is the same one."""
    picture, note = sorted(dropped.manifests(), key=lambda id_: id_.endswith("note"))
    done = shell(dropped, '"$@"', "retry", note, "note.txt", picture)
    assert done.stdout.count("goes back to") == 1
    done = shell(dropped, '"$@"', "retry", picture, note)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "\\n" not in done.stderr


def test_a_report_that_cannot_be_written_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no directory for temporary files can be written to, there is no second error over the first."""
    from cytowatch import cli

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    assert cli._report(KeyError("x")) == 1
    said = capsys.readouterr().err
    assert "unexpected error (KeyError: 'x')" in said
    assert "the lines above" in said
