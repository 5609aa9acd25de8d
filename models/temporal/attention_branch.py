"""An attention branch over stored rows: maps of an image encoder, tokens of a ViT on their grid, or single vectors.

Rows -> 1x1x1 convolution -> x; attention branch and gate as of ST-ABN (models/blocks/attention_branch.py); bottlenecks
in place of the last layer of its ResNet. Shape letters: B batch, T rows of a window, N tokens, D features of a row or C
channels of a map, H height, W width, K outputs.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn

from reelwright.models.blocks.attention_branch import (
    AttentionBranch,
    AttentionGate,
    edited,
    mean_over_time,
    named_outputs,
)
from reelwright.models.blocks.inflated_resnet import bottlenecks, through_blocks
from reelwright.models.contracts import Inputs
from reelwright.models.temporal.common import TemporalModel, TemporalSizes
from reelwright.models.temporal.options import AttentionBranchOptions

_VECTORS, _TOKENS, _MAPS = 3, 4, 5  # axes of rows
_MOST_EXTRA = 8  # tokens of no patch: class and register tokens


class AttentionBranchModel(TemporalModel):
    """Attention in space and time over a window of rows."""

    def __init__(self, sizes: TemporalSizes, options: AttentionBranchOptions) -> None:
        """`sizes.input_dim` is D or C; `sizes.length` is exactly T where `options.time` is dense."""
        super().__init__(sizes)
        width = options.width
        self.enter = nn.Sequential(
            nn.Conv3d(sizes.input_dim, width, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU(inplace=True)
        )
        self.branch = self.gate = None
        if options.branch:
            self.branch = AttentionBranch(
                bottlenecks(width, width, count=options.layers),
                num_features=width,
                num_outputs=sizes.num_outputs,
                length=sizes.length,
                time=options.time,
                dropout=options.dropout,
                per_row=sizes.per_row,
                attends=options.branch is True,
                space=options.space,
            )
            self.gate = AttentionGate(width, version=options.version)
        self.perceive = bottlenecks(width, width, count=options.layers)
        self.dropout, self.head = nn.Dropout(options.dropout), nn.Linear(width, sizes.num_outputs)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """`logits`, `attention.space` (B,T,H,W); of the branch `aux.attention_logits`, and `attention.time` (B,T).

        In: `mask` (B,T), and `rows` (B,T,D), a grid of one place, tokens (B,T,N,D) or maps (B,T,C,H,W). Raises
        ValueError for tokens that are no square grid, and for windows of another length than was learned.
        """
        mask_BT = batch["mask"]
        maps_BTCHW = as_maps(batch["rows"])
        padding = ~mask_BT[:, :, None, None, None]
        x_BCTHW = self.enter(maps_BTCHW.masked_fill(padding, 0.0).transpose(1, 2))
        if self.branch is None or self.gate is None:
            logits, features_BCTHW = self._answer(x_BCTHW, mask_BT)
            return {"logits": logits, "attention.space": self._grad_cam(logits, features_BCTHW, mask_BT)}
        attention = self.branch(x_BCTHW, mask_BT)
        if not self.branch.attends:
            logits, features_BCTHW = self._answer(self.gate(x_BCTHW, attention), mask_BT)
            space_BTHW = self._grad_cam(logits, features_BCTHW, mask_BT)
            return {"logits": logits, "aux.attention_logits": attention.logits, "attention.space": space_BTHW}
        attention = edited(attention, batch)
        logits, _ = self._answer(self.gate(x_BCTHW, attention), mask_BT)
        return named_outputs(logits, attention)

    def _answer(self, x_BCTHW: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,K) or (B,T,K), and the features (B,C,T,H,W) that they are the mean of."""
        features_BCTHW = through_blocks(self.perceive, x_BCTHW, mask_BT)
        seen_BCT = features_BCTHW.mean(dim=(3, 4))
        pooled = seen_BCT.transpose(1, 2) if self.sizes.per_row else mean_over_time(seen_BCT, mask_BT)
        return self.head(self.dropout(pooled)), features_BCTHW

    def _grad_cam(self, logits: Tensor, features_BCTHW: Tensor, mask_BT: Tensor) -> Tensor:
        """Where the answer comes from (B,T,H,W), 1 at its most: Grad-CAM (Selvaraju et al. 2017); 0 at padding.

        The gradient of a linear layer over a mean is its weights, everywhere.
        """
        weights_BTC = self.head.weight[logits.argmax(-1)].reshape(len(logits), -1, features_BCTHW.shape[1])
        maps_BTHW = (features_BCTHW * weights_BTC.transpose(1, 2)[..., None, None]).sum(dim=1).relu()
        maps_BTHW = maps_BTHW * mask_BT[:, :, None, None]  # what is no part of the mean has no part in the most
        return maps_BTHW / maps_BTHW.amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(maps_BTHW.dtype).tiny)


def as_maps(rows: Tensor) -> Tensor:
    """Rows as maps (B,T,C,H,W): tokens on their grid, without those of no patch, which come first."""
    if rows.ndim == _VECTORS:
        return rows[..., None, None]
    if rows.ndim == _MAPS:
        return rows
    if rows.ndim != _TOKENS:
        raise ValueError(f"rows of shape {tuple(rows.shape)} are neither vectors, tokens nor maps of a window.")
    side = isqrt(rows.shape[2])
    extra = rows.shape[2] - side * side
    if extra > _MOST_EXTRA:
        raise ValueError(
            f"{rows.shape[2]} tokens are no square grid with a few class tokens before it; store maps (output: map)."
        )
    tokens = rows[:, :, extra:]
    return tokens.reshape(*tokens.shape[:2], side, side, -1).movedim(-1, 2)
