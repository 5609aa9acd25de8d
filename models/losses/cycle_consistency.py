"""Temporal cycle consistency (TCC): from a frame to its soft nearest neighbour in another video and back again.

    video U     u1  u2  u3  u4         u2 -> a mixture of all v, by similarity -> similarity to all u
    video V     v1  v2  v3  v4         shall come back to u2: as a class, or as a place in time

Sources: Dwibedi et al. 2019, "Temporal Cycle-Consistency Learning", section 3; the defaults and `compat` are CARL's
(Chen et al. 2022, public code). Shape letters: B videos, P ordered pairs of different videos, T frames, D embedding
size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class CycleConsistency:
    """What the way back is measured by; values are checked where settings are read."""

    form: str = "regression_mse_var"
    # How the frame that the cycle comes back to is compared with that it started from; or regression_mse,
    # regression_huber, classification.
    similarity: str = "l2"
    # l2: -|a - b|^2; cosine: a b. Both are divided by D and by the temperature.
    temperature: float = 0.1
    label_smoothing: float = 0.1
    # The share of the target that all other frames have together, of regression forms too.
    variance_weight: float = 0.001
    # On the log variance; form regression_mse_var only.
    normalize: bool = True
    # True: places are shares of their video's length; False: frames.
    huber_delta: float = 1.0
    # Where squares turn to lines; form regression_huber only. The public code takes 1 whatever its setting says.
    compat: bool = False
    # True: classification takes the similarities for log shares, as the public code does, which has no meaning.


class CycleLoss(NamedTuple):
    """The loss, and what it is the sum of where there is more than one part; scalars."""

    total: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Cycles:
    """What came back, of the P pairs."""

    logits: Tensor  # (P, T, T), -inf at masked frames
    raw: Tensor  # (P, T, T), the same before masking
    label: Tensor  # (P, T, T), 0 at masked frames; other rows sum to 1
    position: Tensor  # (P, T)
    mask: Tensor  # (P, T)

    def mean(self, value_PT: Tensor) -> Tensor:
        """Over all real frames of all pairs; 0 where there is none."""
        return value_PT.masked_fill(~self.mask, 0.0).sum() / self.mask.sum().clamp(min=1)


def cycle_consistency_loss(
    z_BTD: Tensor, position_BT: Tensor, num_frames_B: Tensor, mask_BT: Tensor, *, how: CycleConsistency
) -> CycleLoss:
    """The mean over all real frames of all ordered pairs of different videos; of fewer than two videos 0.

    ``position_BT`` are the frames' numbers in their videos of ``num_frames_B`` frames, ``mask_BT`` is bool, True at
    real frames: others are neither started from nor come back to. Raises ValueError for wrong shapes.
    """
    shapes = (z_BTD.shape[:2], position_BT.shape, mask_BT.shape, (*num_frames_B.shape, *z_BTD.shape[1:2]))
    if z_BTD.dim() != 3 or len({tuple(shape) for shape in shapes}) > 1:
        given = ", ".join(str(tuple(each.shape)) for each in (z_BTD, position_BT, mask_BT, num_frames_B))
        raise ValueError(f"embeddings must be (B, T, D), positions and mask (B, T), lengths (B); got {given}.")
    z_BTD = z_BTD.float() if z_BTD.dtype in (torch.float16, torch.bfloat16) else z_BTD
    place_BT = position_BT.to(z_BTD.dtype)
    if how.normalize:
        place_BT = place_BT / num_frames_B[:, None]
    is_pair_BB = ~torch.eye(len(z_BTD), dtype=torch.bool, device=z_BTD.device)
    has_frames_B = mask_BT.any(1)
    first_P, second_P = (is_pair_BB & has_frames_B[:, None] & has_frames_B).nonzero(as_tuple=True)
    cycles = _cycles(z_BTD[first_P], z_BTD[second_P], place_BT[first_P], (mask_BT[first_P], mask_BT[second_P]), how)
    if how.form == "classification":
        loss = cycles.mean(_classification(cycles, how))
        return CycleLoss(loss, {})
    return _regression(cycles, how)


def _cycles(
    u_PTD: Tensor, v_PTD: Tensor, position_PT: Tensor, masks: tuple[Tensor, Tensor], how: CycleConsistency
) -> _Cycles:
    mask_PT, other_PT = masks
    share_PTT = _similarity(u_PTD, v_PTD, how).masked_fill(~other_PT[:, None], -torch.inf).softmax(-1)
    raw_PTT = _similarity(share_PTT @ v_PTD, u_PTD, how)
    logits_PTT = raw_PTT.masked_fill(~mask_PT[:, None], -torch.inf)
    num_others_P = (mask_PT.sum(1) - 1).clamp(min=0)
    rest_P = how.label_smoothing * (num_others_P > 0).to(u_PTD.dtype)  # of a frame alone nothing is taken
    is_self_TT = torch.eye(u_PTD.shape[1], dtype=torch.bool, device=u_PTD.device)
    others_P = rest_P / num_others_P.clamp(min=1)
    label_PTT = torch.where(is_self_TT, (1 - rest_P)[:, None, None], others_P[:, None, None]) * mask_PT[:, None]
    return _Cycles(logits_PTT, raw_PTT, label_PTT, position_PT, mask_PT)


def _similarity(a_PTD: Tensor, b_PTD: Tensor, how: CycleConsistency) -> Tensor:
    dot_PTT = a_PTD @ b_PTD.mT
    if how.similarity == "l2":
        squares_PTT = a_PTD.square().sum(-1)[:, :, None] + b_PTD.square().sum(-1)[:, None, :]
        dot_PTT = 2 * dot_PTT - squares_PTT
    return dot_PTT / (a_PTD.shape[-1] * how.temperature)


def _classification(cycles: _Cycles, how: CycleConsistency) -> Tensor:
    """Cross entropy of every frame, (P, T); with compat the divergence of similarities, over T as its code divides."""
    label_PTT = cycles.label
    if how.compat:
        parts_PTT = torch.xlogy(label_PTT, label_PTT) - label_PTT * cycles.raw
        return parts_PTT.sum(-1) / cycles.mask.sum(1, keepdim=True)
    log_share_PTT = functional.log_softmax(cycles.logits, dim=-1).masked_fill(~cycles.mask[:, None], 0.0)
    return -(label_PTT * log_share_PTT).sum(-1)


def _regression(cycles: _Cycles, how: CycleConsistency) -> CycleLoss:
    place_P1T = cycles.position[:, None]
    share_PTT = cycles.logits.softmax(-1)
    true_PT, found_PT = (cycles.label * place_P1T).sum(-1), (share_PTT * place_P1T).sum(-1)
    if how.form == "regression_huber":
        huber_PT = functional.huber_loss(found_PT, true_PT, reduction="none", delta=how.huber_delta)
        return CycleLoss(cycles.mean(huber_PT), {})
    square_PT = (true_PT - found_PT).square()
    if how.form == "regression_mse":
        return CycleLoss(cycles.mean(square_PT), {})
    # A variance of a share of 1 is 0; the floor is what rounding leaves of it.
    floor = torch.finfo(share_PTT.dtype).eps ** 2
    variance_PT = (share_PTT * (place_P1T - found_PT[..., None]).square()).sum(-1).clamp(min=floor)
    parts = {
        "error": cycles.mean(square_PT / variance_PT),
        "variance": how.variance_weight * cycles.mean(variance_PT.log()),
    }
    return CycleLoss(parts["error"] + parts["variance"], parts)
