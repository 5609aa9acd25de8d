"""Time-contrastive loss on n pairs (TCN): a frame shall resemble one shortly before it more than those of others.

Sources: Sermanet et al. 2018, "Time-Contrastive Networks"; n-pairs: Sohn 2016, equation 6, as CARL's public code takes
it for its comparison (Chen et al. 2022). Shape letters: B videos, T frames, anchors and positives in turn, N = T / 2
pairs, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reelwright.models.losses.classification import IGNORED


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
