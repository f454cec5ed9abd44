"""What a client of tus sends, one request at a time."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys

from tests.lab.panel import Answer, Served

__all__ = ["OFFSETS", "add", "begun", "create", "head", "said", "sending"]

OFFSETS = "application/offset+octet-stream"


def said(**pairs: str) -> str:
    """``Upload-Metadata``."""
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items()
    )


def create(panel: Served, size: int, *, user: str = "ann", **pairs: str) -> Answer:
    return panel.as_user(
        user, "/uploads", "POST", Tus_Resumable="1.0.0", Upload_Length=str(size),
        Upload_Metadata=said(**pairs),
    )  # fmt: skip


def add(
    panel: Served, at: str, offset: int, data: bytes, *, user: str = "ann", **more: str
) -> Answer:
    return panel.as_user(
        user, at, "PATCH", body=data, Tus_Resumable="1.0.0", Upload_Offset=str(offset),
        Content_Type=OFFSETS, **more,
    )  # fmt: skip


def head(panel: Served, at: str, *, user: str = "ann") -> Answer:
    return panel.as_user(user, at, "HEAD", Tus_Resumable="1.0.0")


def begun(panel: Served, size: int, **pairs: str) -> str:
    answer = create(panel, size, **pairs)
    assert answer.code == 201, answer.text
    return answer.headers["location"]


def sending(panel: Served, *words: object, token: str = "") -> subprocess.Popen[str]:
    """`cytowatch send` as a scanner's PC runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", "cytowatch", "send", *map(str, words), "--to", f"http://{panel.address}"],
        env={**os.environ, "CYTOWATCH_TOKEN": token}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, preexec_fn=_heed_interrupts,  # noqa: PLW1509 - it takes no lock
    )  # fmt: skip


def _heed_interrupts() -> None:
    """What a shell runs in the background ignores Ctrl-C, and so do all processes that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
