"""What pool and decoder both know; apart from the decoder, because the panel itself loads no library that decodes."""

from __future__ import annotations

import os

__all__ = ["ERROR", "MOST_DECODERS", "PICTURE", "WINDOW"]

#: Decoders at a time, one for each slide that is looked at.
MOST_DECODERS = max(4, 2 * (os.cpu_count() or 1))
#: The first byte of an answer; what follows is a JPEG, the window as JSON, or words.
PICTURE, WINDOW, ERROR = b"J", b"W", b"E"
