"""Losses that compare embeddings: contrastive with labels or without, triplets, n pairs, and MoCo's and BYOL's.

SupCon: Khosla et al. 2020, equation 2. SimCLR: Chen et al. 2020, equation 1. Without background: the intermediate-state
informed loss of Schoonbeek et al. 2024, "Supervised Representation Learning towards Generalizable Assembly State
Recognition". Triplets: Hermans et al. 2017, scaled by a mean distance as the public code does. TCN: Sermanet et al.
2018, "Time-Contrastive Networks"; n-pairs: Sohn 2016, equation 6, as CARL's public code takes it for its comparison
(Chen et al. 2022). MoCo: He et al. 2020, equation 1 and algorithm 1. BYOL: Grill et al. 2020, equation 2; numbers of
these two and of `simclr_logits` as in fractal_video (davidsvy/fractal_video; 3.10 of the domain reference).

Shape letters: B groups, V views of a group, N = B * V images, D embedding size; of TCN B videos, T frames, anchors and
positives in turn, N = T / 2 pairs; of losses of two views B pairs, E embedding size, Q entries of a queue, N rows of
logits, K candidates of each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from reelwright.models.losses.classification import IGNORED

BACKGROUND = 0  # the label of what is no state
_TINY = 1e-16


class TripletLoss(NamedTuple):
    """A triplet loss and the share of triplets that still are wrong, both scalars."""

    loss: Tensor
    fraction_positive: Tensor


def supervised_contrastive_loss(
    z_BVD: Tensor,
    label_B: Tensor | None = None,
    *,
    temperature: float = 0.07,
    base_temperature: float | None = 0.07,
    exclude_background: bool = False,
) -> Tensor:
    """SupCon over groups of V views that share a label; without labels only the views of one group are alike (SimCLR).

    The mean over images i of -(t / t_base) * mean over the others p of i's label of log softmax_p(z_i z_p / t), where
    the softmax is over all images but i; an image with none of its label counts 0. With ``exclude_background`` images
    of label 0 are never anchors, but stand in every denominator; a batch of nothing else gives 0. ``z_BVD`` is of unit
    length. ``base_temperature`` None: that of ``temperature``. Raises ValueError for wrong shapes.
    """
    if z_BVD.dim() != 3 or (label_B is not None and label_B.shape != z_BVD.shape[:1]):
        given = None if label_B is None else tuple(label_B.shape)
        raise ValueError(f"embeddings must be (B, V, D) and labels (B), got {tuple(z_BVD.shape)} and {given}.")
    if exclude_background and label_B is None:
        raise ValueError("the background cannot be left out without labels; give labels or exclude_background=False.")
    num_groups, num_views, _ = z_BVD.shape
    z_ND = z_BVD.flatten(0, 1)
    group_N = torch.arange(num_groups, device=z_ND.device) if label_B is None else label_B
    group_N = group_N.repeat_interleave(num_views)
    is_self_NN = torch.eye(len(z_ND), dtype=torch.bool, device=z_ND.device)
    is_alike_NN = (group_N[:, None] == group_N[None]) & ~is_self_NN
    logits_NN = (z_ND @ z_ND.T / temperature).masked_fill(is_self_NN, -torch.inf)
    log_share_NN = torch.log_softmax(logits_NN, dim=1).masked_fill(~is_alike_NN, 0.0)
    mean_N = log_share_NN.sum(dim=1) / is_alike_NN.sum(dim=1).clamp(min=1)
    if exclude_background:
        mean_N = mean_N[group_N != BACKGROUND]
    scale = temperature / (temperature if base_temperature is None else base_temperature)
    return -scale * mean_N.sum() / max(len(mean_N), 1)


def pairwise_distances(z_ND: Tensor) -> Tensor:
    """Euclidean distances (N, N), by squares and products; exactly 0, with a gradient of 0, where images coincide."""
    dot_NN = z_ND @ z_ND.T
    square_N = dot_NN.diagonal()
    square_NN = (square_N[None] - 2 * dot_NN + square_N[:, None]).clamp(min=0)
    is_zero_NN = square_NN == 0
    return torch.where(is_zero_NN, 0.0, torch.where(is_zero_NN, 1.0, square_NN).sqrt())


def batch_all_triplet_loss(
    z_ND: Tensor, label_N: Tensor, *, margin: float = 0.01, exclude_background: bool = False
) -> TripletLoss:
    """All triplets (anchor, other of its label, one of another label), the mean over those that are wrong.

    relu((d_ap - d_an) / m + margin), m the mean over all N * N distances, zeros and all. With ``exclude_background``
    label 0 is never the anchor's. 0 where no triplet is wrong.
    """
    distance_NN = pairwise_distances(z_ND)
    is_alike_NN, is_other_NN = _pairs(label_N)
    if exclude_background:
        is_alike_NN = is_alike_NN & (label_N != BACKGROUND)[:, None]
    is_valid_NNN = is_alike_NN[:, :, None] & is_other_NN[:, None, :]
    scaled_NN = distance_NN / (distance_NN.mean() + _TINY)
    loss_NNN = (scaled_NN[:, :, None] - scaled_NN[:, None, :] + margin).clamp(min=0) * is_valid_NNN
    num_wrong = (loss_NNN > _TINY).sum()
    return TripletLoss(loss_NNN.sum() / (num_wrong + _TINY), num_wrong / (is_valid_NNN.sum() + _TINY))


def batch_hard_triplet_loss(
    z_ND: Tensor, label_N: Tensor, *, margin: float = 0.01, exclude_background: bool = False
) -> TripletLoss:
    """Of every anchor the farthest image of its label and the nearest of another, the mean over anchors.

    relu((d_ap - d_an) / m + margin), m the mean of the d_an. With ``exclude_background`` anchors are left out whose
    farthest of their label is at distance 0: those of label 0, and those alone in their label.
    """
    distance_NN = pairwise_distances(z_ND)
    is_alike_NN, is_other_NN = _pairs(label_N)
    if exclude_background:
        is_alike_NN = is_alike_NN & (label_N != BACKGROUND)[:, None]
    positive_N = (distance_NN * is_alike_NN).amax(dim=1)
    # What is no negative is moved behind all that are.
    negative_N = (distance_NN + distance_NN.amax(dim=1, keepdim=True) * ~is_other_NN).amin(dim=1)
    if exclude_background:
        positive_N, negative_N = (values[positive_N != 0] for values in (positive_N, negative_N))
    total = max(len(positive_N), 1)
    scale = negative_N.sum() / total + _TINY
    loss_N = ((positive_N - negative_N) / scale + margin).clamp(min=0)
    return TripletLoss(loss_N.sum() / total, (loss_N > _TINY).sum() / total)


def nearest_accuracy(z_ND: Tensor, label_N: Tensor, *, top: int) -> Tensor:
    """Share of images with one of their label among the `top` most similar others (the dot product of `z_ND`)."""
    is_self_NN = torch.eye(len(z_ND), dtype=torch.bool, device=z_ND.device)
    nearest_NT = (
        (z_ND @ z_ND.T).masked_fill(is_self_NN, -torch.inf).topk(min(top, max(len(z_ND) - 1, 0)), dim=1).indices
    )
    return (label_N[nearest_NT] == label_N[:, None]).any(dim=1).float().mean()


def _pairs(label_N: Tensor) -> tuple[Tensor, Tensor]:
    """Bool (N, N): pairs of the same label but not the same image, and pairs of different labels."""
    is_same_NN = label_N[:, None] == label_N[None]
    return is_same_NN & ~torch.eye(len(label_N), dtype=torch.bool, device=label_N.device), ~is_same_NN


def time_contrastive_loss(z_BTD: Tensor, mask_BT: Tensor, *, norm_weight: float = 0.002) -> Tensor:
    """Cross entropy of each anchor's dot products with its video's positives, the mean over pairs; 0 without any.

    Frames 0, 2, 4, ... of ``z_BTD`` are anchors, the next of each its positive. A pair counts where ``mask_BT`` (bool)
    is True at both. Added is 0.25 ``norm_weight`` times the mean squared lengths of anchors and positives. Raises
    ValueError for an odd number of frames or wrong shapes.
    """
    if z_BTD.dim() != 3 or z_BTD.shape[:2] != mask_BT.shape or z_BTD.shape[1] % 2:
        given = f"{tuple(z_BTD.shape)} and {tuple(mask_BT.shape)}"
        raise ValueError(f"embeddings must be (B, T, D) with an even T, the mask (B, T); got {given}.")
    z_BTD = z_BTD.float() if z_BTD.dtype in (torch.float16, torch.bfloat16) else z_BTD
    anchor_BND, positive_BND = z_BTD[:, ::2], z_BTD[:, 1::2]
    is_pair_BN = mask_BT[:, ::2] & mask_BT[:, 1::2]
    place_N = torch.arange(anchor_BND.shape[1], device=z_BTD.device)
    # What is masked is no negative; the pair itself stays, so that a row of nothing else has finite gradients.
    is_out_BNN = ~is_pair_BN[:, None] & (place_N[:, None] != place_N)
    logits_BNN = (anchor_BND @ positive_BND.mT).masked_fill(is_out_BNN, -torch.inf)
    target_BN = torch.where(is_pair_BN, place_N, IGNORED)
    total = functional.cross_entropy(
        logits_BNN.flatten(0, 1), target_BN.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    squares_BN = (anchor_BND.square() + positive_BND.square()).sum(-1).masked_fill(~is_pair_BN, 0.0)
    return (total + 0.25 * norm_weight * squares_BN.sum()) / is_pair_BN.sum().clamp(min=1)


def simclr_logits(first_BE: Tensor, second_BE: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Cosines over `temperature` of each of 2B vectors (all first views, then all second ones) and all others.

    Returns logits (2B, 2B - 1), without the vector itself, and the place of its other view in them, int64 (2B,).
    """
    num = len(first_BE)
    z_NE = functional.normalize(torch.cat([first_BE, second_BE]), dim=1)
    others_NN = ~torch.eye(2 * num, dtype=torch.bool, device=z_NE.device)
    logits = (z_NE @ z_NE.T / temperature)[others_NN].reshape(2 * num, -1)
    place = torch.arange(num, device=z_NE.device)
    return logits, torch.cat([place + num - 1, place])


