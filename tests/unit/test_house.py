"""The documents cannot lie: diagram, layers, dependencies, unit file and wheel against the code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomli

from cytowatch import formats
from cytowatch.observe.metrics import WAITING
from cytowatch.record import reasons
from cytowatch.record.status import FOLLOWERS, Status
from tests.needs import needs

HOUSE = Path(__file__).resolve().parents[2]
PACKAGE = HOUSE / "cytowatch"

PROJECT = tomli.loads((HOUSE / "pyproject.toml").read_text())


def where(word: str) -> set[str]:
    """The modules in which `word` stands."""
    return {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if word in path.read_text()
    }


def test_the_state_diagram_is_the_code() -> None:
    """Every arrow, and no other."""
    text = (HOUSE / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^    (\w+) --> (\w+)", text, re.MULTILINE))
    assert drawn == {(a.name, b.name) for a in Status for b in FOLLOWERS[a]}


def test_the_layers_in_the_document_are_those_that_are_checked() -> None:
    """In their order."""
    text = (HOUSE / "docs" / "architecture.md").read_text()
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    assert contract["exhaustive"]
    assert "\n".join(contract["layers"]) in text


def test_every_dependency_is_explained() -> None:
    """One line each, and none for what is not there."""
    text = (HOUSE / "docs" / "dependencies.md").read_text()
    explained = set(re.findall(r"^\| ([A-Za-z0-9-]+) \|", text, re.MULTILINE)) - {"package"}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *extras["dask"],
        *extras["table"],
        *extras["panel"],
    ]
    assert explained == {re.split(r"[\[<>=;]", one)[0] for one in wanted}


def test_the_formats_in_the_documents_are_those_of_the_code() -> None:
    """The README's table and docs/formats.md are what `python docs/generate.py` writes."""
    given = importlib.util.spec_from_file_location("generate", HOUSE / "docs" / "generate.py")
    assert given
    assert given.loader
    generate = importlib.util.module_from_spec(given)
    given.loader.exec_module(generate)
    readme = (HOUSE / "README.md").read_text()
    assert generate.readme(readme) == readme
    for page, text in generate.pages().items():
        assert page.read_text() == text, page
    for one in formats.FORMATS:
        assert f"`{one.id}`" in readme
    watched = (HOUSE / "docs" / "monitoring.md").read_text()
    assert generate.monitoring(watched) == watched
    depends = (HOUSE / "docs" / "dependencies.md").read_text()
    assert generate.dependencies(depends) == depends


def test_the_files_of_others_are_as_they_were_fetched() -> None:
    """Each has the hash that is written down for it, and no other file of others lies there."""
    given = importlib.util.spec_from_file_location("vendored", HOUSE / "docs" / "vendored.py")
    assert given
    assert given.loader
    vendored = importlib.util.module_from_spec(given)
    sys.modules["vendored"] = vendored
    given.loader.exec_module(vendored)
    known = {path: expected for one in vendored.VENDORED for _, path, expected in one.files}
    for path, expected in known.items():
        assert hashlib.sha256((HOUSE / path).read_bytes()).hexdigest() == expected, path
    for folder in ("cytowatch/panel/static", "tests/panel/vendor"):
        packed = {str(one.relative_to(HOUSE)) for one in (HOUSE / folder).glob("*.min.js")}
        assert packed <= set(known)


_RAISED = {
    "FormatError", "ExtractionError", "ConversionError", "DeploymentError", "stage_error",
    "DecoderTimedOut",
}  # fmt: skip


