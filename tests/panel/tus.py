"""What a client of tus sends, one request at a time."""

from __future__ import annotations

import base64

from tests.lab.panel import Answer, Served

__all__ = ["OFFSETS", "add", "begun", "create", "head", "said"]

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
