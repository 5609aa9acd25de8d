"""Several named heads on one trunk (verb, noun): description and targets.

Logits of all heads lie side by side in one tensor, so that they pass through everything that knows logits:

    heads    verb K=3   noun K=2
    logits   v v v      n n          (..., 5)
    target   v          n            (..., 2)  one class a head, -1 unknown
    soft     v v v      n n          (..., 5)  shares of classes

Any model with `num_outputs(heads)` outputs has such heads.
Shape letters: B batch, T rows, D features, H heads, K classes; ... is (B) or (B,T).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reelwright.models.blocks.mixing import mix_targets
from reelwright.models.losses.classification import soft_targets


@dataclass(frozen=True, kw_only=True)
class Head:
    """A named question with its own classes."""

    name: str
    num_classes: int
    weight: float = 1.0  # factor on its loss
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what could not be learned."""
        if not self.name.isidentifier():
            raise ValueError(f"head name {self.name!r} must be letters, digits and underscores, not a digit first.")
        if self.num_classes < 1 or self.weight < 0 or not 0 <= self.label_smoothing < 1:
            message = f"head {self.name}: num_classes {self.num_classes} must be at least 1, weight {self.weight} not "
            raise ValueError(message + f"negative, label_smoothing {self.label_smoothing} in [0, 1).")


def num_outputs(heads: Sequence[Head]) -> int:
    """Logits of all heads together. Raises ValueError for no head, or one name twice."""
    names = [head.name for head in heads]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"heads are {names}; at least one is needed, each with a name of its own.")
    return sum(head.num_classes for head in heads)


def split_heads(values: Tensor, heads: Sequence[Head]) -> dict[str, Tensor]:
    """Cut logits or soft targets (..., sum of K) into one (..., K) a head. Raises ValueError for another size."""
    if values.shape[-1] != num_outputs(heads):
        message = f"heads {', '.join(head.name for head in heads)} have {num_outputs(heads)} classes in all, but there "
        raise ValueError(message + f"are {values.shape[-1]} values.")
    parts = torch.split(values, [head.num_classes for head in heads], dim=-1)
    return {head.name: part for head, part in zip(heads, parts, strict=True)}


def soft_head_targets(target: Tensor, heads: Sequence[Head]) -> Tensor:
    """Classes int (..., H) in the order of `heads` -> smoothed shares (..., sum of K) float32; unknown is all zeros."""
    _check_target(target, heads)
    return torch.cat(
        [
            soft_targets(target[..., position], num_classes=head.num_classes, smoothing=head.label_smoothing)
            for position, head in enumerate(heads)
        ],
        dim=-1,
    )


def mix_head_targets(soft: Tensor, share: Tensor, heads: Sequence[Head]) -> Tensor:
    """As `mixing.mix_targets`, head by head: a head may be unknown while the others are known."""
    return torch.cat([mix_targets(part, share) for part in split_heads(soft, heads).values()], dim=-1)


def _check_target(target: Tensor, heads: Sequence[Head]) -> None:
    if target.ndim < 2 or target.shape[-1] != len(heads):
        message = f"targets must be (..., {len(heads)}), a class for each of {', '.join(head.name for head in heads)}; "
        raise ValueError(message + f"got {tuple(target.shape)}.")
