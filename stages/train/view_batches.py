"""Batches of views of videos, for losses that need no labels; over stored embeddings, in memory or read as needed.

    videos      3 0 4 1 2                  the epoch's order, each once
    batches     3 0 | 4 1 | 2              batch_size 2; with groups (actions) all of a batch are of one
    rows        3a 3b 0a 0b | ...          the views of a video side by side

Everything follows from (seed, epoch, place), so an epoch can go on at any batch, in any number of processes. Of maps of
a ResNet, for models whose last layers learn, and of rows in several stored views nothing is kept in memory:

    stored   (T, C, H, W), or (T, V, C, H, W) and (T, V, D): V augmented views of every frame, the first as it is
    batch    one of the V for each view of a video, drawn in training, the first in validation
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from reelwright.models.losses.classification import IGNORED
from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.datasets.sampling.two_views import DrawnViews, ViewSampler, context_frames
from reelwright.stages.datasets.sampling.windows import IntArray
from reelwright.stages.fit.loop.batches import Batch, Origin, Split, read_early
from reelwright.stages.fit.processes.world import ALONE, World
from reelwright.stages.train.window_batches import describe_rows
from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.errors import StoreError, nearest


@dataclass(frozen=True, kw_only=True)
class VideoViews(ABC):
    """Batches of N videos with V views of T rows each; videos that are too short for any view are left out.

    Inputs are those of a subclass, which reads what is in the rows; `mask` (N V, T) bool, True at real rows;
    `row_numbers` (N V, T) int64; `num_rows` and `video`, its position, (N V,) int64. Targets int64 (N V, T) are
    classes, -1 where there is no label or no row. Each view has a place of its own in the epoch's order.
    """

    sampler: ViewSampler
    batch_size: int  # videos, over all processes
    labels: Sequence[IntArray] | None = None  # of each video, a class a row, -1 where unknown
    groups: Sequence[int] | None = None  # of each video; a batch has videos of one group
    fewest: int = 1  # videos of a batch: fewer that remain join the batch before, or are left out where there is none
    drop_last: bool = False  # videos that do not fill a batch are left out of the epoch
    draws: bool = False  # what of a row is looked at (which stored view, augmented how) is drawn too, as in training
    world: World = ALONE
    names: tuple[str, ...] = ()  # of the videos, for messages

    def __post_init__(self) -> None:
        """Refuse what does not fit the videos."""
        rows = list(self.rows_of_videos)
        if self.batch_size < self.fewest:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least {self.fewest}.")
        if self.labels is not None and [len(labels) for labels in self.labels] != rows:
            raise ValueError("labels must be of every video, one a row.")
        if self.groups is not None and len(self.groups) != len(rows):
            raise ValueError(f"groups are of {len(self.groups)} videos, there are {len(rows)}.")

    @property
    @abstractmethod
    def rows_of_videos(self) -> Sequence[int]:
        """How many rows each video has."""

    @abstractmethod
    def read_views(self, drawn: DrawnViews, origin: Origin) -> dict[str, Tensor]:
        """What is in the rows of views: tensors (N V, T C, ...) by name, the C rows of a context side by side."""

    @property
    def num_items(self) -> int:
        """Views of an epoch, over all processes."""
        return sum(self._sizes) * self.sampler.num_views

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last one, with groups the last of each, may be smaller."""
        return len(self._sizes)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        num_views = self.sampler.num_views
        batches = self._batches(epoch)
        starts = np.cumsum([0, *map(len, batches)])
        for number in range(first, len(batches)):
            videos = batches[number]
            split = Split(batch_size=len(videos), world=self.world)
            ((own, num_all, is_counted),) = split.parts(np.arange(len(videos)))
            drawn = self._drawn(videos[own], epoch, starts[number] + own)
            places = ((starts[number] + own)[:, None] * num_views + np.arange(num_views)).reshape(-1)
            yield self._batch(drawn, num_all * num_views, is_counted, Origin(epoch, places))

    def whole(self, video: int, *, most: int) -> dict[str, Tensor]:
        """Inputs (1, ...) of one video as a whole, of at most so many of its rows, evenly spaced; see VideoViews."""
        count = self.rows_of_videos[video]
        rows = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
        contexts = context_frames(rows, num=self.sampler.num_contexts, stride=self.sampler.views.context_stride)
        drawn = DrawnViews(
            video=np.array([video]),
            num_rows=np.array([count]),
            positions=rows[None],
            mask=np.ones((1, len(rows)), dtype=np.bool_),
            rows=contexts[None],
        )
        return self._inputs(drawn, Origin(0, np.zeros(1, dtype=np.int64)))

    def _batches(self, epoch: int) -> list[IntArray]:
        """The videos of every batch of an epoch."""
        generator = generator_at(self.sampler.seed, "videos", epoch=epoch, place=0)
        order = generator.permutation(self._taken)
        if self.groups is None:
            return self._cut(order)
        groups = np.asarray(self.groups)[order]
        batches = [part for group in np.unique(groups) for part in self._cut(order[groups == group])]
        return [batches[place] for place in generator.permutation(len(batches))]

    @cached_property
    def _taken(self) -> IntArray:
        """The videos that there are views of."""
        return np.flatnonzero(np.asarray(self.rows_of_videos) >= self.sampler.least_rows)

    @cached_property
    def _sizes(self) -> list[int]:
        """Videos of every batch, of each group those of whole ones first."""
        if self.groups is None:
            return self._cut_sizes(len(self._taken))
        _, counts = np.unique(np.asarray(self.groups)[self._taken], return_counts=True)
        return [size for count in counts.tolist() for size in self._cut_sizes(count)]

    def _cut_sizes(self, count: int) -> list[int]:
        whole, rest = divmod(count, self.batch_size)
        sizes = [self.batch_size] * whole
        if rest and not self.drop_last and rest >= self.fewest:
            return [*sizes, rest]
        if rest and not self.drop_last and sizes:
            sizes[-1] += rest
        return sizes

    def _cut(self, order: IntArray) -> list[IntArray]:
        stops = np.cumsum(self._cut_sizes(len(order)), dtype=np.int64)
        return np.split(order[: stops[-1]], stops[:-1]) if len(stops) else []

    def _drawn(self, videos: IntArray, epoch: int, places: IntArray) -> DrawnViews:
        rows = self.rows_of_videos
        num_rows = [rows[video] for video in videos.tolist()]
        return self.sampler.drawn(videos.tolist(), num_rows, epoch=epoch, places=places.tolist())

    def _batch(self, drawn: DrawnViews, num_all: int, is_counted: bool, origin: Origin) -> Batch:
        inputs = self._inputs(drawn, origin)
        targets = torch.from_numpy(self._targets(drawn)).to(inputs["mask"].device)
        return Batch(inputs, targets, num_all, is_counted, lambda: self._described(drawn), origin)

    def _inputs(self, drawn: DrawnViews, origin: Origin) -> dict[str, Tensor]:
        inputs = self.read_views(drawn, origin)
        device = next(iter(inputs.values())).device
        known = {"mask": drawn.mask, "row_numbers": drawn.positions, "num_rows": drawn.num_rows, "video": drawn.video}
        return inputs | {name: torch.from_numpy(value).to(device) for name, value in known.items()}

    def _targets(self, drawn: DrawnViews) -> IntArray:
        targets = np.full(drawn.mask.shape, IGNORED, dtype=np.int64)
        if self.labels is not None:
            for place, video in enumerate(drawn.video.tolist()):
                targets[place] = np.asarray(self.labels[video])[drawn.positions[place]]
        return np.where(drawn.mask, targets, IGNORED)

    def _described(self, drawn: DrawnViews) -> list[str]:
        return describe_rows(drawn.video, drawn.positions.min(1), drawn.positions.max(1), self.names)


@dataclass(frozen=True, kw_only=True)
class ViewBatches(VideoViews):
    """Views of stored rows: inputs are `rows` (N V, T C, D) float32 too, on the block's device."""

    block: FeatureBank
    videos: Sequence[int] | None = None  # where in the block each video is; None: they are all of the block

    @cached_property
    def rows_of_videos(self) -> Sequence[int]:
        """See VideoViews."""
        rows = self.block.num_rows
        return rows if self.videos is None else [rows[video] for video in self.videos]

    def read_views(self, drawn: DrawnViews, origin: Origin) -> dict[str, Tensor]:
        """See VideoViews."""
        del origin
        videos = drawn.video if self.videos is None else np.asarray(self.videos)[drawn.video]
        index = drawn.rows.reshape(len(drawn.rows), -1) + self.block.offsets[videos][:, None]
        return {"rows": self.block.pick(torch.from_numpy(index).to(self.block.rows.device))}


_MAP_AXES = 3  # C, H, W


@dataclass(frozen=True, kw_only=True)
class MapBatches(VideoViews):
    """Views of what is stored, read while the batch before is in use.

    Inputs are `rows` too, maps (N V, T C, channels, H, W), or vectors (N V, T C, D).
    """

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
