"""Stages that misbehave when the name of the uploaded file tells them to; else the real ones."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from cytowatch import durable
from cytowatch.model import Outcome, UploadedFile
from cytowatch.record.errors import ConversionError, FormatError
from cytowatch.record.status import Status
from cytowatch.stages import STAGES as REAL


def _segfault() -> None:
    ctypes.string_at(0)


def _lose_a_page() -> None:
    """Read a page of a mapped file that is not there, as where the disk cannot give it."""
    mapping = ctypes.CDLL(None).mmap
    mapping.restype = ctypes.c_void_p
    mapping.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    with open(next(Path("source").iterdir()), "rb") as file:
        begin = mapping(None, 1 << 24, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 0)
        ctypes.string_at(begin + (1 << 23), 1)


def _hang() -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    time.sleep(1000)


def _eat() -> None:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def _escape() -> None:
    """Try all that the sandbox forbids; succeed only if all of it was denied."""
    attempts: list[Callable[[], object]] = [
        lambda: Path("/etc/passwd").read_text(),
        lambda: Path("../escaped").write_text("x"),
        lambda: Path("source/new").write_text("x"),
        lambda: os.rename("source", "out.1/source"),
        lambda: socket.create_connection(("127.0.0.1", 9), 1),
        lambda: os.kill(os.getppid(), 0),
        os.fork,
        # The program's own machine code, written at run time.
        lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    ]
    for attempt in attempts:
        try:
            attempt()
        except PermissionError:
            continue
        except OSError as error:
            # A system call that is filtered is as one that the kernel does not have.
            if error.errno == errno.ENOSYS:
                continue
            raise FormatError("escaped", f"{error}") from error
        raise FormatError("escaped", "something was allowed")
    Path("out.1/allowed").write_text("x")
    durable.rename("out.1/allowed", "out.1/scratch-allowed")
    durable.empty("out.1/scratch-allowed")


def _raise() -> None:
    raise LookupError("a defect of our own")


def _bare() -> None:
    """Look at what it was given; anything that is the daemon's is an error."""
    import pyvips

    known = {"PATH", "LANG", "LC_CTYPE", "PYTHONPATH"}
    prefixes = ("VIPS_", "MALLOC_", "OMP_", "OPENBLAS_", "TMPDIR")
    strange = [name for name in os.environ if name not in known and not name.startswith(prefixes)]
    if strange:
        raise FormatError("environment", f"{strange}")
    opened = []
    for number in range(3, 256):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        opened.append(number)
    if opened != [3]:
        raise FormatError("descriptors", f"{opened}")
    for loader in ("pdfload", "magickload", "openslideload", "matload"):
        try:
            getattr(pyvips.Image, loader)("source/none")
        except pyvips.Error as error:
            if "blocked" in str(error) or "not found" in str(error):
                continue
            raise FormatError("loader", f"{loader}: {error}") from error
        except AttributeError:
            continue


def _babble() -> None:
    os.write(3, b"\xff" * 100)
    time.sleep(1)


def _babble_json() -> None:
    text = b'{"outcome": {"status": "DEPLOYED", "changes": [1, 2]}}'
    os.write(3, len(text).to_bytes(4, "little") + text)
    time.sleep(1)


def _say(text: str, *, times: int = 1) -> None:
    """Send any message on the pipe to the daemon."""
    data = text.encode("utf-8", "surrogatepass")
    for _ in range(times):
        os.write(3, len(data).to_bytes(4, "little") + data)


def _saying(text: str, *, times: int = 1) -> Callable[[], None]:
    def deed() -> None:
        _say(text, times=times)
        time.sleep(1000)

    return deed


