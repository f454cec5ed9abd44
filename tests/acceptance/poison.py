"""One of each thing that once stopped, hung or starved the daemon for everybody; each may be dropped again."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests import builders
from tests.lab import stages
from tests.lab.root import STAGES, Root

#: Whose inbox and storage the poison goes to; what ends there is nobody's slide.
USER = "mallory"
_DEEP = 1200
#: Nobody of this machine.
_OTHER = 4242
_NESTED = b"[" * 100_000 + b"]" * 100_000


def _inbox(root: Root) -> Path:
    path = root.path / "inbox" / USER
    path.mkdir(exist_ok=True)
    return path


def deep_folder(root: Root, number: int) -> None:
    """A folder in a folder in a folder, more often than Python calls itself."""
    descriptor = os.open(_inbox(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in (f"deep-{number}", *["d"] * _DEEP):
            # The daemon may take away what is empty while this goes down.
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except FileNotFoundError:
        pass
    finally:
        os.close(descriptor)


def latin_tar(root: Root, number: int) -> None:
    """A tar whose names are not UTF-8: of an image, and of a folder above one."""
    picture = builders.jpeg(root.path.parent / f"poison-{number}.jpg").read_bytes()
    with tarfile.open(
        _inbox(root) / f"latin-{number}.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as archive:
        for name in (f"Gärtner-{number}.jpg", f"Gärtner/{number}.jpg", f"ok-{number}.jpg"):
            entry = tarfile.TarInfo(name)
            entry.size = len(picture)
            archive.addfile(entry, io.BytesIO(picture))


def many_folders(root: Root, number: int) -> None:
    """Folders that each might be part of a set, beside files that each might be its other part."""
    inbox = _inbox(root) / f"many-{number}"
    inbox.mkdir()
    for one in range(100):
        (inbox / f"_d{one}_" / "stack1").mkdir(parents=True)
    for one in range(700):
        (inbox / f"{one}.vsi").touch()


def odd_names(root: Root, number: int) -> None:
    """Names of 255 bytes, of bytes that are not text, of what a terminal acts on."""
    inbox = os.fsencode(_inbox(root))
    for name in (
        b"\xe4" * 250,
        b"\x1b[2J\n.jpg",
        b"[page=3].tif",
        b"-rf",
        "\u202egpj.exe".encode(),
    ):
        with open(inbox + b"/" + name + str(number).encode(), "wb") as file:
            file.write(b"\xff\xd8\xff\xe0poison")


def requests(root: Root, number: int) -> None:
    """Requests that are pipes, folders, deep, huge, odd."""
    place = root.path / "state" / "requests"
    with suppress(FileExistsError):
        os.mkfifo(place / f"pipe-{number}.json")
    with suppress(FileExistsError):
        os.mkfifo(place / f"pipe-{number}.lighten")
    (place / f"folder-{number}.json").mkdir(exist_ok=True)
    (place / f"deep-{number}.json").write_bytes(_NESTED)
    (place / f"event-{number}.json").write_bytes(b'{"do": "retry", "id": "x", "event": "y"}')
    (place / f"kind-{number}.json").write_bytes(b'{"do": {"a": []}, "id": ["../../x"]}')
    (place / f"text-{number}.lighten").write_bytes(b"\xff\xfe\x00../..")
    (place / f"link-{number}.json").symlink_to("/dev/zero")


def manifests(root: Root, number: int) -> None:
    """Uploaded files in storage whose manifest is of no use."""
    storage = root.path / "storage" / USER
    for kind, what in (
        ("deep", _NESTED),
        ("huge", json.dumps({"schema_version": 10**300}).encode()),
        ("type", b'{"schema_version": 1, "id": 5, "history": {"a": 1}}'),
        ("pipe", None),
        ("fold", None),
        ("zero", None),
    ):
        place = storage / f"20260101-000000-{kind}-poison-{number}"
        place.mkdir(parents=True, exist_ok=True)
        match kind:
            case "pipe":
                os.mkfifo(place / "manifest.json")
            case "fold":
                (place / "manifest.json").mkdir()
            case "zero":
                (place / "manifest.json").symlink_to("/dev/zero")
            case _:
                assert what
                (place / "manifest.json").write_bytes(what)


def configuration(root: Root, number: int) -> None:
    """A reload of a configuration that cannot be read, then of the true one."""
    true = root.config.read_bytes()
    bad = root.config.with_suffix(".bad")
    bad.unlink(missing_ok=True)
    match number % 3:
        case 0:
            bad.write_bytes(b"a = " + _NESTED)
        case 1:
            os.mkfifo(bad)
        case _:
            bad.symlink_to("/dev/zero")
    bad.rename(root.config)
    try:
        if root.process and root.process.poll() is None:
            with suppress(ProcessLookupError):
                root.process.send_signal(signal.SIGHUP)
    finally:
        # A daemon that starts at this very moment reads the true one.
        good = root.config.with_suffix(".good")
        good.write_bytes(true)
        good.rename(root.config)


def decoders(root: Root, number: int) -> None:
    """Pictures and archives over whose names the decoders of `stages` say and make what they like.

    Some in each round, so that all of them come in a few minutes.
    """
    picture = builders.png(root.path.parent / f"poison-{number}.png")
    packed = root.path.parent / f"poison-{number}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(picture, "a.png")
    said, made, members = (sorted(some) for some in (stages.SAID, stages.MADE, stages.MEMBERS))
    names = [f"said-{said[(2 * number + one) % len(said)]}" for one in range(2)]
    names += [f"made-{made[number % len(made)]}", f"unnamed-{('deep', 'long', 'few')[number % 3]}"]
    for name in names:
        _moved_in(picture, root, f"{name}.{number}.png")
    _moved_in(packed, root, f"member-{members[number % len(members)]}.{number}.zip")


def _moved_in(source: Path, root: Root, name: str) -> None:
    written = root.path / "inbox" / f".{name}"
    shutil.copyfile(source, written)
    written.rename(_inbox(root) / name)


def closed(root: Root, number: int) -> None:
    """Folders that the daemon may not enter (see `ENVIRONMENT` and `PREFIX`), and one that it may not change."""
    for name, mode in ((f"closed-{number}", 0o700), (f"kept-{number}", 0o755)):
        folder = _inbox(root) / name / "inner"
        folder.mkdir(parents=True)
        builders.jpeg(folder / "a.jpg")
        if os.geteuid() == 0:
            os.chown(folder, _OTHER, _OTHER)
            folder.chmod(mode)
        else:
            folder.chmod(mode & 0o555 if mode == 0o755 else 0)


def feedback(root: Root, number: int) -> None:
    """A pipe where a note is to be written."""
    folder = root.path / "status" / USER
    folder.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.mkfifo(folder / ".note")


#: Stages that do what the name of a file tells them to.
ENVIRONMENT = dict(STAGES)
#: Let a daemon that is root's be one that may not enter what is another user's.
PREFIX = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]

KINDS: tuple[Callable[[Root, int], None], ...] = (
    deep_folder,
    latin_tar,
    many_folders,
    odd_names,
    requests,
    manifests,
    configuration,
    feedback,
    decoders,
    closed,
)


def drop_all(root: Root, number: int) -> None:
    """One of each kind, once those of the round before last are gone."""
    forget(root, number - 2)
    for kind in KINDS:
        kind(root, number)


def forget(root: Root, number: int) -> None:
    """Take away what round `number` left in the inbox: nobody keeps poison for ever."""
    inbox = root.path / "inbox" / USER
    for name in (f"deep-{number}", f"many-{number}", f"closed-{number}", f"kept-{number}"):
        _remove(inbox / name)


def _remove(path: Path) -> None:
    """Like rm -r, however deep."""
    while path.is_dir():
        inner = path
        # Some hundred levels at a time, so that no path grows too long.
        for _ in range(200):
            below = next((one for one in os.scandir(inner) if one.is_dir()), None)
            if below is None:
                break
            inner = Path(below.path)
        if inner is path:
            shutil.rmtree(path, ignore_errors=True)
            return
        moved = path.with_name(f"{path.name}~")
        with suppress(OSError):
            inner.rename(moved)
        shutil.rmtree(path, ignore_errors=True)
        if not moved.is_dir():
            return
        moved.rename(path)
