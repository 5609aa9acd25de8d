"""Pictures that carry their own number in big black and white blocks, so that it survives lossy coding and scaling."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (h, w, 3) RGB

WIDTH, HEIGHT = 128, 96
NUM_BITS = 10
UNREADABLE = -1  # a picture whose blocks are neither black nor white: damaged by the decoder, or half of one
_COLUMNS, _BLOCK, _MARGIN = 5, 24, 4
_BLACK, _WHITE = 90, 165
_ABOUT_LEVELS = 0.5


def draw(number: int) -> Picture:
    """(96, 128, 3) picture: ten bits above, lowest first, and colours with a moving bar below.

    |b0|b1|b2|b3|b4|
    |b5|b6|b7|b8|b9|
    | colours  |bar|
    """
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, :, :] = 128
    for bit in range(NUM_BITS):
        top, left = _corner(bit)
        picture[top : top + _BLOCK, left : left + _BLOCK] = 235 * (number >> bit & 1)
    below = 2 * _BLOCK + 2 * _MARGIN
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT - below))
    picture[below:, :, 0] = 40 + x * 170 // WIDTH
    picture[below:, :, 1] = 40 + y * 170 // (HEIGHT - below)
    picture[below:, :, 2] = 40 + (x + 2 * y + 3 * number) % 170
    left = number * 5 % (WIDTH - 16)
    picture[below + 8 : below + 32, left : left + 12] = (230, 30, 60)
    return picture


def read_number(picture: Picture) -> int:
    """The number of a picture of any size; UNREADABLE where a block is neither black nor white."""
    height, width = picture.shape[:2]
    levels = np.asarray([picture[rows, columns, 1].mean() for rows, columns in _middles(height, width)])
    if np.any((levels >= _BLACK) & (levels <= _WHITE)):
        return UNREADABLE
    return int((levels > _WHITE) @ (1 << np.arange(NUM_BITS)))


@lru_cache
def _middles(height: int, width: int) -> list[tuple[slice, slice]]:
    """The inner part of each block in a picture of this size."""
    middles = []
    for bit in range(NUM_BITS):
        top, left = _corner(bit)
        rows = slice((top + 7) * height // HEIGHT, (top + _BLOCK - 7) * height // HEIGHT)
        columns = slice((left + 7) * width // WIDTH, (left + _BLOCK - 7) * width // WIDTH)
        middles.append((rows, columns))
    return middles


def nearest(picture: Picture, pictures: NDArray[np.uint8], asked: int) -> int:
    """Which of ``pictures`` (N, h, w, 3) this is, where they carry no number; ``asked`` where it is about as near."""
    step = max(1, picture.shape[0] // 48)
    small = picture[::step, ::step].astype(np.int16)
    distances = [float(np.abs(other[::step, ::step] - small).mean()) for other in pictures]
    best = int(np.argmin(distances))
    is_asked = asked < len(distances) and distances[asked] <= distances[best] + _ABOUT_LEVELS
    return asked if is_asked else best


def write_raw(path: Path, first: int, count: int) -> None:
    """Write ``count`` pictures from number ``first`` as raw rgb24."""
    path.write_bytes(b"".join(draw(number).tobytes() for number in range(first, first + count)))


def _corner(bit: int) -> tuple[int, int]:
    row, column = divmod(bit, _COLUMNS)
    return _MARGIN + row * _BLOCK, _MARGIN + column * _BLOCK
