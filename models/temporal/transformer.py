"""A transformer encoder over the rows of a window: pre-LN blocks, padding and causal masks, CLS or pooled output.

Vaswani et al. 2017 (sinusoidal positions: section 3.5); pre-LN: Xiong et al. 2020, figure 1b.
Shape letters: B batch, T rows of a window, S rows plus the CLS token, D input features, W width, H heads, E head
features, K outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.contracts import Inputs, is_unpadded
from reelwright.models.temporal.common import (
    POOLS,
    TemporalModel,
    TemporalSizes,
    resolve_pool,
    zero_padding,
)
from reelwright.models.temporal.options import TransformerOptions


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, *, heads: int, head_dim: int, dropout: float) -> None:
        """`heads` heads of `head_dim` features each."""
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.to_qkv = nn.Linear(width, 3 * heads * head_dim)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x_BSW: Tensor, visible_BSS: Tensor | None, *, causal: bool = False) -> Tensor:
        """`visible_BSS` (bool) is True where query row (second axis) may see key row (third).

        None: all, or if `causal` the earlier ones; there are faster kernels for it.
        """
        qkv = self.to_qkv(x_BSW).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q_BHSE, k_BHSE, v_BHSE = qkv
        mixed_BHSE = functional.scaled_dot_product_attention(
            q_BHSE,
            k_BHSE,
            v_BHSE,
            attn_mask=None if visible_BSS is None else visible_BSS[:, None],
            is_causal=causal and visible_BSS is None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out_BSW: Tensor = self.to_out(mixed_BHSE.transpose(1, 2).flatten(2))
        return out_BSW


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, *, heads: int, head_dim: int, mlp_width: int, dropout: float) -> None:
        """All widths in features."""
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads, head_dim=head_dim, dropout=dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSW: Tensor, visible_BSS: Tensor | None, *, causal: bool = False) -> Tensor:
        """See Attention."""
        x_BSW = x_BSW + self.dropout(self.attention(self.norm_attention(x_BSW), visible_BSS, causal=causal))
        out_BSW: Tensor = x_BSW + self.dropout(self.mlp(self.norm_mlp(x_BSW)))
        return out_BSW


class Transformer(TemporalModel):
    """Rows -> projection, positions, CLS token at the end (pool `cls`), blocks, LayerNorm, pool, linear head."""

    def __init__(self, sizes: TemporalSizes, options: TransformerOptions) -> None:
        """Raises ValueError for an unknown pool, or a width that heads do not divide when no head_dim is given."""
        super().__init__(sizes)
        width = options.width or sizes.input_dim
        self.pool = resolve_pool(options.pool, per_row=sizes.per_row, default="cls", allowed=["cls", *POOLS])
        self.causal = options.causal
        self.project = nn.Identity() if width == sizes.input_dim else nn.Linear(sizes.input_dim, width)
        self.positions_TW = nn.Parameter(torch.empty(sizes.length, width)) if options.positions == "learned" else None
        self.cls_W = nn.Parameter(torch.empty(width)) if self.pool == "cls" else None
        for parameter in (self.positions_TW, self.cls_W):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads=options.heads,
                head_dim=options.head_dim or _head_dim(width, options.heads),
                mlp_width=options.mlp_width or 4 * width,
                dropout=options.dropout,
            )
            for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = self.linear_head(width)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """See TemporalModel; ValueError for a window longer than the learned positions."""
        x_BTD, mask_BT = batch["rows"], batch["mask"]
        x = self.project(zero_padding(x_BTD, mask_BT))
        x = self.dropout(x + self._positions(x))
        present = mask_BT
        if self.cls_W is not None:
            x = torch.cat([x, self.cls_W.to(x.dtype).expand(x.shape[0], 1, -1)], dim=1)
            present = functional.pad(mask_BT, (0, 1), value=True)
        visible_BSS = None if is_unpadded(mask_BT) else visibility(present, causal=self.causal)
        for block in self.blocks:
            x = block(x, visible_BSS, causal=self.causal)
        x = self.norm(x)
        if self.pool == "cls":
            x = x[:, -1]
        elif self.pool is not None:
            x = POOLS[self.pool](x, mask_BT)
        return self.answer(self.head, x)

    def _positions(self, x_BTW: Tensor) -> Tensor:
        num_rows = x_BTW.shape[1]
        if self.positions_TW is None:
            return sinusoidal_positions(num_rows, width=x_BTW.shape[2], like=x_BTW)
        if num_rows > len(self.positions_TW):
            raise ValueError(
                f"the window has {num_rows} rows, but positions were learned for {len(self.positions_TW)}; "
                "use windows no longer than `length`, or positions: sinusoidal."
            )
        return self.positions_TW[:num_rows].to(x_BTW.dtype)


def _head_dim(width: int, heads: int) -> int:
    if width % heads:
        message = f"width {width} does not divide into {heads} heads; choose another of the two, or give head_dim."
        raise ValueError(message)
    return width // heads


def visibility(present_BS: Tensor, *, causal: bool) -> Tensor:
    """(B,S,S) bool: True where the query (second axis) may see the key (third): real rows, earlier ones if `causal`.

    Every row sees itself, padded ones too: attention over nothing is NaN.
    """
    num_rows = present_BS.shape[1]
    allowed_BSS = present_BS[:, None, :].expand(-1, num_rows, -1)
    if causal:
        allowed_BSS = allowed_BSS & torch.ones(num_rows, num_rows, dtype=torch.bool, device=present_BS.device).tril()
    return allowed_BSS | torch.eye(num_rows, dtype=torch.bool, device=present_BS.device)


def sinusoidal_positions(num_rows: int, *, width: int, like: Tensor) -> Tensor:
    """(num_rows, width): sines in the even, cosines in the odd columns; dtype and device as `like`."""
    position_T1 = torch.arange(num_rows, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / width))
    angles = position_T1 * rate
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].to(like.dtype)
