"""What predict needs of a run: its model in eval mode, its task and its windows; and what is scored of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from reelwright.models.encoders.base import DataConfig
from reelwright.stages.base.work import InputRef
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.embed.encoding.clip_models import frames_seen
from reelwright.stages.fit.run_models import load_run_model, task_of_run
from reelwright.stages.predict.clip_frames import SeenFrames
from reelwright.stages.predict.config import PredictWindowSettings
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

Rows = npt.NDArray[Any] | SeenFrames  # the latter are read when a window needs them


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """What of a run answers for windows, in eval mode, and what config.yaml says of it."""

    module: nn.Module
    key: str
    stage: str  # train or finetune
    task: Task
    output: str  # which output of the embeddings it reads
    row_shape: tuple[int, ...]  # (D,), or with positions that of a row in the store
    keeps_positions: bool  # tokens and maps are not averaged
    window: Mapping[str, Any]  # the windows of training, the fields of a `WindowShape`
    clips: Mapping[str, Any]  # sampling, segments, segment_rule in training
    sees: DataConfig | None = None  # how it sees clips of frames; None: it reads rows


@dataclass(frozen=True)
class VideoRows:
    """Rows (T, D) of one video, or its frames, and where they lie."""

    digest: str
    rows: Rows
    spans: Spans
    crops: tuple[Rows, ...] = ()  # rows of further crops of the same frames

    @property
    def all_crops(self) -> tuple[Rows, ...]:
        """The rows of every crop."""
        return (self.rows, *self.crops)

    @property
    def num_bytes(self) -> int:
        """Of all rows in memory."""
        return sum(rows.nbytes for rows in self.all_crops)


def load_run(folder: RunFolder, *, device: torch.device, plugins: Mapping[str, Any]) -> LoadedRun:
    """The trained model in ``folder``, which reads rows; ``plugins`` are those that may be imported for it.

    Raises StoreError or StageError when it is not complete or does not fit, ConfigError for a plug-in not named.
    """
    module, values = load_run_model(folder, plugins=plugins)
    return LoadedRun(
        **_common(values),
        module=module.eval().to(device),
        output=values.get("output", "pooled"),
        row_shape=tuple(values["model"].get("row_shape", [values["model"]["input_dim"]])),
        keeps_positions="row_shape" in values["model"],
    )


def _common(values: Mapping[str, Any]) -> dict[str, Any]:
    clips = values.get("clips", {"sampling": "grid"})
    task = task_of_run(values)
    return {"key": values["key"], "stage": values["stage"], "task": task, "window": values["window"], "clips": clips}


def predicted_shape(window: PredictWindowSettings, trained_on: Mapping[str, Any]) -> WindowShape:
    """The windows to predict: as asked for, else as in training (the `window` block of the run's config.yaml)."""
    trained = WindowShape(**trained_on)
    return WindowShape(
        length=window.length or trained.length,
        hop=window.hop,
        dilation=window.dilation or trained.dilation,
        to_end=window.to_end,
        short=window.short or ("pad" if trained.short == "leave_out" else trained.short),
    )


def load_clip_run(run: InputRef, *, store: Store, device: torch.device, plugins: Mapping[str, Any]) -> LoadedRun:
    """The trained network of a run that sees clips of frames; raises as `load_run`."""
    from reelwright.stages.finetune.module import load_network  # here: it takes seconds, and rows need none of it

    module = load_network(run, store=store, plugins=plugins).to(device)
    values = RunFolder(store.run(run.key)).config()
    seen = frames_seen(values)
    assert seen is not None
    return LoadedRun(
        **_common(values), module=module, output="frames", row_shape=(*seen.size, 3), keeps_positions=True, sees=seen
    )
