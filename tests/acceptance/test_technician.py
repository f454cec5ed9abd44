"""A technician who has only the share: the twelve cases of `technician`, through a real smbd.

With WRITE_PAGE=1 in the environment the page is written again from what was seen; then read what changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import smbclient
import smbprotocol.exceptions

from tests.acceptance.technician import BEFORE, CASES, Case
from tests.lab import samba
from tests.lab.root import Root
from tests.lab.samba import Samba
from tests.needs import unless

pytestmark = unless(samba.missing())

HOUSE = Path(__file__).resolve().parents[2]
PAGE = HOUSE / "docs/explanation/what-a-technician-sees.md"


@pytest.fixture
def share(root: Root, tmp_path: Path) -> Iterator[Samba]:
    user = samba.getpass.getuser()
    for part in ("inbox", "status", "storage"):
        (root.path / part / user).mkdir(exist_ok=True, mode=0o770)
    tmp_path.chmod(0o755)
    made = Samba(tmp_path / "samba", root.path)
    yield made
    made.stop()


def seen(share: Samba) -> dict[str, str]:
    """What the read-only status share shows: each note's text by its name."""
    found: dict[str, str] = {}
    folder = share.path("", "cytowatch-status").rstrip("\\")
    for name in smbclient.listdir(folder, **share.session):
        path = share.path(name, "cytowatch-status")
        # Between the list and this look a note may have got another name.
        with (
            contextlib.suppress(FileNotFoundError, smbprotocol.exceptions.SMBOSError),
            smbclient.open_file(path, mode="rb", share_access="rwd", **share.session) as file,
        ):
            found[name] = file.read().decode()
    return found


def put(share: Samba, drops: list[tuple[str, bytes]]) -> None:
    for name, data in drops:
        folder, _, _ = name.rpartition("/")
        if folder:
            smbclient.makedirs(share.path(folder), exist_ok=True, **share.session)
        share.put(name, data)


def steady(text: str) -> str:
    """`text` without what is another one in each run: times, days, ids."""
    text = re.sub(r"\d{8}-\d{6}-[a-z0-9]{4}-", "20261129-144402-k3f9-", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d \w+", "2026-11-29 14:44 UTC", text)
    text = re.sub(r"before 2026-11-29", "before 2026-11-30", text)
    return re.sub(r"of \d{4}-\d\d-\d\d", "of 2026-11-28", text)


def section(number: int, case: Case, notes: dict[str, str]) -> str:
    """A case as the page shows it."""
    lines = [f"## {number}. {case.title}", "", f"The technician {case.does}.", ""]
    for name, text in sorted(notes.items()):
        lines += [f"`{steady(name)}`", "", "```text", steady(text).rstrip(), "```", ""]
    before = BEFORE[str(number)]
    lines += ["Before: " + ("; ".join(f"`{name}`" for name in before) or "no note at all"), ""]
    if before:
        lines += ["<details><summary>The texts before</summary>", ""]
        for name, text in before.items():
            lines += [f"`{name}`", "", "```text", text.rstrip(), "```", ""]
        lines += ["</details>", ""]
    return "\n".join(lines)


def page() -> dict[int, str]:
    """The sections of the page by their numbers."""
    cases = PAGE.read_text().partition("<!-- cases -->\n")[2].partition("<!-- /cases -->\n")[0]
    parts = re.split(r"(?m)^(?=## )", cases)[1:]
    return {int(found[1]): part for part in parts if (found := re.match(r"## (\d+)\.", part))}


def shown(root: Root, share: Samba, work: Path, wanted: int) -> dict[str, str]:
    """The notes of all cases once nothing is under way: `wanted` of them."""
    for case in CASES:
        put(share, case.first(work))
    in_progress = re.compile(
        r" - (RECEIVING|UPLOADED|DETECTING|EXTRACTING|CONVERTING|DEPLOYING|EXTRACTED \d+, )"
    )

    def at_rest() -> dict[str, str] | None:
        found = seen(share)
        return None if any(in_progress.search(name) for name in found) else found

    root.wait(lambda: (found := at_rest()) and len(found) >= wanted)
    for case in CASES:
        if case.then is not None:
            put(share, case.then(work))
        if case.returned:
            name = case.first(work)[0][0]
            [id_] = [id_ for id_, one in root.manifests().items() if one["name"] == name]
            subprocess.run(root.command("return", id_, "--root", str(root.path)), check=True)
    done = ("skin.jpg - CONVERTED.txt", "! minutes.txt - RETURNED.txt")
    root.wait(
        lambda: (
            (found := at_rest())
            and all(name in found for name in done)
            and any(name.startswith("lung copy.svs (") for name in found)
        ),
        60,
    )
    return seen(share)


def of(case: Case, notes: dict[str, str], work: Path) -> dict[str, str]:
    """The notes of one case: those that name what was dropped in it."""
    tops = {
        name.partition("/")[0]
        for name, _ in [*case.first(work), *(case.then(work) if case.then else [])]
    }
    return {
        name: text
        for name, text in notes.items()
        if any(re.search(rf"(^|! |in ){re.escape(top)} (-|\()", name) for top in tops)
    }


def test_the_page_shows_what_a_technician_sees(root: Root, share: Samba, tmp_path: Path) -> None:
    """Names and texts of the status share, as the page has them; nothing else is there."""
    root.configure(inbox="folder_quiet_s = 1.0")
    root.start()
    notes = shown(root, share, tmp_path, wanted=16)
    told = {number: of(case, notes, tmp_path) for number, case in enumerate(CASES, 1)}
    assert {name for some in told.values() for name in some} == set(notes)
    first = [name.startswith("! ") for name in sorted(notes)]
    assert first == sorted(first, reverse=True)
    written = {n: section(n, case, told[n]) for n, case in enumerate(CASES, 1)}
    if os.environ.get("WRITE_PAGE"):
        head, mark, rest = PAGE.read_text().partition("<!-- cases -->\n")
        tail = rest.partition("<!-- /cases -->\n")[2]
        PAGE.write_text(head + mark + "\n".join(written.values()) + "<!-- /cases -->\n" + tail)
    assert {n: text.rstrip() for n, text in written.items()} == {
        n: text.rstrip() for n, text in page().items()
    }
    names = smbclient.listdir(share.path("_returned"), **share.session)
    assert sorted(names) == ["minutes.txt", "minutes.txt.why.txt"]
    assert root.stop() == 0
