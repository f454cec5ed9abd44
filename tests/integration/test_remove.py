"""`remove` asks on a terminal; an unexpected error says where to report it and what to attach."""

from __future__ import annotations

import os
import pty
import subprocess
import tomllib
from pathlib import Path

import pytest

from cytowatch import cli
from tests import builders
from tests.lab.root import Root


def answered(root: Root, answer: bytes, *words: str) -> tuple[int, str]:
    """What the command shows on a terminal where somebody types `answer`, and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*root.command(*words), "--root", str(root.path)], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"?" not in shown:
        shown += os.read(ours, 65536)
    os.write(ours, answer)
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(30), shown.decode()


def test_remove_asks(root: Root, tmp_path: Path) -> None:
    """Naming what goes: a no, and an empty answer, keep it; a yes removes it; no terminal is not a yes."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.drop(slide)
    assert root.run_until_idle() == 0
    words = [*root.command("remove", "a.svs"), "--root", str(root.path)]
    refused = subprocess.run(words, capture_output=True, text=True, check=False, input="y\n")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    for answer in (b"n\n", b"\n"):
        code, shown = answered(root, answer, "remove", "a.svs")
        assert code == 1
        assert "nothing was removed" in shown
        assert "a.svs  DEPLOYED" in shown
        assert "of ann" in shown
        assert list(root.manifests())
    code, shown = answered(root, b"y\n", "remove", "a.svs")
    assert code == 0, shown
    assert root.manifests() == {}


def test_remove_does_as_it_is_told_with_yes(root: Root, tmp_path: Path) -> None:
    """In a script."""
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    assert root.run_until_idle() == 0
    words = [*root.command("remove", "--yes", "a.svs"), "--root", str(root.path)]
    assert (
        subprocess.run(words, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode
        == 0
    )
    assert root.manifests() == {}


def test_an_unexpected_error_says_where_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The address of the metadata, and a file with the versions, the command and the place in the code."""

    def broken() -> int:
        raise LookupError("what nobody expected\x1b[31m")

    monkeypatch.setattr(cli, "_run", broken)
    monkeypatch.setattr("sys.argv", ["cytowatch", "show", "x"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    assert project["project"]["urls"]["Issues"] in said
    [report] = tmp_path.glob("cytowatch-error-*.txt")
    assert str(report) in said
    text = report.read_text()
    for word in ("cytowatch show x", "Python 3.", "LookupError: what nobody expected", "in broken"):
        assert word in text
