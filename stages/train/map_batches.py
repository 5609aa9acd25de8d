"""Batches of views of stored maps of a ResNet, for models whose last layers learn, and of rows of several stored views.

    stored   (T, C, H, W), or (T, V, C, H, W) and (T, V, D): V augmented views of every frame, the first as it is
    batch    one of the V for each view of a video, drawn in training, the first in validation

A map takes hundreds of kilobytes, so nothing is kept in memory: the next batches are read from the store while one is
in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.datasets.sampling.two_views import DrawnViews
from reelwright.stages.fit.loop.batches import Origin, read_early
from reelwright.stages.train.view_batches import VideoViews
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.errors import StoreError, nearest

_MAP_AXES = 3  # C, H, W


@dataclass(frozen=True, kw_only=True)
class MapBatches(VideoViews):
    """Views of what is stored: inputs are `rows` too, maps (N V, T C, channels, H, W), or vectors (N V, T C, D)."""

    rows: Sequence[EmbeddingRows]  # of every video that has some
    output: str
    videos: Sequence[int]  # which of them each video is
    row_axes: int = _MAP_AXES  # of what is stored of one view: C, H, W, or D alone

    @cached_property
    def rows_of_videos(self) -> Sequence[int]:
        """See VideoViews."""
        return [self.rows[video].num_rows for video in self.videos]

    @cached_property
    def num_stored(self) -> int | None:
        """Stored views of a frame; None where there is the frame alone."""
        shape = self.rows[self.videos[0]].row_shape(self.output)
        return shape[0] if len(shape) > self.row_axes else None

    epoch = read_early(VideoViews.epoch)

    def read_views(self, drawn: DrawnViews, origin: Origin) -> dict[str, Tensor]:
        """See VideoViews."""
        maps = [
            self.rows[self.videos[video]].take(self.output, rows.reshape(-1), view=self._view(origin.epoch, place))
            for video, rows, place in zip(drawn.video.tolist(), drawn.rows, origin.positions.tolist(), strict=True)
        ]
        return {"rows": torch.from_numpy(np.stack(maps))}

    def _view(self, epoch: int, place: int) -> int | None:
        if self.num_stored is None or not self.draws:
            return None if self.num_stored is None else 0
        return int(generator_at(self.sampler.seed, "map view", epoch=epoch, place=place).integers(self.num_stored))


def map_channels(store: EmbeddingStore, output: str) -> int:
    """Channels of stored maps. Raises StoreError for an output that is not stored or no map."""
    shapes = store.spec["outputs"]
    if output not in shapes or len(shapes[output]) < _MAP_AXES:
        raise StoreError(
            f"no map {output!r} is stored in {store.path}.{nearest(output, shapes)} Stored: {', '.join(shapes)}. Ask "
            "the embed node for it with `outputs`."
        )
    return int(shapes[output][-_MAP_AXES])
