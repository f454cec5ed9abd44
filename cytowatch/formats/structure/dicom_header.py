"""The header of one file of a whole slide in DICOM: what stands before its pixels.

Source: DICOM PS3.10, section 7.1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cytowatch.formats.doubles import is_whole_slide

__all__ = ["header"]


def header(path: str, tags: Sequence[str]) -> tuple[Any, int] | None:
    """What the file states of `tags`, and the offset in bytes where its header ends; None of any other file.

    The values are as the file has them: each may be missing, or be anything.

    Raises
    ------
    OSError
        It cannot be opened.
    """
    # Imported here: hardly any lab drops DICOM, and it takes a third of a second.
    import pydicom

    with open(path, "rb") as file:
        if not is_whole_slide(file.read(4096)):
            return None
        file.seek(0)
        try:
            found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
        except Exception:  # noqa: BLE001 - no matter what it raises, nothing is known of it
            return None
        return found, file.tell()
