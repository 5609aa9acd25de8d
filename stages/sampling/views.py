"""Views of a video at test: which segments and crops there are, in which order, and where a crop lies.

    segments x crops      v0s0c0 v1s0c0 ... v0s0c1 v1s0c1 ... v0s1c0 ...    a video's views lie far apart

    three crops along the longer side    |000|111|222|   start, middle, end (they overlap where the side is shorter)

Predictions of the views are merged by `models.views`. Source: CAST (1.2, 1.6), ST-ABN (2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """N views: int64 (N,) each."""

    video: IntArray
    segment: IntArray
    crop: IntArray

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True)
class Box:
    """A crop in pixels, of the upright frame."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


def enumerate_views(num_videos: int, *, num_segments: int = 1, num_crops: int = 1) -> Views:
    """All views: for every segment, for every crop, all videos. Raises ValueError for no segment or crop."""
    if num_segments < 1 or num_crops < 1:
        raise ValueError(f"num_segments {num_segments} and num_crops {num_crops} must be at least 1.")
    segment, crop, video = np.indices((num_segments, num_crops, num_videos), dtype=np.int64).reshape(3, -1)
    return Views(video, segment, crop)


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
