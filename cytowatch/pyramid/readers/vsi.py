"""CellSens VSI through slideio: every scene, the first of its planes, never a mixture of them.

slideio knows the scenes and what is said of them. Packed tiles are decoded here: see `vsi_tiles`.

Source: https://www.slideio.com; wheels for x86_64 only.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import Any

import numpy as np

from cytowatch.config import Config
from cytowatch.pyramid import resolution
from cytowatch.pyramid.pixels import Pixels
from cytowatch.pyramid.readers import vsi_tiles
from cytowatch.pyramid.readers.ome_xml import Channel, as_rgb
from cytowatch.pyramid.readers.vsi_tiles import Stack, Tiles
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
        It is damaged, or slideio would show something else, or is not available on this machine (`reader_missing`).
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
    stacks = vsi_tiles.stacks(path)
    lock = threading.Lock()
    scenes: list[Scene] = []
    pictures = {name: pixels for name, pixels in _aux(slide) if pixels is not None}
    done: list[str] = []
    with ExitStack() as opened:
        if hasattr(slide, "close"):
            opened.callback(slide.close)
        for scene in found:
            own = vsi_tiles.fitting(stacks, (scene.rect[2], scene.rect[3]))
            in_tiles = any(one.samples > 1 for one in own)
            channels = _channels(scene, in_tiles=in_tiles)
            region = _region(scene, lock, channels, own, opened)
            role = next((r for word, r in _PICTURES.items() if word in scene.name.lower()), None)
            if role and region.width * region.height <= _LARGEST_PICTURE and len(found) > 1:
                pictures.setdefault(role, _rgb(region.rows(0, region.height)))
                continue
            check_size(region.width, region.height, config)
            planes = scene.num_z_slices * scene.num_t_frames
            done += vsi_tiles.check(own, planes * (1 if in_tiles else scene.num_channels))
            done += _planes(scene, channels)
            x, y = scene.resolution
            scenes.append(
                Scene(
                    region=region,
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
            pictures={name: pixels for name, pixels in pictures.items() if pixels is not None},
            done=tuple(dict.fromkeys(done)),
            close=opened.pop_all().close,
        )


def _region(
    scene: Any, lock: threading.Lock, channels: list[int], own: list[Stack], opened: ExitStack
) -> _Region | Tiles:
    """What gives the rows of a scene: its tiles, or slideio where it is not known which those are."""
    by_slideio = _Region(scene, lock, channels)
    if not Tiles.reads(own, by_slideio.dtype) or own[0].samples != len(channels):
        vsi_tiles.check_starts(own)
        return by_slideio
    descriptor = os.open(own[0].path, os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    size = (by_slideio.width, by_slideio.height)
    return Tiles(own[0], size, by_slideio.dtype, descriptor)


def _channels(scene: Any, *, in_tiles: bool) -> list[int]:
    """All three of an RGB image, else the first.

    They are one if its tiles hold all three, or if planes are called so: DAPI, FITC and Cy3 are not colours.
    """
    count = scene.num_channels
    if count != 3 or in_tiles:
        return list(range(3)) if count == 3 else [0]
    eight = all(scene.get_channel_data_type(number) == np.uint8 for number in range(count))
    named = [Channel(name=scene.get_channel_name(number)) for number in range(count)]
    return list(as_rgb(named, eight_bits=eight) or (0,))


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