def _threads() -> None:
    """As many threads as it gets, while it says all the time that it gets on."""
    threading.stack_size(1 << 16)
    for number in range(1000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        _say(f'{{"progress": {number / 2000}}}')
        time.sleep(0.002)
    time.sleep(1000)


def _threads_at_once() -> None:
    """As many as the kernel makes before anyone looks."""
    threading.stack_size(1 << 16)
    with suppress(RuntimeError):
        while True:
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    _still()


def _lists() -> None:
    """A message of empty lists, which are large once parsed: 150 MB as it announces."""
    os.write(3, (150_000_000).to_bytes(4, "little"))
    while True:
        os.write(3, b"[],[],[],[]," * 5000)


def _flood() -> None:
    while True:
        _say('{"progress": 0.5}')


def _drip() -> None:
    """A message of which a byte comes now and then, so that no time-out of the channel passes."""
    os.write(3, (1 << 20).to_bytes(4, "little"))
    while True:
        os.write(3, b" ")
        time.sleep(0.02)


def _still() -> None:
    """Says all the while that it is busy, and does not get on."""
    while True:
        _say('{"progress": 0.25}')
        time.sleep(0.1)


def _fill(descriptor: int) -> None:
    """As much as the disk takes; then as if nothing were."""
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(1 << 20))
    while True:
        _say('{"progress": 0.25}')
        time.sleep(0.1)


