"""What the panel's process is made of, and how a body passes through it."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from cytowatch.panel.connection import Parts


def test_no_library_that_decodes_is_in_it() -> None:
    """Images are opened in decoders only; the process that talks to the network loads none of their libraries."""
    libraries = ("numpy", "pyvips", "openslide", "tifffile", "pydicom")
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, cytowatch.cli, cytowatch.panel.serve; print([m for m in {libraries} if m in sys.modules])",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == "[]"


@given(st.lists(st.binary(max_size=50)))
def test_parts_of_a_body_are_the_body(parts: list[bytes]) -> None:
    """In their order, and none twice; one part is passed on as it came."""
    found = Parts()
    for part in parts:
        found += part
    assert bytes(found) == b"".join(parts)
    assert len(found) == sum(map(len, parts))
    if len(parts) == 1:
        assert bytes(found) is parts[0]
