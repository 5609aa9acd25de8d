"""Which frames of a video the clips of a test need, so that the others are neither decoded nor encoded.

frames        0 1 2 3 4 5 6 7 8 9        two clips of two rows, an image encoder (a row is a frame)
clip 0          1       5
clip 1              3       7
needed          1   3   5   7            rows 1 3 5 7

a row of a video encoder is a clip of frames itself: row 1 of length 3, hop 2 needs frames 2 3 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reelwright.stages.datasets.sampling.clips import ClipSampling
from reelwright.stages.datasets.sampling.windows import (
    BoolArray,
    IntArray,
    Windows,
    WindowShape,
    grid_windows,
    window_rows,
)

FRAME = WindowShape(length=1)  # a row of an image encoder


@dataclass(frozen=True, kw_only=True)
class Needed:
    """The clips of a video at test, over rows that are made of frames as ``row`` says."""

    clips: ClipSampling
    num_views: int = 1
    row: WindowShape = FRAME

    def num_rows(self, num_frames: int) -> int:
        """Rows of a video, all of them."""
        return self.row.num_windows(num_frames)

    def rows(self, num_frames: int) -> IntArray:
        """The rows that are in a clip, ascending; the first one where the video is too short for any."""
        num_rows = self.num_rows(num_frames)
        rows, mask = window_rows(self.clips.views([num_rows], num_views=self.num_views), self.clips.shape)
        return np.unique(rows[mask]) if mask.any() else np.arange(min(1, num_rows))

    def all_rows(self, num_frames: int) -> Windows:
        """All rows of a video, as windows over its frames."""
        return grid_windows([num_frames], self.row)

    def frames_of_rows(self, num_frames: int) -> tuple[IntArray, BoolArray]:
        """Frames of each needed row and which of them are real, (R, length), as `window_rows` has them."""
        return window_rows(self.all_rows(num_frames).take(self.rows(num_frames)), self.row)

    def frames(self, num_frames: int) -> IntArray:
        """All frames that are needed, ascending."""
        return np.unique(self.frames_of_rows(num_frames)[0])

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for work units."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Needed:
        """The inverse of `to_plain`."""
        clips = dict(values["clips"])
        sampling = ClipSampling(**{**clips, "shape": WindowShape(**clips["shape"])})
        return cls(**{**values, "clips": sampling, "row": WindowShape(**values["row"])})
