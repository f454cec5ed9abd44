"""What a technician sees who has only the share."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests import builders
from tests.builders import vendors
from tests.lab.root import Root


def notes(root: Root, user: str = "ann") -> dict[str, str]:
    found = {}
    for path in root.path.glob(f"status/{user}/*.txt"):
        # One that says something else by now has another name.
        with suppress(FileNotFoundError):
            found[path.name] = path.read_text()
    return found


def test_the_names_say_it_all(root: Root, tmp_path: Path) -> None:
    """While it is received, while it waits, when it is done, and why it failed and what to do."""
    root.start()
    with (root.path / "inbox" / "ann").mkdir() or (root.path / "inbox/ann/late.svs").open(
        "wb"
    ) as file:
        file.write(b"x" * 1_200_000)
        file.flush()
        root.wait(lambda: "late.svs - RECEIVING 1.2 MB.txt" in notes(root))
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    root.drop(builders.aperio_svs(tmp_path / "b.svs"), "a.svs", "bob")
    (tmp_path / "t.txt").write_text("no slide")
    root.drop(tmp_path / "t.txt")
    vendors.mirax_mrxs(tmp_path / "m")
    shutil.copyfile(tmp_path / "m" / "CMU-1.mrxs", root.path / "inbox" / "ann" / "CMU-1.mrxs")
    wanted = {
        "a.svs - DEPLOYED.txt",
        "! t.txt - FAILED, a text file.txt",
        "! CMU-1.mrxs - WAITING, incomplete.txt",
    }
    root.wait(lambda: wanted <= notes(root).keys())
    told = notes(root)
    assert "it is a text file" in told["! t.txt - FAILED, a text file.txt"]
    assert "What to do: Send the slide itself" in told["! t.txt - FAILED, a text file.txt"]
    assert "missing CMU-1/Slidedat.ini" in told["! CMU-1.mrxs - WAITING, incomplete.txt"]
    root.wait(lambda: notes(root, "bob").keys() == {"a.svs - DEPLOYED.txt"})
    # A second one of that name has a note of its own; another daemon shows the same.
    root.drop(tmp_path / "a.svs")
    root.wait(lambda: len([name for name in notes(root) if name.startswith("a.svs")]) == 2)
    root.wait(lambda: len([name for name in notes(root) if "DEPLOYED" in name]) == 2)
    before = notes(root)
    assert root.stop() == 0
    root.start()
    root.wait(
        lambda: (
            {n for n in notes(root) if "WAIT" not in n and "late" not in n}
            == {n for n in before if "WAIT" not in n and "late" not in n}
        )
    )
    assert root.stop() == 0


def test_odd_names(root: Root, tmp_path: Path) -> None:
    """Escaped, and cut at 255 bytes; never a path."""
    slide = builders.aperio_svs(tmp_path / "a.svs")
    root.drop(slide, "ü" * 120 + ".svs")
    root.drop(slide, "a\n\x1b[31m\u202eb:c.svs")
    assert root.run_until_idle() == 0
    found = notes(root)
    assert len(found) == 2
    for name in found:
        assert len(name.encode()) <= 255
        assert name.isprintable()
        assert name.endswith(" - DEPLOYED.txt")


@pytest.mark.parametrize("where", ["inbox", ""])
def test_elsewhere_or_not_at_all(root: Root, tmp_path: Path, where: str) -> None:
    """In the inbox they are never claimed."""
    root.configure(more=f'[feedback]\ndir = "{where}"')
    root.drop(builders.aperio_svs(tmp_path / "a.svs"))
    assert root.run_until_idle() == 0
    assert root.run_until_idle() == 0
    assert notes(root) == {}
    folder = root.path / "inbox" / "ann" / "_status"
    shown = [path.name for path in folder.iterdir()] if where else []
    assert shown == (["a.svs - DEPLOYED.txt"] if where else [])
    assert len(root.manifests()) == 1
