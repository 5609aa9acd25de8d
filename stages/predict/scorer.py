"""Scores of sliding windows: a trained temporal model over the rows of videos, many short videos in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reelwright.stages.predict.config import PredictWindowSettings
from reelwright.stages.train.block import Block
from reelwright.stages.train.checkpoints import load_weights
from reelwright.stages.train.objectives import probabilities
from reelwright.stages.train.setup import build_run_model
from reelwright.stages.train.windows import Windows, WindowShape, grid_windows, window_rows
from reelwright.storage.annotations import Spans
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.runs import RunFolder
from reelwright.storage.scores import VideoScores

TEMPORAL_PREFIX = "temporal."  # of the temporal model's weights in a finetune run


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """The temporal model of a run, in eval mode, and what config.yaml says of it."""

    module: nn.Module
    key: str
    stage: str  # train or finetune
    task: str
    classes: tuple[str, ...]
    output: str  # which output of the embeddings it reads
    input_dim: int
    window: Mapping[str, Any]  # length, stride, skip, pad in training


@dataclass(frozen=True)
class VideoRows:
    """Rows (T, D) of one video and where they lie."""

    digest: str
    rows: npt.NDArray[Any]
    spans: Spans


def load_run(folder: RunFolder, *, device: torch.device) -> LoadedRun:
    """The trained model in ``folder``. Raises StoreError or StageError when it is not complete or does not fit."""
    values = folder.config()
    folder.weights_digest()
    module = build_run_model(values["model"])
    load_weights(folder.weights, module, prefix=TEMPORAL_PREFIX if values["stage"] == "finetune" else "")
    return LoadedRun(
        module=module.eval().to(device),
        key=values["key"],
        stage=values["stage"],
        task=values["task"],
        classes=tuple(values["classes"]),
        output=values.get("output", "pooled"),
        input_dim=values["model"]["input_dim"],
        window=values["window"],
    )


class Scorer:
    """Scores videos with one run."""

    def __init__(self, run: LoadedRun, window: PredictWindowSettings, *, batch_size: int) -> None:
        """Raises ConfigError when the model cannot take windows of that length."""
        self.run = run
        self.shape = WindowShape(
            length=window.length or run.window["length"],
            stride=window.stride,
            skip=run.window["skip"] if window.skip is None else window.skip,
            pad=window.pad,
        )
        self._batch_size = batch_size
        self._device = next(run.module.parameters()).device
        self._try()

    def num_windows(self, num_rows: int) -> int:
        """Windows of a video with so many rows."""
        return len(grid_windows([num_rows], self.shape))

    def score(self, videos: Sequence[VideoRows]) -> list[VideoScores]:
        """Scores of each video. Raises StageError when the rows are not those that the run was trained on."""
        for video in videos:
            if video.rows.shape[1] != self.run.input_dim:
                raise StageError(
                    f"the run was trained on rows of {self.run.input_dim} features, these have {video.rows.shape[1]}. "
                    "Predict from the embeddings that it was trained on, in the same order."
                )
        block = _block(videos).on(self._device)
        windows = grid_windows(block.num_rows, self.shape)
        probabilities_ = self._forward(block, windows)
        window_scores = probabilities_
        row_sums, row_counts = None, np.zeros(int(block.offsets[-1]), dtype=np.int64)
        if self.run.task == "per_row":
            window_scores = probabilities_[np.arange(len(windows)), windows.count - 1]
            row_sums, row_counts = _row_means(probabilities_, block, windows, self.shape)
        else:
            np.add.at(row_counts, block.offsets[windows.video] + windows.last_row(self.shape), 1)
        return [
            _of_video(position, block, windows, (self.shape, window_scores, row_sums, row_counts))
            for position in range(len(videos))
        ]

    def _forward(self, block: Block, windows: Windows) -> npt.NDArray[np.float32]:
        """Probabilities (N, K), or (N, length, K) for per_row."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(windows), self._batch_size):
                picked = windows.take(np.arange(start, min(start + self._batch_size, len(windows))))
                rows, mask = (value.to(self._device) for value in block.gather(picked, self.shape))
                parts.append(probabilities(self.run.task, self.run.module(rows, mask)).cpu())
        return torch.cat(parts).numpy()

    def _try(self) -> None:
        """One forward pass over zeros, so that a wrong length is found before any video is read."""
        rows = torch.zeros(1, self.shape.length, self.run.input_dim, device=self._device)
        try:
            with torch.inference_mode():
                self.run.module(rows, torch.ones(1, self.shape.length, dtype=torch.bool, device=self._device))
        except (ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(
                f"window.length: {self.shape.length} is not allowed for this model, trained with "
                f"{self.run.window['length']} ({error}). Leave it out."
            ) from error


def _block(videos: Sequence[VideoRows]) -> Block:
    offsets = np.cumsum([0, *(len(video.rows) for video in videos)], dtype=np.int64)
    rows: Tensor = torch.from_numpy(np.concatenate([video.rows for video in videos]))
    return Block(rows, offsets, tuple(video.spans for video in videos), tuple(video.digest for video in videos))


def _row_means(
    scores: npt.NDArray[np.float32], block: Block, windows: Windows, shape: WindowShape
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Mean scores (R, K) over all windows that hold a row, NaN where none does, and how many do (R,)."""
    rows, mask = window_rows(windows, shape)
    index = torch.from_numpy((rows + block.offsets[windows.video][:, None])[mask])
    values = torch.from_numpy(scores[mask])
    num_rows = int(block.offsets[-1])
    sums = torch.zeros(num_rows, values.shape[1], dtype=torch.float64).index_add_(0, index, values.double())
    counts = torch.bincount(index, minlength=num_rows)
    means = (sums / counts[:, None]).float()  # 0 / 0 is NaN: no window holds the row
    return means.numpy(), counts.numpy()


def _of_video(position: int, block: Block, windows: Windows, results: tuple[Any, ...]) -> VideoScores:
    shape, window_scores, row_means, row_counts = results
    mine = windows.video == position
    own = windows.take(mine)
    span = slice(int(block.offsets[position]), int(block.offsets[position + 1]))
    return VideoScores(
        start_row=own.start,
        stop_row=own.last_row(shape) + 1,
        scores=window_scores[mine],
        spans=block.spans[position],
        num_windows=row_counts[span],
        row_scores=None if row_means is None else row_means[span],
    )
