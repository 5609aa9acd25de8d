"""An image encoder and a temporal model as one network, from frames to logits, for fine-tuning.

Shape letters: B batch, T rows of a window, C channels, H height, W width, D features, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reelwright.models.contracts import VideoModel, named_outputs
from reelwright.models.encoder_base import Encoder
from reelwright.models.temporal_options import check_positive


class JointModel(VideoModel):
    """`spatial` on every frame, then `temporal` on the rows."""

    def __init__(self, spatial: Encoder, temporal: nn.Module) -> None:
        """Raises ValueError for a video encoder, whose rows are clips and not frames."""
        super().__init__()
        if spatial.kind != "image":
            message = f"a joint model encodes single frames, but {type(spatial).__name__} is a {spatial.kind} encoder."
            raise ValueError(message + " Use a timm encoder.")
        self.spatial = spatial
        self.temporal = temporal

    def forward(self, frames_BTCHW: Tensor, mask_BT: Tensor, *, chunk: int | None = None) -> Tensor:
        """Normalised frames and their mask (bool, True at real rows) -> logits (B,K) or (B,T,K).

        `chunk` frames go through the encoder at a time (None: all at once); in train mode this changes what BatchNorm
        averages over, in eval mode nothing.
        """
        rows_BTD = self.encode(frames_BTCHW, mask_BT, chunk=chunk)
        logits: Tensor = self.temporal(rows_BTD, mask_BT)
        return logits

    def outputs(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Those of `temporal`, from frames and their mask."""
        frames_BTCHW, mask_BT = inputs
        return named_outputs(self.temporal, self.encode(frames_BTCHW, mask_BT), mask_BT)

    def encode(self, frames_BTCHW: Tensor, mask_BT: Tensor, *, chunk: int | None = None) -> Tensor:
        """Rows (B,T,D) of the encoder's first output; 0 at padded frames, which are never encoded."""
        frames_NCHW = frames_BTCHW[mask_BT]
        if len(frames_NCHW) == 0:
            message = f"all {mask_BT.numel()} frames are padded; a batch needs at least one real frame."
            raise ValueError(message)
        if chunk is not None:
            check_positive("chunk", chunk)
        output = self.spatial.outputs[0]
        pieces = [self.spatial(piece)[output] for piece in torch.split(frames_NCHW, chunk or len(frames_NCHW))]
        rows_ND = torch.cat(pieces)
        if rows_ND.ndim != 2:
            message = f"output {output!r} has shape {tuple(rows_ND.shape[1:])} per frame, but a row must be a vector."
            raise ValueError(message + " Ask for a pooled output first.")
        rows_BTD = rows_ND.new_zeros(*mask_BT.shape, rows_ND.shape[1])
        rows_BTD[mask_BT] = rows_ND
        return rows_BTD
