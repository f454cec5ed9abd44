"""However drops are dropped, retried, returned and dropped again by several users: a slide stays the slide it was."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cytowatch.admin import requests
from cytowatch.cli import export
from cytowatch.record.errors import RootError
from cytowatch.record.originals import originals
from cytowatch.tree.spool import Spool
from tests.builders import cellsens, picture, vendors
from tests.builders.dicom import dicom_wsi
from tests.lab.root import HANGS_S, Root

_SLIDE_ID = b"0123456789abcdef0123456789ABCDEF"
_STEM = "stem of the builder"
_USERS = ("ann", "bob", "cy")
#: Stems that a disk keeps as they are, and stems that are renamed below source/.
_STEMS = ("1", "Größe [2]", "a\udce9")
_HOWS = ("loose", "loose", "folder", "archive", "nested")
#: Stands behind the content of each file, where no reader looks: which drop it came in, and of which patient.
_MARK = re.compile(rb"#drop (\d+) patient (\w)#")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that a user or the admin does; `lacks` are the numbers of the files that are left out."""

    do: str
    user: str
    kind: str = ""
    patient: str = ""
    stem: str = ""
    how: str = ""
    lacks: frozenset[int] = frozenset()


_DROPS = st.builds(
    Step,
    do=st.just("drop"),
    user=st.sampled_from(_USERS),
    kind=st.sampled_from(["mrxs", "mrxs", "vms", "vsi", "dicom"]),
    patient=st.sampled_from("ABC"),
    stem=st.sampled_from(_STEMS),
    how=st.sampled_from(_HOWS),
    lacks=st.one_of(st.just(frozenset[int]()), st.frozensets(st.integers(0, 4), max_size=2)),
)
_OTHERS = st.builds(
    Step,
    do=st.sampled_from(["retry", "return", "again", "rest", "settle"]),
    user=st.sampled_from(_USERS),
)


class World:
    """A running daemon, and what was dropped up to now: by drop, the path and the bytes of each file."""

    def __init__(self, root: Root, made: Path) -> None:
        self.root = root
        self.made = made
        self.dropped: dict[int, dict[str, bytes]] = {}
        #: By user, what is left out of their loose sets until now.
        self.held_back: dict[str, list[tuple[Path, bytes]]] = {}
        self.example = 0
        self.number = 0

    def inbox(self, user: str) -> Path:
        path = self.root.path / "inbox" / f"{user}{self.example}"
        path.mkdir(exist_ok=True)
        return path

    def files(self, step: Step) -> dict[str, bytes]:
        """The files of a new drop, each marked behind its content."""
        self.number += 1
        # A DICOM is of the slide that its series says: it is made again for each patient.
        source = self.made / f"{step.kind}{step.patient if step.kind == 'dicom' else ''}"
        if not source.exists():
            makers = {"mrxs": vendors.mirax_mrxs, "vms": vendors.vms, "vsi": two_stacks}
            make = makers.get(step.kind)
            make(source, _STEM) if make else dicom_wsi(source, names=f"{_STEM}-{{}}.dcm")
        mark = f"#drop {self.number} patient {step.patient}#".encode()
        found = {}
        for path in sorted(source.rglob("*")):
            if path.is_file():
                data = path.read_bytes().replace(_SLIDE_ID, step.patient.encode() * 32)
                data = data.replace(_STEM.encode(), os.fsencode(step.stem))
                behind = b"\n; " + mark + b"\n" if path.suffix in (".ini", ".vms") else mark
                # A reader of DICOM takes what follows for a data element.
                element = b"\xfc\xff\xfc\xffOB\0\0" + (len(mark) + len(mark) % 2).to_bytes(
                    4, "little"
                )
                if step.kind == "dicom":
                    behind = element + mark + b"\0" * (len(mark) % 2)
                found[str(path.relative_to(source)).replace(_STEM, step.stem)] = data + behind
        return found

    def drop(self, step: Step) -> None:
        files = self.files(step)
        whole = dict(files)
        for at in sorted(step.lacks, reverse=True):
            if len(files) > 1:
                files.pop(sorted(files)[at % len(files)])
        inbox = self.inbox(step.user)
        match step.how:
            case "loose":
                tops = {path.partition("/")[0] for path in whole}
                stems = {os.path.splitext(top)[0].partition("(")[0] for top in tops}
                here = [path for path in inbox.glob("*.dcm") if step.kind == "dicom"]
                copies = any(f"patient {step.patient}#".encode() in content(one) for one in here)
                if copies or any(one.name.startswith(tuple(stems)) for one in inbox.iterdir()):
                    # Of two sets under one stem, or two copies of one series, nobody could say which file is whose.
                    return
                self.put(inbox, files)
                rest = [(inbox / path, whole[path]) for path in whole.keys() - files.keys()]
                self.held_back.setdefault(step.user, []).extend(rest)
                files = whole
            case "folder":
                self.put(inbox / f"case {self.number}", files)
            case _:
                data = packed(files)
                if step.how == "nested":
                    data = packed({"inner": data})
                self.put(inbox, {f"case {self.number}": data})
        self.dropped[self.number] = files

    def put(self, folder: Path, files: dict[str, bytes]) -> None:
        for path, data in files.items():
            written(folder / path, data)

    def rest(self, user: str) -> None:
        """What was left out of a loose set comes late."""
        for path, data in self.held_back.pop(user, []):
            if path.exists() or path.parent.is_file():
                continue
            [(drop, _)] = _MARK.findall(data)
            if {drop} >= self.drops_in(self.inbox(user)):
                written(path, data)

    def drops_in(self, folder: Path) -> set[bytes]:
        """The drops of which something lies there, but for what was handed back and what is packed."""
        return {
            drop
            for path in below(folder)
            if "_returned" not in path.parts
            for drop, _ in _MARK.findall(content(path))
        }

    def again(self, user: str) -> None:
        """What was handed back is dropped once more, as a folder."""
        returned = self.inbox(user) / "_returned"
        if returned.exists():
            self.number += 1
            returned.rename(self.inbox(user) / f"again {self.number}")

    def ask(self, do: str, user: str) -> None:
        spool = Spool.open(self.root.path)
        for id_, found in self.mine().items():
            if found["user"].startswith(user) and found["status"].startswith("ERROR"):
                # The part of another drop is refused, by design.
                try:
                    requests.ask(spool, {"do": do, "id": id_}, now=lambda: datetime.now(UTC))
                except RootError as error:
                    assert "send that again" in str(error), error

    def mine(self) -> dict[str, dict[str, Any]]:
        ends = tuple(f"{user}{self.example}" for user in _USERS)
        return {i: one for i, one in self.root.manifests().items() if one["user"] in ends}

    def settle(self) -> None:
        def quiet() -> bool:
            stay = {one["path"] for one in self.root.waiting() if one["why"] == "not_an_image"}
            left = [
                os.fsencode(path.relative_to(self.root.path / "inbox")).decode("utf-8", "replace")
                for user in _USERS
                for path in below(self.inbox(user))
                if "_returned" not in path.parts and not path.name.endswith(".why.txt")
            ]
            if set(left) - stay or list((self.root.path / "state" / "tmp").iterdir()):
                return False
            finals = ("ERROR", "DEPLOYED", "CONVERTED", "EXTRACTED")
            return all(found["status"].startswith(finals) for found in self.mine().values())

        # Twice: what moves from one folder to another while they are listed is in none of them.
        self.root.wait(lambda: quiet() and quiet())

    def check(self, target: Path) -> None:
        """Every set that is shown is of one drop and one patient, and every name comes back by `export`."""
        for id_, found in self.mine().items():
            files = list(originals(found))
            if not files or (found["format"] and found["format"]["id"] in ("zip", "tar")):
                continue
            export.export(id_, target / id_, root=self.root.path, config=self.root.config)
            paths = {path.relative_to(target / id_) for path in (target / id_).rglob("*.*")}
            assert len(paths) == len(files)
            marks = set()
            for path in paths:
                data = (target / id_ / path).read_bytes()
                [(drop, patient)] = set(_MARK.findall(data))
                marks.add((drop, patient))
                named = {data: name for name, data in self.dropped[int(drop)].items()}
                # Of a slide that stood beside another of its name the stem has a number.
                name = re.sub(r" \(\d+\)(?=[./])", "", os.fspath(path))
                assert named[data] == name, (found["name"], found["files"])
            if found["status"] in ("DEPLOYED", "CONVERTED"):
                assert len(marks) == 1, (found["name"], marks)


