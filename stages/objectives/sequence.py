"""Losses of frames: CARL's sequence contrast, cycle consistency, n pairs, and cross entropy of labels.

Of the batch they read `mask` (B,T) bool, `row_numbers` (B,T) int64, counted within the video, and `num_rows` (B,)
int64, the video's length. The embedding is that which the model makes for the loss alone (`aux.projected`) where it
does. The divisor of each loss is a count of rows, so parts of a batch add up to the whole as they are; where videos are
compared, those of all processes are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from reelwright.models.contracts import Inputs, Outputs
from reelwright.models.losses.classification import IGNORED, classification_loss
from reelwright.models.losses.contrastive import time_contrastive_loss
from reelwright.models.losses.cycle_consistency import CycleConsistency, cycle_consistency_loss
from reelwright.models.losses.sequence_contrastive import SequenceContrast, sequence_contrastive_loss
from reelwright.stages.objectives.config import SequenceObjectiveSettings
from reelwright.stages.objectives.contract import LossParts, Objective

PROJECTED = "aux.projected"
COMPARED = (PROJECTED, "embedding", "mask", "row_numbers", "num_rows")


class SequenceContrastive(Objective):
    """See `sequence_contrastive_loss`; views of a video stand side by side."""

    num_views = 2

    def __init__(self, how: SequenceContrast) -> None:
        super().__init__()
        self.how = how
        self.gathers = COMPARED if how.compares_videos else ()

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective; (B,T) are two views of B / 2 videos."""
        z, positions, mask, num_rows = (
            values.reshape(len(values) // 2, 2, *values.shape[1:])
            for values in (_embedding(outputs), batch["row_numbers"], batch["mask"], batch["num_rows"])
        )
        return LossParts(sequence_contrastive_loss(z, positions, mask, how=self.how, num_frames_BV=num_rows))

    def weight(self, batch: Inputs) -> Tensor:
        """How many rows are real."""
        return batch["mask"].sum().float()


class CycleConsistent(Objective):
    """See `cycle_consistency_loss`; a view a video, and two videos at least."""

    gathers = COMPARED

    def __init__(self, how: CycleConsistency) -> None:
        super().__init__()
        self.how = how

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective; the parts of form regression_mse_var are `error` and `variance`."""
        z, rest = _embedding(outputs), (batch["row_numbers"], batch["num_rows"], batch["mask"])
        found = cycle_consistency_loss(z, *rest, how=self.how)
        return LossParts(found.total, found.parts)

    def weight(self, batch: Inputs) -> Tensor:
        """How many rows are real."""
        return batch["mask"].sum().float()


class TimeContrastive(Objective):
    """See `time_contrastive_loss`; rows are anchors and positives in turn."""

    def __init__(self, *, norm_weight: float) -> None:
        super().__init__()
        self.norm_weight = norm_weight

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective."""
        return LossParts(time_contrastive_loss(_embedding(outputs), batch["mask"], norm_weight=self.norm_weight))

    def weight(self, batch: Inputs) -> Tensor:
        """How many pairs are real."""
        return (batch["mask"][:, ::2] & batch["mask"][:, 1::2]).sum().float()


class FrameClassification(Objective):
    """Cross entropy of `logits` (B,T,K) and `targets` (B,T), the mean over real rows whose class is known (not -1)."""

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective."""
        return LossParts(classification_loss(outputs["logits"], batch["targets"], mask=batch["mask"]))

    def weight(self, batch: Inputs) -> Tensor:
        """How many real rows have a known class."""
        return ((batch["targets"] != IGNORED) & batch["mask"]).sum().float()


def sequence_objective(settings: SequenceObjectiveSettings) -> Objective:
    """The loss that ``settings`` name."""

    def chosen(*names: str) -> dict[str, Any]:
        return {name: getattr(settings, name) for name in names}

    makers: dict[str, Callable[[], Objective]] = {
        "scl": lambda: SequenceContrastive(
            SequenceContrast(**chosen("negatives", "variance", "temperature", "compat")),
        ),
        "tcc": lambda: CycleConsistent(
            CycleConsistency(
                **chosen("form", "similarity", "temperature", "label_smoothing", "variance_weight", "normalize"),
                **chosen("huber_delta", "compat"),
            )
        ),
        "tcn": lambda: TimeContrastive(norm_weight=settings.norm_weight),
        "per_frame": FrameClassification,
    }
    return makers[settings.name]()


def _embedding(outputs: Outputs) -> Tensor:
    """What the loss compares, (B, T, E)."""
    return outputs.get(PROJECTED, outputs["embedding"])
