"""The windows of a train node with their targets, as the trainer takes them: a torch data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.feature_bank import load_block
from reelwright.stages.datasets.labelled import KnownRows, distinct_videos, label_windows
from reelwright.stages.datasets.sampling.draws import IN_ORDER
from reelwright.stages.datasets.stored_rows import split_missing
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.drawn_windows import WindowSampling, drawn_windows, window_heads, window_labels
from reelwright.stages.train.window_batches import WindowBatches
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.store import Store


@dataclass(frozen=True)
class WindowDataset(Dataset[dict[str, Any]]):
    """N windows over stored embeddings, in memory or, above `memory_bytes`, mapped from a file.

    An item, which torch's default collation batches:

    rows      float32 (length, D), or (length, N, D) of tokens
    mask      bool (length,), true where the row is real
    target    int64: a class, -1 where not known; (length,) of task per_row; float32 (K,) of task multi_label
    video_id  text
    start_seconds, stop_seconds   float: the span of the window's real rows
    """

    source: WindowBatches
    classes: tuple[str, ...]
    task: str

    def __len__(self) -> int:
        return len(self.source.windows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """One window. Raises IndexError beyond the last."""
        if not -len(self) <= place < len(self):
            raise IndexError(f"window {place} of {len(self)}")
        place %= len(self)
        source, one = self.source, self.source.windows.take(np.array([place]))
        rows, mask = source.block.gather(one, source.shape)
        video, last = int(one.video[0]), int(one.last_row(source.shape)[0])
        spans = source.block.spans[video]
        return {
            "rows": rows[0],
            "mask": mask[0],
            "target": torch.as_tensor(source.targets[place]),
            "video_id": source.names[video],
            "start_seconds": float(spans.start_seconds[int(one.start[0])]),
            "stop_seconds": float(spans.stop_seconds[last]),
        }

    def batches(self, epoch: int = 0) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Inputs (rows, mask) and targets of each batch of an epoch, in the trainer's own order and number.

        As they are stored: what the trainer then does to a batch (augment, mix) is not done.
        """
        for batch in self.source.epoch(epoch):
            yield dict(batch.inputs), batch.targets

    def __repr__(self) -> str:
        shape = tuple(self.source.block.rows.shape[1:])
        return f"<{len(self)} windows of {self.source.shape.length} rows {shape}, task {self.task}>"


def window_dataset(work: Work, splits: Sequence[str] | None = None) -> WindowDataset:
    """The windows of a train node whose target is known, of the videos of ``splits`` (None: those it learns from).

    Of training splits they are drawn as `window.sampling` says, of others they lie on the grid. Raises ConfigError for
    a node that learns otherwise or reads no such split, InputError where no video has rows or no window a label.
    """
    if work.stage != TrainConfig.stage:
        raise ConfigError(f"{work.node} is a {work.stage} node; windows of rows are those of train nodes")
    config = parse_config(TrainConfig, dict(work.config), where=work.node)
    splits = config.train_splits if splits is None else splits
    _check(config, splits, where=work.node)
    stores = [EmbeddingStore(Store.at(work.store).embeddings(ref.key)) for ref in work.inputs["embeddings"]]
    videos = distinct_videos(work.payload, splits=splits)
    names = {video.digest: video.video_id for video in videos}
    present, _ = split_missing(stores, list(names))
    if not present:
        raise InputError(f"{work.node}: none of the {len(names)} videos of {', '.join(splits)} has embeddings")
    labels = window_labels(work, config)
    task = build_task(config.task, labels, heads=window_heads(config, labels, where=work.node))
    # a name of its own: another notebook that asks for the same windows would empty the file under these rows
    scratch = Store.at(work.store).root / "scratch" / f"{work.key}.windows.{uuid4().hex}.rows"
    try:
        block = load_block(
            stores,
            {digest: names[digest] for digest in present},
            output=config.output,
            memory_bytes=config.memory_bytes,
            scratch=scratch,
            keeps_positions=config.model.keeps_positions,
        )
    finally:
        scratch.unlink(missing_ok=True)  # what is mapped stays until it is let go of
    rows, sampling = KnownRows(block.digests, block.spans), WindowSampling.of(config)
    if set(splits) <= set(config.train_splits):
        found, draws = drawn_windows(videos, rows, sampling=sampling, task=task)
    else:
        found, draws = label_windows(videos, rows, shape=sampling.shape, task=task, clips=sampling.clips), IN_ORDER
    source = WindowBatches(
        windows=found.windows,
        targets=found.targets,
        shape=sampling.shape,
        batch_size=config.batch_size,
        draws=draws,
        drop_last=config.drop_last and draws is not IN_ORDER,
        names=tuple(names[digest] for digest in block.digests),
        block=block,
    )
    return WindowDataset(source, labels.classes, config.task)


def _check(config: TrainConfig, splits: Sequence[str], *, where: str) -> None:
    if config.views is not None or config.reads_maps:
        raise ConfigError(f"{where} learns from views of whole videos, not from windows; take project.embeddings(NODE)")
    known = (*config.train_splits, *config.val_splits)
    wrong = [split for split in splits if split not in known]
    if wrong or not splits:
        raise ConfigError(
            f"{where} reads the splits {', '.join(dict.fromkeys(known))}, not {', '.join(wrong) or 'none'}. Name one "
            "of these, or change its train_splits or val_splits"
        )
