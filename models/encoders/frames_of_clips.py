"""An image encoder of timm on frames of a clip, so that a clip is one row, as it is for video encoders.

Shape letters: B batch, T frames of a clip, F those that are encoded, C channels, H height, W width, N tokens, D
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from reelwright.models.encoders.base import DataConfig, EncoderRequest
from reelwright.models.encoders.timm_encoders import TimmEncoder, create_timm, overridden_size

CLIP_LENGTH, EVERY = 16, 2  # frames of a clip, and of these the last of every so many (CAST's spatial expert)


class FramesEncoder(TimmEncoder):
    """A timm network on the last of every `every` frames: clips x_BCTHW -> one tensor per output.

    `pooled` and `logits` are means over the encoded frames; `tokens` and `blockK.input` of frame after frame, prefix
    tokens in front of each, lie one behind the other (B,F*N,D); `map` is (B,C,F,H,W). Layers are those of TimmEncoder.
    """

    kind = "video"

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        outputs: Sequence[str],
        clip_length: int = CLIP_LENGTH,
        every: int = EVERY,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """Wrap `model`; ValueError where clips of that length have no last of every so many frames."""
        super().__init__(model, name=name, outputs=outputs, input_size=input_size)
        if clip_length < 1 or every < 1 or clip_length % every:
            raise ValueError(f"clip_length {clip_length} must be a multiple of every {every}, both at least 1.")
        self.every = every
        self.data_config: DataConfig = replace(self.data_config, clip_length=clip_length)

    def forward(self, x_BCTHW: Tensor) -> dict[str, Tensor]:
        """x_BCTHW normalised -> tensors by output name. Raises ValueError where `every` does not divide T."""
        if x_BCTHW.shape[2] % self.every:
            raise ValueError(f"clips of {x_BCTHW.shape[2]} frames are no multiple of every {self.every}.")
        seen_BCFHW = x_BCTHW[:, :, self.every - 1 :: self.every]
        return self.of_clips(super().forward(seen_BCFHW.transpose(1, 2).flatten(0, 1)), num_clips=len(x_BCTHW))


def build_frames(request: EncoderRequest) -> FramesEncoder:
    """A network of timm's on frames of clips. `model_args` are timm's, `clip_length` (16) and `every` (2)."""
    arguments: dict[str, Any] = dict(request.model_args)
    clips = {key: arguments.pop(key) for key in ("clip_length", "every") if key in arguments}
    model, size = create_timm(replace(request, model_args=arguments)), overridden_size(arguments)
    return FramesEncoder(model, name=request.name, outputs=request.outputs, input_size=size, **clips)