def test_every_reason_is_explained() -> None:
    """What the code can end in, and nothing that it cannot."""
    used = set()
    for path in (HOUSE / "cytowatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.func if isinstance(node.func, ast.Call) else node.func
            first = node.args[0]
            named = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if isinstance(called, ast.Name) and called.id in _RAISED and named:
                used.add(first.value)
        if path.name == "limits.py":
            # There a reason is the first word of what is returned.
            used |= {
                node.value.elts[0].value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
            }
    assert used == {one.word for one in reasons.REASONS}
    assert set(reasons.WAITING) == set(WAITING)


def test_every_format_has_a_module_with_its_source() -> None:
    """One small module per row, whose first line names the marker."""
    modules = {path.stem for path in (HOUSE / "cytowatch" / "formats").glob("*.py")}
    for one in formats.FORMATS:
        name = {"mirax-mrxs": "mirax_mrxs"}.get(one.id, one.id.replace("-", "_"))
        assert name in modules
        text = (HOUSE / "cytowatch" / "formats" / f"{name}.py").read_text()
        assert "Source:" in text.split('"""')[1]


UNITS = pytest.mark.parametrize("unit_name", ["cytowatch.service", "cytowatch-panel.service"])


@UNITS
@needs("systemd-analyze")
def test_the_unit_file_is_accepted(tmp_path: Path, unit_name: str) -> None:
    """By `systemd-analyze verify`, with the program where this test has one."""
    program = "systemd-analyze"
    text = (HOUSE / "systemd" / unit_name).read_text()
    assert "Type=notify" in text
    unit = tmp_path / unit_name
    unit.write_text(text.replace("/opt/cytowatch/bin/cytowatch", sys.executable))
    told = subprocess.run(
        [program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert unit_name not in told.stderr


@UNITS
def test_no_number_of_failed_starts_keeps_the_daemon_down(unit_name: str) -> None:
    """When somebody has mended the cause, nobody may have to know of `systemctl reset-failed`."""
    lines = (HOUSE / "systemd" / unit_name).read_text().splitlines()
    assert "StartLimitIntervalSec=0" in lines
    assert "Restart=on-failure" in lines
    assert not [line for line in lines if line.startswith(("StartLimitBurst", "RestartPrevent"))]


@UNITS
@needs("systemd-analyze")
def test_the_unit_exposes_little(unit_name: str) -> None:
    """At most 1.5 of 10, as `systemd-analyze security` reckons."""
    program = "systemd-analyze"
    told = subprocess.run(
        [program, "security", "--offline=true", "--no-pager", str(HOUSE / "systemd" / unit_name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    [score] = re.findall(rf"exposure level for {unit_name}: ([0-9.]+)", told.stdout)
    assert float(score) <= 1.5, told.stdout


@pytest.mark.slow
def test_the_wheel_works_alone(tmp_path: Path) -> None:
    """It holds the schema; only from it the commands run, in an empty folder."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            str(tmp_path),
            str(HOUSE),
        ],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "cytowatch/record/manifest.schema.json" in archive.namelist()
        assert not any(name.startswith("tests") for name in archive.namelist())
        archive.extractall(tmp_path / "site")
    words = "from cytowatch.record import schema; schema._validator(); from cytowatch.cli import main; main()"
    told = subprocess.run(
        [sys.executable, "-c", words, "formats", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"aperio-svs"' in told.stdout


@pytest.mark.parametrize("page", ["security.md", "reliability.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    """A promise whose test was renamed away is not a promise."""
    text = (HOUSE / "docs" / page).read_text()
    named = set(re.findall(r"\btest_[a-z0-9_]+\b(?!\.py)", text))
    defined = {
        node.name
        for path in (HOUSE / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    files = {path.stem for path in (HOUSE / "tests").rglob("*.py")}
    assert named <= defined | files


def test_every_module_that_a_page_names_is_there() -> None:
    """A module that has moved is named by its new place: no page sends a reader to a file that is gone."""
    lost = []
    ours = [
        str(path.relative_to(HOUSE))
        for top in ("cytowatch", "docs", "tests", "benchmarks")
        for path in (HOUSE / top).rglob("*.py")
    ]
    for page in (*HOUSE.glob("*.md"), *(HOUSE / "docs").rglob("*.md")):
        for named in re.findall(r"`([\w./-]+\.py)`", page.read_text()):
            if not any(f"/{path}".endswith(f"/{named}") for path in ours):
                lost.append(f"{page.name}: {named}")
    # What each package holds, in the table of the architecture.
    for package, holds in re.findall(
        r"(?m)^\| `(\w+)/` \| (.*) \|$", (HOUSE / "docs" / "architecture.md").read_text()
    ):
        for named in re.findall(r"`(\w+)/?`", holds):
            if not any((HOUSE / "cytowatch" / package).glob(f"**/{named}*")):
                lost.append(f"architecture.md: {package}/{named}")
    assert not lost


def test_no_stage_names_a_format() -> None:
    """Facts of a format stand in its own row: a new one touches its module, a builder and a row.

    What decodes it stands in tables by its id, beside the readers: rows lie below those.
    """
    ids = {one.id for one in formats.FORMATS}
    # They are ways to pack pixels as well.
    ids -= {"jpeg", "png"}
    named = set()
    for room in ("stages", "engine", "transitions", "lifecycle", "inbox", "admin", "pyramid"):
        for path in (PACKAGE / room).rglob("*.py"):
            module = ast.parse(path.read_text())
            keys = {
                key for one in ast.walk(module) if isinstance(one, ast.Dict) for key in one.keys
            }
            named |= {
                f"{path.relative_to(PACKAGE)}: {node.value}"
                for node in ast.walk(module)
                if isinstance(node, ast.Constant) and node.value in ids and node not in keys
            }
    # The name of the vendor, as OpenSlide states it.
    assert named == {"pyramid/readers/dicom.py: dicom"}


def test_a_vendor_touches_what_the_guide_says() -> None:
    """Of one that OpenSlide reads no other module knows, and the guide names each file that does."""
    text = (HOUSE / "CONTRIBUTING.md").read_text()
    [line] = [one for one in text.splitlines() if one.startswith("| a new vendor format")]
    known = where("trestle")
    assert known == {"formats/__init__.py", "formats/marks.py", "formats/trestle.py"}
    for one in {path.replace("trestle", "<vendor>") for path in known}:
        assert f"`{one}`" in line


def test_no_room_is_too_large() -> None:
    """No module above 350 lines."""
    large = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text().splitlines()) > 350
    }
    assert large == set()


def test_no_class_has_too_many_methods() -> None:
    """At most 20: one with more guards more than one thing."""
    large = {
        f"{path.relative_to(PACKAGE)}: {one.name}"
        for path in PACKAGE.rglob("*.py")
        for one in ast.walk(ast.parse(path.read_text()))
        if isinstance(one, ast.ClassDef)
        and sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in one.body) > 20
    }
    assert large == set()


def test_decisions_have_one_style() -> None:
    """Their number and a title, then what was decided."""
    for path in sorted((HOUSE / "docs" / "decisions").glob("*.md")):
        heading, empty, first = path.read_text().split("\n", 3)[:3]
        assert re.fullmatch(rf"# {int(path.name[:3])}\. [A-Z].*[^.]", heading), path
        assert empty == ""
        assert first.startswith("**Decision.** "), path


#: Words by which a fact is worked out, and the only modules where they may stand.
ONE_PLACE: dict[str, set[str]] = {
    # A hash of a file, a lock between processes.
    "hashlib.sha256()": {"durable/hashes.py", "cli/parcels.py"},
    "hashlib.file_digest": set(),
    "fcntl.flock": {"durable/locks.py"},
    # Whether the disk is full.
    "errno.ENOSPC": {"durable/faults.py"},
    "errno.EDQUOT": {"durable/faults.py"},
    # Where an uploaded file is, and in which status; a command, a hasher and a check hold what is published.
    "spool.stored()": {"admin/invariants.py", "tree/places.py"},
    "storage.glob": set(),
    "status_of(found": {
        "admin/invariants.py", "admin/projects.py", "engine/hashing.py", "record/place.py",
    },
    # Replacing a small file of our own: these write into an inbox, a new file, or for a person.
    ".write_text(": {
        "cli/demo.py", "cli/serve.py", "inbox/back.py", "observe/reports.py", "panel/uploads/publish.py",
    },
    "os.replace(": {"panel/uploads/publish.py"},
    # What a stage answers.
    '"crashed"': {"decoder/answers.py"},
    '"sandboxed"': {"decoder/answers.py"},
    # A JPEG 2000 is walked in one module: its boxes, the markers of its codestream, SIZ and COD.
    'b"jp2c"': {"formats/structure/jp2.py"},
    'b"jp2h"': {"formats/structure/jp2.py"},
    "jP  ": {"formats/structure/jp2.py"},
    "\\xff\\x4f": {"formats/structure/jp2.py"},
    "\\xff\\x51": {"formats/structure/jp2.py"},
    "\\xff\\x90": set(),
    "0xFF90": {"formats/structure/jp2.py"},
    "0xFF51": set(),
    "0xFF52": {"formats/structure/jp2.py"},
    # The header of a bitmap, and how long its rows are.
    "iiHHI": {"formats/structure/bmp.py"},
    "+ 31) // 32": {"formats/structure/bmp.py"},
    # What stands for a dropped folder.
    '== "directory"': set(),
    '!= "directory"': set(),
}  # fmt: skip


@pytest.mark.parametrize("word", ONE_PLACE)
def test_each_fact_has_one_place(word: str) -> None:
    """It is worked out there, and asked for everywhere else."""
    assert where(word) == ONE_PLACE[word]


def test_a_manifest_is_changed_by_evolve() -> None:
    """Which knows its keys; what is only read, or is checked as a whole, is taken for one in three other places."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "cast"
        and ast.unparse(node.args[0]) == "'Manifest'"
    }
    assert found == {"record/manifest.py", "transitions/accept.py", "decoder/made.py"}


def test_only_these_write_manifests() -> None:
    """In work the thread that treats it (`engine`, `transitions`, a claim), afterwards anyone who holds it."""
    found = where("manifest.write(") | where("manifest.write_first(")
    in_work = {
        *("transitions/accept.py", "transitions/correct.py", "transitions/enter.py"),
        *("transitions/recover.py", "inbox/claim/take.py", "inbox/folders.py"),
        "stages/extract.py",
    }
    assert in_work <= found
    finished = found - in_work
    assert finished == {
        "admin/projects.py", "admin/retry.py", "engine/hashing.py", "transitions/lighten.py",
    }  # fmt: skip
    for path in finished:
        assert "manifest.held(" in (PACKAGE / path).read_text(), path
    # Nobody else knows the name of its file: to move one aside, to compare one, to read a decoder's.
    assert where("manifest.FILE_NAME") == {
        "decoder/made.py", "engine/doubts.py", "panel/pixels/slides.py", "transitions/correct.py",
    }  # fmt: skip


def test_the_files_of_the_guide_for_changes_are_there() -> None:
    """Those that CONTRIBUTING names for a small change: a move takes its line along."""
    text = (HOUSE / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:\w+/)+[\w-]+\.(?:py|md))`", text))
    assert len(named) > 8
    assert {
        one for one in named if not ((HOUSE / one).exists() or (PACKAGE / one).exists())
    } == set()


BOUNDED = {
    "inbox/intake.py": "Intake", "inbox/turns.py": "Turns", "pyramid/virtual.py": "VirtualTiff",
    "pyramid/encode/levels.py": "_Pyramid", "panel/uploads/body.py": "Body", "panel/straight.py": "Straight",
}  # fmt: skip


@pytest.mark.parametrize("path", BOUNDED)
def test_what_holds_much_says_how_much(path: str) -> None:
    """How much at most, who upholds it, and what happens without; what it names is there."""
    text = (PACKAGE / path).read_text()
    [one] = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == BOUNDED[path]
    ]
    said = (ast.get_docstring(one) or "").partition("Memory bound\n------------\n")[2]
    assert re.search(r"\buphold|awaits", said)
    assert re.search(r"\bWithout\b|no byte has reached", said)
    others = "".join(one.read_text() for one in PACKAGE.rglob("*.py"))
    for name in re.findall(r"`(\w+)`", said):
        assert re.search(rf"(def|class) {name}\b|\b{name} =|self\.{name}\b", others), name


def test_few_modules_are_loose() -> None:
    """Everything else is in a package whose name is a noun."""
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "daemon"}
    assert loose == {"aside", "model", "outside", "threads"}


def _imported(path: Path) -> set[str]:
    """The package's modules that `path` imports, those only for its types included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return found


def test_no_imports_run_in_a_circle() -> None:
    """Not even among the modules of one package, nor for types only."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        graph[".".join(parts)] = _imported(path)
    # A package's face gathers its modules: who imports one of them does not mean the face.
    graph = {
        name: {one for one in into if one in graph and one != name} for name, into in graph.items()
    }
    while free := {name for name, into in graph.items() if not into & set(graph)}:
        graph = {name: into for name, into in graph.items() if name not in free}
    assert graph == {}
