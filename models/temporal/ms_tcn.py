"""Multi-stage dilated temporal convolutions (MS-TCN; Farha and Gall 2019, sections 3.1 and 3.2).

Shape letters: B batch, T rows of a window, D features, W width, K outputs. Convolutions want channels second: BWT.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.contracts import Inputs
from reelwright.models.temporal.common import (
    POOLS,
    TemporalModel,
    TemporalSizes,
    resolve_pool,
    zero_padding,
)
from reelwright.models.temporal.options import MsTcnOptions


class DilatedLayer(nn.Module):
    """x + dropout(1x1(relu(dilated conv of 3 taps))), padded rows kept at 0 as if the sequence ended there."""

    def __init__(self, width: int, *, dilation: int, dropout: float, causal: bool) -> None:
        """`dilation` in rows between the taps."""
        super().__init__()
        self.padding = (2 * dilation, 0) if causal else (dilation, dilation)
        self.dilated = nn.Conv1d(width, width, 3, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BWT: Tensor, mask_B1T: Tensor) -> Tensor:
        """`mask_B1T` is 1 at real rows, in the dtype of `x_BWT`."""
        hidden_BWT = functional.relu(self.dilated(functional.pad(x_BWT, self.padding)))
        out_BWT: Tensor = (x_BWT + self.dropout(self.mix(hidden_BWT))) * mask_B1T
        return out_BWT


class Stage(nn.Module):
    """1x1 in, dilated layers, 1x1 out to the classes."""

    def __init__(self, input_dim: int, num_outputs: int, options: MsTcnOptions) -> None:
        """Dilations are 1, 2, 4, ... `2**(layers - 1)`."""
        super().__init__()
        self.enter = nn.Conv1d(input_dim, options.width, 1)
        self.layers = nn.ModuleList(
            DilatedLayer(options.width, dilation=2**index, dropout=options.dropout, causal=options.causal)
            for index in range(options.layers)
        )
        self.leave = nn.Conv1d(options.width, num_outputs, 1)

    def forward(self, x_BDT: Tensor, mask_B1T: Tensor) -> Tensor:
        """Logits (B,K,T)."""
        x_BWT = self.enter(x_BDT) * mask_B1T
        for layer in self.layers:
            x_BWT = layer(x_BWT, mask_B1T)
        logits_BKT: Tensor = self.leave(x_BWT)
        return logits_BKT


class MsTcn(TemporalModel):
    """Stages one after the other, each of which may be trained."""

    def __init__(self, sizes: TemporalSizes, options: MsTcnOptions) -> None:
        """Raises ValueError for an unknown pool."""
        super().__init__(sizes)
        self.pool = resolve_pool(options.pool, per_row=sizes.per_row, default="mean", allowed=list(POOLS))
        self.norm = nn.LayerNorm(sizes.input_dim) if options.input_norm else nn.Identity()
        input_dims = [sizes.input_dim] + [sizes.num_outputs] * (options.stages - 1)
        self.stages = nn.ModuleList(Stage(dim, sizes.num_outputs, options) for dim in input_dims)

    @property
    def class_layers(self) -> tuple[str, ...]:
        """See blocks/init_from.py: stages give probabilities of the classes, and the later ones read them."""
        later = range(1, len(self.stages))
        return (*(f"stages.{k}.leave" for k in range(len(self.stages))), *(f"stages.{k}.enter" for k in later))

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """See TemporalModel: `logits` of the last stage, and `aux.stage1`, `aux.stage2`, ... of those before it."""
        x_BTD, mask_BT = batch["rows"], batch["mask"]
        x_BDT = zero_padding(self.norm(zero_padding(x_BTD, mask_BT)), mask_BT).transpose(1, 2)
        mask_B1T = mask_BT[:, None].to(x_BDT.dtype)
        results = []
        for stage in self.stages:
            logits_BKT = stage(x_BDT, mask_B1T)
            logits_BTK = logits_BKT.transpose(1, 2)
            results.append(logits_BTK if self.pool is None else POOLS[self.pool](logits_BTK, mask_BT))
            x_BDT = functional.softmax(logits_BKT, dim=1) * mask_B1T
        *earlier, last = results
        return {**{f"aux.stage{number}": logits for number, logits in enumerate(earlier, start=1)}, "logits": last}
