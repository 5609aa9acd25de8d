"""An image encoder of timm on frames of a clip, so that a clip is one row, as it is for video encoders.

Shape letters: B batch, T frames of a clip, F those that are encoded, C channels, H height, W width, N tokens, D
features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from reelwright.models.encoders.base import DataConfig
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
        found = super().forward(seen_BCFHW.transpose(1, 2).flatten(0, 1))
        return {output.name: _of_clips(found[output.name], output.form, len(x_BCTHW)) for output in self._parsed}


def _of_clips(value: Tensor, form: str, num_clips: int) -> Tensor:
    value_BF = value.reshape(num_clips, -1, *value.shape[1:])
    if form == "map":
        return value_BF.transpose(1, 2)
    return value_BF.mean(dim=1) if form in ("pooled", "logits") else value_BF.flatten(1, 2)


def build_frames(
    name: str,
    *,
    outputs: Sequence[str],
    pretrained: bool,
    model_args: Mapping[str, object] | None,
    num_classes: int | None,
) -> FramesEncoder:
    """Timm's `name` on frames of clips. `model_args` are timm's, `clip_length` (16) and `every` (2)."""
    arguments: dict[str, Any] = dict(model_args or {})
    clips = {key: arguments.pop(key) for key in ("clip_length", "every") if key in arguments}
    model = create_timm(name, outputs=outputs, pretrained=pretrained, model_args=arguments, num_classes=num_classes)
    return FramesEncoder(model, name=name, outputs=outputs, input_size=overridden_size(arguments), **clips)
