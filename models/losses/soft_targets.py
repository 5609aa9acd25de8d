"""Soft targets: shares of classes instead of one class, their smoothing, and the cross entropy with them.

An entry whose class is not known (-1) has a row of zeros, and no part in the loss.
Shape letters: B batch, T rows of a window, K classes or labels; ... is (B) or (B,T).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reelwright.models.losses.classification import IGNORED


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
