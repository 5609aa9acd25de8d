"""Clips of stored frames for networks that see them: read when a batch of windows needs them, each frame once a batch.

windows 0 to 3     |---------|              of one video, a batch of 4
                     |---------|
                       |---------|
                         |---------|
frames             0 1 2 3 4 5 6 7          read and resized once, while the batch before is computed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.datasets.sampling.views import Box
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, shown, window_rows
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import StoreError

Frames = npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Where frames are read from: those of one video in the store (`FrameRows`), or in memory."""

    @property
    def num_rows(self) -> int:
        """T."""

    def take(self, rows: IntArray) -> Frames:
        """The frames (N, H, W, 3) at these rows, ascending."""


@dataclass(frozen=True)
class SeenFrames:
    """The frames of one video as a network sees them, or one crop of them: (T, h, w, 3) bytes, not in memory."""

    rows: FrameSource
    geometry: Geometry
    path: Path  # for messages
    box: Box | None = None

    nbytes = 0

    def __len__(self) -> int:
        return self.rows.num_rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, h, w, 3)."""
        return (len(self), *self.take(np.zeros(1, dtype=np.int64)).shape[1:])

    def take(self, places: IntArray) -> Frames:
        """The frames (N, h, w, 3) at these rows, ascending. Raises StoreError for those that cannot be read."""
        try:
            frames = apply(self.rows.take(places), self.geometry)
        except (KeyError, ValueError, OSError) as error:
            raise StoreError(f"stored frames of {self.path} cannot be read: {error}") from error
        if self.box is None:
            return frames
        box = self.box
        return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]


@dataclass(frozen=True)
class ClipBank:
    """What `FeatureBank` is of rows: windows of the frames of V videos."""

    videos: tuple[SeenFrames, ...]
    spans: tuple[Spans, ...]
    digests: tuple[str, ...]

    @property
    def num_rows(self) -> list[int]:
        """Frames of each video."""
        return [len(spans.start_seconds) for spans in self.spans]

    @property
    def offsets(self) -> IntArray:
        """(V + 1,) where the frames of each video would start, were they one after the other."""
        return np.cumsum([0, *self.num_rows], dtype=np.int64)

    def gather(self, windows: Windows, shape: WindowShape) -> tuple[Tensor, Tensor]:
        """Frames uint8 (B, length, h, w, 3) and mask bool (B, length), what a network takes for real."""
        rows, mask = window_rows(windows, shape)
        parts: dict[int, tuple[IntArray, Frames]] = {}
        for video in np.unique(windows.video).tolist():
            wanted = np.unique(rows[windows.video == video])
            parts[video] = wanted, self.videos[video].take(wanted)
        clips = []
        for video, row in zip(windows.video.tolist(), rows, strict=True):
            wanted, frames = parts[video]
            clips.append(frames[np.searchsorted(wanted, row)])
        return torch.from_numpy(np.stack(clips)), torch.from_numpy(shown(mask, shape))
