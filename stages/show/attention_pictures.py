"""Attention over frames as people look at it: a heat map where, a bar above it when.

Shape letters: W windows, T places of a window, R rows of a video that some window holds, h and w of a map.
Source: the public code of ST-ABN (Mitsuhara et al. 2021), whose overlays these are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.storage.arrays.window_outputs import WindowOutputs

Display = Literal["normalised", "raw"]
Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

_SPACE, _TIME = "space", "time"  # arrays of attention.space and attention.time
_HEAT = 0.4  # share of the colours in an overlay
_WINDOWS = 64  # in memory at once


@dataclass(frozen=True, kw_only=True)
class VideoAttention:
    """Attention of the R rows of a video that windows hold, in order; the mean over the windows that hold each."""

    seconds: Floats  # (R,) where a row begins
    source: npt.NDArray[np.int64]  # (R,) its first source frame
    space: Floats | None  # (R,h,w) in [0, 1]; None where it is not kept
    time: Floats | None  # (R,) in [0, 1]; None where it is not kept
    seen: Geometry | None  # which part of a frame the model saw; None where that is not known

    @classmethod
    def of(cls, outputs: WindowOutputs, *, display: Display) -> Self:
        """Of what a predict node keeps. Raises ValueError for maps that are not of rows and their frames."""
        places, mask = outputs.places, outputs.mask
        rows, first, place = np.unique(places.row[mask], return_index=True, return_inverse=True)
        sums: dict[str, Any] = {}
        for name, num_axes in ((_SPACE, 3), (_TIME, 1)):
            if name not in outputs.outputs:
                continue
            shape = outputs.row_shape(name)
            if len(shape) != num_axes or shape[0] != mask.shape[1]:
                raise ValueError(
                    f"attention.{name} is of shape {shape} a window, which is no attention to the rows of it"
                )
            sums[name] = np.zeros((len(rows), *shape[1:]))
        position = np.zeros(mask.shape, np.int64)
        position[mask] = place
        for start in range(0, outputs.num_windows, _WINDOWS):
            part = slice(start, start + _WINDOWS)
            for name, total in sums.items():
                values = outputs.output(name, start, start + _WINDOWS).astype(np.float64)
                values = displayed(values, mask[part]) if name == _TIME and display == "normalised" else values
                np.add.at(total, position[part][mask[part]], values[mask[part]])
        counts = np.bincount(place)
        means = {name: total / counts.reshape(-1, *[1] * (total.ndim - 1)) for name, total in sums.items()}
        seen = outputs.attributes.get("seen")
        return cls(
            seconds=places.row_seconds[mask][first],
            source=places.row_source[mask][first],
            space=means.get(_SPACE),
            time=means.get(_TIME),
            seen=None if seen is None else Geometry.from_plain(seen),
        )

    def __len__(self) -> int:
        return len(self.seconds)


def displayed(time_WT: npt.ArrayLike, mask_WT: npt.NDArray[np.bool_]) -> Floats:
    """Attention in time (W,T) as ST-ABN shows it: each window from 0 to 1 over its own real places; 0 elsewhere.

    The first and the last place, where a convolution sees padding, do not take part: they count as the mean of all, and
    are shown as they are, and so is a window that is the same everywhere.
    """
    raw_WT = np.asarray(time_WT, np.float64)
    found = np.where(mask_WT, raw_WT, 0.0)
    for shown, raw, mask in zip(found, raw_WT, mask_WT, strict=True):
        values = raw[mask]
        values[0] = values.mean()
        values[-1] = values.mean()
        low, high = values.min(), values.max()
        if high > low:
            inner = (values - low) / (high - low)
            inner[[0, -1]] = raw[mask][[0, -1]]
            shown[mask] = inner
    return found


def jet(values: npt.ArrayLike) -> Pixels:
    """(..., 3) uint8 of values in [0, 1]: blue, cyan, yellow, red."""
    x = 4 * np.clip(np.asarray(values, np.float64), 0, 1)[..., None]
    return np.asarray(255 * np.clip(1.5 - np.abs(x - np.array([3, 2, 1])), 0, 1)).round().astype(np.uint8)


def shown_frame(frame: Image.Image, seen: Geometry | None, *, height: int) -> Image.Image:
    """What the model saw of a frame, `height` pixels high; all of it where that is not known."""
    if seen is None or seen.size is None:
        return frame.resize((max(2, round(frame.width * height / frame.height)), height), Image.Resampling.BILINEAR)
    factor, resize = height / seen.size[0], seen.resize
    if isinstance(resize, tuple):
        resize = round(resize[0] * factor), round(resize[1] * factor)
    elif resize is not None:
        resize = round(resize * factor)
    size = height, max(2, round(seen.size[1] * factor))
    geometry = replace(seen, box=None, size=size, resize=resize, antialias=True, interpolation="bilinear")
    return Image.fromarray(apply(np.asarray(frame)[None], geometry)[0])


def overlay(frame: Image.Image, space_hw: Floats) -> Image.Image:
    """A frame with attention in space over it: 0.6 of the frame, 0.4 of the colours."""
    smooth = Image.fromarray(space_hw.astype(np.float32)).resize(frame.size, Image.Resampling.BILINEAR)
    return Image.blend(frame, Image.fromarray(jet(np.asarray(smooth))), _HEAT)