def _fill_deep(out: str) -> None:
    folder = os.open(out, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d", dir_fd=folder)
        folder, before = os.open("d", os.O_RDONLY, dir_fd=folder), folder
        os.close(before)
    _fill(os.open("deep", os.O_WRONLY | os.O_CREAT, dir_fd=folder))


def _fill_and_complain(out: str) -> None:
    """The disk's own fault is what it reports, at once: it was full indeed."""
    descriptor = os.open(f"{out}/a.tiff", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(1 << 20))
    _say('{"transient": {"why": "disk", "detail": "no space left"}}')
    time.sleep(1000)


def _fill_nameless(out: str) -> None:
    """By room that no look at its output shows, by every way to have some."""

    def unlinked() -> int:
        descriptor = os.open(f"{out}/a", os.O_WRONLY | os.O_CREAT)
        os.unlink(f"{out}/a")
        return descriptor

    def replaced() -> int:
        descriptor = os.open(f"{out}/b", os.O_WRONLY | os.O_CREAT)
        os.close(os.open(f"{out}/c", os.O_WRONLY | os.O_CREAT))
        os.rename(f"{out}/c", f"{out}/b")
        return descriptor

    def reserved() -> int:
        """Behind the end of a file, where its size does not show it: FALLOC_FL_KEEP_SIZE."""
        descriptor = os.open(f"{out}/d", os.O_WRONLY | os.O_CREAT)
        libc = ctypes.CDLL(None, use_errno=True)
        free = os.fstatvfs(descriptor)
        size = ctypes.c_long(free.f_bavail * free.f_frsize)
        if libc.fallocate(descriptor, 1, ctypes.c_long(0), size) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
        _still()
        return descriptor

    made = (lambda: os.open(out, os.O_TMPFILE | os.O_WRONLY), unlinked, replaced, reserved)
    for make in made:
        with suppress(OSError):
            _fill(make())
    raise ConversionError("unreadable", "every way was denied")


#: How a decoder that was taken over might fill the disk, by the word in the name; each is given its output.
FILLS: dict[str, Callable[[str], None]] = {
    "named": lambda out: _fill(os.open(f"{out}/a.tiff", os.O_WRONLY | os.O_CREAT)),
    "deep": _fill_deep,
    "complain": _fill_and_complain,
    "nameless": _fill_nameless,
}

_BELL = "\\u001b[2J\\u0007"
#: What a decoder that was taken over may say, by the word in the name; each costs one error of its file.
SAID: dict[str, Callable[[], None]] = {
    "infinite": _saying('{"progress": 1e999}'),
    "huge": _saying('{"progress": ' + "9" * 5000 + "}"),
    "notanumber": _saying('{"progress": NaN}'),
    "negative": _saying('{"progress": -1}'),
    "toofar": _saying('{"progress": 2}'),
    "bool": _saying('{"progress": true}'),
    "string": _saying('{"progress": "0.5"}'),
    "room": _saying('{"need_bytes": ' + "9" * 18 + "}"),
    "roomless": _saying('{"need_bytes": -1}'),
    "roomhuge": _saying('{"need_bytes": 1' + "0" * 400 + "}"),
    "fault": _saying('{"transient": {"why": "input_output", "detail": "' + _BELL + '"}}'),
    "oddfault": _saying('{"transient": {"why": "' + _BELL + '", "detail": [1]}}'),
    "deep": _saying("[" * 5000 + "]" * 5000),
    "deepobject": _saying('{"a":' * 200 + "1" + "}" * 200),
    "lists": _lists,
    "flood": _flood,
    "drip": _drip,
    "still": _still,
    "threads": _threads,
    "threadsatonce": _threads_at_once,
    "reason": _saying(
        '{"error": {"reason": "' + _BELL + '", "detail": "' + _BELL + '", "retryable": 1}}'
    ),
    "detail": _saying(
        '{"error": {"reason": "damaged", "detail": "'
        + _BELL
        + "x" * 900_000
        + '", "retryable": false}}'
    ),
    "infile": _saying('{"answer_in": "/etc/passwd"}'),
    "empty": _saying("{}"),
    "nothing": _saying("null"),
    "latin": lambda: (os.write(3, b"\x02\0\0\0\xff\xfe"), time.sleep(1000))[1],
}

_DEEDS = {
    "bare": _bare,
    "raise": _raise,
    "babble": _babble,
    "wordy": _babble_json,
    "segfault": _segfault,
    "page": _lose_a_page,
    "hang": _hang,
    # Room for 8 GiB, and then nothing.
    "ask": _saying('{"need_bytes": 8589934592}'),
    "eat": _eat,
    "escape": _escape,
}


def _row(path: str) -> dict:
    return {"role": "pyramid", "path": path, "size_bytes": 1, "sha256": None, "status": "DEPLOYED"}


def _linked(file: UploadedFile) -> Outcome:
    os.symlink("/etc/passwd", f"{file.out}/a.tiff")
    rows = [*file.manifest["files"], _row("derived/a.tiff")]
    return Outcome(status=Status.DEPLOYING, changes={"files": rows})


def _piped(file: UploadedFile) -> Outcome:
    os.mkfifo(f"{file.out}/a.tiff")
    return Outcome(status=Status.DEPLOYING)


def _pyramid(file: UploadedFile, **more: object) -> Outcome:
    """An honest conversion, of which `more` is said otherwise."""
    outcome = REAL[Status.CONVERTING](file)
    return Outcome(status=outcome.status, changes={**outcome.changes, **more})


def _made(deed: Callable[[str], object]) -> Callable[[UploadedFile], Outcome]:
    """An honest conversion, and then something that is done in its directory, with the pyramid's path."""

    def lie(file: UploadedFile) -> Outcome:
        outcome = _pyramid(file)
        [row] = [row for row in outcome.changes["files"] if row["role"] == "pyramid"]
        deed(f"{file.out}/{row['path'].removeprefix('derived/')}")
        return outcome

    return lie


def _in_place_of(make: Callable[[str], object]) -> Callable[[UploadedFile], Outcome]:
    def deed(path: str) -> None:
        durable.rename(path, f"{path}.away")
        make(path)

    return _made(deed)


def _deep_folders(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner


def _long_name(path: str) -> None:
    """As long as a name can be, which leaves no room for anything behind it."""
    os.close(os.open(f"{os.path.dirname(path)}/{'n' * 255}", os.O_CREAT | os.O_WRONLY))


def _many_files(path: str) -> None:
    for number in range(3000):
        os.close(os.open(f"{path}.{number}", os.O_CREAT | os.O_WRONLY))


def _linked_pyramid(path: str) -> None:
    os.link(path, f"{path}.second")


def _sparse(file: UploadedFile) -> Outcome:
    """An honest pyramid, and then a terabyte that was never written, of which it tells."""
    outcome = _pyramid(file)
    rows = [dict(row) for row in outcome.changes["files"]]
    [row] = [row for row in rows if row["role"] == "pyramid"]
    row["size_bytes"] = 1 << 40
    path = f"{file.out}/{row['path'].removeprefix('derived/')}"
    os.ftruncate(os.open(path, os.O_WRONLY), 1 << 40)
    return Outcome(status=outcome.status, changes={**outcome.changes, "files": rows})


#: What it might make in the place of, or beside, what it says that it made.
MADE: dict[str, Callable[[UploadedFile], Outcome]] = {
    "fifo": _in_place_of(os.mkfifo),
    "zero": _in_place_of(lambda path: os.symlink("/dev/zero", path)),
    "folder": _in_place_of(os.mkdir),
    "socket": _in_place_of(lambda path: os.mknod(path, 0o140644)),
    "hardlink": _made(_linked_pyramid),
    "longer": _made(lambda path: os.truncate(os.open(path, os.O_WRONLY), 1 << 40)),
    "sparse": _sparse,
    "many": _made(_many_files),
    "inside": _made(lambda path: os.mkdir(f"{path}.d", 0)),
    "twoscores": lambda file: _pyramid(file, warnings=[{}]),
    "nosource": lambda file: _pyramid(file, files=[]),
    "noimage": lambda file: _pyramid(file, images=[]),
}


#: What a decoder that was taken over might say that it made, by the word in the name.
LIES: dict[str, Callable[[UploadedFile], Outcome]] = {
    "skip": lambda file: Outcome(status=Status.DEPLOYED),
    "back": lambda file: Outcome(status=Status.UPLOADED),
    "error": lambda file: Outcome(status=Status.ERROR_FORMAT),
    "user": lambda file: Outcome(status=Status.DEPLOYING, changes={"user": "bob"}),
    "id": lambda file: Outcome(status=Status.DEPLOYING, changes={"id": "../../../x"}),
    "path": lambda file: Outcome(
        status=Status.DEPLOYING,
        changes={"files": [*file.manifest["files"], _row("derived/../../../../etc/passwd")]},
    ),
    "absolute": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"files": [*file.manifest["files"], _row("/etc/passwd")]}
    ),
    "absent": lambda file: Outcome(
        status=Status.DEPLOYING,
        changes={"files": [*file.manifest["files"], _row("derived/x.tiff")]},
    ),
    "schema": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"images": [{"width": "wide"}]}
    ),
    "nan": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"conversion": {"seconds": float("nan")}}
    ),
    "surrogate": lambda file: Outcome(
        status=Status.DEPLOYING, changes={"conversion": {"reader": "\ud800"}}
    ),
    "link": _linked,
    "pipe": _piped,
}


