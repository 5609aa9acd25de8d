"""What a task is: targets of windows, loss, probabilities, metrics, mixing, and what its predictions say.

task          target of a window                                      dtype, shape
video         the video's own label                                   int64 (N,)
last_row      the label at the window's last row                      int64 (N,)
majority      the commonest known label of its rows                   int64 (N,)
per_row       a label a row, UNKNOWN at padding                       int64 (N, length)
multi_label   the set of labels that occur in its span of time or     float32 (N, K) of 0 and 1
              of frames, or of those that it changed
              (`LabelSpace.of_window`)
heads         the video's own label of each head (verb, noun)         int64 (N, H), counted within the head
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.models.blocks.heads import Head
from reelwright.models.blocks.mixing import mix_targets, window_share
from reelwright.models.losses.classification import balanced_class_weights, soft_targets
from reelwright.models.metrics.classification import classification_metrics
from reelwright.stages.base.registry import load
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape, window_rows
from reelwright.stages.datasets.tasks.labels import LabelSpace, Targets
from reelwright.stages.datasets.tasks.registry import TASKS, TaskTraits
from reelwright.stages.objectives.classification import Classification, cross_entropy
from reelwright.stages.objectives.config import LossSettings
from reelwright.storage.arrays.spans import Spans, majority, row_labels
from reelwright.storage.errors import ConfigError, StageError, nearest
from reelwright.storage.results.predictions import Scored
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

Probabilities = npt.NDArray[np.float32]
OwnMetric = Callable[[Probabilities, Targets], float]


class Task:
    """One class a target, out of those of ``labels``; subclasses say of what, or have other targets.

    Shapes: N windows or B of a batch, T rows, K classes; targets (N, ...) as in the table above.
    """

    default_metric = "macro_f1"

    def __init__(self, name: str, traits: TaskTraits, labels: LabelSpace, heads: Sequence[Head] = ()) -> None:
        self.name, self.traits, self.labels, self.heads = name, traits, labels, tuple(heads)
        self.own_metrics: dict[str, OwnMetric] = {}  # plug-ins by name; higher is better

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.labels.classes)

    # Targets

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """Targets of the windows of one video (``windows.video`` is not looked at); see the table above."""
        raise NotImplementedError

    def known(self, targets: Targets, annotation: Annotation) -> npt.NDArray[np.bool_]:
        """Which windows of one video can be trained on, bool (N,)."""
        del annotation
        is_known: npt.NDArray[np.bool_] = (targets != UNKNOWN).any(axis=tuple(range(1, targets.ndim)))
        return is_known

    def counts(self, targets: Targets) -> npt.NDArray[np.int64]:
        """How often each class is a target, int64 (K,)."""
        return np.bincount(targets[targets != UNKNOWN].ravel(), minlength=self.num_classes).astype(np.int64)

    def check_validation(self, targets: Targets) -> None:
        """Raise InputError where metrics could not be made of these targets, though there are some."""

    # Learning

    def objective(
        self, settings: LossSettings, *, counts: npt.NDArray[np.int64], device: torch.device
    ) -> Classification:
        """What is minimised. ``counts`` (K,) are the training targets by class.

        Targets are as in the table, or shares of classes (..., K) float where they were mixed; these are smoothed
        already. Raises ConfigError for settings of cross entropy where there is none.
        """
        weights = balanced_class_weights(torch.from_numpy(counts)).to(device) if settings.is_balanced else None
        per_row = self.traits.per_row
        loss = cross_entropy(class_weights=weights, label_smoothing=settings.label_smoothing, all_known=not per_row)
        return Classification(loss, class_weights=weights, per_row=per_row)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over classes; float32, shape as ``logits`` (..., K)."""
        return logits.float().softmax(dim=-1)

    def metrics(self, scores: Probabilities, targets: Targets) -> dict[str, float]:
        """All metrics that are one number, of probabilities (N, ..., K); all are better when higher."""
        return numbers(classification_metrics(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1)))

    def all_metrics(self, scores: Probabilities, targets: Targets) -> dict[str, float]:
        """With those that are plug-ins. Raises StageError where one gives no finite number."""
        found = self.metrics(scores, targets)
        for name, measure in self.own_metrics.items():
            value = measure(scores, targets)
            if not isinstance(value, int | float | np.number) or not math.isfinite(value):
                raise StageError(f"metric: {name} gives {value!r}; needed is a finite number")
            found[name] = float(value)
        return found

    def choose_metric(self, name: str | None) -> str:
        """The metric that chooses the best weights. Raises ConfigError for an unknown one, with those known."""
        if name is None:
            return self.default_metric
        known = ["loss", *self.metrics(np.eye(self.num_classes, dtype=np.float32), self._perfect_targets())]
        if name not in known:
            raise ConfigError(f"metric: {name!r} is not known.{nearest(name, known)} Known: {', '.join(known)}.")
        return name

    def _perfect_targets(self) -> Targets:
        """Targets (K, ...) that fit the probabilities of an identity matrix."""
        return np.arange(self.num_classes)

    def mixed_targets(self, targets: Tensor, share: Tensor, *, label_smoothing: float) -> Tensor:
        """Soft targets of a batch that was mixed with its reverse, ``share`` (B, ...) of itself kept."""
        return mix_targets(soft_targets(targets, num_classes=self.num_classes, smoothing=label_smoothing), share)

    def kept_share(self, share_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What a target keeps of itself, where its rows keep ``share_BT``: the mean of them."""
        return window_share(share_BT, mask_BT)

    # Predictions

    @property
    def published_as(self) -> str:
        """The task that readers of the predictions know."""
        return self.name

    def published_targets(
        self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans
    ) -> Targets:
        """Targets of windows as the table of windows has them: one a window."""
        return self.targets(windows, shape=shape, annotation=annotation, spans=spans)

    def video_targets(self, annotation: Annotation) -> Targets:
        """The target (1, ...) of the whole video: its own label."""
        return np.array([annotation.label], dtype=np.int64)

    def row_targets(self, annotation: Annotation, spans: Spans) -> Targets | None:
        """The label of every row (T,), as the table of rows has them; None where rows have none."""
        return row_labels(annotation, spans, background=self.labels.background)

    def scored(self, scores: Probabilities, targets: Targets, annotation: Annotation) -> Scored:
        """Scores beside targets, as the columns of a table."""
        del annotation
        return Scored(scores=scores, target_ids=targets)


class VideoTask(Task):
    """The video's own label."""

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """See Task."""
        del shape, spans
        return np.full(len(windows), annotation.label, dtype=np.int64)


class LastRowTask(Task):
    """The label at a window's last row."""

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """See Task."""
        return row_labels(annotation, spans, background=self.labels.background)[windows.last_row(shape)]

    def kept_share(self, share_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """That of the last real row."""
        last_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1) - 1
        return torch.gather(share_BT, 1, last_B1).squeeze(1)


class PerRowTask(LastRowTask):
    """A label a row; as one answer a window, that of its last row."""

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """See Task."""
        return _labels_of_rows(windows, shape, annotation, spans, self.labels)

    def kept_share(self, share_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Each row its own."""
        del mask_BT
        return share_BT

    def published_targets(
        self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans
    ) -> Targets:
        """The score of a window is that of its last row."""
        return super().targets(windows, shape=shape, annotation=annotation, spans=spans)


class MajorityTask(Task):
    """The commonest known label of a window's rows."""

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """See Task."""
        of_rows = _labels_of_rows(windows, shape, annotation, spans, self.labels)
        return np.array([majority(row) for row in of_rows], dtype=np.int64)


def _labels_of_rows(
    windows: Windows, shape: WindowShape, annotation: Annotation, spans: Spans, labels: LabelSpace
) -> Targets:
    rows, mask = window_rows(windows, shape)
    return np.where(mask, row_labels(annotation, spans, background=labels.background)[rows], UNKNOWN)


def numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: float(value) for name, value in found.items() if isinstance(value, float)}


def build_task(name: str, labels: LabelSpace, *, heads: Sequence[Head] = ()) -> Task:
    """The task ``name`` on these classes. ``heads`` have weights and smoothing; else they are those of ``labels``."""
    task: Task = load(TASKS[name].task)(name, TASKS[name], labels, heads)
    return task
