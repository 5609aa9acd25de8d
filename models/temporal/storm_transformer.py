"""The temporal encoder of STORM-PSR: CLS in front, learned positions, pre-LN blocks, no norm but the head's own.

Hung et al. 2025. Attention is full, of the neighbours (as Longformer, Beltagy et al. 2020: CLS sees all and is seen by
all, with the same queries, keys and values), or over a projection of the rows (Linformer, Wang et al. 2020); the last
two cost memory and time in proportion to the rows.
Shape letters: B batch, T rows of a window, S rows with the CLS token in front, D features, H heads, E features of a
head, N neighbours of a row on both sides and itself, P projected rows, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.contracts import Inputs
from reelwright.models.temporal.common import (
    TemporalModel,
    TemporalSizes,
    pool_mean,
    resolve_pool,
    zero_padding,
)
from reelwright.models.temporal.options import StormTransformerOptions


class _Attention(nn.Module):
    """Multi-head self-attention without biases but that of its output."""

    def __init__(self, dim: int, options: StormTransformerOptions, *, num_tokens: int) -> None:
        super().__init__()
        inner = options.heads * options.head_dim
        self._heads, self._neighbours = options.heads, options.neighbours
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        is_plain = options.heads == 1 and options.head_dim == dim
        self.to_out = nn.Identity() if is_plain else nn.Sequential(nn.Linear(inner, dim), nn.Dropout(options.dropout))
        self.project_SP: nn.ParameterList | None = None  # of keys and of values
        if options.attention == "linformer":
            shape = (num_tokens, options.projected)
            self.project_SP = nn.ParameterList(nn.Parameter(torch.randn(shape) * shape[1] ** -0.5) for _ in range(2))
        self._mix: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = {
            "full": _full,
            "neighbours": self._near,
            "linformer": self._projected,
        }[options.attention]

    def forward(self, x_BSD: Tensor, present_BS: Tensor) -> Tensor:
        """`present_BS` (bool) is True at real rows, and at CLS."""
        qkv = self.to_qkv(x_BSD).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHSE = self._mix(qkv[0], qkv[1], qkv[2], present_BS)
        out_BSD: Tensor = self.to_out(mixed_BHSE.transpose(1, 2).flatten(2))
        return out_BSD

    def _near(self, q_BHSE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, present_BS: Tensor) -> Tensor:
        """CLS over all; every row over its neighbours, itself and CLS."""
        cls_BH1E = _full(q_BHSE[:, :, :1], k_BHSE, v_BHSE, present_BS)
        q_BHTE = q_BHSE[:, :, 1:] * q_BHSE.shape[-1] ** -0.5
        near_k, near_v = self._windows(k_BHSE[:, :, 1:]), self._windows(v_BHSE[:, :, 1:])  # (B,H,T,E,N)
        seen_BTN = self._windows(present_BS[:, 1:, None].float())[..., 0, :] > 0
        scores_BHTN = torch.einsum("bhte,bhten->bhtn", q_BHTE, near_k).masked_fill(~seen_BTN[:, None], -torch.inf)
        scores = torch.cat([(q_BHTE @ k_BHSE[:, :, :1].transpose(-1, -2)), scores_BHTN], dim=-1).softmax(dim=-1)
        mixed_BHTE = torch.einsum("bhtn,bhten->bhte", scores[..., 1:], near_v) + scores[..., :1] * v_BHSE[:, :, :1]
        return torch.cat([cls_BH1E, mixed_BHTE], dim=2)

    def _windows(self, x: Tensor) -> Tensor:
        """(..., T, E) -> (..., T, E, N): the rows around each row, 0 beyond both ends."""
        side = self._neighbours
        return functional.pad(x, (0, 0, side, side)).unfold(-2, 2 * side + 1, 1)

    def _projected(self, q_BHSE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, present_BS: Tensor) -> Tensor:
        assert self.project_SP is not None
        num_tokens = k_BHSE.shape[2]
        is_real = present_BS[:, None, :, None]
        k_BHPE, v_BHPE = (
            torch.einsum("bhse,sp->bhpe", values * is_real, projection[:num_tokens])
            for values, projection in zip((k_BHSE, v_BHSE), self.project_SP, strict=True)
        )
        return functional.scaled_dot_product_attention(q_BHSE, k_BHPE, v_BHPE)


def _full(q_BHSE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, present_BS: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q_BHSE, k_BHSE, v_BHSE, attn_mask=present_BS[:, None, None])


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, options: StormTransformerOptions, *, num_tokens: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = _Attention(dim, options, num_tokens=num_tokens)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, options.mlp_width),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.mlp_width, dim),
            nn.Dropout(options.dropout),
        )

    def forward(self, x_BSD: Tensor, present_BS: Tensor) -> Tensor:
        """As _Attention."""
        x_BSD = x_BSD + self.attention(self.norm_attention(x_BSD), present_BS)
        out_BSD: Tensor = x_BSD + self.mlp(self.norm_mlp(x_BSD))
        return out_BSD


class StormTransformer(TemporalModel):
    """CLS and rows with positions -> blocks -> CLS or the mean -> LayerNorm and a linear head."""

    def __init__(self, sizes: TemporalSizes, options: StormTransformerOptions) -> None:
        """Raises ValueError for an unknown pool."""
        super().__init__(sizes)
        dim, num_tokens = sizes.input_dim, sizes.length + 1
        self.pool = resolve_pool(options.pool, per_row=sizes.per_row, default="cls", allowed=["cls", "mean"])
        self.positions_SD = nn.Parameter(torch.randn(num_tokens, dim))
        self.cls_D = nn.Parameter(torch.rand(dim))
        self.dropout = nn.Dropout(options.embedding_dropout)
        self.blocks = nn.ModuleList(_Block(dim, options, num_tokens=num_tokens) for _ in range(options.layers))
        linear = nn.Linear(dim, sizes.num_outputs)
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(nn.LayerNorm(dim), linear)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """See TemporalModel; ValueError for a window longer than `length`."""
        return {"logits": self.head(self.encode(batch["rows"], batch["mask"]))}

    def encode(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """What the head reads: (B,D), or (B,T,D) of a per-row model."""
        num_rows = x_BTD.shape[1]
        if num_rows >= len(self.positions_SD):
            raise ValueError(
                f"the window has {num_rows} rows, but positions were learned for {len(self.positions_SD) - 1}; use "
                "windows no longer than `length`."
            )
        x: Tensor = torch.cat(
            [self.cls_D.to(x_BTD.dtype).expand(x_BTD.shape[0], 1, -1), zero_padding(x_BTD, mask_BT)], dim=1
        )
        x = self.dropout(x + self.positions_SD[: num_rows + 1].to(x.dtype))
        present_BS = functional.pad(mask_BT, (1, 0), value=True)
        for block in self.blocks:
            x = block(x, present_BS)
        if self.pool == "cls":
            return x[:, 0]
        if self.pool == "mean":
            return pool_mean(x, present_BS)
        return x[:, 1:]
