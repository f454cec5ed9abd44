"""A start that meets what passes by itself waits inside the running daemon, says so, and goes on."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cytowatch.durable.failpoints import POISONS
from tests import builders
from tests.lab.disks import MB, Disk, fill, needs_mounts, rooted
from tests.lab.root import Root
from tests.lab.told import free_port, health, json_lines, metric
from tests.unit.test_config import BAD

FEW = ("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "300")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path, 64 * MB, *FEW)
    yield made
    made.unmount()


@pytest.fixture
def small(disk: Disk) -> Iterator[Root]:
    with rooted(disk) as made:
        yield made


def begin(root: Root, *words: str) -> int:
    """Start the daemon, which need not come to be ready; gives the port of its health."""
    port = free_port()
    root.configure_also(listen=f"127.0.0.1:{port}")
    with root.log.open("ab") as log:
        root.process = subprocess.Popen(
            root.command("run", "--root", str(root.path), "--config", str(root.config), *words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **root.environment},
        )
    return port


def reason(root: Root, port: int, name: str = "start") -> str:
    """What `/healthz` says of `name`, as soon as it says anything."""

    def said() -> str | None:
        try:
            return health(port).get(name)
        except OSError:
            return None

    found: str = root.wait(said)
    return found


def ready(root: Root) -> bool:
    return '"ready"' in root.log.read_text()


def goes_on(root: Root, port: int) -> None:
    """It comes up, health is good, and a slide is deployed."""
    root.wait(lambda: ready(root))
    root.wait(lambda: health(port) == {})
    inbox = root.path / "inbox" / "zoe"
    inbox.mkdir(exist_ok=True)
    builders.aperio_svs(inbox / "last.svs")
    root.wait(lambda: root.by_name().get("last.svs", {}).get("status") == "DEPLOYED")
    assert root.stop() == 0
    root.assert_clean()


def use_up_inodes(place: Path, leave: int) -> list[Path]:
    """Empty files until only `leave` more can be made."""
    made = []
    folder = place / "filler"
    folder.mkdir()
    while os.statvfs(place).f_favail > leave:
        made.append(folder / f"{len(made)}")
        made[-1].touch()
    return made


@needs_mounts
def test_a_start_without_inodes_waits(small: Root, disk: Disk) -> None:
    """It is ready for systemd, 503 for anyone who asks, and goes on when there are some again."""
    made = use_up_inodes(disk.place, 0)
    port = begin(small)
    assert "No space left on device" in reason(small, port)
    assert not ready(small)
    for path in made:
        path.unlink()
    goes_on(small, port)


@needs_mounts
def test_inodes_are_kept_in_reserve_and_shown(small: Root, disk: Disk) -> None:
    """Below the reserve nothing is begun; status, health and metrics say so; above it work goes on."""
    small.configure(storage={"reserve_inodes": 20})
    inbox = small.path / "inbox" / "ann"
    inbox.mkdir()
    builders.aperio_svs(inbox / "a.svs")
    made = use_up_inodes(disk.place, 15)
    port = begin(small)
    assert "inodes are free, and 20 must stay free as the reserve" in reason(small, port, "disk")
    assert metric(port, "cytowatch_inodes_free ") < 20
    small.wait(lambda: metric(port, "cytowatch_inodes_reserved ") == 20)
    told = subprocess.run(
        small.command("status", "--root", str(small.path)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "inodes free" in told
    assert small.manifests() == {}
    for path in made:
        path.unlink()
    small.wait(lambda: small.by_name().get("a.svs", {}).get("status") == "DEPLOYED")
    goes_on(small, port)


@needs_mounts
def test_an_archive_of_many_members_waits_for_inodes(small: Root, disk: Disk) -> None:
    """Their number is estimated before it is unpacked; nothing is half unpacked meanwhile."""
    import zipfile

    inbox = small.path / "inbox" / "ann"
    inbox.mkdir()
    picture = builders.png(disk.place.parent / "p.png", width=70, height=70)
    with zipfile.ZipFile(inbox / "many.zip", "w") as archive:
        for number in range(20):
            archive.write(picture, f"{number}.png")
    made = use_up_inodes(disk.place, 70)
    small.start()
    live = small.path / "state" / "live.json"
    held = small.wait(lambda: live.exists() and json.loads(live.read_text())["held_up"])
    [why] = held.values()
    assert why["why"] == "disk"
    assert "up to 80 inodes are needed" in why["detail"]
    for path in made:
        path.unlink()
    small.wait(lambda: small.by_name().get("many.zip", {}).get("status") == "EXTRACTED")
    assert small.stop() == 0


@contextmanager
def full(disk: Disk) -> Iterator[None]:
    filler = fill(disk, 200_000)
    rest = disk.place / "rest"
    with rest.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()
        rest.unlink()


@contextmanager
def read_only(disk: Disk) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", disk.place], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk.place], check=True)


@contextmanager
def dangling(disk: Disk) -> Iterator[None]:
    """The root is a link to a disk that is not there yet."""
    (disk.place / "root").rename(disk.place / "elsewhere")
    (disk.place / "root").symlink_to(disk.place / "later")
    try:
        yield
    finally:
        (disk.place / "elsewhere").rename(disk.place / "later")


@needs_mounts
@pytest.mark.parametrize("obstacle", [full, read_only, dangling])
def test_what_passes_is_waited_for(
    small: Root, disk: Disk, obstacle: Callable[[Disk], contextmanager[None]]
) -> None:
    """A full disk, one that takes no writes, one that is not there: each is reported and waited out."""
    with obstacle(disk):
        port = begin(small)
        assert "tries again by itself" in reason(small, port)
        time.sleep(1.5)
        assert small.process
        assert small.process.poll() is None
        assert not ready(small)
    goes_on(small, port)


@needs_mounts
def test_a_start_that_waits_ends_at_once(small: Root, disk: Disk) -> None:
    """SIGTERM is heeded between two attempts, and a reload as well."""
    with read_only(disk):
        port = begin(small)
        reason(small, port)
        assert small.process
        os.kill(small.process.pid, signal.SIGHUP)
        began = time.monotonic()
        assert small.stop() == 0
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("errno", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "EROFS", "EMFILE"])
def test_a_fault_of_the_machine_in_a_start_is_waited_out(
    root: Root, tmp_path: Path, errno: str
) -> None:
    """Wherever in the start it is met: here where an uploaded file that was cut off is taken up."""
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    root.environment = {"CYTOWATCH_FAILPOINTS": "stage.renamed=kill"}
    root.start("--until-idle")
    assert root.process
    assert root.process.wait(60) == -signal.SIGKILL
    root.environment = {"CYTOWATCH_FAILPOINTS": f"manifest.synced={errno}"}
    assert root.run_until_idle() == 0
    assert [one["status"] for one in root.manifests().values()] == ["CONVERTED"]


def test_a_port_that_is_taken_is_tried_again(root: Root, tmp_path: Path) -> None:
    """Slides go on without it; when it is free, metrics and health are there."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        root.configure(listen=f"127.0.0.1:{port}")
        root.drop(builders.jpeg(tmp_path / "a.jpg"))
        root.start()
        root.wait(lambda: root.by_name().get("a.jpg", {}).get("status") == "CONVERTED")
        live = json.loads((root.path / "state" / "live.json").read_text())
        assert "Address already in use" in live["health"]["metrics"]

    def free() -> bool:
        try:
            return health(port) == {}
        except OSError:
            return False

    root.wait(free)
    assert len([one for one in json_lines(root.log) if one["event"] == "no_metrics"]) == 1
    assert root.stop() == 0


