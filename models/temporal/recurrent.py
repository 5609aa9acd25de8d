"""GRU and LSTM over the rows of a window, blind to padded rows in either direction.

Shape letters: B batch, T rows of a window, D features, W width (twice that when bidirectional), K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from reelwright.models.contracts import Inputs
from reelwright.models.temporal.common import (
    POOLS,
    TemporalModel,
    TemporalSizes,
    resolve_pool,
    zero_padding,
)
from reelwright.models.temporal.options import RecurrentOptions


class Recurrent(TemporalModel):
    """A recurrent network over the real rows, then dropout, pool and linear head."""

    cell: type[nn.GRU | nn.LSTM]

    def __init__(self, sizes: TemporalSizes, options: RecurrentOptions) -> None:
        """Raises ValueError for an unknown pool."""
        super().__init__(sizes)
        self.pool = resolve_pool(options.pool, per_row=sizes.per_row, default="last", allowed=list(POOLS))
        self.rnn = self.cell(
            sizes.input_dim,
            options.width,
            num_layers=options.layers,
            batch_first=True,
            bidirectional=options.bidirectional,
            # torch warns of dropout that has no layer to stand between.
            dropout=options.dropout if options.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(options.dropout)
        self.head = self.linear_head(options.width * (2 if options.bidirectional else 1))

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """See TemporalModel."""
        x_BTD, mask_BT = batch["rows"], batch["mask"]
        x_BTW = self.dropout(self._run(zero_padding(x_BTD, mask_BT), mask_BT))
        return self.answer(self.head, x_BTW if self.pool is None else POOLS[self.pool](x_BTW, mask_BT))

    def _run(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Hidden states of the real rows at their places.

        Real rows are moved to the front, so that padding before or between them is skipped as well:
            mask 0 1 1 0 1 -> order 1 2 4 0 3, 3 rows run, states go back by the inverse order.
        """
        # On a GPU packing would wait for it, since lengths are needed on the host.
        if (torch.onnx.is_in_onnx_export() or x_BTD.is_cuda) and not self.rnn.bidirectional:
            return self._run_whole(x_BTD, mask_BT)
        order_BT = torch.argsort((~mask_BT).to(torch.uint8), dim=1, stable=True)
        front_BTD = x_BTD.take_along_dim(order_BT[..., None], dim=1)
        # A window without any real row still needs one step; its states mean nothing.
        lengths_B = mask_BT.sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(front_BTD, lengths_B, batch_first=True, enforce_sorted=False)
        states, _ = self.rnn(packed)
        states_BTW, _ = pad_packed_sequence(states, batch_first=True, total_length=x_BTD.shape[1])
        return states_BTW.take_along_dim(torch.argsort(order_BT, dim=1)[..., None], dim=1)

    def _run_whole(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The same without packing and sorting: after the real rows padding runs too, and changes none."""
        real_BT = mask_BT.to(torch.int64)
        count_B1 = real_BT.sum(dim=1, keepdim=True)
        place_BT = torch.where(mask_BT, real_BT.cumsum(dim=1), count_B1 + (1 - real_BT).cumsum(dim=1)) - 1
        states_BTW, _ = self.rnn(torch.zeros_like(x_BTD).scatter(1, place_BT[..., None].expand_as(x_BTD), x_BTD))
        found: Tensor = states_BTW.gather(1, place_BT[..., None].expand_as(states_BTW))
        return found


class Gru(Recurrent):
    """Gated recurrent units (Cho et al. 2014)."""

    cell = nn.GRU


class Lstm(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    cell = nn.LSTM
