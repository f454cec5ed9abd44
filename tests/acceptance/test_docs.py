"""The commands of the documents, run word for word on a machine of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builders
from tests.builders import vendors
from tests.integration.test_matrix import ROWS, VSI
from tests.needs import lacking, needs, unless

HOUSE = Path(__file__).parents[2]
DOCS = HOUSE / "docs"

_TOOLS = (
    "bash", "mount", "rsync", "setpriv", "smbclient", "smbd", "systemd-analyze", "unshare", "useradd",
)  # fmt: skip


def no_lab() -> str | None:
    """What this machine lacks to be a lab of its own."""
    if why := lacking(*_TOOLS, root=True):
        return why
    found = subprocess.run(
        ["/usr/bin/python3", "-c", "import ensurepip"], check=False, stderr=subprocess.DEVNULL
    ) if Path("/usr/bin/python3").exists() else None  # fmt: skip
    good = found is not None and found.returncode == 0
    return (
        None
        if good
        else "missing: ensurepip of /usr/bin/python3 (Debian: apt install python3-venv)"
    )


needs_root = unless(no_lab())


def sections(page: Path) -> dict[str, list[str]]:
    """The shell blocks of `page` by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    heading = ""
    pattern = re.compile(r"^##? ([^\n]+)$|^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for match in pattern.finditer(page.read_text()):
        if match[1]:
            heading = match[1]
        else:
            found.setdefault(heading, []).append(match[2])
    return found


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, made of what is checked out, with all that it needs."""
    where = tmp_path_factory.mktemp("house") / "wheels"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(where)]
    subprocess.run([*build, str(HOUSE)], check=True, capture_output=True)
    [ours] = where.glob("cytowatch-*.whl")
    # Of the Python that the documents' user has, which need not be the one that runs the tests.
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(where.parent / "venv")], check=True)
    pip = [str(where.parent / "venv" / "bin" / "python"), "-m", "pip", "wheel", "--quiet"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(where), str(ours)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The documents start in the directory that holds dist/.
    (where / "dist").symlink_to(".")
    return where


def lab(wheels: Path, script: str, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
    path = wheels.parent / "script.sh"
    path.write_text("set -euxo pipefail\n" + script)
    return subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child",
         sys.executable, "-m", "tests.lab.machine", str(path)],
        capture_output=True, text=True, check=False, timeout=timeout_s, cwd=HOUSE,
        start_new_session=True,
    )  # fmt: skip


def test_every_page_with_commands_is_run() -> None:
    """A page that gets commands later must be added to the test below."""
    found = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if sections(path)}
    run = {"tutorial.md", "how-to/install.md", "how-to/new-user.md", "how-to/project.md",
           "how-to/stuck-slide.md", "how-to/set-aside.md"}  # fmt: skip
    # Its commands name a panel of the lab's: tests/panel/test_uploads.py sends to one of its own.
    assert found == run | {"how-to/add-files.md"}
    assert list(sections(HOUSE / "README.md")) == ["Running it"]


@needs("bash")
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """As somebody types them who has just run `make demo`."""
    [block] = sections(HOUSE / "README.md")["Running it"]
    slide = tmp_path / "slide.svs"
    builders.aperio_svs(slide)
    bin_ = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", block], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DEPLOYED" in done.stdout
    assert "Traceback" not in done.stderr


def test_links_between_the_documents_lead_somewhere() -> None:
    """Files, and the headings in them."""
    pages = [HOUSE / "README.md", HOUSE / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text()):
            if target and not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page}: {target}"


@needs_root
def test_a_lab_is_installed_by_the_documents(wheels: Path) -> None:
    """Installed, configured, used from a scanner on, upgraded, backed up, restored, moved, removed."""
    install = sections(DOCS / "how-to" / "install.md")
    assert list(install) == [
        "Install", "Change the configuration", "Upgrade", "Back up", "Restore", "Move the tree",
        "Remove",
    ]  # fmt: skip
    tutorial = sections(DOCS / "tutorial.md")
    assert len(tutorial) == 5

    def all_of(*headings: str) -> str:
        return "".join(block for heading in headings for block in install[heading])

    script = [
        all_of("Install", "Change the configuration"),
        "test $(stat -c %U /srv/cytowatch/state/lock) = cytowatch\n",
        "cd /root\n",
        *(block for blocks in tutorial.values() for block in blocks),
        *(
            block
            for name in ("new-user", "project", "stuck-slide", "set-aside")
            for blocks in sections(DOCS / "how-to" / f"{name}.md").values()
            for block in blocks
        ),
        # Nothing of root's may have come into the tree by commands that root ran.
        'test -z "$(find /srv/cytowatch -user root)"\n',
        f"cd {wheels}\n",
        all_of("Upgrade", "Back up"),
        # What the backup is for: the disk is new.
        "systemctl stop cytowatch; rm -r /srv/cytowatch/storage /srv/cytowatch/stages\n",
        all_of("Restore"),
        "cytowatch list | grep core-7\n",
        all_of("Move the tree"),
        "cytowatch list | grep core-7\ncytowatch verify\n",
        "systemctl stop smbd\n",
        all_of("Remove"),
        "test -f /mnt/cytowatch/storage/scanner1/*/derived/core-7.tiff\n",
        "! id cytowatch\n",
    ]
    done = lab(wheels, "".join(script))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert "storage/scanner1" in done.stdout
    assert "core 7.png - CONVERTED" in done.stdout


@needs_root
def test_every_format_is_read_under_the_restrictions_of_the_unit(
    wheels: Path, tmp_path: Path
) -> None:
    """The daemon, its zygote and every decoder, with the unit's filter of system calls and the rest."""
    drops = tmp_path / "drops"
    drops.mkdir()
    for row in ROWS:
        row.make(drops / f"{row.id}.{row.extension}")
    vendors.mirax_mrxs(drops, "M")
    shutil.make_archive(str(tmp_path / "batch"), "zip", root_dir=drops)
    shutil.copy(tmp_path / "batch.zip", drops)
    if VSI.parent.exists():
        shutil.copytree(VSI.parent, drops, dirs_exist_ok=True)
        subprocess.run(["chmod", "-R", "u+w", str(drops)], check=True)
    install = sections(DOCS / "how-to" / "install.md")["Install"]
    script = [
        *install[:4],
        "install -d -o cytowatch -g cytowatch /srv/cytowatch/inbox/ann\n",
        f"cp -r {drops}/. /srv/cytowatch/inbox/ann\nchown -R cytowatch: /srv/cytowatch/inbox\n",
        # Somebody else's folder: what lies in it cannot be moved, and is waited for by nobody.
        "install -d -o root /srv/cytowatch/inbox/bob\n",
        f"install -m 0644 {drops}/aperio-svs.svs /srv/cytowatch/inbox/bob/theirs.svs\n",
        "cp /opt/cytowatch/share/cytowatch/cytowatch.service /run\n",
        "chmod 0711 /run\n",
        f"{sys.executable} {HOUSE}/tests/lab/unit_sandbox.py /run/cytowatch.service -- "
        "/usr/bin/timeout 120 /opt/cytowatch/bin/cytowatch run --until-idle > /run/log "
        "|| { cat /srv/cytowatch/state/live.json /run/log; false; }\n",
        f"cp /srv/cytowatch/state/live.json {tmp_path}\n",
        f"cytowatch list --json > {tmp_path}/list.json\n",
        # The restrictions are there, and so is Landlock within them.
        f"{sys.executable} {HOUSE}/tests/lab/unit_sandbox.py /run/cytowatch.service -- "
        "/bin/sh -c 'cat /proc/self/status; touch /etc/x || true; "
        "touch /srv/cytowatch/x && rm /srv/cytowatch/x; /opt/cytowatch/bin/cytowatch check'\n",
        # A decoder that was taken over, as the unit's user and under the unit's restrictions.
        f"install -m 0644 {HOUSE}/tests/acceptance/probe.py /opt/probe.py\n"
        "install -d -o cytowatch /srv/cytowatch/probe\n"
        f"{sys.executable} {HOUSE}/tests/lab/unit_sandbox.py /run/cytowatch.service -- "
        f"/opt/cytowatch/bin/python /opt/probe.py /srv/cytowatch/probe > {tmp_path}/probe.json\n",
    ]
    done = lab(wheels, "".join(script))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    probed = json.loads((tmp_path / "probe.json").read_text())["both"]
    assert {word for word, came in probed.items() if came != "denied"} == set()
    found = {one["name"]: one for one in json.loads((tmp_path / "list.json").read_text())}
    wrong = {name: one["error"] for name, one in found.items() if one["error"]}
    assert wrong == {}
    assert len(found) >= len(ROWS) + 2
    live = json.loads((tmp_path / "live.json").read_text())
    assert live["sandbox"]
    [waits] = live["waiting"]
    assert (waits["path"], waits["why"]) == ("bob/theirs.svs", "not_permitted")
    assert "must belong to the user of cytowatch" in waits["detail"]
    for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"):
        assert line in done.stdout
    assert "/etc/x" in done.stderr
    assert "Read-only file system" in done.stderr