def damaged(path: Path) -> None:
    path.write_bytes(b"x" * 5000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


@pytest.mark.parametrize("spoil", [damaged, os.unlink, folder])
def test_an_index_that_is_damaged_is_made_again(
    root: Root, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """It is a cache: a start never needs it."""
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    assert root.run_until_idle() == 0
    spoil(root.path / "state" / "index.sqlite3")
    root.drop(builders.jpeg(tmp_path / "b.jpg", width=333))
    assert root.run_until_idle() == 0
    assert sorted(one["status"] for one in root.manifests().values()) == ["CONVERTED"] * 2


def test_an_index_that_another_process_has_locked_holds_up_nobody(
    root: Root, tmp_path: Path
) -> None:
    """A slide is deployed meanwhile, and the rows are there in the end."""
    assert root.run_until_idle() == 0
    with closing(
        sqlite3.connect(root.path / "state" / "index.sqlite3", isolation_level=None)
    ) as it:
        it.execute("BEGIN EXCLUSIVE")
        root.drop(builders.jpeg(tmp_path / "a.jpg"))
        root.start()
        root.wait(lambda: root.by_name().get("a.jpg", {}).get("status") == "CONVERTED")
        it.execute("ROLLBACK")
    assert root.stop() == 0
    told = subprocess.run(
        root.command("list", "--root", str(root.path), "--json"), capture_output=True, check=True
    )
    assert "a.jpg" in told.stdout.decode()


def another_layout(root: Root) -> None:
    (root.path / "FORMAT").write_text("cytowatch 99\n")


def a_file(root: Root) -> None:
    root.path.rename(root.path.with_name("aside"))
    root.path.write_text("no tree")


def a_fifo(root: Root) -> None:
    (root.path / "FORMAT").unlink()
    os.mkfifo(root.path / "FORMAT")


def a_wrong_key(root: Root) -> None:
    root.config.write_text("[inbox]\nquiet = 1\n")


@pytest.mark.parametrize("spoil", [another_layout, a_file, a_fifo, a_wrong_key])
def test_what_an_administrator_must_change_ends_it(
    root: Root, spoil: Callable[[Root], None]
) -> None:
    """With exit code 2 and a sentence, as a supervisor expects it."""
    spoil(root)
    done = subprocess.run(
        root.command("run", "--root", str(root.path), "--config", str(root.config)),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("cytowatch: ")
    assert "Traceback" not in done.stderr


def test_a_root_in_use_ends_the_second_daemon(root: Root) -> None:
    """It names the process that holds it."""
    root.start()
    assert root.process
    done = subprocess.run(
        root.command("run", "--root", str(root.path), "--config", str(root.config)),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"in use by process {root.process.pid}" in done.stderr
    assert root.stop() == 0


def parts_of_the_loop() -> list[str]:
    """The name of every part that the daemon runs behind a fence, read from its source."""
    package = Path(__file__).parents[2] / "cytowatch"
    rooms = [package / "daemon.py", *sorted((package / "lifecycle").glob("*.py"))]
    text = "".join(room.read_text() for room in rooms)
    # Those of the end of the daemon have names of two words, or of the loop's own parts.
    return sorted(set(re.findall(r'\bdo\(\s*"([a-z]+)"', text)) - {"finishing", "idle"})


def test_every_step_of_the_loop_is_a_part() -> None:
    """A call in the main loop that is not behind a fence can end the daemon."""
    tree = ast.parse((Path(__file__).parents[2] / "cytowatch" / "daemon.py").read_text())
    [loop] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "_loop"
    ]
    harmless = {"do", "partial", "time.monotonic", "self._asked.take_reload", "self._sleep"}
    # A reload has a fence of its own: what fails there is refused, and the old configuration stays.
    harmless |= {"systemd.notify", "parts.pulse.beat", "take_over"}
    # It fences the scan itself.
    harmless |= {"self._looking.scan_if_due"}
    called = {ast.unparse(node.func) for node in ast.walk(loop) if isinstance(node, ast.Call)}
    assert called == harmless


@pytest.mark.parametrize(("number", "part"), [*enumerate(parts_of_the_loop())])
def test_a_part_that_raises_costs_only_itself(
    root: Root, tmp_path: Path, number: int, part: str
) -> None:
    """Beside it the loop goes on: health answers and SIGTERM ends it; without the cause all is well."""
    cause = tmp_path / "poison"
    cause.touch()
    kind = sorted(POISONS)[number % len(POISONS)]
    root.environment = {"CYTOWATCH_POISON": f"part:{part}={kind}@{cause}"}
    port = begin(root)
    reason(root, port, part)
    assert root.process
    assert root.process.poll() is None
    cause.unlink()
    goes_on(root, port)
    assert '"ended_in_error": 0' in root.log.read_text()


@pytest.mark.parametrize("kind", [*BAD, "poisoned"])
def test_a_reload_that_cannot_be_used_is_refused(root: Root, tmp_path: Path, kind: str) -> None:
    """In words; the old configuration holds, health is good, and the next reload is taken."""
    root.environment = {"CYTOWATCH_POISON": f"part:reload=KeyError@{tmp_path / 'poison'}"}
    port = begin(root)
    root.wait(lambda: ready(root))
    assert root.process
    if kind == "poisoned":
        (tmp_path / "poison").touch()
    else:
        root.config.unlink()
        BAD[kind][0](root.config)
    os.kill(root.process.pid, signal.SIGHUP)
    root.wait(lambda: '"reload_refused"' in root.log.read_text())
    assert health(port) == {}
    peak = Path(f"/proc/{root.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s*(\d+) kB", peak)[1]) < 500_000
    (tmp_path / "poison").unlink(missing_ok=True)
    root.config.rmdir() if root.config.is_dir() else root.config.unlink()
    root.configure_also(inbox={"quiet_s": 0.2})
    os.kill(root.process.pid, signal.SIGHUP)
    root.wait(lambda: '"reloaded"' in root.log.read_text())
    assert root.stop() == 0


def test_a_run_until_idle_ends_when_it_can_tell_that_it_is(root: Root, tmp_path: Path) -> None:
    """The check whether all is done may fail as any other part; what was dropped is treated."""
    cause = tmp_path / "poison"
    cause.touch()
    root.environment = {"CYTOWATCH_POISON": f"part:idle=KeyError@{cause}"}
    root.drop(builders.jpeg(tmp_path / "a.jpg"))
    port = begin(root, "--until-idle")
    reason(root, port, "idle")
    cause.unlink()
    assert root.process
    assert root.process.wait(60) == 0
    assert [one["status"] for one in root.manifests().values()] == ["CONVERTED"]


@pytest.mark.parametrize("kind", ["MemoryError", "RecursionError", "KeyError"])
def test_a_defect_that_one_file_meets_ends_that_file_only(
    root: Root, tmp_path: Path, kind: str
) -> None:
    """After `max_attempts` it is an error with a reason; another one is deployed meanwhile."""
    root.configure(engine="max_attempts = 2")
    root.environment = {
        "CYTOWATCH_TEST_STAGES": "tests.lab.stages",
        "CYTOWATCH_POISON": f"treatment:bad={kind}",
    }
    root.drop(builders.jpeg(tmp_path / "bad.jpg"))
    root.drop(builders.jpeg(tmp_path / "good.jpg"))
    root.start()
    root.wait(lambda: root.by_name().get("good.jpg", {}).get("status") == "CONVERTED")
    root.wait(lambda: (root.by_name().get("bad.jpg", {}).get("error") or {}).get("reason"))
    bad = root.by_name()["bad.jpg"]
    assert bad["error"]["reason"] == "unexpected"
    assert kind in bad["error"]["detail"]
    assert root.stop() == 0
    root.assert_clean()
