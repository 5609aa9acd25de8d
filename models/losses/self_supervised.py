"""Losses that compare two views of a video without labels: SimCLR, MoCo, BYOL.

SimCLR: Chen et al. 2020, equation 1. MoCo: He et al. 2020, equation 1 and algorithm 1. BYOL: Grill et al. 2020,
equation 2. Numbers as in fractal_video (davidsvy/fractal_video; 3.10 of the domain reference).
Shape letters: B pairs of views, E embedding size, Q entries of a queue, N rows of logits, K candidates of each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


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
