"""Draw the first screen of README.md as a browser shows it: docs/pictures/first-screen.png.

`python -m docs.first_screen` renders the page with the styles of a code host, 1280 x 900 pixels, in Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

HOUSE = Path(__file__).resolve().parents[1]
PICTURE = HOUSE / "docs" / "pictures" / "first-screen.png"
_STYLE = """
body { font: 16px/1.5 "Liberation Sans", Arial, sans-serif; color: #1f2328; max-width: 900px; margin: 24px auto; }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3em; }
pre, code { font: 13px/1.45 "DejaVu Sans Mono", monospace; background: #f6f8fa; border-radius: 6px; }
pre { padding: 12px; overflow: hidden; } code { padding: .2em .4em; } pre code { padding: 0; }
img { max-width: 100%; } a { color: #0969da; text-decoration: none; }
table { border-collapse: collapse; } td, th { border: 1px solid #d1d9e0; padding: 4px 10px; }
"""


def main() -> int:
    """Render, draw, and say where the picture is."""
    browser = next(
        (found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        print("no Chromium here (Debian: apt install chromium)", file=sys.stderr)
        return 1
    body = MarkdownIt("commonmark").enable("table").render((HOUSE / "README.md").read_text())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><base href="{HOUSE.as_uri()}/"><style>{_STYLE}</style>{body}'
        )
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
             "--window-size=1280,900", f"--screenshot={PICTURE}", page.as_uri()],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
