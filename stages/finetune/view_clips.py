"""Batches of views of stored frames: what `train.view_batches` does over stored rows, for models that see frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.datasets.sampling.two_views import DrawnViews
from reelwright.stages.datasets.sampling.windows import IntArray
from reelwright.stages.finetune.clips import ClipReading, Frames, drawn_clip, in_threads
from reelwright.stages.fit.loop.batches import Origin, read_early
from reelwright.stages.train.view_batches import VideoViews


@dataclass(frozen=True, kw_only=True)
class FrameViewBatches(VideoViews):
    """Views of frames: inputs are `frames` (N V, T C, h, w, 3) uint8 too. What is drawn for a view is its own."""

    reading: ClipReading
    num_frames: Sequence[int]  # of each video that can be read
    videos: Sequence[int] | None = None  # among those that can be read; None: they are all

    @cached_property
    def rows_of_videos(self) -> Sequence[int]:
        """See VideoViews."""
        return self.num_frames if self.videos is None else [self.num_frames[video] for video in self.videos]

    epoch = read_early(VideoViews.epoch)

    def look(self, drawn: DrawnViews, origin: Origin) -> dict[str, Tensor]:
        """See VideoViews."""
        clips = in_threads(
            partial(self._clip, origin.epoch), drawn.video.tolist(), drawn.rows, origin.positions.tolist()
        )
        return {"frames": torch.from_numpy(np.stack(clips))}

    def _clip(self, epoch: int, video: int, rows: IntArray, place: int) -> Frames:
        known = video if self.videos is None else self.videos[video]
        if not self.draws:
            return self.reading.val(known, rows.reshape(-1))
        return drawn_clip(self.reading.train, self.reading.transforms, epoch, known, rows.reshape(-1), place)
