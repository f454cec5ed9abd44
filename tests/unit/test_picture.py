"""How `watch` looks at 50, 80 and 140 columns: it fits, it uses all lines, and names keep their room."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from cytowatch.cli.columns import cells
from cytowatch.cli.picture import draw

NOW = datetime(2026, 11, 26, 14, 0, tzinfo=UTC)


def work(name: str, user: str, status: str, share: float, left_s: float | None) -> dict[str, Any]:
    return {
        "id": name,
        "name": name.rpartition("/")[2],
        "drop_path": f"{user}/{name}",
        "user": user,
        "status": status,
        "share": share,
        "left_s": left_s,
    }


def drop(path: str, why: str, size_bytes: int, **more: Any) -> dict[str, Any]:
    times = {"until": None, "due_at": None, "bytes_per_s": None, "detail": ""}
    return {
        "user": path.split("/", maxsplit=1)[0],
        "path": path,
        "why": why,
        "size_bytes": size_bytes,
        **times,
        **more,
    }


COUNTS = {
    "UPLOADED": 3, "DETECTING_FORMAT": 0, "EXTRACTING_DATA": 0, "CONVERTING": 2, "DEPLOYING": 1,
    "DEPLOYED": 1204, "EXTRACTED": 12, "CONVERTED": 310, "ERROR_FORMAT": 7, "ERROR_EXTRACTION": 0,
    "ERROR_CONVERSION": 1, "ERROR_DEPLOYMENT": 0,
}  # fmt: skip
PAGE: dict[str, Any] = {
    "daemon": {"running": True, "pid": 4711, "version": "1"}, "files": COUNTS, "health": {},
    "set_aside": [], "last_hour": {"DEPLOYED": 17}, "paused": {"everyone": False, "users": ["cem"]},
    "disk_free_bytes": 1.2e12, "inodes_free": 123456, "workers": {"busy": 2, "of": 4},
    "watcher": {"mode": "inotify", "alive": True},
    "in_work": [
        work("HE 2026-11-26 block 3 level 2.ndpi", "pathology-scanner", "CONVERTING", 0.4, 75.0),
        work("CMU-1.svs", "ann", "DEPLOYING", 0.9, None),
    ],
    "waiting": [
        drop("ann/case-102/x.svs", "settling", 194_000, due_at="2026-11-26T14:00:07Z"),
        drop("bob/CMU-1.mrxs", "incomplete", 1_940_000, detail="missing CMU-1/Data0004.dat",
             until="2026-11-27T10:00:00Z"),
        drop("ann/case-101/HE 2026-11-26 block 4.svs", "settling", 1_234_000_000,
             due_at="2026-11-26T14:00:10Z", bytes_per_s=52_300_000.0),
    ],
    "ended": [
        {
            "name": "HE.svs", "drop_path": f"ann/case-{n}/HE.svs", "user": "ann", "at": f"2026-11-{26 - n // 10:02}T13:{59 - n % 60:02}:00Z",
            "status": "DEPLOYED" if n % 4 else "ERROR_FORMAT", "reason": None if n % 4 else "unsupported_format",
        }
        for n in range(100)
    ],
}  # fmt: skip


def drawn(page: dict[str, Any], width: int, height: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, no_color=True).print(
        draw(page, width, height, NOW)
    )
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(50, 24), (80, 24), (140, 50)])
def test_a_picture_fits_the_terminal_and_uses_all_of_it(width: int, height: int) -> None:
    """No line is too wide, few are left free, and every fact is still in it."""
    lines = drawn(PAGE, width, height)
    assert max(map(cells, lines)) <= width
    assert height - 3 <= len(lines) <= height, "it leaves lines free"
    text = "\n".join(lines)
    # Names keep at least twenty columns; the short ones are whole.
    for name in (
        "CMU-1.svs",
        "ann/case-102/x.svs",
        "bob/CMU-1.mrxs",
        "case-1/HE.svs",
        "level 2.ndpi",
    ):
        assert name in text, name
    for fact in (
        "1.2 GB",
        "52.3 MB/s",
        "taken in 7 s",
        "20.0 h left",
        "paused: cem",
        "1,204 DEPLOYED",
    ):
        assert fact in text, fact
    # What grows comes first, and a count stays with its status.
    assert text.index("block 4.svs") < text.index("x.svs") < text.index("CMU-1.mrxs")
    assert "1 ERROR CONVERSION" in text
    if width >= 80:
        assert "75 s" in text
        assert "missing CMU-1/Data0" in text
        assert "unsupported_format" in text
        assert "is being received" in text


def test_much_of_one_kind_leaves_the_others_their_room() -> None:
    """A hundred of each on 24 lines: a third for each, and how many more there are."""
    many = {**PAGE, "in_work": PAGE["in_work"] * 50, "waiting": PAGE["waiting"] * 50}
    lines = drawn(many, 80, 24)
    assert len(lines) <= 24
    assert sum("more" in line for line in lines) == 2
    for word in ("IN WORK", "IN THE INBOXES", "LAST"):
        at = next(number for number, line in enumerate(lines) if line.startswith(word))
        assert lines[at + 2].strip()


def test_an_empty_tree_says_so() -> None:
    """Without a daemon, too."""
    empty = {
        **PAGE, "in_work": [], "waiting": [], "ended": [], "daemon": {"running": False, "pid": None},
        "files": dict.fromkeys(COUNTS, 0),
    }  # fmt: skip
    text = "\n".join(drawn(empty, 50, 24))
    assert "no daemon runs" in text
    assert "nothing waits" in text


@pytest.mark.parametrize("time", ["", "soon", "2026-11-26T14:00:07", "99999-01-01T00:00:00Z", None])
def test_a_time_that_is_none_costs_no_picture(time: str | None) -> None:
    """What another version or a damaged disk left in live.json."""
    page = {**PAGE, "waiting": [drop("a/b.svs", "settling", 1, due_at=time, until=time)]}
    page["ended"] = [{**PAGE["ended"][0], "at": time or ""}]
    assert "a/b.svs" in "\n".join(drawn(page, 80, 24))


def test_a_sentence_has_the_room_that_no_rate_needs() -> None:
    """At 80 columns, where nothing grows, what is missing can be read; and so can a scanner's name."""
    rows = [
        drop("scanner-2/CMU-7.jpg", "incomplete", 245_800, detail="missing the end of the image",
             until="2026-11-27T10:00:00Z"),
    ]  # fmt: skip
    page = {**PAGE, "waiting": rows, "in_work": [work("B.tif", "scanner-12", "CONVERTING", 0, 1.0)]}
    lines = drawn(page, 80, 24)
    assert any("20.0 h left: missing the end of the image" in line for line in lines)
    assert not any("RATE" in line for line in lines)
    assert any("scanner-12" in line for line in lines)
