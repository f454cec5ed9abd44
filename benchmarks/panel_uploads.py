"""Uploads over tus beside a plain writer: `python -m benchmarks.panel_uploads [CLIENTS] [MIB] [ROUNDS]`.

CLIENTS uploads of MIB each at the same time, in requests of 64 MiB as `cytowatch send` makes them, into a real panel
process; alternately as many threads write the same bytes into files beside it, with the same rule: an fsync after
each 64 MiB, once through the page cache and once past it (O_DIRECT), as the panel does. Between them a bare receiver, a process that does nothing but read the same bytes from as many sockets and
write them by that rule, shows what is the most that can arrive beside such a client. Prints the four speeds, their
ratios, the processor time of each for a GiB and the panel's greatest resident memory.
"""

from __future__ import annotations

import base64
import http.client
import json
import mmap
import multiprocessing
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

PATCH_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def panel(folder: Path) -> Iterator[tuple[int, int]]:
    """A panel on a new tree: (its port, its process)."""
    root = folder / "root"
    words = [sys.executable, "-m", "cytowatch"]
    subprocess.run([*words, "init", str(root)], check=True, stdout=subprocess.DEVNULL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "panel.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "panel", "--root", str(root), "--listen", f"127.0.0.1:{port}", "--actions"],
            stdout=log,
            stderr=log,
        )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def upload(port: int, source: Path, size: int) -> None:
    """One upload of `size` bytes, one request after the other on one connection."""
    name = secrets.token_hex(4)
    pairs = {"filename": f"{name}.svs", "user": "ann"}
    metadata = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in pairs.items())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    same = {"Tus-Resumable": "1.0.0", "Origin": f"http://127.0.0.1:{port}"}

    def ask(method: str, at: str, headers: dict[str, str], body: int) -> http.client.HTTPResponse:
        connection.putrequest(method, at)
        for key, value in {**same, **headers, "Content-Length": str(body)}.items():
            connection.putheader(key, value)
        connection.endheaders()
        if body:
            with source.open("rb") as file:
                connection.sock.sendfile(file, 0, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (201, 204), answer.status
        return answer

    made = ask("POST", "/uploads", {"Upload-Length": str(size), "Upload-Metadata": metadata}, 0)
    at = made.headers["Location"]
    for offset in range(0, size, PATCH_BYTES):
        ask(
            "PATCH",
            at,
            {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"},
            min(PATCH_BYTES, size - offset),
        )


def write(folder: Path, data: bytes, size: int) -> None:
    """The same bytes by the shortest way."""
    path = folder / secrets.token_hex(4)
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, PATCH_BYTES):
            for offset in range(start, min(start + PATCH_BYTES, size), BLOCK_BYTES):
                file.write(data[: min(BLOCK_BYTES, size - offset)])
            os.fsync(file.fileno())


def write_past(folder: Path, data: bytes, size: int) -> None:
    """The same past the page cache."""
    piece = mmap.mmap(-1, BLOCK_BYTES)
    piece[:] = data
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT
    descriptor = os.open(folder / secrets.token_hex(4), flags, 0o600)
    for start in range(0, size, PATCH_BYTES):
        for offset in range(start, min(start + PATCH_BYTES, size), BLOCK_BYTES):
            os.write(descriptor, memoryview(piece)[: min(BLOCK_BYTES, size - offset)])
        os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def receiver(folder: Path, clients: int, size: int) -> Iterator[tuple[int, int]]:
    """A process that takes `size` bytes from each of `clients` connections: (its port, its process)."""
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as listener:
        work = multiprocessing.get_context("fork").Process(
            target=receive_all, args=(listener, folder, clients, size)
        )
        work.start()
        assert work.pid is not None
        yield listener.getsockname()[1], work.pid
        work.join()


def receive_all(listener: socket.socket, folder: Path, clients: int, size: int) -> None:
    """One thread for each connection; it ends when its parent has looked at it, so that its time can be read."""
    found = [listener.accept()[0] for _ in range(clients)]
    together(clients, lambda number: receive(found[number], folder, size))
    found[0].recv(1)


def receive(connection: socket.socket, folder: Path, size: int) -> None:
    """The shortest way from a socket into a file."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with (folder / secrets.token_hex(4)).open("wb", buffering=0) as file:
        for start in range(0, size, PATCH_BYTES):
            left = min(PATCH_BYTES, size - start)
            while left:
                came = connection.recv_into(buffer, min(left, BLOCK_BYTES))
                file.write(buffer[:came])
                left -= came
            os.fsync(file.fileno())
            connection.sendall(b".")


def send(connection: socket.socket, source: Path, size: int) -> None:
    """To the bare receiver, as `upload` sends to the panel."""
    for start in range(0, size, PATCH_BYTES):
        with source.open("rb") as file:
            connection.sendfile(file, 0, min(PATCH_BYTES, size - start))
        assert connection.recv(1) == b"."


def bare(folder: Path, source: Path, clients: int, size: int) -> tuple[float, float]:
    """How long the bare receiver takes, and its processor time."""
    with receiver(folder, clients, size) as (port, pid):
        found = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
        took = together(clients, lambda number: send(found[number], source, size))
        cost = processor_s(pid)
        for one in found:
            one.close()
    return took, cost


def together(clients: int, do: Callable[[int], None]) -> float:
    """How long `clients` of them take."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(do, range(clients)))
    return time.perf_counter() - began


def processor_s(pid: int) -> float:
    """The processor time of a process, of its own and of the kernel's for it."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def memory_mib(pid: int) -> float:
    """The greatest resident memory that a process had."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def ratio(ones: list[float], others: list[float]) -> list[float]:
    """The median of the rounds' ratios, the least and the greatest."""
    found = [one / other for one, other in zip(ones, others, strict=True)]
    return [round(one, 2) for one in (statistics.median(found), min(found), max(found))]


def main(clients: int, mib: int, rounds: int) -> None:
    """Print what both take."""
    size = mib << 20
    speeds, plain, costs, least, bare_speeds, bare_costs = [], [], [], [], [], []
    past: list[float] = []
    gib = clients * size / (1 << 30)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        source = folder / "source"
        source.write_bytes(os.urandom(BLOCK_BYTES) * (PATCH_BYTES // BLOCK_BYTES))
        data = source.read_bytes()[:BLOCK_BYTES]
        with panel(folder) as (port, pid):
            at_rest = memory_mib(pid)
            for _ in range(rounds):
                (folder / "plain").mkdir()
                before = time.process_time()
                took = together(clients, lambda _: write(folder / "plain", data, size))
                least.append((time.process_time() - before) / gib)
                shutil.rmtree(folder / "plain")
                plain.append(clients * size / took / 1e6)
                (folder / "past").mkdir()
                took = together(clients, lambda _: write_past(folder / "past", data, size))
                shutil.rmtree(folder / "past")
                past.append(clients * size / took / 1e6)
                (folder / "bare").mkdir()
                took, cost = bare(folder / "bare", source, clients, size)
                shutil.rmtree(folder / "bare")
                bare_speeds.append(clients * size / took / 1e6)
                bare_costs.append(cost / gib)
                before = processor_s(pid)
                took = together(clients, lambda _: upload(port, source, size))
                costs.append((processor_s(pid) - before) / gib)
                speeds.append(clients * size / took / 1e6)
                print(
                    f"{plain[-1]:.0f} {past[-1]:.0f} {bare_speeds[-1]:.0f} {speeds[-1]:.0f} MB/s",
                    file=sys.stderr,
                )
                shutil.rmtree(folder / "root" / "inbox" / "ann")
                shutil.rmtree(folder / "root" / "inbox" / ".uploads")
            peak = memory_mib(pid)
    told = {
        "clients": clients, "mib_each": mib,
        "plain_mb_s": [round(one) for one in plain], "bare_mb_s": [round(one) for one in bare_speeds],
        "past_mb_s": [round(one) for one in past], "panel_mb_s": [round(one) for one in speeds],
        "ratio": ratio(speeds, plain), "ratio_to_past": ratio(speeds, past), "ratio_bare": ratio(bare_speeds, plain), "ratio_to_bare": ratio(speeds, bare_speeds),
        "plain_s_per_gib": [round(one, 2) for one in least], "bare_s_per_gib": [round(one, 2) for one in bare_costs],
        "panel_s_per_gib": [round(one, 2) for one in costs],
        "memory_mib": {"at_rest": round(at_rest), "peak": round(peak)}, "load": os.getloadavg()[0],
    }  # fmt: skip
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    main(*(given + [8, 512, 3][len(given) :]))
