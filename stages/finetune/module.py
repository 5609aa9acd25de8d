"""The network that finetune trains: bytes of frames in, normalisation on the device, logits out.

Shape letters: B windows, T frames of a window, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from reelwright.models.contracts import VideoModel
from reelwright.models.encoders.build import DataConfig, Encoder
from reelwright.models.systems.joint import JointModel
from reelwright.stages.finetune.config import PARTS, FinetuneConfig
from reelwright.storage.errors import ConfigError


class FinetuneModule(JointModel):
    """A JointModel fed with uint8 frames, or with what `preparing` made of them.

    Its state is that of the two parts, `spatial.*` and `temporal.*`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spatial: Encoder,
        temporal: VideoModel,
        *,
        data_config: DataConfig,
        frozen_norm: bool,
        takes_maps: bool = False,
    ) -> None:
        super().__init__(spatial, temporal, frozen_norms=frozen_norm, takes_maps=takes_maps)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(data_config, name)).reshape(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def encode(self, frames: Tensor, mask_BT: Tensor) -> Tensor:
        """Rows (B,T,D) of frames (B,T,H,W,C) uint8, or of normalised float (B,T,C,H,W)."""
        x_BTCHW = frames if frames.is_floating_point() else self.normalised(self.unit_range(frames))
        return super().encode(x_BTCHW, mask_BT)

    def set_up(self, config: FinetuneConfig, *, device: torch.device, where: str) -> None:
        """Freeze what the settings say, and choose the layout of pictures. Raises ConfigError as `freeze`."""
        freeze(self, config.frozen, where=where)
        if config.channels_last or (config.channels_last is None and device.type == "cuda"):
            self.spatial.to(memory_format=torch.channels_last)

    def unit_range(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames as float (B,T,C,H,W) in [0, 1]."""
        return frames_BTHWC.movedim(-1, 2).to(self.mean.dtype) / 255

    def normalised(self, x_BTCHW: Tensor) -> Tensor:
        """Frames in [0, 1] as the encoder wants them."""
        return (x_BTCHW - self.mean) / self.std


def freeze(module: FinetuneModule, patterns: Sequence[str], *, where: str) -> None:
    """Freeze parameters whose name fits a part or a pattern. ConfigError for one that fits nothing."""
    names = dict(module.named_parameters())
    for pattern in patterns:
        fits = [name for name in names if fnmatchcase(name, f"{pattern}.*" if pattern in PARTS else pattern)]
        if not fits:
            raise ConfigError(
                f"{where}: freeze: {pattern!r} fits no parameter. Give spatial, temporal, or a pattern of names, as in "
                f"{', '.join(list(names)[:3])}."
            )
        for name in fits:
            names[name].requires_grad = False
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ConfigError(f"{where}: freeze: {', '.join(patterns)} freezes every parameter; nothing is left to learn.")