def _beside(path: str) -> None:
    Path(f"{path}.more").write_text("nobody names it")
    os.symlink("/etc/passwd", f"{path}.link")


def _members(deed: Callable[[Path], object]) -> Callable[[UploadedFile], Outcome]:
    """An honest extraction, and then something that is done to the first member."""

    def lie(file: UploadedFile) -> Outcome:
        outcome = REAL[Status.EXTRACTING_DATA](file)
        deed(Path(file.out, "children", outcome.changes["children"][0]))
        return outcome

    return lie


def _manifest_is(make: Callable[[Path], object]) -> Callable[[UploadedFile], Outcome]:
    def deed(member: Path) -> None:
        durable.rename(member / "manifest.json", member / "away")
        make(member / "manifest.json")

    return _members(deed)


def _manifest_says(**more: object) -> Callable[[UploadedFile], Outcome]:
    def deed(member: Path) -> None:
        path = member / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))

    return _members(deed)


def _renamed_member(file: UploadedFile, new: str) -> Outcome:
    outcome = REAL[Status.EXTRACTING_DATA](file)
    return Outcome(status=outcome.status, changes={**outcome.changes, "children": [new]})


#: What it might make of the members of an archive.
MEMBERS: dict[str, Callable[[UploadedFile], Outcome]] = {
    "fifo": _manifest_is(os.mkfifo),
    "zero": _manifest_is(lambda path: path.symlink_to("/dev/zero")),
    "folder": _manifest_is(lambda path: path.mkdir()),
    "none": _manifest_is(lambda _path: None),
    "deep": _manifest_is(lambda path: path.write_text("[" * 100_000)),
    "large": _manifest_is(
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 33)
    ),
    "user": _manifest_says(user="bob"),
    "status": _manifest_says(status="DEPLOYED"),
    "projects": _manifest_says(projects=["secret"]),
    "parent": _manifest_says(parent_id=None),
    "root": _manifest_says(root_id="20261123-141502-k3f9-x"),
    "elsewhere": _manifest_says(drop_path="bob/x.png"),
    "more": _manifest_says(more=[[[]]]),
    "name": _manifest_says(name=["x"]),
    "linked": _members(lambda member: (member / "source" / "more").symlink_to("/etc/passwd")),
    "twice": lambda file: _renamed_member(file, file.manifest["id"]),
    "up": lambda file: _renamed_member(file, "../../../x"),
}


