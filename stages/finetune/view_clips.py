"""Batches of views of stored frames: what `train.view_batches` does over stored rows, for models that see frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.datasets.sampling.two_views import DrawnViews
from reelwright.stages.datasets.sampling.windows import IntArray
from reelwright.stages.embed.threads import read_ahead
from reelwright.stages.finetune.clips import BATCHES_AHEAD, ClipReading, Frames, in_threads
from reelwright.stages.fit.loop.batches import Batch, Origin
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

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """As `Batches.epoch`; the next batches are read while one is in use."""
        with read_ahead(super().epoch(epoch, first=first), depth=BATCHES_AHEAD) as batches:
            yield from batches

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
        clip = self.reading.train(known, rows.reshape(-1))
        for transform in self.reading.transforms:
            clip = transform(clip, epoch, place)
        return clip
