"""Unfinished uploads on disk: what lies there is doubted, and one of them costs only itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cytowatch import aside
from cytowatch.durable import failpoints
from cytowatch.panel.uploads.rules import Announced
from cytowatch.panel.uploads.store import EXPIRES_S, Store


def begun(inbox: Path, name: str) -> tuple[Store, str]:
    store = Store(inbox)
    made = store.create(Announced(path=name, size=10, user="ann"), "ann")
    return store, made.token


@pytest.mark.parametrize("kind", failpoints.POISONS)
def test_one_that_cannot_be_removed_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The others expire, and it does once the cause is gone."""
    store, bad = begun(tmp_path, "a.svs")
    begun(tmp_path, "b.svs")
    later = (tmp_path / ".uploads").stat().st_mtime + 2 * EXPIRES_S
    folder = bad.partition(".")[0]
    poison = ("cytowatch.panel.uploads.store.Store.expire", folder, kind, "")
    monkeypatch.setattr(failpoints, "_POISONED", [poison])
    assert store.expire(later) == 1
    assert [path.name for path in (tmp_path / ".uploads").iterdir()] == [folder]
    assert [one.which for one in aside.all_of("request")] == [f"upload {folder}"]
    monkeypatch.setattr(failpoints, "_POISONED", [])
    assert store.expire(later) == 1
    assert aside.all_of("request") == []


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../a.svs"}, {"path": 1}, {"size": -1}, {"size": True}, {"user": "../bob"},
        {"project": "a/../../b"}, {"files": "1"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_note_that_nobody_here_wrote_is_no_upload(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """It leads nowhere: the upload is not found, and the others are."""
    store, token = begun(tmp_path, "a.svs")
    _, other = begun(tmp_path, "b.svs")
    folder, _, member = token.partition(".")
    note = tmp_path / ".uploads" / folder / "notes" / f"{member}.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))
    assert store.find(token, "ann") is None
    assert store.find(other, "ann") is not None
    assert store.count("ann") == 1
