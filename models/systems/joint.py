"""An encoder and a temporal model as one network, from frames to logits, for fine-tuning.

    image encoder   a row a frame, so windows of rows     video encoder   the window is a clip, and so one row

Shape letters: B batch, T rows of a window, C channels, H height, W width, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.contracts import Inputs, Part, VideoModel, prefixed, put_rows, real_rows
from reelwright.models.encoders.base import Encoder

_FRAMES_PER_CALL = 40  # of a frozen encoder; of no influence on the result


class JointModel(VideoModel):
    """`spatial` on every frame (of a video encoder: on the clip), then `temporal` on the rows."""

    def __init__(
        self, spatial: Encoder, temporal: VideoModel, *, frozen_norms: bool = False, takes_maps: bool = False
    ) -> None:
        """`frozen_norms`: batch norms of `spatial` keep their statistics; `takes_maps`: rows of `temporal` are maps."""
        super().__init__()
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

    @property
    def sees_clips(self) -> bool:
        """Whether `spatial` sees windows as clips."""
        return self.spatial.kind == "video"

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """Normalised `frames` (B,T,C,H,W) and their `mask` -> what `temporal` gives of their rows."""
        mask_BT = batch["mask"]
        rows_BTD = self.encode(batch["frames"], mask_BT)
        of_rows = mask_BT.any(dim=1, keepdim=True) if self.sees_clips else mask_BT
        outputs: dict[str, Tensor] = self.temporal({**batch, "rows": rows_BTD, "mask": of_rows})
        return outputs

    def encode(self, frames_BTCHW: Tensor, mask_BT: Tensor) -> Tensor:
        """Rows (B,T,D) or maps (B,T,C,H,W) of the encoder's first output; 0 at padded frames, which are never encoded.

        Where T is a multiple of the mask's length, each entry of it is of so many frames side by side (contexts). Of a
        video encoder, which sees all frames, a row (B,1,D).
        """
        if self.sees_clips:
            per_call = max(1, _FRAMES_PER_CALL // frames_BTCHW.shape[1])
            return self._rows(frames_BTCHW.transpose(1, 2), self.spatial.outputs[0], per_call=per_call)[:, None]
        if (contexts := frames_BTCHW.shape[1] // mask_BT.shape[1]) > 1:
            mask_BT = mask_BT.repeat_interleave(contexts, dim=1)
        frames_NCHW = real_rows(frames_BTCHW, mask_BT)
        if len(frames_NCHW) == 0:
            raise ValueError(f"all {mask_BT.numel()} frames are padded; a batch needs at least one real frame.")
        output = self.spatial.outputs[0]
        rows_ND = self._rows(frames_NCHW, output, per_call=_FRAMES_PER_CALL)
        if rows_ND.ndim != 2 and not self._takes_maps:
            message = f"output {output!r} has shape {tuple(rows_ND.shape[1:])} per frame, but a row must be a vector."
            raise ValueError(message + " Ask for a pooled output first.")
        return put_rows(rows_ND, mask_BT)

    def _rows(self, frames: Tensor, output: str, *, per_call: int) -> Tensor:
        """Rows (N,...) of frames (N,C,H,W) or clips (N,C,T,H,W)."""
        if any(parameter.requires_grad for parameter in self.spatial.parameters()):
            rows: Tensor = self.spatial(frames)[output]
            return rows
        # Frozen: without gradient and in eval mode (`VideoModel.train`), so that calls can be small.
        with torch.no_grad():
            return torch.cat([self.spatial(part)[output] for part in torch.split(frames, per_call)])
