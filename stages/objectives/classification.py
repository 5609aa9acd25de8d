"""Losses of classes and labels on logits, of one stage or of several (MS-TCN; Farha and Gall 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from reelwright.models.blocks.heads import Head, split_heads
from reelwright.models.contracts import ATTENTION_LOGITS, Inputs, Outputs, stage_logits
from reelwright.models.losses.classification import (
    IGNORED,
    balanced_class_weights,
    classification_loss,
    soft_target_loss,
    truncated_smoothing_loss,
)
from reelwright.stages.objectives.contract import LossParts, Objective
from reelwright.storage.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]  # logits, targets -> mean loss

SMOOTHING = 0.15  # lambda of the paper


class Classification(Objective):
    """The loss of the logits; of a model with several stages the sum over all of them.

    Of a model with an attention branch, `attention_weight` times the loss of the branch's own logits is added (ST-ABN).

    Models with several stages that label every row (`per_row`) also pay for neighbouring rows that differ; the sum of
    that over pairs is divided by the classes and by what the loss itself is divided by: over all rows, 1 / (T K).
    """

    def __init__(self, loss: Loss, *, class_weights: Tensor | None = None, per_row: bool = False) -> None:
        """``loss`` is the mean over items; with ``class_weights`` (K,) by these, ``per_row`` over known rows."""
        super().__init__()
        self.loss, self.class_weights, self.per_row = loss, class_weights, per_row
        self.attention_weight: float | None = None  # None: 1 where there is a branch

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective; the parts are `stage1`, `stage2`, ... and `smoothing`, or `perception` and `attention`.

        Raises ConfigError for a weight of a branch that the model does not have.
        """
        stages, targets = stage_logits(outputs), batch["targets"]
        if ATTENTION_LOGITS in outputs:
            factor = 1.0 if self.attention_weight is None else self.attention_weight
            perception, attention = (self.loss(outputs[name], targets) for name in ("logits", ATTENTION_LOGITS))
            parts = {"perception": perception, "attention": factor * attention}
            return LossParts(parts["perception"] + parts["attention"], parts)
        if self.attention_weight is not None:
            raise ConfigError(
                f"loss.attention_weight is {self.attention_weight}, but the model has no attention branch (it gives "
                f"{', '.join(sorted(outputs))}). Leave it out, or choose model attention_branch."
            )
        if len(stages) == 1:
            return LossParts(self.loss(stages[0], targets))
        parts = {f"stage{number}": self.loss(logits, targets) for number, logits in enumerate(stages, start=1)}
        weight = self.weight(batch)
        if self.per_row and weight is not None:
            rough = torch.stack([truncated_smoothing_loss(logits, targets, divisor=weight) for logits in stages])
            parts["smoothing"] = SMOOTHING * rough.sum()
        return LossParts(torch.stack(list(parts.values())).sum(), parts)

    def weight(self, batch: Inputs) -> Tensor | None:
        """The weights of the known targets, or how many rows are known."""
        targets = batch["targets"]
        if self.class_weights is not None:
            if targets.is_floating_point():
                return (targets * self.class_weights).sum()
            return (self.class_weights[targets.clamp(min=0)] * (targets != IGNORED)).sum()
        if not self.per_row:
            return None
        is_known = targets.ne(0).any(-1) if targets.is_floating_point() else targets != IGNORED
        return is_known.sum().float()


def cross_entropy(*, class_weights: Tensor | None, label_smoothing: float, all_known: bool) -> Loss:
    """Of classes, -1 where unknown, or of shares of classes (..., K), which are smoothed already.

    Where all are known, torch's own mean is all there is to do.
    """
    if all_known and class_weights is None:
        return partial(_plain_cross_entropy, label_smoothing=label_smoothing)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return soft_target_loss(logits, targets, class_weights=class_weights)
        return classification_loss(logits, targets, class_weights=class_weights, label_smoothing=label_smoothing)

    return loss


def _plain_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
    smoothing = 0.0 if targets.is_floating_point() else label_smoothing
    return functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


class HeadLoss:
    """Of several named heads (verb, noun), whose logits lie side by side: B windows, H heads, K classes of all heads.

    The mean over all windows of the weighted sum of the heads' cross entropies; a head that is unknown for a window
    adds nothing there. So parts of a batch add up to the whole, whatever is known.
    """

    def __init__(self, heads: Sequence[Head], *, counts: npt.NDArray[np.int64] | None, device: torch.device) -> None:
        """With ``counts`` (K,) of the training targets, classes weigh inversely to their share, head by head."""
        self.heads = tuple(heads)
        self.weights: dict[str, Tensor] = {}
        if counts is not None:
            parts = split_heads(torch.from_numpy(counts), heads)
            self.weights = {name: balanced_class_weights(part).to(device) for name, part in parts.items()}

    def __call__(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        """Targets are int (B, H), or shares (B, K) float where they were mixed."""
        parts = split_heads(logits_BK.float(), self.heads)
        softs = split_heads(targets, self.heads) if targets.is_floating_point() else None
        total = logits_BK.new_zeros((), dtype=torch.float32)
        for position, head in enumerate(self.heads):
            if softs is None:
                loss = functional.cross_entropy(
                    parts[head.name],
                    targets[:, position],
                    weight=self.weights.get(head.name),
                    ignore_index=IGNORED,
                    reduction="sum",
                    label_smoothing=head.label_smoothing,
                )
            else:
                weight = self.weights.get(head.name)
                log_shares = functional.log_softmax(parts[head.name], dim=-1)
                loss = -(softs[head.name] * (log_shares if weight is None else weight * log_shares)).sum()
            total = total + head.weight * loss
        return total / max(len(logits_BK), 1)
