"""What must hold for any name, archive, manifest and configuration, not for those we thought of."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytowatch import config
from cytowatch.archives import Budget, zips
from cytowatch.config import keys
from cytowatch.formats import Probe, look
from cytowatch.record import manifest, names, schema
from cytowatch.record.errors import ConfigError, ExtractionError
from cytowatch.record.manifest import ManifestError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FILE_NAMES = st.binary(min_size=1, max_size=255).map(
    lambda raw: raw.replace(b"\0", b"-").replace(b"/", b"-")
)


@given(FILE_NAMES)
def test_every_name_becomes_one_of_ours(raw: bytes) -> None:
    """The bytes come back from the manifest's fields; the slug is safe as a file's name and argument."""
    text, base64 = names.decode(raw)
    if base64 is None:
        assert text.encode() == raw
    slug = names.slug(text)
    assert slug
    assert not slug.startswith(("-", "."))
    assert slug.isascii()
    assert names.printable(text).isprintable()


@given(st.lists(st.tuples(st.text(min_size=1, max_size=30), st.binary(max_size=200)), max_size=8))
def test_any_zip_comes_out_as_it_went_in_or_is_refused(members: list[tuple[str, bytes]]) -> None:
    """Never something else, never outside, never two for one name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    budget = Budget(limits=keys.Limits(), archive_bytes=len(stream.getvalue()))
    try:
        with zips.opened(stream) as archive:
            found = {}
            for member in zips.members(archive, budget):
                out = io.BytesIO()
                zips.unpack(archive, member, out, budget=budget, progress=lambda _: None)
                found[member.path] = out.getvalue()
    except ExtractionError as error:
        assert error.reason in {
            "path_traversal", "absolute_path", "control_characters", "duplicate_names",
            "file_against_folder", "reserved_name", "no_name", "name_too_long",
        }  # fmt: skip
        return
    # What is empty and ends with the separator of Windows is a folder as well.
    ends = [(name.endswith("/") or (name.endswith("\\") and not data)) for name, data in members]
    files = [one for one, is_folder in zip(members, ends, strict=True) if not is_folder]
    assert sorted(found.values()) == sorted(data for _, data in files)
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in found)


@given(st.dictionaries(st.sampled_from([*config.to_mapping(config.Config()), "colour"]), JSON))
def test_any_configuration_is_taken_or_refused_in_words(document: dict[str, Any]) -> None:
    """What is taken comes back as it is; what is refused names what is wrong."""
    try:
        found = config.from_mapping(document)
    except ConfigError as error:
        assert error.problems
        assert all(isinstance(problem, str) and problem for problem in error.problems)
    else:
        assert config.from_mapping(config.to_mapping(found)) == found


@given(st.dictionaries(st.text(), JSON, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_a_later_version_wrote_is_kept(more: dict[str, Any]) -> None:
    """Unknown keys survive reading and writing; what is not JSON, such as Infinity, is refused."""
    made = manifest.new(
        id="20261123-141502-k3f9-CMU-1", user="ann", name="a.svs", drop_path="ann/a.svs",
        now=datetime(2026, 11, 23, tzinfo=UTC), software={}, files=[],
    )  # fmt: skip
    document = {**more, **made}
    with tempfile.TemporaryDirectory() as folder:
        manifest.write(Path(folder), document)  # type: ignore[arg-type]
        try:
            kept = json.loads(json.dumps(document, allow_nan=False))
        except ValueError:
            with pytest.raises(ManifestError):
                manifest.read(Path(folder))
        else:
            assert manifest.read(Path(folder)) == kept


@given(JSON)
def test_any_document_is_a_manifest_or_refused(document: Any) -> None:
    """In one way only."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / manifest.FILE_NAME).write_text(json.dumps(document))
        try:
            found = manifest.read(Path(folder))
        except ManifestError:
            return
        schema.problem(found)


def test_a_parser_that_stumbles_ends_nothing(tmp_path: Path) -> None:
    """The look gives what an empty file would give, and says so in one line."""

    def stumble(probe: Probe) -> int:
        return 1 // probe.size_bytes if probe.size_bytes == 0 else [][probe.size_bytes]

    def harmless(probe: Probe) -> bool:
        return bool(probe.head and {}[probe.head])

    path = tmp_path / "a"
    path.write_bytes(b"x")
    with path.open("rb") as file, structlog.testing.capture_logs() as logged:
        probe = Probe(file.fileno(), name="a\n.svs")
        assert look.safely(stumble, probe, lambda: 7) == 7
        assert look.safely(harmless, probe, lambda: look.of_nothing(harmless)) is False
    assert [line["event"] for line in logged] == ["unexpected", "unexpected"]
    assert logged[0]["id"] == "a\\n.svs"

    def broken_disk(_probe: Probe) -> int:
        raise OSError(5, "Input/output error")

    with path.open("rb") as file, pytest.raises(OSError, match="Input/output"):
        look.safely(broken_disk, Probe(file.fileno()), lambda: 7)
