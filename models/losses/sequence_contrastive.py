"""Sequence contrastive loss (SCL): a frame of one view shall resemble the frames of the other that are near in time.

    view 1     x----x-------x--x        each x a frame, at its place in the video
    view 2        x---x--x-----x
    target     of each frame: a Gaussian of the distance in time to the frames of the other view, summing to 1
    learned    a softmax of the similarity to them, and to whatever else `negatives` names

Source: CARL (Chen et al. 2022, "Frame-wise Action Representations for Long Videos via Sequence Contrastive Learning"),
section 3.3. Shape letters: B videos, V = 2 views, T frames of a view, D embedding size; for the denominators G groups
of M frames each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COMPAT_FLOOR = 1e-6  # of the public code: added to every share, and the weight of masked pairs in denominators


@dataclass(frozen=True, kw_only=True)
class SequenceContrast:
    """What frames are compared with, and how sharply; values are checked where settings are read."""

    negatives: str = "single_noself"
    # What a frame is told apart from: single, frames of the same video; batch, of all videos. noself leaves the frame's
    # own view out (without it the frame itself is a negative too, as in the public code).
    variance: float = 10.0
    # Of the Gaussian, in frames squared.
    temperature: float = 0.1
    compat: bool = False
    # True: the numbers of the public code. A share p costs -log(p + 1e-6), so never more than 13.8; masked frames of
    # any video stand in every denominator with weight 1e-6; a frame without any other near enough for its Gaussian to
    # be a number above 0 has no target.

    @property
    def compares_videos(self) -> bool:
        """Whether the loss of a video depends on the others of its batch."""
        return self.compat or not self.negatives.startswith("single")


def sequence_contrastive_loss(
    z_BVTD: Tensor,
    position_BVT: Tensor,
    mask_BVT: Tensor,
    *,
    how: SequenceContrast,
    num_frames_BV: Tensor | None = None,
) -> Tensor:
    """The mean over real frames of KL(target, softmax of similarity), a scalar in nats; 0 where no frame is real.

    ``z_BVTD`` is of unit length, ``position_BVT`` the frames' numbers in their videos, ``mask_BVT`` bool, True at real
    frames. ``num_frames_BV``: lengths of the videos that the views are of, where these differ within a pair; times of
    one are scaled to the other. Being of 2T frames, it is half of the paper's sum of both views' means. Raises
    ValueError for wrong shapes.
    """
    if z_BVTD.dim() != 4 or z_BVTD.shape[1] != 2 or not z_BVTD.shape[:3] == position_BVT.shape == mask_BVT.shape:
        shapes = ", ".join(str(tuple(given.shape)) for given in (z_BVTD, position_BVT, mask_BVT))
        raise ValueError(f"embeddings must be (B, 2, T, D), positions and mask (B, 2, T); got {shapes}.")
    z_BVTD = z_BVTD.float() if z_BVTD.dtype in (torch.float16, torch.bfloat16) else z_BVTD
    target_BVTT = time_targets(position_BVT.to(z_BVTD.dtype), mask_BVT, how=how, num_frames_BV=num_frames_BV)
    log_whole_BVT = _log_denominators(z_BVTD, mask_BVT, how)
    log_share_BVTT = z_BVTD @ z_BVTD.flip(1).mT / how.temperature - log_whole_BVT[..., None]
    if how.compat:
        log_share_BVTT = torch.logaddexp(log_share_BVTT, log_share_BVTT.new_tensor(math.log(COMPAT_FLOOR)))
    total = (torch.xlogy(target_BVTT, target_BVTT) - target_BVTT * log_share_BVTT).sum()
    return total / mask_BVT.sum().clamp(min=1)


def time_targets(
    position_BVT: Tensor, mask_BVT: Tensor, *, how: SequenceContrast, num_frames_BV: Tensor | None = None
) -> Tensor:
    """For each frame its shares of the other view's frames, (B, 2, T, T) of the dtype of ``position_BVT``.

    exp(-distance^2 / (2 variance)), divided by their sum; rows of masked frames, and of frames that meet only masked
    ones, are 0. Without ``compat`` the nearest frames share the 1 however far away they are.
    """
    other_BVT = position_BVT.flip(1)
    scaled_BVT = position_BVT
    if num_frames_BV is not None:
        lengths_BV = num_frames_BV.to(position_BVT.dtype)
        scaled_BVT = position_BVT * (lengths_BV.flip(1) / lengths_BV)[..., None]
    log_near_BVTT = -(scaled_BVT[..., :, None] - other_BVT[..., None, :]).square() / (2 * how.variance)
    is_pair_BVTT = mask_BVT[..., :, None] & mask_BVT.flip(1)[..., None, :]
    if how.compat:
        near_BVTT = log_near_BVTT.exp() * is_pair_BVTT
        sum_BVT1 = near_BVTT.sum(-1, keepdim=True)
        return near_BVTT / torch.where(sum_BVT1 > 0, sum_BVT1, 1.0)
    # A finite stand-in for -inf: rows without any pair stay numbers, and are set to 0 after it.
    lowest = torch.finfo(log_near_BVTT.dtype).min
    return log_near_BVTT.masked_fill(~is_pair_BVTT, lowest).softmax(-1) * is_pair_BVTT


def _log_denominators(z_BVTD: Tensor, mask_BVT: Tensor, how: SequenceContrast) -> Tensor:
    """Log of what each frame's exp(similarity / temperature) is divided by, (B, 2, T)."""
    num_videos, num_views, length, size = z_BVTD.shape
    num_groups = 1 if how.compares_videos else num_videos
    num_grouped = num_videos * num_views * length // max(num_groups, 1)
    z_GMD = z_BVTD.reshape(num_groups, num_grouped, size)
    mask_GM = mask_BVT.reshape(num_groups, num_grouped)
    view_M = torch.arange(z_GMD.shape[1], device=z_GMD.device) // length
    is_in_MM = torch.ones(len(view_M), len(view_M), dtype=torch.bool, device=z_GMD.device)
    if how.negatives.startswith("single"):
        is_in_MM &= view_M[:, None] // num_views == view_M // num_views
    if how.negatives.endswith("noself"):
        is_in_MM &= view_M[:, None] != view_M
    is_pair_GMM = mask_GM[:, :, None] & mask_GM[:, None, :]
    is_in_GMM = is_in_MM & is_pair_GMM
    # A frame without any other has no target; itself keeps its denominator, and so all gradients, finite.
    is_alone_GM1 = ~is_in_GMM.any(-1, keepdim=True)
    is_in_GMM |= is_alone_GM1 & torch.eye(len(view_M), dtype=torch.bool, device=z_GMD.device)
    logits_GMM = z_GMD @ z_GMD.mT / how.temperature
    outside_GMM = (
        torch.where(is_pair_GMM, -torch.inf, logits_GMM + math.log(COMPAT_FLOOR)) if how.compat else -torch.inf
    )
    return torch.where(is_in_GMM, logits_GMM, outside_GMM).logsumexp(-1).reshape(mask_BVT.shape)
