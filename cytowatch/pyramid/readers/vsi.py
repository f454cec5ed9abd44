"""CellSens VSI through slideio: every scene, the first of its planes.

Source: https://www.slideio.com; wheels for x86_64 only.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid import resolution
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.refusals import check_size, damaged
from cytowatch.pyramid.regions import Opened, Scene
from cytowatch.record.errors import ConversionError

__all__ = ["open_vsi"]

_PICTURES = {"label": "label", "macro": "macro", "overview": "macro"}
_LARGEST_PICTURE = 64_000_000


class _Region:
    """One scene; slideio is asked by one thread at a time, because it does not say that more may."""

    def __init__(self, scene: Any, lock: threading.Lock, channels: list[int]) -> None:
        self._scene = scene
        self._lock = lock
        self._channels = channels
        _, _, self.width, self.height = scene.rect
        self.samples = len(channels)
        self.dtype = np.dtype(scene.get_channel_data_type(channels[0]))
        self.block_rows = 512

    def rows(self, top: int, bottom: int) -> Pixels:
        try:
            with self._lock:
                pixels: Pixels = self._scene.read_block(
                    (0, top, self.width, bottom - top),
                    channel_indices=self._channels,
                    slices=(0, 1),
                    frames=(0, 1),
                )
        except Exception as error:
            raise damaged(error) from error
        return pixels


def open_vsi(path: str, config: Config) -> Opened:
    """The scenes of a VSI, with label and overview.

    Raises
    ------
    ConversionError
        It is damaged, or slideio is not available on this machine (`reader_missing`).
    """
    try:
        import slideio
    except ImportError as error:
        raise ConversionError(
            "reader_missing", "slideio reads CellSens VSI, and is not installed here"
        ) from error
    try:
        slide = slideio.open_slide(path, "VSI")
        found = [slide.get_scene(number) for number in range(slide.num_scenes)]
    except Exception as error:
        raise damaged(error) from error
    lock = threading.Lock()
    scenes: list[Scene] = []
    pictures = {name: pixels for name, pixels in _aux(slide) if pixels is not None}
    done: list[str] = []
    for scene in found:
        role = next((r for word, r in _PICTURES.items() if word in scene.name.lower()), None)
        small = scene.rect[2] * scene.rect[3] <= _LARGEST_PICTURE
        if role and small and len(found) > 1:
            pictures.setdefault(role, _rgb(scene.read_block()))
            continue
        check_size(scene.rect[2], scene.rect[3], config)
        channels = _channels(scene)
        done += _planes(scene, channels)
        x, y = scene.resolution
        scenes.append(
            Scene(
                region=_Region(scene, lock, channels),
                index=len(scenes),
                name=scene.name,
                mpp=resolution.plausible(x * 1e6, y * 1e6),
                objective_power=scene.magnification if scene.magnification > 0 else None,
            )
        )
    if not scenes:
        raise damaged("it holds no scene")
    return Opened(
        scenes=scenes,
        reader="slideio",
        pictures=pictures,
        done=tuple(dict.fromkeys(done)),
        close=slide.close if hasattr(slide, "close") else lambda: None,
    )


def _channels(scene: Any) -> list[int]:
    """All three of an RGB image, else the first."""
    eight = all(
        scene.get_channel_data_type(number) == np.uint8 for number in range(scene.num_channels)
    )
    return [0, 1, 2] if scene.num_channels == 3 and eight else [0]


def _planes(scene: Any, channels: list[int]) -> list[str]:
    counts = (
        ("channels", scene.num_channels if len(channels) == 1 else 1),
        ("focal planes", scene.num_z_slices),
        ("times", scene.num_t_frames),
    )
    return [
        f"it has {count} {what}: the first is the pyramid" for what, count in counts if count > 1
    ]


def _aux(slide: Any) -> Any:
    for name in slide.get_aux_image_names():
        role = next((r for word, r in _PICTURES.items() if word in name.lower()), None)
        if role:
            picture = slide.get_aux_image(name)
            if picture.size[0] * picture.size[1] <= _LARGEST_PICTURE:
                yield role, _rgb(picture.read_block())


def _rgb(pixels: Pixels) -> Pixels | None:
    if pixels.dtype != np.uint8:
        return None
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])
