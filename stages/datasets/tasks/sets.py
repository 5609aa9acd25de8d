"""Tasks whose targets are several classes at once: a set of labels, or one class of each head (verb, noun)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.models.blocks.heads import Head, mix_head_targets, soft_head_targets, split_heads
from reelwright.models.blocks.mixing import mix_labels
from reelwright.models.losses.classification import multilabel_loss
from reelwright.models.metrics.classification import multilabel_metrics
from reelwright.models.metrics.multi_head import multi_head_metrics
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape
from reelwright.stages.datasets.tasks.labels import WHOLE_VIDEO, LabelSpace, Targets, is_described, label_sets
from reelwright.stages.datasets.tasks.registry import TaskTraits
from reelwright.stages.datasets.tasks.task import Probabilities, Task, numbers
from reelwright.stages.objectives.classification import Classification, HeadLoss
from reelwright.stages.objectives.config import LossSettings
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.results.predictions import Scored
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

ACTION = "action"  # all heads right at once


class MultiLabelTask(Task):
    """The set of labels of a window."""

    default_metric = "mean_average_precision"

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """See Task."""
        first, last = windows.start, windows.last_row(shape)
        reach = Spans(
            spans.start_seconds[first], spans.stop_seconds[last], spans.source_start[first], spans.source_stop[last]
        )
        return label_sets(annotation, reach, self.labels)

    def known(self, targets: Targets, annotation: Annotation) -> npt.NDArray[np.bool_]:
        """All, or none where it is not known which labels the video has."""
        return np.full(len(targets), is_described(annotation, self.labels))

    def counts(self, targets: Targets) -> npt.NDArray[np.int64]:
        """See Task."""
        return np.asarray(targets.sum(axis=0), dtype=np.int64)

    def objective(
        self, settings: LossSettings, *, counts: npt.NDArray[np.int64], device: torch.device
    ) -> Classification:
        """Binary cross entropy."""
        del counts, device
        if settings.is_balanced or settings.label_smoothing:
            raise ConfigError(
                "loss.class_weights and loss.label_smoothing are of cross entropy; remove them for multi_label"
            )
        return Classification(multilabel_loss)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.float().sigmoid()

    def metrics(self, scores: Probabilities, targets: Targets) -> dict[str, float]:
        """See Task."""
        return numbers(multilabel_metrics(scores, targets))

    def _perfect_targets(self) -> Targets:
        return np.eye(self.num_classes, dtype=np.int64)

    def mixed_targets(self, targets: Tensor, share: Tensor, *, label_smoothing: float) -> Tensor:
        """Labels in [0, 1]."""
        del label_smoothing
        return mix_labels(targets, share)

    def video_targets(self, annotation: Annotation) -> Targets:
        """All labels that occur."""
        return label_sets(annotation, WHOLE_VIDEO, self.labels)

    def row_targets(self, annotation: Annotation, spans: Spans) -> None:
        """Rows have none."""

    def scored(self, scores: Probabilities, targets: Targets, annotation: Annotation) -> Scored:
        """See Task."""
        return Scored(scores=scores, targets=targets.astype(bool), known=self.known(targets, annotation))


class HeadsTask(Task):
    """The video's own label of each head. Predictions are sets with one class of each."""

    default_metric = f"{ACTION}_top1"

    def __init__(self, name: str, traits: TaskTraits, labels: LabelSpace, heads: Sequence[Head] = ()) -> None:
        super().__init__(name, traits, labels, heads or [Head(name=n, num_classes=k) for n, k in labels.heads])

    def targets(self, windows: Windows, *, shape: WindowShape, annotation: Annotation, spans: Spans) -> Targets:
        """See Task."""
        del shape, spans
        return np.tile(self.video_targets(annotation), (len(windows), 1))

    def counts(self, targets: Targets) -> npt.NDArray[np.int64]:
        """See Task."""
        columns = zip(targets.T, self.heads, strict=True)
        found = [np.bincount(column[column != UNKNOWN], minlength=head.num_classes) for column, head in columns]
        return np.concatenate(found).astype(np.int64)

    def check_validation(self, targets: Targets) -> None:
        """Some window needs a label of every head."""
        if len(targets) and not (targets != UNKNOWN).all(axis=1).any():
            raise InputError(
                "no video to validate on has a label of every head, so actions cannot be scored. Label some, or leave "
                "val_splits empty."
            )

    def objective(
        self, settings: LossSettings, *, counts: npt.NDArray[np.int64], device: torch.device
    ) -> Classification:
        """The sum of the heads' cross entropies; each has its own smoothing."""
        return Classification(HeadLoss(self.heads, counts=counts if settings.is_balanced else None, device=device))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax within each head."""
        return torch.cat([part.float().softmax(dim=-1) for part in split_heads(logits, self.heads).values()], dim=-1)

    def metrics(self, scores: Probabilities, targets: Targets) -> dict[str, float]:
        """See `head_metrics`."""
        return head_metrics(scores, targets, self.heads)

    def _perfect_targets(self) -> Targets:
        return np.zeros((self.num_classes, len(self.heads)), dtype=np.int64)

    def mixed_targets(self, targets: Tensor, share: Tensor, *, label_smoothing: float) -> Tensor:
        """Shares of the classes of each head."""
        del label_smoothing
        return mix_head_targets(soft_head_targets(targets, self.heads), share, self.heads)

    @property
    def published_as(self) -> str:
        """Sets with one class of each head."""
        return "multi_label"

    def video_targets(self, annotation: Annotation) -> Targets:
        """A class of each head; labels are told apart by class, as those of a node may have heads in another order."""
        edges = np.cumsum([0, *(head.num_classes for head in self.heads)])
        own = np.full((1, len(self.heads)), UNKNOWN, dtype=np.int64)
        for label in annotation.labels:
            if label != UNKNOWN:
                head = np.searchsorted(edges, label, side="right") - 1
                own[0, head] = label - edges[head]
        return own

    def row_targets(self, annotation: Annotation, spans: Spans) -> None:
        """Rows have none."""

    def scored(self, scores: Probabilities, targets: Targets, annotation: Annotation) -> Scored:
        """One class of each head that is known."""
        del annotation
        columns = zip(targets.T, self.heads, strict=True)
        sets = np.concatenate([column[:, None] == np.arange(head.num_classes) for column, head in columns], axis=1)
        return Scored(scores=scores, targets=sets, known=np.asarray(sets.any(axis=1)))


def heads_of(values: Sequence[Mapping[str, Any]]) -> tuple[Head, ...]:
    """The heads that a config.yaml lists: name, num_classes, weight, label_smoothing."""
    return tuple(Head(**entry) for entry in values)


def head_metrics(
    scores_NK: Probabilities, target_NH: Targets, heads: Sequence[Head], *, topk: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """`verb_top1`, `noun_macro_f1`, ... of each head, and `action_top1`, `action_top5`: pairs by p(verb) x p(noun)."""
    edges = np.cumsum([head.num_classes for head in heads])[:-1]
    parts = dict(zip([head.name for head in heads], np.split(scores_NK, edges, axis=1), strict=True))
    found = multi_head_metrics(parts, target_NH.astype(np.int64), joint=ACTION, topk=topk)
    return {f"{name}_{metric}": value for name, metrics in found.items() for metric, value in numbers(metrics).items()}
