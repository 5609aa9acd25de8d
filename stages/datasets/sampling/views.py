"""Where the crops of a view lie at test.

    three crops along the longer side    |000|111|222|   start, middle, end (they overlap where the side is shorter)

Predictions of the views are merged by `models.metrics.views`. Source: CAST (1.2, 1.6), ST-ABN (2.2).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A crop in pixels, of the upright frame."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


def line_crops(
    height: int, width: int, *, num_crops: int, single: str = "centre", size: int | None = None
) -> tuple[Box, ...]:
    """Square crops of `size` (None: the shorter side), from the start of the longer side to its end.

    Crop c starts at int(c * (longer - size) / (num_crops - 1)); across, it lies in the middle. One crop lies in the
    centre, or with `single="first"` at the start, as in CAST. Crops of a frame that is nearly square may be the same.
    Raises ValueError for no crop, another word, or a frame smaller than the crop.
    """
    if num_crops < 1 or single not in ("centre", "first"):
        raise ValueError(f"num_crops {num_crops} must be at least 1, single {single!r} centre or first.")
    side = min(height, width) if size is None else size
    room, across = max(height, width) - side, (min(height, width) - side) // 2
    if across < 0:
        raise ValueError(f"crops of {side} pixels do not fit into frames of {height} by {width}; resize to more first.")
    if num_crops == 1:
        starts = [room // 2 if single == "centre" else 0]
    else:
        starts = [int(crop * (room / (num_crops - 1))) for crop in range(num_crops)]
    places = [(start, across) if height >= width else (across, start) for start in starts]
    return tuple(Box(top, left, side, side) for top, left in places)


def corner_crops(height: int, width: int, *, size: int, mirrored: bool = False) -> tuple[Box, ...]:
    """Square crops of `size` at the four corners and the centre; with `mirrored` each followed by its mirror image.

    The order is top left, top right, bottom left, bottom right, centre (ten-crop testing; Krizhevsky et al. 2012).
    Raises ValueError where the frame is smaller than the crop.
    """
    bottom, right = height - size, width - size
    if min(bottom, right) < 0:
        raise ValueError(f"crops of {size} pixels do not fit into frames of {height} by {width}; resize to more first.")
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    flips = (False, True) if mirrored else (False,)
    return tuple(Box(top, left, size, size, flip) for top, left in places for flip in flips)
