"""A detail begins with a sentence of the project, and never with a decoder's or Python's own words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from cytowatch.decoder import stagehand
from cytowatch.pyramid.readers import jp2_colours
from cytowatch.pyramid.refusals import damaged
from cytowatch.pyramid.source import _by_imagecodecs
from cytowatch.record.errors import ConversionError
from cytowatch.record.quoting import plain

PACKAGE = Path(__file__).resolve().parents[2] / "cytowatch"
#: Names that hold what a library said.
_OTHERS = re.compile(r"\b(str\()?(error|refusal|second|said)\b")
_RAISED = {"FormatError", "ExtractionError", "ConversionError", "DeploymentError"}


def test_no_detail_begins_with_what_another_one_said() -> None:
    """The second argument of every error of an uploaded file does not begin with a library's text."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if not named or node.func.id not in _RAISED or len(node.args) < 2:
                continue
            detail = node.args[1]
            first = detail.values[0] if isinstance(detail, ast.JoinedStr) else detail
            text = ast.unparse(first)
            assert not _OTHERS.match(text.removeprefix("f'{").removeprefix("f\"{")) or text in (
                "said", "wrong",
            ), f"{path}:{node.lineno}: {text}"  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "cannot identify image file <_io.BufferedReader name='/srv/x.jpg'>",
        "TiffFileError('cannot identify image file')",
        "cannot identify\n  image file <PIL.Image.Image object at 0x7f0>",
    ],
)
def test_what_only_python_understands_is_left_out(said: str) -> None:
    """Objects and the names of exceptions; the line is one."""
    assert plain(said) == "cannot identify image file"


def test_a_decoders_word_follows_in_brackets() -> None:
    """And whole as a note, for the log."""
    error = damaged(RuntimeError("opj_read_header failed"))
    assert error.detail == "its pixels cannot be read (opj_read_header failed)"
    try:
        raise error from RuntimeError("opj_read_header failed\nat tile 7")
    except ConversionError as raised:
        stagehand._note_what_was_said(raised)
        assert raised.__notes__ == ["RuntimeError: opj_read_header failed\nat tile 7"]


def test_sixteen_bits_are_not_expanded(tmp_path: Path) -> None:
    """A lossless JPEG of 16 bits has them already."""
    import imagecodecs

    pixels = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    for bits, said in ((16, ()), (12, ("its 12-bit samples were expanded to 16 bits",))):
        path = tmp_path / f"{bits}.jpg"
        data = imagecodecs.ljpeg_encode(pixels >> (16 - bits), bitspersample=bits)
        path.write_bytes(data)
        assert _by_imagecodecs(str(path), "jpeg")[1] == said


def test_a_profile_without_a_colour_space_is_said_to_be_one() -> None:
    """Its name is blank: the sentence has no hole in it."""
    colr = bytes([2, 0, 0]) + bytes(16) + b"    " + bytes(100)
    with pytest.raises(ConversionError) as raised:
        jp2_colours._colours([(b"colr", colr)], 3)
    assert "an ICC profile without a colour space" in raised.value.detail
