"""The versions of what makes a difference to a result."""

from __future__ import annotations

import importlib.metadata

from cytowatch import __version__

__all__ = ["software"]

_PACKAGES = {
    "libvips": "pyvips-binary",
    "pyvips": "pyvips",
    "openslide": "openslide-bin",
    "tifffile": "tifffile",
}


def software() -> dict[str, str]:
    """Name and version of each, for the manifest; what is not installed is left out."""
    found = {"cytowatch": __version__}
    for name, package in _PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
