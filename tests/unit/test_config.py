"""The configuration comes from outside: anything in its place is refused in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cytowatch.cli.app import configuration, configuration_file
from cytowatch.config import from_mapping, load
from cytowatch.hooks.deliver import DeliveryError, _secret
from cytowatch.record.errors import ConfigError


def _folder(path: Path) -> None:
    path.mkdir()


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _text(text: str | bytes) -> Callable[[Path], None]:
    data = text if isinstance(text, bytes) else text.encode()

    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


#: What may lie in the place of a configuration: how it comes there, and a word of the refusal.
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "fifo": (os.mkfifo, "not a regular file"),
    "folder": (_folder, "not a regular file"),
    "endless": (_endless, "not a regular file"),
    "loop": (_loop, "not a regular file"),
    "large": (_text("#" * (2 << 20)), "bytes"),
    "deep lists": (_text("a = " + "[" * 50_000 + "]" * 50_000), "nested too deeply"),
    "deep lists that parse": (_text("a = " + "[" * 60 + "]" * 60), "nested too deeply"),
    "deep tables": (_text(f"[{'.'.join('a' * 100_000)}]\n"), "nested too deeply"),
    "deep keys": (_text(f"{'.'.join('a' * 100_000)} = 1\n"), "nested too deeply"),
    "deep inline tables": (_text("a = " + "{a = " * 20_000 + "1" + "}" * 20_000), "nested"),
    "latin": (_text(b"# Universit\xe4t\n"), "not UTF-8"),
    "binary": (_text(bytes(range(256)) * 10), "not UTF-8"),
    "not toml": (_text("<config/>"), "not TOML"),
    "long key": (_text("a" * 100_000 + " = 1"), "unknown key"),
    "long value": (_text('a = "' + "x" * 500_000 + '"'), "unknown key"),
    "huge number": (_text("[limits]\nmax_pixels = 1" + "0" * 4000), "a whole number"),
    "not a number": (_text("[inbox]\nquiet_s = nan"), "a number from"),
    "infinite": (_text("[inbox]\nquiet_s = inf"), "a number from"),
    "a file nobody can read": (_text('[storage]\nfile_mode = "0040"'), "its owner read"),
    "a folder nobody can enter": (_text('[storage]\ndir_mode = "0640"'), "its owner do everything"),
    "nul": (_text('root = "/srv/\\u0000"'), "NUL"),
    "nul in a list": (_text('[inbox]\nignore = ["\\u0000"]'), "NUL"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_configuration_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    """At once, no matter what it is, in lines that a person can read."""
    path = tmp_path / "cytowatch.toml"
    make, word = BAD[kind]
    make(path)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert word in str(refused.value)
    assert all(len(problem) < 3000 and problem.isprintable() for problem in refused.value.problems)


def test_a_link_to_a_configuration_is_followed(tmp_path: Path) -> None:
    """It is an administrator's own file."""
    (tmp_path / "real.toml").write_text("[inbox]\nquiet_s = 3.0\n")
    (tmp_path / "link.toml").symlink_to("real.toml")
    assert load(tmp_path / "link.toml").inbox.quiet_s == 3.0


@pytest.mark.parametrize("kind", ["fifo", "folder", "endless", "loop", "large", "latin", "binary"])
def test_a_secret_file_that_is_none_fails_the_delivery(tmp_path: Path, kind: str) -> None:
    """It is neither waited for nor read without end."""
    path = tmp_path / "secret"
    BAD[kind][0](path)
    hook = {"name": "a", "url": "http://127.0.0.1:1/", "secret_file": str(path)}
    [made] = from_mapping({"hooks": [hook]}).hooks
    with pytest.raises(DeliveryError, match="secret_file cannot be used"):
        _secret(made)


def test_a_root_that_is_named_brings_its_own_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks of the machine's own service never fire for a trial tree."""
    system = tmp_path / "system.toml"
    system.write_text('[[hooks]]\nname = "own"\nurl = "http://127.0.0.1:1/"\n')
    monkeypatch.setattr("cytowatch.cli.app._SYSTEM_CONFIG", system)
    monkeypatch.delenv("CYTOWATCH_ROOT", raising=False)
    monkeypatch.delenv("CYTOWATCH_CONFIG", raising=False)
    lab = tmp_path / "lab"
    lab.mkdir()
    assert [hook.name for hook in configuration(None, None).hooks] == ["own"]
    assert configuration(lab, None).hooks == ()
    assert configuration_file(lab, None) is None
    monkeypatch.setenv("CYTOWATCH_CONFIG", str(system))
    assert configuration(lab, None).hooks == ()
    monkeypatch.setenv("CYTOWATCH_ROOT", str(lab))
    assert [hook.name for hook in configuration(None, None).hooks] == ["own"]
    monkeypatch.delenv("CYTOWATCH_CONFIG")
    assert configuration(None, None).hooks == ()
    (lab / "cytowatch.toml").write_text('root = "/elsewhere"\n[inbox]\nquiet_s = 3.0\n')
    found = configuration(lab, None)
    assert (found.root, found.inbox.quiet_s) == (str(lab), 3.0)
    assert configuration(lab, system).hooks != ()
    (lab / "cytowatch.toml").unlink()
    (lab / "cytowatch.toml").symlink_to("gone")
    with pytest.raises(ConfigError, match="No such file"):
        configuration(lab, None)
