"""Libraries that are known to show wrong pixels are not asked for, and reported where they are installed."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cytowatch.cli import check
from cytowatch.config import from_mapping

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@pytest.mark.parametrize(("name", "version"), check._FAULTY)
def test_a_faulty_version(name: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip does not choose it, and `check` calls it wrong."""
    asked = [
        Requirement(one) for one in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    ]
    assert not any(one.name == name and one.specifier.contains(version) for one in asked)
    there = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda one: version if one == name else there(one)
    )
    wrong = [one for one in check._versions(from_mapping({})) if one.good is False]
    assert [f"{name} {version}" in one.detail for one in wrong] == [True]