def two_stacks(folder: Path, name: str) -> None:
    """A VSI of a slide and an overview, each in a stack of its own."""
    pixels = picture(600, 400)
    files = {
        f"{name}.vsi": cellsens.vsi([(600, 400, 0), (150, 100, 1)]),
        f"_{name}_/stack1/frame_t.ets": cellsens.stack({(0,): pixels}),
        f"_{name}_/stack2/frame_t.ets": cellsens.stack({(0,): pixels[::4, ::4]}),
    }
    for path, data in files.items():
        written(folder / path, data)


def below(folder: Path) -> Iterator[Path]:
    """The files in it; a folder that was claimed a moment ago has none."""
    for top, _, files in os.walk(folder):
        yield from (Path(top, name) for name in files)


def content(path: Path) -> bytes:
    """What a file holds; nothing if it was claimed a moment ago."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def written(path: Path, data: bytes) -> None:
    """Write a file, again if its folder was claimed a moment ago."""
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return
    raise FileNotFoundError(path)


def packed(files: dict[str, bytes]) -> bytes:
    """A zip; a tar if a name is not UTF-8, for a zip would say it in a code page, which is guessed."""
    stream = io.BytesIO()
    if all(path.isprintable() for path in files):
        with zipfile.ZipFile(stream, "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    top = tmp_path_factory.mktemp("identity")
    root = Root(top / "root")
    root.configure(inbox="incomplete_after_s = 0.7\nfolder_quiet_s = 0.4")
    os.system(f"{' '.join(root.command('init', str(root.path)))} >/dev/null")
    root.start()
    yield World(root, top / "made")
    if root.process and root.process.poll() is None:
        root.process.kill()
        root.process.wait(HANGS_S)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(_DROPS | _DROPS | _OTHERS, min_size=4, max_size=14))
def test_no_slide_is_of_two_drops(world: World, tmp_path: Path, steps: list[Step]) -> None:
    """MRXS, VMS, VSI and DICOM of three patients, whole or not, under stems that are the same: loose, in folders, in archives."""
    world.example += 1
    for step in [*steps, Step(do="settle", user="ann")]:
        match step.do:
            case "drop":
                world.drop(step)
            case "rest":
                world.rest(step.user)
            case "again":
                world.again(step.user)
            case "settle":
                world.settle()
            case _:
                world.ask(step.do, step.user)
    world.check(tmp_path / f"exported {world.example}")
