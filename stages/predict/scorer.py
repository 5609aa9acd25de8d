"""Scores of sliding windows: a trained model over the rows or frames of videos, many short videos in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.base.devices import Download, Pending, Upload, out_of_memory
from reelwright.stages.datasets.attention_edits import AttentionEdits
from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.clips import ClipSampling, distinct, repeats_of
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.sampling.windows import IntArray, Windows, WindowShape, grid_windows, shown, window_rows
from reelwright.stages.embed.clips import Clip
from reelwright.stages.embed.encoding.forward import autocast
from reelwright.stages.embed.threads import read_ahead
from reelwright.stages.fit.run_models import clips_of_run
from reelwright.stages.predict.clip_frames import ClipBank, SeenFrames
from reelwright.stages.predict.config import PredictWindowSettings
from reelwright.stages.predict.kept import KeptOutputs
from reelwright.stages.predict.loaded_run import LoadedRun, VideoRows, predicted_shape
from reelwright.stages.predict.merging import merge_crops
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.results.scores import VideoScores

Bank = FeatureBank | ClipBank  # of what windows are taken


def _clips(run: LoadedRun, window: PredictWindowSettings, shape: WindowShape) -> ClipSampling | None:
    """How clips are taken; None where windows slide. Raises ConfigError for a phase that the clips have not."""
    found = None if window.sampling == "grid" else clips_of_run({"clips": run.clips}, shape)
    if window.phase != "centred" and (found is None or found.kind != "segments"):
        raise ConfigError(
            f"window.phase is {window.phase}, but the run was trained with sampling {run.clips['sampling']}, whose "
            "views have no phase; it is of segments. Leave it out."
        )
    return None if found is None else replace(found, phase=window.phase)


@dataclass(frozen=True)
class _Begun:
    """A batch of windows on its way through the model."""

    windows: Windows
    positions: IntArray  # (B, T) rows of their videos
    is_real: npt.NDArray[np.bool_]  # (B, T)
    scores: Pending


class Scorer:
    """Scores videos with one run."""

    def __init__(
        self, run: LoadedRun, window: PredictWindowSettings, *, batch_size: int, precision: str = "fp32"
    ) -> None:
        """``precision`` is of a network that sees frames itself.

        Raises ConfigError when the model cannot take windows of that length.
        """
        self.run = run
        self.shape = predicted_shape(window, run.window)
        self._clips = _clips(run, window, self.shape)
        if window.views is not None and self._clips is None:
            raise ConfigError(
                f"window.views is {window.views}, but the run was trained on windows (sampling "
                f"{run.clips['sampling']}), not on clips. Leave it out; window.hop says how many windows there are."
            )
        self._num_views = window.views or 1
        self._batch_size, self._precision = batch_size, precision
        self._name = "rows" if run.sees is None else "frames"  # of what the model is fed
        self._device = next(run.module.parameters()).device
        self._upload, self._download = Upload(self._device), Download(self._device)
        self._num_behind = 1 if self._device.type == "cuda" else 0  # batches whose scores are read later
        self.kept: KeptOutputs | None = None  # what takes further outputs of every window, in order
        self._edits: AttentionEdits | None = None
        self._trial = self._try()

    def keep(self, path: Path, attributes: Mapping[str, Any], names: Sequence[str]) -> None:
        """Store further outputs of every window, too. Raises what `KeptOutputs` raises."""
        self.kept = KeptOutputs(path, attributes, keep=names, trial=self._trial, run=self.run.key)

    def edit(self, edits: AttentionEdits) -> None:
        """Edit attention of windows. Raises what `AttentionEdits.check` raises."""
        edits.check(self._try, self._trial, length=self.shape.length)
        self._edits = edits

    def num_windows(self, num_rows: int) -> int:
        """Windows of a video with so many rows, at most: those that show the same are scored once."""
        return len(self._all_windows([num_rows]))

    def num_left_out(self, scores: VideoScores) -> int:
        """Rows of a video that have no say in any window, or, of task per_row, no score; 0 where clips stand for it."""
        if self._clips is not None:
            return 0
        if self.run.task.traits.per_row:
            return int((scores.num_windows == 0).sum())
        return self.shape.num_left_out(len(scores.num_windows))

    def needed(self, clip: Clip) -> Needed | None:
        """Which frames the clips take where ``clip`` makes rows of frames; None where windows take all."""
        if self._clips is None:
            return None
        return Needed(clips=self._clips, num_views=self._num_views, row=WindowShape(**vars(clip)))

    def _all_windows(self, num_rows: Sequence[int]) -> Windows:
        if self._clips is not None:
            return self._clips.views(num_rows, num_views=self._num_views)
        return grid_windows(num_rows, self.shape)

    def _windows(self, block: Bank) -> Windows:
        windows = self._all_windows(block.num_rows)
        if self._clips is None or self._num_views == 1:
            return windows
        return distinct(
            windows, self.shape, [repeats_of(spans.source_start, spans.source_stop) for spans in block.spans]
        )

    def score(self, videos: Sequence[VideoRows]) -> list[VideoScores]:
        """Scores of each video, the mean over its crops.

        Raises StageError when the rows are not those that the run was trained on, or the scores are NaN.
        """
        for video in videos:
            if video.rows.shape[1:] != self.run.row_shape:
                trained, given = (" x ".join(map(str, shape)) for shape in (self.run.row_shape, video.rows.shape[1:]))
                raise StageError(
                    f"the run was trained on rows of {trained} features, these have {given}. "
                    "Predict from the embeddings that it was trained on, in the same order."
                )
        crops = [VideoRows(video.digest, rows, video.spans) for video in videos for rows in video.all_crops]
        scored = iter(self._score(crops))
        return [merge_crops([next(scored) for _ in video.all_crops]) for video in videos]

    def _score(self, videos: Sequence[VideoRows]) -> list[VideoScores]:
        block = _block(videos, self._device)
        windows = self._windows(block)
        for digest, count in zip(block.digests, np.bincount(windows.video, minlength=len(videos)), strict=True):
            if self.kept is not None:
                self.kept.begin(digest, num_windows=int(count))
        rows = _RowMeans(int(block.offsets[-1]))
        parts = []
        with torch.inference_mode(), self._batches(block, windows) as batches:
            waiting: deque[_Begun] = deque()
            for picked, values, mask in batches:
                waiting.append(self._begin(block, picked, values=values, mask=mask))
                while len(waiting) > self._num_behind:
                    parts.append(self._scores(block, waiting.popleft(), rows))
            parts += [self._scores(block, begun, rows) for begun in waiting]
        scores = np.concatenate(parts)
        return [self._of_video(position, block, windows, scores, rows) for position in range(len(videos))]

    def _batches(
        self, block: Bank, windows: Windows
    ) -> AbstractContextManager[Iterator[tuple[Windows, Tensor, Tensor]]]:
        """Batches of windows, with what is in them and their masks; frames are read a batch ahead."""

        def batches() -> Iterator[tuple[Windows, Tensor, Tensor]]:
            for start in range(0, len(windows), self._batch_size):
                picked = windows.take(np.arange(start, min(start + self._batch_size, len(windows))))
                yield picked, *block.gather(picked, self.shape)

        return nullcontext(batches()) if isinstance(block, FeatureBank) else read_ahead(batches(), depth=1)

    def _begin(self, block: Bank, windows: Windows, *, values: Tensor, mask: Tensor) -> _Begun:
        """Give windows (B) to the device."""
        positions, is_real = window_rows(windows, self.shape)
        inputs = {self._name: values, "mask": mask}
        inputs = {name: x if x.device == self._device else self._upload(x) for name, x in inputs.items()}
        if self._edits is not None:
            digests, spans = ([each[video] for video in windows.video] for each in (block.digests, block.spans))
            changes = self._edits.inputs(digests, spans, positions, shown(is_real, self.shape))
            inputs |= {name: tensor.to(self._device) for name, tensor in changes.items()}
        with autocast(self._device, self._precision):
            outputs = self.run.module(inputs)
        if self._precision != "fp32":
            outputs = {name: tensor.float() for name, tensor in outputs.items()}
        if self.kept is not None:
            self._keep(self.kept, outputs, windows, block)
        return _Begun(windows, positions, is_real, self._download({"": self.run.task.probabilities(outputs["logits"])}))

    def _scores(self, block: Bank, begun: _Begun, rows: _RowMeans) -> npt.NDArray[np.float32]:
        """Scores of the windows (B, K); what they say of rows goes into ``rows``."""
        windows, positions, is_real = begun.windows, begun.positions, begun.is_real
        scores = begun.scores.result()[""]
        first_rows = block.offsets[windows.video]
        if not self.run.task.traits.per_row:
            rows.add(first_rows + windows.last_row(self.shape), None)
            self._check(scores)
            return scores
        self._check(scores[is_real])
        rows.add((positions + first_rows[:, None])[is_real], scores[is_real])
        last: npt.NDArray[np.float32] = scores[np.arange(len(windows)), windows.count - 1]
        return last

    def _keep(self, kept: KeptOutputs, outputs: Mapping[str, Tensor], windows: Windows, block: Bank) -> None:
        """Hand on what is kept of a batch of windows, video by video."""
        for position in np.unique(windows.video):
            is_mine = windows.video == position
            mine, picked = windows.take(is_mine), torch.from_numpy(np.flatnonzero(is_mine)).to(self._device)
            positions, is_real = window_rows(mine, self.shape)
            kept.add(
                block.digests[position],
                {name: outputs[name][picked] for name in kept.names},
                mine,
                rows=positions,
                is_real=shown(is_real, self.shape),
                last=mine.last_row(self.shape),
                spans=block.spans[position],
            )

    def _check(self, scores: npt.NDArray[np.float32]) -> None:
        if np.isnan(scores).any():
            raise StageError(f"the scores of run {self.run.key} are NaN: its weights are damaged. Train it again.")

    def _of_video(
        self, position: int, block: Bank, windows: Windows, scores: npt.NDArray[np.float32], rows: _RowMeans
    ) -> VideoScores:
        is_mine = windows.video == position
        mine = windows.take(is_mine)
        span = slice(int(block.offsets[position]), int(block.offsets[position + 1]))
        return VideoScores(
            start_row=mine.start,
            stop_row=mine.last_row(self.shape) + 1,
            scores=scores[is_mine],
            spans=block.spans[position],
            num_windows=rows.counts[span],
            row_scores=rows.means(span),
        )

    def _try(self, changes: Mapping[str, Tensor] = MappingProxyType({})) -> dict[str, Tensor]:
        """The outputs of one forward pass over zeros, so that a wrong length is found before any video is read."""
        dtype = torch.uint8 if self.run.sees is not None else torch.float32
        rows = torch.zeros(1, self.shape.length, *self.run.row_shape, dtype=dtype, device=self._device)
        mask = torch.ones(1, self.shape.length, dtype=torch.bool, device=self._device)
        try:
            with torch.inference_mode():
                changed = {name: tensor.to(self._device) for name, tensor in changes.items()}
                found: dict[str, Tensor] = self.run.module({self._name: rows, "mask": mask, **changed})
                return found
        except (ValueError, RuntimeError, IndexError) as error:
            if out_of_memory(error):
                raise StageError(f"memory of {self._device} does not suffice for one window ({error})") from error
            raise ConfigError(
                f"window.length: {self.shape.length} is not allowed for this model, trained with "
                f"{self.run.window['length']} ({error}). Leave it out."
            ) from error


def _block(videos: Sequence[VideoRows], device: torch.device) -> Bank:
    frames = [video.rows for video in videos if isinstance(video.rows, SeenFrames)]
    spans, digests = tuple(video.spans for video in videos), tuple(video.digest for video in videos)
    if frames:
        return ClipBank(tuple(frames), spans, digests)
    offsets = np.cumsum([0, *(len(video.rows) for video in videos)], dtype=np.int64)
    rows: Tensor = torch.from_numpy(np.concatenate([video.rows for video in videos]))
    return FeatureBank(rows, offsets, spans, digests).on(device)


class _RowMeans:
    """Running means over the windows that hold a row, so that memory does not grow with the windows' length."""

    def __init__(self, num_rows: int) -> None:
        self.counts = np.zeros(num_rows, dtype=np.int64)
        self._sums: Tensor | None = None

    def add(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32] | None) -> None:
        """Count ``rows`` (N,), which may repeat, and add their ``scores`` (N, K), if they have any of their own."""
        self.counts += np.bincount(rows, minlength=len(self.counts))
        if scores is None:
            return
        if self._sums is None:
            self._sums = torch.zeros(len(self.counts), scores.shape[1], dtype=torch.float64)
        self._sums.index_add_(0, torch.from_numpy(rows), torch.from_numpy(scores).double())

    def means(self, span: slice) -> npt.NDArray[np.float32] | None:
        """Mean scores (T, K) of a span of rows, NaN where no window holds the row; None without scores of rows."""
        if self._sums is None:
            return None
        counts = torch.from_numpy(self.counts[span])[:, None]
        means: npt.NDArray[np.float32] = (self._sums[span] / counts).float().numpy()  # 0 / 0 is NaN
        return means
