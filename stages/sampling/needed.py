"""Which frames of a video the clips of a test need, so that the others are neither decoded nor encoded.

frames        0 1 2 3 4 5 6 7 8 9        two clips of two rows, an image encoder (a row is a frame)
clip 0          1       5
clip 1              3       7
needed          1   3   5   7            rows 1 3 5 7

a row of a video encoder is a clip of frames itself: row 1 of length 3, stride 2 needs frames 2 3 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reelwright.stages.sampling.clips import ClipSampling
from reelwright.stages.sampling.windows import IntArray, WindowShape, window_rows


@dataclass(frozen=True, kw_only=True)
class Needed:
    """The clips of a video at test, over rows of `length` frames, `stride` apart, `skip` left out between frames."""

    clips: ClipSampling
    num_views: int = 1
    length: int = 1
    stride: int = 1
    skip: int = 0

    def num_rows(self, num_frames: int) -> int:
        """Rows of a video, all of them: at least one for a video with a frame."""
        extent = (self.length - 1) * (self.skip + 1) + 1
        return max(0, num_frames - extent) // self.stride + 1 if num_frames else 0

    def rows(self, num_frames: int) -> IntArray:
        """The rows that are in a clip, ascending; the first one where the video is too short for any."""
        num_rows = self.num_rows(num_frames)
        rows, mask = window_rows(self.clips.views([num_rows], num_views=self.num_views), self.clips.shape)
        return np.unique(rows[mask]) if mask.any() else np.arange(min(1, num_rows))

    def frames_of_rows(self, num_frames: int) -> IntArray:
        """Frames of each needed row, (R, length); the last one repeated where the video is shorter than a row."""
        first = self.rows(num_frames)[:, None] * self.stride
        frames: IntArray = np.minimum(first + np.arange(self.length) * (self.skip + 1), num_frames - 1)
        return frames

    def frames(self, num_frames: int) -> IntArray:
        """All frames that are needed, ascending."""
        return np.unique(self.frames_of_rows(num_frames))

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for work units."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Needed:
        """The inverse of `to_plain`."""
        clips = dict(values["clips"])
        return cls(**{**values, "clips": ClipSampling(**{**clips, "shape": WindowShape(**clips["shape"])})})
