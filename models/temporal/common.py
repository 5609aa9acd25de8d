"""What the temporal models share: sizes, checks of options, and pooling that never sees padded rows.

Shape letters: B batch, T rows of a window, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reelwright.models.contracts import Inputs, VideoModel
from reelwright.models.option_checks import check_choice, check_positive


@dataclass(frozen=True, kw_only=True)
class TemporalSizes:
    """The sizes that the data fix, whatever the model."""

    input_dim: int
    # D, features of one row.
    num_outputs: int
    # K, classes or labels; 0: none, the model gives an `embedding` of each row.
    length: int
    # T, the most rows of a window.
    per_row: bool
    # True: logits for each row (B,T,K); False: for the window (B,K).

    def __post_init__(self) -> None:
        """Refuse sizes below 1, and fewer outputs than none."""
        for name in ("input_dim", "length"):
            check_positive(name, getattr(self, name))
        if self.num_outputs:
            check_positive("num_outputs", self.num_outputs)


class TemporalModel(VideoModel):
    """Base of all temporal models: rows of a window with a mask -> at least `logits`."""

    def __init__(self, sizes: TemporalSizes) -> None:
        """Remember the sizes."""
        super().__init__()
        self.sizes = sizes

    def linear_head(self, width: int) -> nn.Module:
        """The last layer; nothing where there are no outputs, and features are what the model gives (`answer`)."""
        return nn.Linear(width, self.sizes.num_outputs) if self.sizes.num_outputs else nn.Identity()

    def answer(self, head: nn.Module, features: Tensor) -> dict[str, Tensor]:
        """What ``head``, a `linear_head`, makes of features (B,T,W) or (B,W): `logits`, or themselves: `embedding`."""
        return {"logits" if self.sizes.num_outputs else "embedding": head(features)}

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """`rows` (B,T,D) and `mask` (B,T) -> `logits` (B,T,K) when `sizes.per_row`, else (B,K).

        Real rows may stand anywhere in the window. Padded rows may hold anything, NaN too, without changing the logits
        of real rows; the logits at padded rows mean nothing.
        """
        raise NotImplementedError


def resolve_pool(pool: str | None, *, per_row: bool, default: str, allowed: Sequence[str]) -> str | None:
    """The pooling to use, None for a per-row model; ValueError when unknown, or named where nothing is pooled."""
    if per_row:
        if pool is not None:
            raise ValueError(f"pool is {pool!r}, but a per-row model pools nothing; leave pool out.")
        return None
    check_choice("pool", pool or default, allowed)
    return pool or default


def zero_padding(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """`x_BTD` with padded rows set to 0 (by selection: NaN times 0 would stay NaN)."""
    return x_BTD.masked_fill(~mask_BT.unsqueeze(-1), 0.0)


def pool_mean(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over real rows (B,D); 0 where a window has none."""
    total_BD = zero_padding(x_BTD, mask_BT).sum(dim=1)
    return total_BD / mask_BT.sum(dim=1, keepdim=True).clamp(min=1).to(total_BD.dtype)


def pool_last(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The last real row (B,D); row 0 where a window has none."""
    positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (mask_BT * positions_T).amax(dim=1)
    if torch.onnx.is_in_onnx_export():  # else the exporter takes the number of windows for fixed
        return x_BTD.gather(1, last_B[:, None, None].expand(-1, 1, x_BTD.shape[2]))[:, 0]
    return x_BTD[torch.arange(len(last_B), device=x_BTD.device), last_B]


POOLS = {"mean": pool_mean, "last": pool_last}
