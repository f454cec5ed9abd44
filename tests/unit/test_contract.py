"""What users, dashboards and checks rely on: statuses, configuration, metrics, manifest, names."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytowatch import config
from cytowatch.observe.health import Health
from cytowatch.observe.metrics import Metrics
from cytowatch.record import entries, manifest, names, schema
from cytowatch.record.errors import ConfigError
from cytowatch.record.status import ERROR_OF, FOLLOWERS, STAGE_STATUSES, Status

HOUSE = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 23, 14, 15, 2, tzinfo=UTC)


def test_codes_and_directories_are_those_of_the_contract() -> None:
    """Even codes under 100 in progress, 100 and over success, odd ones errors: stage plus one."""
    assert {status.name: status.code for status in Status} == {
        "UPLOADED": 0, "DETECTING_FORMAT": 10, "EXTRACTING_DATA": 20, "CONVERTING": 30,
        "DEPLOYING": 40, "DEPLOYED": 100, "EXTRACTED": 102, "CONVERTED": 104,
        "ERROR_FORMAT": 11, "ERROR_EXTRACTION": 21, "ERROR_CONVERSION": 31, "ERROR_DEPLOYMENT": 41,
    }  # fmt: skip
    assert all(error.code == stage.code + 1 for stage, error in ERROR_OF.items())
    for status in STAGE_STATUSES:
        assert status.directory == status.name.lower().replace("_", "-")
    assert {s for s in Status if s.directory is None} == {s for s in Status if s.is_success}


@given(st.data())
def test_every_walk_ends(data: st.DataObject) -> None:
    """However it is routed, an uploaded file reaches a final status and visits none twice."""
    status, seen = Status.UPLOADED, set[Status]()
    while not status.is_final:
        assert status not in seen
        seen.add(status)
        followers = sorted(FOLLOWERS[status], key=lambda s: s.code)
        status = data.draw(st.sampled_from(followers))
    assert not FOLLOWERS[status]


def test_the_configuration_file_explains_every_key_with_its_default() -> None:
    """`config/cytowatch.toml` is what the code renders, and loads as the defaults."""
    path = HOUSE / "config" / "cytowatch.toml"
    assert path.read_text() == config.render()
    assert config.load(path) == config.load(None) == config.Config()


def test_all_problems_are_told_at_once() -> None:
    """Key, value and what was expected, each on its own."""
    with pytest.raises(ConfigError) as raised:
        config.from_mapping(
            {"rooot": "/x", "root": "here", "inbox": {"quiet_s": "10"}, "convert": {"tile": 100}}
        )
    assert raised.value.problems == [
        "rooot = '/x': unknown key, expected one of convert, engine, extract, feedback, hooks, inbox, "
        "limits, log, metrics, panel, root, sandbox, storage",
        "root = 'here': expected an absolute path",
        "inbox.quiet_s = '10': expected a number from 0.05 to 1,000,000,000",
        "convert.tile = 100: expected a multiple of 16 from 64 to 4096",
    ]


@pytest.mark.parametrize("listen", ["127.0.0.1:99999", ":65536", "9755", "x:port"])
def test_a_port_is_one_that_there_can_be(listen: str) -> None:
    """What is refused names the largest one."""
    with pytest.raises(ConfigError, match="up to 65535"):
        config.from_mapping({"metrics": {"listen": listen}})
    assert config.from_mapping({"metrics": {"listen": ":65535"}}).metrics.listen == ":65535"


def test_a_configuration_survives_the_way_to_a_child() -> None:
    """It travels as JSON."""
    found = config.from_mapping({"convert": {"quality": 80}, "inbox": {"ignore": ["*.x"]}})
    assert config.from_mapping(json.loads(json.dumps(config.to_mapping(found)))) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(st.dictionaries(st.sampled_from(["root", "inbox", "convert", "limits", "x"]), json_values))
def test_whatever_is_in_the_file_is_a_configuration_or_a_list_of_problems(
    document: dict[str, Any],
) -> None:
    """Never another exception, never an empty list."""
    try:
        config.from_mapping(document)
    except ConfigError as error:
        assert error.problems


def test_metrics_are_there_from_the_start_and_labels_stay_bounded() -> None:
    """A dashboard that is opened before the first slide shows zeros, not gaps."""
    metrics = Metrics()
    before = metrics.text().decode()
    assert "cytowatch_files{" not in before, "a start that waits knows no counts, and zero is one"
    metrics.set_files({})
    text = metrics.text().decode()
    for status in Status:
        assert f'cytowatch_files{{status="{status.name}"}} 0.0' in text
    assert 'cytowatch_inbox_waiting_files{why="incomplete"} 0.0' in text
    assert 'cytowatch_build_info{version="' in text
    assert "_created" not in text
    for number in range(500):
        metrics.error("CONVERTING", f"reason_{'x' * number}")
    metrics.error("CONVERTING", "Robert'); DROP TABLE")
    told = [line for line in metrics.text().decode().splitlines() if "errors_total{" in line]
    assert len(told) < 100
    assert any('reason="other"' in line for line in told)


def test_health_is_what_is_wrong_now() -> None:
    """A fault that is cleared is gone."""
    health = Health()
    assert health.reasons() == {}
    health.fault("disk", "full")
    assert health.reasons() == {"disk": "full"}
    health.clear("disk")
    health.clear("disk")
    assert health.reasons() == {}


def first(name: str = "a.svs") -> entries.Manifest:
    text, name_base64 = names.decode(name.encode("utf-8", "surrogateescape"))
    return manifest.new(
        id=names.new_id(NOW, text, random.Random(1)), user="ann", name=text,
        name_base64=name_base64, drop_path=f"ann/{text}", now=NOW, software={"cytowatch": "0"},
        files=[entries.FileEntry(role="source", path="source/a", size_bytes=3, sha256=None,
                                  status="UPLOADED")],
    )  # fmt: skip


@given(st.binary(min_size=1, max_size=255))
def test_every_name_makes_a_valid_manifest_and_a_safe_id(raw: bytes) -> None:
    """With any bytes that a scanner calls its file."""
    made = first(raw.decode("utf-8", "surrogateescape"))
    assert schema.problem(made) is None
    assert names.ID_PATTERN.fullmatch(made["id"])
    assert "\n" not in names.printable(made["name"])


def test_entering_a_status_closes_the_one_before() -> None:
    """History, code and the rows of the sources follow; a clock set back gives no negative time."""
    after = manifest.at_status(
        first(), Status.DETECTING_FORMAT, now=NOW + timedelta(seconds=2), attempts=1
    )
    assert [(row["status"], row["seconds"]) for row in after["history"]] == [
        ("UPLOADED", 2.0),
        ("DETECTING_FORMAT", None),
    ]
    assert (after["status_code"], after["files"][0]["status"]) == (10, "DETECTING_FORMAT")
    back = manifest.at_status(after, Status.CONVERTING, now=NOW - timedelta(days=3650))
    assert back["history"][1]["seconds"] == 0.0
    assert schema.problem(back) is None


def test_unknown_keys_survive_and_torn_manifests_are_told(tmp_path: Path) -> None:
    """A newer version's keys are kept; half a document is an error of its own."""
    newer: Any = {**first(), "colour": {"of": "the future"}}
    manifest.write(tmp_path, newer)
    assert manifest.read(tmp_path) == newer
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    whole = (tmp_path / "manifest.json").read_bytes()
    for keep in (0, 10, len(whole) // 2):
        (tmp_path / "manifest.json").write_bytes(whole[:keep])
        with pytest.raises(manifest.ManifestError):
            manifest.read(tmp_path)
