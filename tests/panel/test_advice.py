"""What to do about an error: the same words in the note, on the command line and in the panel."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

from tests import builders
from tests.builders import vendors
from tests.lab.panel import Served
from tests.lab.root import Root, command


def test_all_say_the_same_of_what_to_do(tree: Root, tmp_path: Path) -> None:
    """The note of an empty file asked to copy it again, `show` and the panel for the slide itself."""
    tree.configure(inbox="incomplete_after_s = 0.5")
    inbox = tree.path / "inbox" / "ann"
    inbox.mkdir(parents=True)
    (inbox / "empty.svs").touch()
    (inbox / "list.txt").write_text("no slide")
    (inbox / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(range(200)))
    builders.aperio_svs(inbox / "cut.svs")
    (inbox / "cut.svs").write_bytes((inbox / "cut.svs").read_bytes()[:40_000])
    vendors.mirax_mrxs(tmp_path / "half", "M")
    shutil.rmtree(tmp_path / "half" / "M")
    builders.jpeg(tmp_path / "half" / "a.jpg")
    shutil.make_archive(str(inbox / "half"), "zip", tmp_path / "half")
    assert tree.run_until_idle() == 1
    failed = [one for one in tree.manifests().values() if one["error"]]
    assert sorted(one["name"] for one in failed) == [
        "M.mrxs", "cut.svs", "empty.svs", "film.mp4", "list.txt",
    ]  # fmt: skip
    notes = [path.read_text() for path in (tree.path / "status" / "ann").glob("*.txt")]
    panel = Served(tree.path)
    try:
        for one in failed:
            [note] = [note for note in notes if f"id: {one['id']}" in note]
            [to_do] = [
                line.removeprefix("What to do: ")
                for line in note.splitlines()
                if line.startswith("What to do: ")
            ]
            shown = command(tree, "show", one["id"]).stdout
            [line] = [line for line in shown.splitlines() if line.startswith("technician")]
            assert line.removeprefix("technician").strip() == to_do, one["name"]
            assert html.escape(to_do) in panel.ask(f"/files/{one['id']}").text, one["name"]
    finally:
        panel.stop()
    [empty] = [note for note in notes if note.startswith("empty.svs")]
    assert "What to do: Copy it again under the same name." in empty