def _claims(file: UploadedFile) -> Outcome:
    """An honest look, and then the hash of another slide, which its name states."""
    outcome = REAL[Status.DETECTING_FORMAT](file)
    digest = file.manifest["name"].split("-")[1].partition(".")[0]
    rows = [{**row, "sha256": digest} for row in file.manifest["files"]]
    return Outcome(
        status=outcome.status, changes={**outcome.changes, "files": rows, "sha256": digest}
    )


def _scribble(file: UploadedFile) -> None:
    """Threads that write to the pyramid as long as they are there."""
    [row] = [row for row in file.manifest["files"] if row["role"] == "pyramid"]
    descriptor = os.open(row["path"], os.O_RDWR)

    def write() -> None:
        number = 0
        while True:
            number += 1
            os.pwrite(descriptor, number.to_bytes(8, "little"), row["size_bytes"] - 8)

    for _ in range(4):
        threading.Thread(target=write, daemon=True).start()


def _slow(file: UploadedFile, steps: int) -> None:
    for step in range(steps):
        file.progress(step / 100)
        time.sleep(0.4)


def _wrapped(status: Status) -> Callable[[UploadedFile], Outcome]:
    def stage(file: UploadedFile) -> Outcome:
        name = file.manifest["name"]
        for word, deed in _DEEDS.items():
            if name.startswith(f"{word}-{status.name}"):
                deed()
        if name.startswith(f"slow-{status.name}"):
            _slow(file, 8)
        if name.startswith(f"stall-{status.name}"):
            _slow(file, 3)
            _hang()
        for word, lie in LIES.items():
            if name.startswith(f"lie-{word}-") and status is Status.CONVERTING:
                return lie(file)
        if status is Status.CONVERTING and name.startswith("said-"):
            SAID[name.split("-")[1].partition(".")[0]]()
        if status is Status.CONVERTING and name.startswith("fill-"):
            FILLS[name.split("-")[1].partition(".")[0]](file.out)
        if status is Status.CONVERTING and name.startswith("made-"):
            return MADE[name.split("-")[1].partition(".")[0]](file)
        if status is Status.CONVERTING and name.startswith("large"):
            return _pyramid(file, warnings=[f"{number} {'w' * 3000}" for number in range(400)])
        if status is Status.CONVERTING and name.startswith("unnamed"):
            deeds = {"deep": _deep_folders, "long": _long_name}
            return _made(deeds.get(name.split("-")[1].partition(".")[0], _beside))(file)
        if status is Status.EXTRACTING_DATA and name.startswith("member-"):
            return MEMBERS[name.split("-")[1].partition(".")[0]](file)
        if status is Status.DETECTING_FORMAT and name.startswith("claims-"):
            return _claims(file)
        outcome = REAL[status](file)
        if status is Status.DEPLOYING and name.startswith("scribble-"):
            _scribble(file)
        if name.startswith(f"pause-{status.name}"):
            # Progress is throttled: what comes too soon after the last is not told.
            time.sleep(0.2)
            file.progress(0.5)
            time.sleep(1000)
        return outcome

    return stage


STAGES = MappingProxyType({status: _wrapped(status) for status in REAL})
