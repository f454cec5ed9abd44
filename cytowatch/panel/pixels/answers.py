"""The first byte of a decoder's answer; apart from the decoder, because the panel itself loads no library that decodes."""

from __future__ import annotations

__all__ = ["ERROR", "PICTURE", "WINDOW"]

#: What follows is a JPEG, the window as JSON, or words.
PICTURE, WINDOW, ERROR = b"J", b"W", b"E"
