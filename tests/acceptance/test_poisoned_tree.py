"""A daemon, and every command, on a tree that holds damage of every kind."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytowatch.record import manifest
from cytowatch.record.entries import FileEntry
from cytowatch.record.status import Status
from tests import builders
from tests.builders import damage
from tests.lab.root import Root, command
from tests.lab.told import free_port, health, json_lines, metric
from tests.unit.test_damaged_state import REQUESTS

USER = "mallory"


def put(place: Path, number: int, status: Status) -> Path:
    """A sound uploaded file in `place`, an hour old and with a file."""
    path = place / f"20261123-141502-{number:04}-poison"
    (path / "source").mkdir(parents=True)
    (path / "source" / "a.svs").write_bytes(b"12345")
    now = datetime.now(UTC)
    made = manifest.new(
        id=path.name, user=USER, name="a.svs", drop_path=f"{USER}/a.svs", software={},
        now=now,
        files=[FileEntry(role="source", path="source/a.svs", size_bytes=5, sha256=None, status="UPLOADED")],
    )  # fmt: skip

    manifest.write(path, manifest.at_status(made, status, now=now) if status.is_final else made)
    return path


def poison(tree: Path) -> dict[str, Path]:
    """One of each kind in storage, in a stage, as a request, as a note, as a file of the daemon's own."""
    in_storage = {}
    for number, kind in enumerate(damage.MANIFESTS):
        path = put(tree / "storage" / USER, number, Status.DEPLOYED)
        damage.damaged(path / manifest.FILE_NAME, kind)
        in_storage[kind] = path
        stage, status = (
            ("uploaded", Status.UPLOADED) if number % 2 else ("error-format", Status.ERROR_FORMAT)
        )
        path = put(tree / "stages" / stage, 1000 + number, status)
        damage.damaged(path / manifest.FILE_NAME, kind)
    state = tree / "state"
    requests = state / "requests"
    (state / "hooks").mkdir(exist_ok=True)
    for number, (kind, make) in enumerate(damage.FILES.items()):
        make(requests / f"{number}.json")
        make(requests / f"{number}.lighten")
        make(requests / f"{in_storage[kind].name}.hash")
        make(state / "hooks" / f"{number}.json")
    for number, request in enumerate(REQUESTS.values()):
        (requests / f"odd-{number}.json").write_text(json.dumps(request))
    damage.FILES["deep"](state / "paused.json")
    (state / "live.json").unlink()
    damage.FILES["fifo"](state / "live.json")
    damage.FILES["fifo"](state / ".live.json.partial")
    damage.FILES["fifo"](state / "verify.json")
    (tree / "status" / USER).mkdir(exist_ok=True)
    damage.FILES["fifo"](tree / "status" / USER / ".note")
    return in_storage


def answered(root: Root, *words: str) -> Any:
    done = command(root, *words, "--json")
    assert done.returncode in (0, 1), done.stderr
    assert "unexpected" not in done.stderr
    return json.loads(done.stdout)


def test_all_others_are_served_and_each_is_named(root: Root, tmp_path: Path) -> None:
    """Beside it a slide is deployed, before and after a restart; what is mended is right again."""
    port = free_port()
    hook = '[[hooks]]\nname = "lab"\non = ["CONVERTED"]\ncommand = ["/bin/true"]'
    root.configure(listen=f"127.0.0.1:{port}", more=hook)
    root.drop(builders.jpeg(tmp_path / "before.jpg"))
    assert root.run_until_idle() == 0
    in_storage = poison(root.path)
    names = {path.name for path in in_storage.values()}
    for number, name in enumerate(("first.jpg", "second.jpg")):
        root.start()
        root.drop(builders.jpeg(tmp_path / name, width=300 + number), user="bob")
        storage = root.path / "storage" / "bob"
        root.wait(lambda name=name: any(
            one["name"] == name for one in answered(root, "list", "--user", "bob", "--status", "converted")
        ))  # fmt: skip
        assert len(list(storage.iterdir())) == number + 1
        assert health(port) == {}
        assert metric(port, 'cytowatch_set_aside_total{where="row"}') >= len(names) - 1
        page = answered(root, "status")
        assert {one["which"] for one in page["set_aside"]} & names
        assert page["daemon"]["running"]
        listed = answered(root, "list", "--user", USER)
        assert "set aside: uploaded file" in command(root, "list").stderr
        assert names <= {one["id"] for one in listed}
        told = answered(root, "check", "--deep")
        wrong = "\n".join(one["detail"] for one in told if one["good"] is False)
        # What no manifest can tell while a daemon runs: it may be about to be written.
        assert [kind for kind, path in in_storage.items() if path.name not in wrong] in (
            [],
            ["missing"],
        )
        assert any(one["name"] == "set aside" for one in told)
        assert any(one["name"] == "requests" for one in told)
        shown = command(root, "show", in_storage["deep"].name)
        assert (shown.returncode, "manifest cannot be read" in shown.stdout) == (0, True), (
            shown.stderr
        )
        for words in (("export", in_storage["fifo"].name, str(tmp_path / "out")),
                      ("link", in_storage["folder"].name, "--project", "p"),
                      ("remove", "--yes", in_storage["deep"].name)):  # fmt: skip
            refused = command(root, *words)
            assert (refused.returncode, "damaged" in refused.stderr) == (2, True), refused.stderr
        assert command(root, "reindex").returncode == 0
        root.wait(lambda: names <= {one["id"] for one in answered(root, "list", "--user", USER)})
        assert root.stop() == 0
    events = [one for one in json_lines(root.log) if one["event"] == "set_aside"]
    assert names & {one["which"] for one in events}
    # Without a daemon the commands read the tree themselves.
    assert names <= {one["id"] for one in answered(root, "list", "--user", USER)}
    found = answered(root, "verify")
    assert names <= {one["id"] for one in found["damaged"]}
    assert not {one["name"] for one in found["damaged"]} & {"first.jpg", "second.jpg", "before.jpg"}
    # What lay in the stages is finished, with its bytes.
    assert not list((root.path / "stages" / "uploaded").iterdir())
    # Mended, one goes on by itself.
    name = in_storage["torn"].name
    shutil.rmtree(in_storage["torn"])
    put(in_storage["torn"].parent, int(name.split("-")[2]), Status.DEPLOYED)
    root.start()
    [one] = [one for one in answered(root, "list", "--user", USER) if one["id"] == name]
    assert (one["name"], one["error"]) == ("a.svs", None)
    assert root.stop() == 0
