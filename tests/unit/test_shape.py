"""A manifest is read whole, or refused in words: the rest of the code need not think of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cytowatch.record import manifest, schema
from cytowatch.record.entries import FileEntry, Manifest
from cytowatch.record.manifest import ManifestError
from cytowatch.record.status import Status
from tests.builders import damage

NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)
ID = "20261123-141502-k3f9-CMU-1"


def sound(**more: Any) -> Manifest:
    made = manifest.new(
        id=ID, user="ann", name="CMU-1.svs", drop_path="ann/CMU-1.svs", now=NOW, software={"a": "1"},
        files=[FileEntry(role="source", path="source/a.svs", size_bytes=5, sha256="0" * 64,
                         status="UPLOADED")],
    )  # fmt: skip
    return cast("Manifest", {**manifest.at_status(made, Status.DEPLOYED, now=NOW), **more})


@pytest.mark.parametrize("kind", [kind for kind in damage.MANIFESTS if kind != "missing"])
def test_what_is_damaged_is_refused(kind: str, tmp_path: Path) -> None:
    """In one way, with the path in its words, and without a wait."""
    manifest.write(tmp_path, sound())
    damage.damaged(tmp_path / manifest.FILE_NAME, kind)
    with pytest.raises(ManifestError, match=str(tmp_path)) as caught:
        manifest.read(tmp_path)
    assert len(str(caught.value)) < 500


def test_every_key_is_looked_at(tmp_path: Path) -> None:
    """Of each key that a manifest has, some other type is refused."""
    for key in Manifest.__required_keys__:
        (tmp_path / manifest.FILE_NAME).write_text(json.dumps({**sound(), key: [{"x": [1]}, 1.5]}))
        with pytest.raises(ManifestError):
            manifest.read(tmp_path)


def test_one_of_100_000_members_is_read(tmp_path: Path) -> None:
    """The largest that an archive or a set may make."""
    rows = [
        FileEntry(role="source", path=f"source/{'n' * 200}-{number}.dcm", size_bytes=number,
                  sha256="0" * 64, status="DEPLOYED")
        for number in range(100_000)
    ]  # fmt: skip
    children = [f"20261123-141502-k3f9-{number}" for number in range(100_000)]
    manifest.write(tmp_path, sound(files=rows, children=children))
    found = manifest.read(tmp_path)
    assert len(found["files"]) == len(found["children"]) == 100_000


def test_text_that_cannot_be_encoded_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """As of a name in an archive that was not UTF-8; a check is stricter."""
    for told, wanted in (
        ('"G\\udce4rtner\\uDCE4.jpg"', "G\ufffdrtner\ufffd.jpg"),
        ('"\\ud83d\\ude00.jpg"', "\U0001f600.jpg"),
        ('"\\\\udce4.jpg"', "\\udce4.jpg"),
    ):
        text = json.dumps(sound(name="NAME")).replace('"NAME"', told)
        (tmp_path / manifest.FILE_NAME).write_text(text)
        assert manifest.read(tmp_path)["name"] == wanted
        if "\ufffd" in wanted:
            with pytest.raises(ManifestError):
                manifest.read(tmp_path, strictly=True)
        else:
            manifest.read(tmp_path, strictly=True)


@pytest.mark.parametrize("id_", [ID, "20269999-999999-k3f9-x", "notes"])
@pytest.mark.parametrize("status", list(Status))
def test_what_stands_for_one_that_cannot_be_read_is_a_manifest(id_: str, status: Status) -> None:
    """By the schema; only its id may be none, where a directory has none."""
    made = manifest.unreadable(id_, user="ann", status=status, why="x")
    assert schema.problem({**made, "id": ID, "root_id": ID}) is None
    assert (made["status"], made["error"] and made["error"]["reason"]) == (
        status.name,
        manifest.DAMAGED,
    )
