"""What decoders say about an image: a message never ends the process."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from cytowatch.pyramid import derive
from cytowatch.record.errors import TransientError

WITHIN_A_MESSAGE = """
    import gc, logging, sys
    import pyvips
    import cytowatch.pyramid.complaints

    class Collects(logging.Handler):
        def emit(self, record):
            print("said", record.getMessage())
            gc.collect()

    def read(image, *area):
        try:
            pyvips.Region.new(image).fetch(*area)
        except pyvips.Error:
            pass

    gc.disable()
    pyvips.cache_set_max(0)
    logging.getLogger("pyvips").addHandler(Collects())
    path = sys.argv[1]
    image = pyvips.Image.new_from_file(path, access="sequential", fail_on="none")
    try:
        image.avg()
    except pyvips.Error:
        pass
    circle = [image]
    circle.append(circle)
    del image, circle
    read(pyvips.Image.new_from_file(path, access="sequential", fail_on="warning"), 0, 0, 900, 16)
    print("read")
"""


def test_an_image_that_is_collected_within_a_message_ends_no_process(tmp_path: Path) -> None:
    """libvips counts the warnings of an image when it is freed: a message within the message."""
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG", quality=90, progressive=True)
    data = bytearray(whole.getvalue())
    begin = len(data) // 3
    data[begin : begin + 20_000] = bytes(20_000)
    (tmp_path / "a.jpg").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHIN_A_MESSAGE), str(tmp_path / "a.jpg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "said VIPS: error in tile" in done.stdout
    assert "recursed" in done.stderr, "the message within the message did not come"
    assert done.stdout.endswith("read\n")


def test_a_fault_of_the_disk_is_not_called_a_full_one() -> None:
    """An administrator would make room, and wait in vain."""
    for said, why in (
        ("unable to fetch\nsystem error: Input/output error", "input_output"),
        ("write error: No space left on device", "disk"),
    ):
        with pytest.raises(TransientError) as raised:
            derive._raise_if_full(pyvips.Error(said, ""))
        assert raised.value.why == why
        assert "\n" not in raised.value.detail
    derive._raise_if_full(pyvips.Error("premature end", ""))