def moco_logits(
    query_BE: Tensor,
    key_BE: Tensor,
    *,
    queue_QE: Tensor,
    queue_video_Q: Tensor,
    video_B: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Cosines over `temperature` of each query with its own key and with the queue, whose rows are of unit length.

    Keys of the query's own video are no negatives: -inf. `video_B` and `queue_video_Q` are int64, -1 of no video.
    Returns logits (B, 1 + Q), the own key first, and targets int64 (B,), all 0.
    """
    query_BE, key_BE = functional.normalize(query_BE, dim=1), functional.normalize(key_BE, dim=1)
    own_B1 = (query_BE * key_BE).sum(dim=1, keepdim=True)
    others_BQ = (query_BE @ queue_QE.T).masked_fill(video_B[:, None] == queue_video_Q[None], -torch.inf)
    logits = torch.cat([own_B1, others_BQ], dim=1) / temperature
    return logits, torch.zeros(len(query_BE), dtype=torch.int64, device=query_BE.device)


def byol_loss(predicted_NE: Tensor, target_NE: Tensor) -> Tensor:
    """2 - 2 times the mean cosine of a prediction and the target network's answer to the other view; in [0, 4]."""
    return 2 - 2 * functional.cosine_similarity(predicted_NE, target_NE, dim=1).mean()


def byol_momentum(step: int, num_steps: int, *, base: float) -> float:
    """Share that the target network keeps of itself at a step: from `base` at 0 along half a cosine to 1 at the end.

    Grill et al. 2020, section 3.3.
    """
    return 1 - (1 - base) * (math.cos(math.pi * step / num_steps) + 1) / 2


def top_accuracy(logits_NK: Tensor, target_N: Tensor, *, top: int) -> Tensor:
    """Share of rows whose target is among the `top` highest candidates (all of them, where there are fewer)."""
    best_NT = logits_NK.topk(min(top, logits_NK.shape[1]), dim=1).indices
    return (best_NT == target_N[:, None]).any(dim=1).float().mean()
