"""Flat shapes on frames: regular polygons and discs, drawn with Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Shapes:
    """How n shapes look. Fewer than 3 corners make a disc."""

    num_corners: NDArray[np.int64]  # (n,)
    rotation: NDArray[np.int64]  # (n,) degrees
    radius: NDArray[np.int64]  # (n,) pixels
    colour: NDArray[np.int64]  # (n, 3) of 0 to 255


def paint(frame: Frames, shapes: Shapes, centres: NDArray[Any]) -> Frames:
    """An (H, W, 3) frame with the shapes on it, in order; ``centres`` is (n, 2) of row and column."""
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    for index, (row, column) in enumerate(centres.tolist()):
        radius, corners = int(shapes.radius[index]), int(shapes.num_corners[index])
        red, green, blue = (int(level) for level in shapes.colour[index])
        fill = (red, green, blue)
        if corners < 3:
            draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=fill)
        else:
            draw.regular_polygon((column, row, radius), corners, rotation=int(shapes.rotation[index]), fill=fill)
    return np.asarray(image)


def scaled_radius(radius: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Radii that are given for frames of 256 pixels, for frames of ``size``; at least 1 pixel."""
    return np.maximum(np.round(radius * size / 256).astype(np.int64), 1)
