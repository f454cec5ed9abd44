"""The row of an upload on the first page, which grows from *uploading 43 %* to *deployed*."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pytest

from tests import builders
from tests.lab.panel import EVIL, Served, check_html
from tests.lab.root import HANGS_S, Root
from tests.panel.tus import add, begun, create


@pytest.fixture
def panel(tree: Root) -> Iterator[Served]:
    """A panel whose admin is zoe."""
    served = Served(tree.path, more='auth = "proxy"\nadmins = ["zoe"]\n')
    yield served
    served.stop()


Found = TypeVar("Found")


def soon(look: Callable[[], Found], true: Callable[[Found], bool]) -> Found:
    """What `look` gives as soon as it is `true`: what was read of the disk is kept a moment, for longer on a busy machine."""
    end = time.monotonic() + HANGS_S
    while not true(found := look()):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def rows(panel: Served, user: str) -> list[str]:
    """The words of each row that is in progress, as `user` reads them."""
    text = panel.as_user(user, "/live/storage").text
    check_html(text)
    moving = text.partition('id="h-moving"')[2].partition("</section>")[0]
    found = re.findall(r"<li>(.*?)</li>", moving, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", one).split()) for one in found]


def test_a_row_grows_until_it_is_deployed(tree: Root, panel: Served, tmp_path: Path) -> None:
    """For its user and for an admin, and not for anyone else; it is there again after a restart of the panel."""
    data = builders.jpeg(tmp_path / "a.jpg").read_bytes()
    at = begun(panel, len(data), filename="slide.jpg")
    assert rows(panel, "ann") == ["slide.jpg ann Uploading 0 % 0 %"]
    part = len(data) * 43 // 100 + 1
    assert add(panel, at, 0, data[:part]).code == 204
    grown = ["slide.jpg ann Uploading 43 % 43 %"]
    for user in ("ann", "zoe"):
        soon(lambda user=user: rows(panel, user), grown.__eq__)
    assert rows(panel, "bob") == []
    panel.stop()
    panel.start()
    soon(lambda: rows(panel, "ann"), grown.__eq__)
    assert add(panel, at, part, data[part:]).code == 204
    soon(lambda: rows(panel, "ann"), [].__eq__)
    tree.start()
    tree.wait(lambda: tree.by_name().get("slide.jpg", {}).get("status") == "CONVERTED")
    assert "slide.jpg" in panel.as_user("ann", "/").text
    assert tree.stop() == 0


def test_a_folder_is_one_row_and_a_silent_sender_is_named(tree: Root, panel: Served) -> None:
    """With the number of files that are here; a name is text; what is cancelled is gone from the page."""
    more = {"group": "case-7-2026", "groupFiles": "4"}
    name = EVIL.replace("/", "_")
    first = begun(panel, 4, relativePath=f"{name}/a.dat", **more)
    assert add(panel, first, 0, b"abcd").code == 204
    second = begun(panel, 4, relativePath=f"{name}/b.dat", **more)
    assert add(panel, second, 0, b"ab").code == 204
    [row] = rows(panel, "ann")
    assert "&lt;script&gt;" in row
    assert row.endswith("ann Uploading 38 % 38 % 1 of 4 files")
    for path in (tree.path / "inbox/.uploads").glob("*/tree/*/b.dat"):
        os.utime(path, (time.time() - 600,) * 2)
    [row] = soon(lambda: rows(panel, "ann"), lambda found: "nothing came" in found[0])
    assert row.endswith("nothing came for 10 min")
    assert panel.as_user("ann", second, "DELETE", Tus_Resumable="1.0.0").code == 204
    soon(lambda: rows(panel, "ann"), [].__eq__)


def uploads(panel: Served, user: str, query: str = "") -> list[dict[str, Any]]:
    """What the API lists, which is what its schema says."""
    document = panel.as_user(user, "/api/v1/openapi.json").json
    found: list[dict[str, Any]] = panel.as_user(user, f"/api/v1/uploads{query}").json
    schema = {"$ref": "#/components/schemas/uploads", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


def test_the_same_as_json(tree: Root, panel: Served) -> None:
    """What is receiving, by whom, how far and since when: one's own, for an admin everyone's; by a proxy's word or a token."""
    before = datetime.now(UTC).replace(microsecond=0)
    at = begun(panel, 200, filename="slide.jpg", project="Lung")
    assert add(panel, at, 0, bytes(86)).code == 204
    more = {"group": "case-7-2026", "groupFiles": "4"}
    for name, size in (("a.dat", 4), ("b.dat", 2)):
        part = create(panel, 4, user="bob", relativePath=f"case/{name}", **more)
        assert add(panel, part.headers["location"], 0, bytes(size), user="bob").code == 204
    [mine] = uploads(panel, "ann")
    assert mine["name"] == "slide.jpg"
    assert (mine["user"], mine["project"]) == ("ann", "Lung")
    assert (mine["share"], mine["received_bytes"], mine["size_bytes"]) == (0.43, 86, 200)
    assert (mine["files"], mine["whole_files"]) == (1, 0)
    times = [datetime.fromisoformat(mine[one]) for one in ("since", "last_at")]
    assert before <= times[0] <= times[1] <= datetime.now(UTC)
    [folder] = uploads(panel, "BOB")
    assert (folder["name"], folder["user"], folder["project"]) == ("case", "bob", None)
    assert (folder["files"], folder["whole_files"], folder["share"]) == (4, 1, 0.375)
    assert (folder["received_bytes"], folder["size_bytes"]) == (None, None)
    assert uploads(panel, "eve") == []
    # What grew last is first.
    assert uploads(panel, "zoe") == [folder, mine]
    assert uploads(panel, "zoe", "?limit=1&offset=1") == [mine]
    assert uploads(panel, "zoe", "?limit=0") == []
    for query in ("limit=501", "offset=-1", "limit=x"):
        assert panel.as_user("ann", f"/api/v1/uploads?{query}").code == 400
    bearer = f"Bearer {panel.token('list', 'ann')}"
    assert panel.ask("/api/v1/uploads", Authorization=bearer).json == [mine]
    assert panel.ask("/api/v1/uploads").code == 401
    # Right after a start it waits until it knows.
    panel.stop()
    panel.start()
    assert panel.as_user("ann", "/api/v1/uploads").json == [mine]
    assert panel.as_user("ann", at, "DELETE", Tus_Resumable="1.0.0").code == 204
    soon(lambda: uploads(panel, "ann"), [].__eq__)


def test_of_many_a_few_are_shown(tree: Root, panel: Served) -> None:
    """The newest, and how many more there are."""
    for number in range(30):
        create(panel, 4, filename=f"{number}.svs")
    found = rows(panel, "zoe")
    assert len(found) == 25
    assert found[0].startswith("29.svs")
    assert "and 5 more are being uploaded" in panel.as_user("zoe", "/").text
