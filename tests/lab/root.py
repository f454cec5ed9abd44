"""A tree with a real daemon, as an admin would start it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cytowatch.admin import invariants
from cytowatch.record import manifest, schema
from cytowatch.record.status import STAGE_STATUSES
from cytowatch.tree.spool import Spool
from tests.lab.told import json_lines, metric

__all__ = ["HANGS_S", "STAGES", "Root", "command", "root"]

#: The environment of a daemon whose stages misbehave as the names of the files tell them to.
STAGES: Mapping[str, str] = MappingProxyType({"CYTOWATCH_TEST_STAGES": "tests.lab.stages"})

#: So long is waited for what comes within moments: it ends what hangs, and no busy machine is that slow.
HANGS_S = 300.0

#: What every daemon of a test is given: it settles fast, looks often, keeps no room free and opens no port.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "inbox": {"quiet_s": 0.3, "fallback_quiet_s": 0.5, "rescan_s": 1.0},
    "storage": {"reserve_bytes": 0},
    "metrics": {"listen": ""},
    "log": {"format": "json"},
}


def _toml(value: Any) -> str:
    """A value as TOML: a table stands in its line, and a string of JSON is one of TOML."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


class Root:
    """A tree with a daemon that can be started, killed and started again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path.parent / f"{path.name}.toml"
        self.log = path.parent / f"{path.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        #: A command that starts the daemon's own, such as `unshare`.
        self.prefix: list[str] = []
        self._tables: dict[str, Any] = {}
        self.configure()

    def configure(self, *, more: str = "", **tables: str | Mapping[str, Any]) -> None:
        """Write the configuration again: what every daemon of a test is given, and on top of it `tables`.

        Parameters
        ----------
        more
            Tables as they stand in a file.
        tables
            By name a mapping, or the lines as they stand in a file; a key that is None is taken out. `listen` is
            the address of the metrics.
        """
        self._tables = {table: dict(keys) for table, keys in _SETTINGS.items()}
        self.configure_also(more=more, **tables)

    def configure_also(
        self, *, more: str = "", listen: str | None = None, **tables: str | Mapping[str, Any]
    ) -> None:
        """Write the configuration as it was last told, and on top of it `tables`."""
        if listen is not None:
            self._tables["metrics"]["listen"] = listen
        for table, said in (*tomllib.loads(more).items(), *tables.items()):
            keys = tomllib.loads(said) if isinstance(said, str) else said
            is_table = isinstance(keys, Mapping)
            self._tables[table] = {**self._tables.get(table, {}), **keys} if is_table else keys
        lines: list[str] = []
        for table, keys in self._tables.items():
            if isinstance(keys, Mapping):
                given = [f"{key} = {_toml(one)}" for key, one in keys.items() if one is not None]
                lines += [f"[{table}]", *given]
            else:
                # A list of tables; on one line it belongs before all tables.
                lines.insert(0, f"{table} = {_toml(keys)}")
        self.config.write_text("\n".join(lines) + "\n")

    def reload(self) -> None:
        """Have the running daemon read its configuration again, and wait until it has."""
        assert self.process
        before = self.count("reloaded")
        self.process.send_signal(signal.SIGHUP)
        self.wait(lambda: self.count("reloaded") > before)

    def count(self, event: str) -> int:
        """How often the log has `event`."""
        return sum(line["event"] == event for line in json_lines(self.log))

    def create(self) -> Root:
        """The same, with its tree: by the call behind `cytowatch init`, which has tests of its own."""
        Spool.create(self.path)
        return self

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cytowatch", *words]

    def start(self, *words: str) -> None:
        before = self.log.read_text().count('"ready"') if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    *self.command(
                        "run", "--root", str(self.path), "--config", str(self.config), *words
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )
        if not words:
            self.wait(lambda: self.log.read_text().count('"ready"') > before)

    def run_until_idle(self, timeout_s: float = HANGS_S) -> int:
        self.start("--until-idle")
        assert self.process
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(HANGS_S)

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HANGS_S)

    def end(self) -> None:
        """Kill the daemon if it runs: a test that failed left it so."""
        if self.process and self.process.poll() is None:
            self.kill()

    def wait(self, true: Callable[[], Any], timeout_s: float = HANGS_S) -> Any:
        """What `true` gives as soon as it is true; a daemon that has ended is a failure at once."""
        end = time.monotonic() + timeout_s
        while not (answer := true()):
            if self.process and self.process.poll() is not None:
                pytest.fail(f"the daemon ended: {self.log.read_text()[-3000:]}")
            if time.monotonic() > end:
                pytest.fail(f"it did not come about: {self.log.read_text()[-3000:]}")
            time.sleep(0.02)
        return answer

    def two_more_scans(self) -> None:
        """Wait until all inboxes were looked at twice: the second look began after this was asked.

        It proves a negative where a sleep would only guess at it. The metrics must be served.
        """
        port = int(self._tables["metrics"]["listen"].rpartition(":")[2])
        for _ in range(2):
            before = metric(port, "cytowatch_last_scan_timestamp_seconds")
            self.wait(
                lambda last=before: metric(port, "cytowatch_last_scan_timestamp_seconds") > last
            )

    def drop(self, source: Path, name: str | None = None, user: str = "ann") -> Path:
        inbox = self.path / "inbox" / user
        inbox.mkdir(parents=True, exist_ok=True)
        target = inbox / (name or source.name)
        target.write_bytes(source.read_bytes())
        return target

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Every uploaded file of the tree by id, the status as the rule says, each one valid."""
        found: dict[str, dict[str, Any]] = {}
        for path in [*self.path.glob("stages/*/*"), *self.path.glob("storage/*/*")]:
            try:
                document = manifest.read(path)
            except FileNotFoundError:
                # It has moved on between the two looks.
                assert self.process, path
                assert self.process.poll() is None, path
                continue
            assert schema.problem(document) is None
            assert document["id"] == path.name
            running = self.process is not None and self.process.poll() is None
            assert running or path.name not in found, f"{path.name} is there twice"
            stage = path.parent.name if path.parent.parent.name == "stages" else None
            # A manifest tells a status before its directory has moved there; the directory decides.
            told = {s.directory: s.name for s in STAGE_STATUSES}.get(stage, document["status"])
            found[path.name] = {**document, "status": told, "_path": path, "_stage": stage}
        return found

    def last_failpoint(self) -> str:
        """The name of the place that the last daemon said it was cut off in."""
        lines = self.log.read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("failpoint ")][-1]

    def waiting(self) -> list[dict[str, Any]]:
        """What waits in the inboxes, as the daemon last said."""
        try:
            told: list[dict[str, Any]] = json.loads(
                (self.path / "state" / "live.json").read_text()
            )["waiting"]
        except FileNotFoundError:
            return []
        return told

    def by_name(self) -> dict[str, dict[str, Any]]:
        return {document["name"]: document for document in self.manifests().values()}

    def children_of_processes(self) -> list[int]:
        """Processes that run in this tree or serve its daemon."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                inside = os.readlink(entry / "cwd").startswith(str(self.path))
            except OSError:
                continue
            if inside:
                found.append(int(entry.name))
        return found

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Decoder processes stand still meanwhile: what is in a stage stays there, however slow this machine is."""
        held = self.children_of_processes()
        assert held, "nothing is in work"
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in held:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def orphans(self) -> list[int]:
        """What a daemon that is gone left running: its zygote and anything that works in its tree."""
        assert self.process
        assert self.process.poll() is not None
        mark = f"CYTOWATCH_PARENT={self.process.pid}\0".encode()
        found = self.children_of_processes()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    found += [int(entry.name)] if mark in (entry / "environ").read_bytes() else []
        return found

    def assert_clean(self) -> None:
        """Nothing half-done is left anywhere: what `cytowatch check --deep` looks for."""
        assert list(invariants.broken(Spool.open(self.path), at_rest=True)) == []
        assert list(self.path.glob("st*/*/*/worker")) == []

    def check_hashes(self, documents: Mapping[str, dict[str, Any]] | None = None) -> None:
        """Every file that a manifest names is there and has the hash that it names."""
        for document in (documents or self.manifests()).values():
            for row in document["files"]:
                data = (document["_path"] / row["path"]).read_bytes()
                assert len(data) == row["size_bytes"]
                if row["sha256"] is not None:
                    assert hashlib.sha256(data).hexdigest() == row["sha256"]


def command(root: Root, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of an admin on the tree of `root`."""
    return subprocess.run(
        [*root.command(*words), "--root", str(root.path), "--config", str(root.config)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A tree of the test's own, and at its end no daemon of it."""
    made = Root(tmp_path / "root").create()
    yield made
    made.end()
