"""Losses of classes and labels on logits, of one stage or of several (MS-TCN; Farha and Gall 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reelwright.models.contracts import Inputs, Outputs, stage_logits
from reelwright.models.losses import truncated_smoothing_loss
from reelwright.stages.objectives.contract import LossParts, Objective

Loss = Callable[[Tensor, Tensor], Tensor]  # logits, targets -> mean loss
Weigh = Callable[[Tensor], Tensor]  # targets -> what the mean loss was divided by

SMOOTHING = 0.15  # lambda of the paper


class Classification(Objective):
    """The loss of the logits; of a model with several stages the sum over all of them.

    Models with several stages that label every row (`per_row`) also pay for neighbouring rows that differ; the sum of
    that over pairs is divided by the classes and by what the loss itself is divided by: over all rows, 1 / (T K).
    """

    def __init__(self, loss: Loss, *, weigh: Weigh | None = None, per_row: bool = False) -> None:
        """``weigh`` None: the loss is the mean over items."""
        super().__init__()
        self.loss, self.weigh, self.per_row = loss, weigh, per_row

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective; the parts are `stage1`, `stage2`, ... and `smoothing`."""
        stages, targets = stage_logits(outputs), batch["targets"]
        if len(stages) == 1:
            return LossParts(self.loss(stages[0], targets))
        parts = {f"stage{number}": self.loss(logits, targets) for number, logits in enumerate(stages, start=1)}
        weight = self.weight(batch)
        if self.per_row and weight is not None:
            rough = torch.stack([truncated_smoothing_loss(logits, targets, divisor=weight) for logits in stages])
            parts["smoothing"] = SMOOTHING * rough.sum()
        return LossParts(torch.stack(list(parts.values())).sum(), parts)

    def weight(self, batch: Inputs) -> Tensor | None:
        """See Objective."""
        return None if self.weigh is None else self.weigh(batch["targets"])
