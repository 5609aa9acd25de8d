"""Where to look at a fractal: the window that holds most of what its first and last frame occupy.

Source: davidsvy/fractal_video (domain notes, 3.4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEARCH_LIMIT = 6.0  # fractals are looked for in [-6, 6] x [-6, 6]
PAD_SHARE = 0.1

Box = tuple[int, int, int, int]  # first row, last row, first column, last column, all of them inside


def search_borders(num_frames: int) -> NDArray[np.float64]:
    """(F, 4) borders of the square that is searched."""
    return np.tile([-SEARCH_LIMIT, SEARCH_LIMIT], (num_frames, 2))


def bounding_box(canvas: NDArray[np.bool_], *, keep: float) -> Box:
    """The box of an (h, w) canvas that is left when the emptiest edge line goes until ``keep`` of the set pixels stay.

    Of equally empty lines the first row goes before the last row, the first column, the last column. The whole canvas
    for ``keep`` 1, and where so few pixels are set that none would have to stay.
    """
    top, bottom, left, right = 0, canvas.shape[0] - 1, 0, canvas.shape[1] - 1
    count = int(np.count_nonzero(canvas))
    wanted = int(keep * count)
    if keep >= 1 or wanted == 0:
        return top, bottom, left, right
    while count > wanted:
        inside = canvas[top : bottom + 1, left : right + 1]
        lines = [int(np.count_nonzero(line)) for line in (inside[0], inside[-1], inside[:, 0], inside[:, -1])]
        emptiest = int(np.argmin(lines))
        count -= lines[emptiest]
        top, bottom = top + (emptiest == 0), bottom - (emptiest == 1)
        left, right = left + (emptiest == 2), right - (emptiest == 3)
    return top, bottom, left, right


def video_borders(boxes: NDArray[Any], *, size: int, num_frames: int) -> NDArray[np.float64]:
    """(F, 4) borders, the same for every frame: the union of the (2, 4) boxes of first and last frame, padded.

    ``size`` is the side of the canvas the boxes were found on, in pixels over `search_borders`.
    """
    first, last = boxes.min(axis=0), boxes.max(axis=0)
    union = np.array([[first[0], last[1], first[2], last[3]]])
    return np.repeat(image_borders(union, size=size), num_frames, axis=0)


def image_borders(boxes: NDArray[Any], *, size: int) -> NDArray[np.float64]:
    """(F, 4) borders, each frame's own, from (F, 4) boxes: padded by 10% an axis (half pixels go to the even one)."""
    boxes = boxes.astype(np.int64)
    pad = np.round(PAD_SHARE * (boxes[:, 1::2] - boxes[:, ::2])).astype(np.int64)
    low, high = np.clip(boxes[:, ::2] - pad, 0, size - 1), np.clip(boxes[:, 1::2] + pad, 0, size - 1)
    pixels = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return np.asarray(SEARCH_LIMIT * (2 * pixels / (size - 1) - 1))
