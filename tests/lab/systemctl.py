"""A stand-in for systemctl where no systemd runs: it does what the unit says, as the unit's user.

It is run by the commands of the documents, inside the namespaces of ``lab.py`` only. The unit is
read as systemd would, its command line is started as its user under all of its restrictions, its words come through a real notify socket, and `daemon-reload` asks the real `systemd-analyze`.
"""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RUN = Path("/run/units")
UNITS = Path("/etc/systemd/system")


class Unit(configparser.RawConfigParser):
    """A unit with its drop-ins, last word wins but for lists, which are joined."""

    def __init__(self, name: str) -> None:
        super().__init__(
            strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",)
        )
        self.optionxform = str  # type: ignore[method-assign, assignment]
        self.name = name
        self.lists: dict[str, list[str]] = {}
        paths = [UNITS / f"{name}.service", *sorted((UNITS / f"{name}.service.d").glob("*.conf"))]
        for path in paths:
            self.read(path)
            for line in path.read_text().splitlines():
                key, equals, value = line.partition("=")
                if equals and not line.startswith("#"):
                    self.lists.setdefault(key, []).append(value)

    def of(self, key: str, fallback: str = "") -> str:
        return self.get("Service", key, fallback=fallback)


def state(name: str) -> Path:
    return RUN / name


def main_pid(name: str) -> int | None:
    try:
        pid = int((state(name) / "pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def supervise(unit: Unit) -> None:
    """Start it and hear what it says until it ends; in a process of its own."""
    folder = state(unit.name)
    address = str(folder / "notify")
    Path(address).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        os.chmod(address, 0o666)
        merged = folder / "merged.service"
        merged.write_text("[Service]\n" + "".join(
            f"{key}={value}\n" for key, values in unit.lists.items() for value in values
            if unit.has_option("Service", key)
        ))  # fmt: skip
        sandbox = Path(__file__).with_name("unit_sandbox.py")
        with (folder / "journal").open("ab") as journal:
            found = os.fstat(journal.fileno())
            process = subprocess.Popen(
                [sys.executable, str(sandbox), str(merged), "--", *shlex.split(unit.of("ExecStart"))],
                stdin=subprocess.DEVNULL, stdout=journal, stderr=journal, cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "NOTIFY_SOCKET": address,
                     "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            )  # fmt: skip
        (folder / "pid").write_text(str(process.pid))
        listener.settimeout(0.2)
        while process.poll() is None:
            try:
                said = listener.recv(65536).decode()
            except TimeoutError:
                continue
            with (folder / "said").open("a") as out:
                out.write(said + "\n")
        (folder / "code").write_text(str(process.returncode))


def said(name: str) -> str:
    try:
        return (state(name) / "said").read_text()
    except FileNotFoundError:
        return ""


def wait(true: object, name: str, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not true():  # type: ignore[operator]
        if time.monotonic() > end:
            journal = (state(name) / "journal").read_text()[-2000:]
            sys.exit(f"systemctl: {name} did not come to it: {journal}")
        time.sleep(0.05)


def start(name: str) -> None:
    folder = state(name)
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("said", "code", "pid"):
        (folder / old).unlink(missing_ok=True)
    if name == "smbd":
        with (folder / "journal").open("ab") as journal:
            process = subprocess.Popen(
                ["smbd", "--foreground", "--no-process-group", "--debug-stdout"],
                stdin=subprocess.DEVNULL, stdout=journal, stderr=journal,
                # At its end it sends SIGTERM to its whole group.
                start_new_session=True,
            )  # fmt: skip
        (folder / "pid").write_text(str(process.pid))
        wait(listens, name)
        return
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        supervise(Unit(name))
        os._exit(0)
    wait(lambda: "READY=1" in said(name) or (folder / "code").exists(), name)
    if (folder / "code").exists():
        sys.exit(f"systemctl: {name} ended: {(folder / 'journal').read_text()[-2000:]}")


def listens() -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", 445)) == 0


def stop(name: str) -> None:
    pid = main_pid(name)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    if name == "smbd":
        wait(lambda: not listens(), name)
        return
    code = state(name) / "code"
    wait(code.exists, name)
    if code.read_text() != "0":
        sys.exit(f"systemctl: {name} ended with {code.read_text()}")


def reload(name: str) -> None:
    before = said(name).count("READY=1")
    pid = main_pid(name)
    words = shlex.split(Unit(name).of("ExecReload").replace("$MAINPID", str(pid)))
    subprocess.run(words, check=True)
    wait(lambda: "RELOADING=1" in said(name) and said(name).count("READY=1") > before, name)


def main(words: list[str]) -> None:
    names = [word.removesuffix(".service") for word in words[1:] if not word.startswith("--")]
    match words[0]:
        case "daemon-reload":
            for path in UNITS.glob("cytowatch.service"):
                done = subprocess.run(
                    ["systemd-analyze", "verify", "--man=no", str(path)],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                if done.returncode != 0 or "cytowatch.service" in done.stderr:
                    sys.exit(done.stderr)
        case "enable" | "start":
            start(names[0])
        case "restart":
            stop(names[0])
            start(names[0])
        case "stop" | "disable":
            stop(names[0])
        case "reload":
            reload(names[0])
        case "is-active":
            print("active" if main_pid(names[0]) else "inactive")
            sys.exit(0 if main_pid(names[0]) else 3)
        case other:
            sys.exit(f"systemctl: this stand-in does not know {other}")


if __name__ == "__main__":
    main(sys.argv[1:])
