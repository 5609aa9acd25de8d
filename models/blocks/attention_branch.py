"""The attention branch of ST-ABN: where in space and when in time class evidence lies, which gates the features.

    x -> trunk -> BN -> evidence u = ReLU(BN(1x1x1 conv)) -+-> 1x1x1 conv -> mean over space -> logits of the branch
                                                           +-> 1x1x1 conv -> BN -> sigmoid -> S, one map a frame
                                                           +-> 3x3x3 conv -> BN -> ReLU -> over time -> sigmoid -> M
    [x S + x, x M] -> 1x1x1 conv -> BN -> ReLU -> what the perception branch sees

Mitsuhara et al. 2021 (ST-ABN), section 3, and its public code. Shape letters: B batch, C channels of x, F of the trunk,
K classes, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.blocks.inflated_resnet import through_blocks

_WIDTH, _TAPS = 16, 5  # of convolutional attention in time


class Attention(NamedTuple):
    """What the branch says."""

    logits: Tensor  # (B,K), or (B,T,K) of every frame
    space: Tensor  # (B,T,H,W) in (0, 1)
    time: Tensor  # (B,T) in (0, 1)


class DenseTime(nn.Module):
    """Attention in time as published: every frame looks at all of exactly T."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(length, length, 1, bias=False)
        self.hidden, self.out = nn.Linear(length, length), nn.Linear(length, length)

    def forward(self, x_BTHW: Tensor, mask_BT: Tensor) -> Tensor:
        """(B,T) before the sigmoid; padded frames count as 0."""
        pooled_BT = self.mix(x_BTHW * mask_BT[:, :, None, None]).relu().mean(dim=(2, 3))
        found: Tensor = self.out(self.hidden(pooled_BT).relu())
        return found


