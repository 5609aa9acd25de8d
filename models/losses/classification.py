"""Losses on logits, averaged over the entries that have a target: a class, or shares of classes (soft targets).

An entry whose class is not known (-1) has no part in the loss; its row of shares is all zeros.

Shape letters: B batch, T rows of a window, K classes or labels; ... is (B) or (B,T).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -1  # a target that is not known


def classification_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy, the mean over entries whose target is not -1 and whose `mask` (bool) is True.

    `logits` (B,K) or (B,T,K), `target` (B) or (B,T) int in [-1, K). With `class_weights` (K,) it is the weighted mean
    (divided by the sum of the targets' weights), as in torch. A batch without any target gives 0 with zero gradients.
    """
    if mask is not None:
        target = target.masked_fill(~mask, IGNORED)
    flat_logits, flat_target = logits.flatten(0, -2).float(), target.flatten().long()
    total = functional.cross_entropy(
        flat_logits,
        flat_target,
        weight=class_weights,
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    is_valid = flat_target != IGNORED
    weights = flat_logits.new_ones(flat_logits.shape[-1]) if class_weights is None else class_weights
    divisor = (weights[flat_target.clamp(min=0)] * is_valid).sum()
    # Without targets the sum is 0 with gradients of 0; dividing by 1 keeps both.
    return total / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def multilabel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy per label, the mean over entries whose target is 0 or 1 (-1 is not known).

    `logits` and `target` (B,K) or (B,T,K). A batch without any target gives 0 with zero gradients.
    """
    is_valid = target != IGNORED
    known = target.clamp(min=0).float()
    losses = functional.binary_cross_entropy_with_logits(logits.float(), known, reduction="none")
    return losses.masked_fill(~is_valid, 0.0).sum() / is_valid.sum().clamp(min=1)


def truncated_smoothing_loss(logits: Tensor, target: Tensor, *, divisor: Tensor, tau: float = 4.0) -> Tensor:
    """What neighbouring rows differ by (MS-TCN; Farha and Gall 2019, equations 9 to 11): logits (B,T,K).

    The sum over neighbours of the squared difference of their log probabilities, at most `tau` squared, over K times
    `divisor` (the rows that count, or the sum of their weights). Only the later row of a pair learns, as in the public
    code. Pairs with an unknown row, by `target` (B,T) or shares (B,T,K), do not count.
    """
    is_known_BT = target.ne(0).any(-1) if target.is_floating_point() else target != IGNORED
    log_BTK = functional.log_softmax(logits.float(), dim=-1)
    squares = (log_BTK[:, 1:] - log_BTK[:, :-1].detach()).square().clamp(max=tau**2)
    total = squares.sum(-1).masked_fill(~(is_known_BT[:, 1:] & is_known_BT[:, :-1]), 0.0).sum()
    return total / (logits.shape[-1] * torch.where(divisor > 0, divisor, torch.ones_like(divisor)))


def balanced_class_weights(counts: Sequence[int] | Tensor) -> Tensor:
    """Weights (K,) float32 that give every class the same share: n / (P * count), n items over P classes present.

    The mean weight over all items is 1. A class without items gets weight 0: no item could ever use it, and label
    smoothing shall not draw towards it. Raises ValueError when there is no item or a count is negative.
    """
    counts_K = torch.as_tensor(counts, dtype=torch.float64)
    if counts_K.numel() == 0 or counts_K.min() < 0 or counts_K.sum() == 0:
        raise ValueError(f"class counts are {counts_K.tolist()}; they must not be negative and one must be above 0.")
    is_present = counts_K > 0
    weights_K = counts_K.sum() / (is_present.sum() * counts_K.clamp(min=1))
    return (weights_K * is_present).float()


def soft_targets(target: Tensor, *, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Classes int in [-1, K) of shape (...) -> shares float32 (..., K) that sum to 1; zeros where the class is -1.

    The class has 1 - `smoothing` + `smoothing` / K, every other `smoothing` / K (Szegedy et al. 2016, section 7).
    Raises ValueError for a class or a smoothing out of range.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"label smoothing is {smoothing}; it must be at least 0 and below 1.")
    if target.numel() and not -1 <= int(target.min()) <= int(target.max()) < num_classes:
        raise ValueError(
            f"targets span [{int(target.min())}, {int(target.max())}]; allowed: -1 (unknown) to {num_classes - 1}."
        )
    hard = functional.one_hot(target.long().clamp(min=0), num_classes).float()
    soft = hard * (1 - smoothing) + smoothing / num_classes
    return soft * (target != IGNORED).unsqueeze(-1)


def soft_target_loss(logits: Tensor, soft: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy with shares of classes, the mean over entries that have any; `logits` and `soft` (..., K).

    With `class_weights` (K,) it is the weighted mean (divided by the sum of the weights that the shares pick). A batch
    without any target gives 0 with zero gradients.
    """
    shares_NK = soft.flatten(0, -2)
    total = functional.cross_entropy(logits.flatten(0, -2).float(), shares_NK, weight=class_weights, reduction="sum")
    is_known_N = shares_NK.ne(0).any(-1)
    divisor = is_known_N.sum().float() if class_weights is None else (shares_NK * class_weights).sum()
    return total / torch.where(divisor > 0, divisor, torch.ones_like(divisor))
