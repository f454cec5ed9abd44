"""The files of others that lie in this project: from where, of which licence, with which hash.

`python docs/vendored.py` (`make vendor`) fetches the same versions from npm again and compares every
byte; a test compares the hashes without a network, and docs/dependencies.md lists them.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]
_STATIC = "cytowatch/panel/static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """One package of npm: `files` are (path in the package, path here, SHA-256)."""

    package: str
    version: str
    licence: str
    why: str
    files: tuple[tuple[str, str, str], ...]


VENDORED = (
    Vendored(
        package="htmx.org",
        version="2.0.11",
        licence="0BSD",
        why="parts of a page that ask again",
        files=(
            (
                "dist/htmx.min.js",
                f"{_STATIC}/htmx.min.js",
                "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
            ),
            (
                "LICENSE",
                f"{_STATIC}/htmx.LICENSE",
                "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
            ),
        ),
    ),
    Vendored(
        package="openseadragon",
        version="6.1.1",
        licence="BSD-3-Clause",
        why="the viewer",
        files=(
            (
                "build/openseadragon/openseadragon.min.js",
                f"{_STATIC}/openseadragon.min.js",
                "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad",
            ),
            (
                "LICENSE.txt",
                f"{_STATIC}/openseadragon.LICENSE",
                "17da96b26ac706d2cbd06d4555dedb43026782f4943faf0156fe7acf89454228",
            ),
        ),
    ),
    Vendored(
        package="tus-js-client",
        version="4.3.1",
        licence="MIT",
        why="uploads that go on where they were",
        files=(
            (
                "dist/tus.min.js",
                f"{_STATIC}/tus.min.js",
                "8cbb1b63fccc3bba0ae73ad1deb160ce046c3750851d0c3e94921ae3ef070eb8",
            ),
            (
                "LICENSE",
                f"{_STATIC}/tus.LICENSE",
                "2ec372e137fa65938a6551e9abaa3d3ea21f5ebd398fca00a13354ea881e6539",
            ),
        ),
    ),
    Vendored(
        package="axe-core",
        version="4.14.1",
        licence="MPL-2.0",
        why="tests only: what hinders those who see, hear or move otherwise",
        files=(
            (
                "axe.min.js",
                "tests/panel/vendor/axe.min.js",
                "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
            ),
            (
                "LICENSE",
                "tests/panel/vendor/axe.LICENSE",
                "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
            ),
        ),
    ),
)


def table() -> str:
    """The table of docs/dependencies.md."""
    rows = [
        f"| [{one.package}](https://www.npmjs.com/package/{one.package}/v/{one.version}) {one.version} | {one.licence} "
        f"| {one.why} | {', '.join(f'`{path}`' for _, path, _ in one.files)} |"
        for one in VENDORED
    ]
    return "\n".join(["| package | licence | why | files |", "|---|---|---|---|", *rows]) + "\n"


def fetch(one: Vendored, folder: Path) -> list[str]:
    """Take the files of one package from npm; gives what is not as it is here."""
    subprocess.run(
        ["npm", "pack", "--silent", f"{one.package}@{one.version}"],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    [packed] = folder.glob("*.tgz")
    wrong = []
    with tarfile.open(packed) as archive:
        for inside, path, expected in one.files:
            member = archive.extractfile(f"package/{inside}")
            data = member.read() if member else b""
            if hashlib.sha256(data).hexdigest() != expected:
                wrong.append(f"{path}: {one.package} {one.version} has another {inside}")
            else:
                (HOUSE / path).write_bytes(data)
    packed.unlink()
    return wrong


def main() -> int:
    """Fetch and compare all; 1 if something differs."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for one in VENDORED:
            wrong += fetch(one, Path(folder))
    print("\n".join(wrong) or "every file is what npm has")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
