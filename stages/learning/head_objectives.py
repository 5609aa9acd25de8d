"""Objectives of several named heads (verb, noun), whose logits lie side by side: loss, probabilities, metrics.

The loss of a batch is the mean over all its windows of the weighted sum of the heads' cross entropies; a head that is
unknown for a window adds nothing there. So parts of a batch add up to the whole, whatever is known. Where all is known,
it is `models.heads.multi_head_loss`. Shape letters: B windows, H heads, K classes of all heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from reelwright.models.heads import Head, split_heads
from reelwright.models.joint_metrics import multi_head_metrics
from reelwright.models.losses import IGNORED, balanced_class_weights

ACTION = "action"  # all heads right at once


def heads_of(values: Sequence[Mapping[str, Any]]) -> tuple[Head, ...]:
    """The heads that a config.yaml lists: name, num_classes, weight, label_smoothing."""
    return tuple(Head(**entry) for entry in values)


class HeadLoss:
    """Logits (B, K) and targets int (B, H), or shares (B, K) float where they were mixed -> the loss."""

    def __init__(self, heads: Sequence[Head], *, counts: npt.NDArray[np.int64] | None, device: torch.device) -> None:
        """With ``counts`` (K,) of the training targets, classes weigh inversely to their share, head by head."""
        self.heads = tuple(heads)
        self.weights: dict[str, Tensor] = {}
        if counts is not None:
            whole = torch.from_numpy(counts)
            parts = split_heads(whole, heads)
            self.weights = {name: balanced_class_weights(part).to(device) for name, part in parts.items()}

    def __call__(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        """The mean over windows."""
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


def head_probabilities(logits: Tensor, heads: Sequence[Head]) -> Tensor:
    """Softmax within each head; float32, shape as ``logits`` (..., K)."""
    return torch.cat([part.float().softmax(dim=-1) for part in split_heads(logits, heads).values()], dim=-1)


def head_metrics(
    scores_NK: npt.NDArray[np.float32],
    target_NH: npt.NDArray[Any],
    heads: Sequence[Head],
    *,
    topk: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """`verb_top1`, `noun_macro_f1`, ... of each head, and `action_top1`, `action_top5`: pairs by p(verb) x p(noun)."""
    edges = np.cumsum([head.num_classes for head in heads])[:-1]
    parts = dict(zip([head.name for head in heads], np.split(scores_NK, edges, axis=1), strict=True))
    found = multi_head_metrics(parts, target_NH.astype(np.int64), joint=ACTION, topk=topk)
    return {
        f"{name}_{metric}": float(value)
        for name, metrics in found.items()
        for metric, value in metrics.items()
        if isinstance(value, float)
    }
