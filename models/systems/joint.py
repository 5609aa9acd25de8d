"""An image encoder and a temporal model as one network, from frames to logits, for fine-tuning.

Shape letters: B batch, T rows of a window, C channels, H height, W width, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.contracts import Inputs, Part, VideoModel, prefixed
from reelwright.models.encoders.base import Encoder

_FRAMES_PER_CALL = 40  # of a frozen encoder; of no influence on the result


class JointModel(VideoModel):
    """`spatial` on every frame, then `temporal` on the rows."""

    def __init__(
        self, spatial: Encoder, temporal: VideoModel, *, frozen_norms: bool = False, takes_maps: bool = False
    ) -> None:
        """`frozen_norms`: batch norms of `spatial` keep their statistics; `takes_maps`: rows of `temporal` are maps.

        Raises ValueError for a video encoder, whose rows are clips and not frames.
        """
        super().__init__()
        if spatial.kind != "image":
            message = f"a joint model encodes single frames, but {type(spatial).__name__} is a {spatial.kind} encoder."
            raise ValueError(message + " Use a timm encoder.")
        self.spatial = spatial
        self.temporal = temporal
        self._frozen_norms = frozen_norms
        self._takes_maps = takes_maps

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """`spatial`, then what `temporal` consists of."""
        layers = {f"model.{name}": layer for name, layer in layer_ids(self.spatial.model).items()}
        spatial = Part(state="frozen_norms" if self._frozen_norms else "trained", layers=layers)
        return {"spatial": spatial, **prefixed("temporal", self.temporal.parts)}

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """Normalised `frames` (B,T,C,H,W) and their `mask` -> what `temporal` gives of their rows."""
        rows_BTD = self.encode(batch["frames"], batch["mask"])
        outputs: dict[str, Tensor] = self.temporal({**batch, "rows": rows_BTD})
        return outputs

    def encode(self, frames_BTCHW: Tensor, mask_BT: Tensor) -> Tensor:
        """Rows (B,T,D) or maps (B,T,C,H,W) of the encoder's first output; 0 at padded frames, which are never encoded.

        Where T is a multiple of the mask's length, each entry of it is of so many frames side by side (contexts).
        """
        mask_BT = mask_BT.repeat_interleave(frames_BTCHW.shape[1] // mask_BT.shape[1], dim=1)
        frames_NCHW = frames_BTCHW[mask_BT]
        if len(frames_NCHW) == 0:
            message = f"all {mask_BT.numel()} frames are padded; a batch needs at least one real frame."
            raise ValueError(message)
        output = self.spatial.outputs[0]
        rows_ND = self._rows(frames_NCHW, output)
        if rows_ND.ndim != 2 and not self._takes_maps:
            message = f"output {output!r} has shape {tuple(rows_ND.shape[1:])} per frame, but a row must be a vector."
            raise ValueError(message + " Ask for a pooled output first.")
        rows_BTD = rows_ND.new_zeros(*mask_BT.shape, *rows_ND.shape[1:])
        rows_BTD[mask_BT] = rows_ND
        return rows_BTD

    def _rows(self, frames_NCHW: Tensor, output: str) -> Tensor:
        if any(parameter.requires_grad for parameter in self.spatial.parameters()):
            rows: Tensor = self.spatial(frames_NCHW)[output]
            return rows
        # Frozen: without gradient and in eval mode (`VideoModel.train`), so that calls can be small.
        with torch.no_grad():
            return torch.cat([self.spatial(part)[output] for part in torch.split(frames_NCHW, _FRAMES_PER_CALL)])