class ConvolutionalTime(nn.Module):
    """Attention in time for any number of frames: each looks at its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(1, _WIDTH, _TAPS, padding=_TAPS // 2)
        self.out = nn.Conv1d(_WIDTH, 1, _TAPS, padding=_TAPS // 2)

    def forward(self, x_BTHW: Tensor, mask_BT: Tensor) -> Tensor:
        """(B,T) before the sigmoid; padded frames are as if they were not there."""
        mask_B1T = mask_BT[:, None].to(x_BTHW.dtype)
        pooled_B1T = x_BTHW.mean(dim=(2, 3))[:, None] * mask_B1T
        found: Tensor = self.out(self.hidden(pooled_B1T).relu() * mask_B1T)[:, 0]
        return found


class AttentionBranch(nn.Module):
    """Maps -> logits of its own, attention in space and in time."""

    class_layers = (
        "evidence",
        "evidence_norm",
        "time_conv",
        "space_conv",
        "classes",
        "head",
    )  # see blocks/init_from.py

    def __init__(
        self,
        trunk: nn.Sequential,
        *,
        num_features: int,
        num_outputs: int,
        length: int,
        time: str = "dense",
        dropout: float = 0.5,
        per_row: bool = False,
        attends: bool = True,
        space: str = "signed",
    ) -> None:
        """`trunk` gives maps of `num_features` channels of the size that it is given.

        With `time` dense there are always `length` frames; the branch's classifier then has a weight for each of them.
        Unless it `attends`, it is a classifier alone, whose S and M are 1. With `space` positive, S never falls where
        evidence of a class rises; signed, as published, it may.
        """
        super().__init__()
        self.trunk, self.norm = trunk, nn.BatchNorm3d(num_features)
        self.evidence = nn.Conv3d(num_features, num_outputs, 1, bias=False)
        self.evidence_norm = nn.BatchNorm3d(num_outputs)
        self.attends = attends
        if attends:
            self.time_conv = nn.Conv3d(num_outputs, 1, 3, padding=1, bias=False)
            self.time_norm = nn.BatchNorm3d(1)
            self.time = DenseTime(length) if time == "dense" else ConvolutionalTime()
        self.classes = nn.Conv3d(num_outputs, num_outputs, 1, bias=False)
        if attends:
            self.space_conv = nn.Conv3d(num_outputs, 1, 1, bias=False)
            self.space_norm = nn.BatchNorm3d(1)
        self.dropout = nn.Dropout(dropout)
        self.is_positive = space == "positive"
        self.per_row, self.is_dense = per_row, time == "dense" and not per_row
        self.head = nn.Linear(num_outputs * (length if self.is_dense else 1), num_outputs)
        self.length = length if self.is_dense or (attends and time == "dense") else None  # None: any

    def forward(self, x_BCTHW: Tensor, mask_BT: Tensor) -> Attention:
        """`mask_BT` (bool): padded frames are no evidence. Raises ValueError for frames of another number."""
        if self.length is not None and mask_BT.shape[1] != self.length:
            raise ValueError(
                f"the window has {mask_BT.shape[1]} rows, but attention in time was learned for exactly {self.length}; "
                "use windows of that length, or time: convolutional."
            )
        features = through_blocks(self.trunk, x_BCTHW, mask_BT)
        evidence = self.evidence_norm(self.evidence(self.norm(features))).relu()
        evidence_BKTHW = evidence * mask_BT[:, None, :, None, None]
        if self.attends:
            weight = self.space_conv.weight
            if self.is_positive:  # whatever the sign of the scale behind it
                weight = weight.abs() * self.space_norm.weight.sign()
            space_BTHW = self.space_norm(functional.conv3d(evidence_BKTHW, weight))[:, 0].sigmoid()
            time_BT = self.time(self.time_norm(self.time_conv(evidence_BKTHW)).relu()[:, 0], mask_BT).sigmoid()
        else:
            space_BTHW, time_BT = torch.ones_like(evidence_BKTHW[:, 0]), torch.ones_like(evidence_BKTHW[:, 0, :, 0, 0])
        pooled_BKT = self.classes(evidence_BKTHW).mean(dim=(3, 4))
        if self.is_dense:
            logits = self.head(self.dropout(pooled_BKT).flatten(1))
        elif self.per_row:
            logits = self.head(self.dropout(pooled_BKT.transpose(1, 2)))
        else:
            logits = self.head(self.dropout(mean_over_time(pooled_BKT, mask_BT)))
        return Attention(logits, space_BTHW, time_BT)


class AttentionGate(nn.Module):
    """Features with attention in space, which adds to them, beside those with attention in time, which does not."""

    def __init__(self, num_channels: int, *, version: str = "v1") -> None:
        """`version` v2, the authors' later code, has no ReLU at the end."""
        super().__init__()
        self.fuse = nn.Conv3d(2 * num_channels, num_channels, 1, bias=False)
        self.norm = nn.BatchNorm3d(num_channels)
        self.has_relu = version == "v1"

    def forward(self, x_BCTHW: Tensor, attention: Attention) -> Tensor:
        """(B,C,T,H,W)."""
        in_space = x_BCTHW * attention.space[:, None] + x_BCTHW
        in_time = x_BCTHW * attention.time[:, None, :, None, None]
        fused: Tensor = self.norm(self.fuse(torch.cat([in_space, in_time], dim=1)))
        return fused.relu() if self.has_relu else fused


def edited(attention: Attention, batch: Mapping[str, Tensor]) -> Attention:
    """Attention as people edit it: `attention_edit.time` (B,T,2) and `attention_edit.space` (B,T,H,W,2) of a batch.

    Each value becomes value * first + second, within [0, 1]. What is not in the batch stays as it is.
    """
    found = {}
    for name in ("space", "time"):
        changes = batch.get(f"attention_edit.{name}")
        if changes is not None:
            value: Tensor = getattr(attention, name)
            found[name] = (value * changes[..., 0] + changes[..., 1]).clamp(0, 1)
    return attention._replace(**found)


def mean_over_time(x_BCT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over real frames (B,C); 0 where there is none."""
    is_real_B1T = mask_BT[:, None].to(x_BCT.dtype)
    return (x_BCT * is_real_B1T).sum(dim=2) / is_real_B1T.sum(dim=2).clamp(min=1)


def named_outputs(logits: Tensor, attention: Attention) -> dict[str, Tensor]:
    """The outputs of models with an attention branch, as models/contracts.py names them."""
    return {
        "logits": logits,
        "aux.attention_logits": attention.logits,
        "attention.space": attention.space,
        "attention.time": attention.time,
    }
