"""The simplest temporal models: a linear probe, and an MLP on the concatenated window.

Shape letters: B batch, T rows of a window, D features, K outputs.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.contracts import Inputs
from reelwright.models.temporal.common import (
    POOLS,
    TemporalModel,
    TemporalSizes,
    pool_last,
    resolve_pool,
    zero_padding,
)
from reelwright.models.temporal.options import LinearOptions, MlpOptions


class LinearProbe(TemporalModel):
    """One linear layer on each row, or on the pooled rows."""

    def __init__(self, sizes: TemporalSizes, options: LinearOptions) -> None:
        """Raises ValueError for an unknown pool."""
        super().__init__(sizes)
        self.pool = resolve_pool(options.pool, per_row=sizes.per_row, default="last", allowed=list(POOLS))
        self.norm = nn.LayerNorm(sizes.input_dim) if options.norm else nn.Identity()
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(sizes.input_dim, sizes.num_outputs)
        if options.head_std is not None:
            nn.init.normal_(self.head.weight, std=options.head_std)
            nn.init.zeros_(self.head.bias)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """See TemporalModel."""
        mask_BT = batch["mask"]
        if self.pool == "last":  # one row of each window is looked at, so the others need not be cleared
            last_BD = pool_last(batch["rows"], mask_BT).masked_fill(~mask_BT.any(dim=1, keepdim=True), 0.0)
            return {"logits": self.head(self.dropout(self.norm(last_BD)))}
        x_BTD = self.norm(zero_padding(batch["rows"], mask_BT))
        pooled = x_BTD if self.pool is None else POOLS[self.pool](x_BTD, mask_BT)
        return {"logits": self.head(self.dropout(pooled))}


class WindowMlp(TemporalModel):
    """Linear(T*D -> hidden), GELU, dropout, Linear(hidden -> K) on the window as one vector; padded rows are 0."""

    def __init__(self, sizes: TemporalSizes, options: MlpOptions) -> None:
        """Raises ValueError for per-row logits: there is one vector per window."""
        super().__init__(sizes)
        if sizes.per_row:
            raise ValueError(
                "mlp sees the window as one vector and gives no logits per row; use linear, gru, transformer or ms_tcn."
            )
        self.layers = nn.Sequential(
            nn.Linear(sizes.length * sizes.input_dim, options.hidden),
            nn.GELU() if options.between == "gelu" else nn.LayerNorm(options.hidden),
            nn.Dropout(options.dropout if options.between == "gelu" else 0.0),
            nn.Linear(options.hidden, sizes.num_outputs),
        )

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """See TemporalModel; a window shorter than `length` is padded at its end, a longer one is a ValueError."""
        x_BTD, mask_BT = batch["rows"], batch["mask"]
        num_absent = self.sizes.length - x_BTD.shape[1]
        if num_absent < 0:
            raise ValueError(f"the window has {x_BTD.shape[1]} rows, but this mlp was built for {self.sizes.length}.")
        x_BTD = functional.pad(zero_padding(x_BTD, mask_BT), (0, 0, 0, num_absent))
        return {"logits": self.layers(x_BTD.flatten(1))}
