"""Directory: a dropped folder, which stands for what was claimed out of it.

Source: docs/decisions/009-folders.md
"""

from __future__ import annotations

from cytowatch.formats.base import Format
from cytowatch.record.place import FOLDER

__all__ = ["FORMAT"]

FORMAT = Format(
    id=FOLDER,
    name="Directory",
    samples="–",
    marker="a folder in an inbox",
    treated="extracted",
    reader="–",
    extension="",
    oddities="Each image or set in it is claimed as soon as it is complete, as a child of one uploaded "
    "file for the folder. The folder is extracted when nothing has arrived for "
    "folder_quiet_s.",
    source="docs/decisions/009-folders.md",
    matches=lambda _probe: None,
    extract=True,
)
