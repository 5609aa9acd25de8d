"""The networks that finetune trains, or did: bytes of frames in, normalisation on the device, logits out.

Shape letters: B windows, T frames of a window, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from reelwright.models.contracts import ClipModel, Inputs, Part, VideoModel, prefixed
from reelwright.models.encoders.build import DataConfig, Encoder
from reelwright.models.systems.joint import JointModel
from reelwright.stages.base.inputs import unchanged_run
from reelwright.stages.base.work import InputRef
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.clip_models import frames_seen
from reelwright.stages.embed.encoding.encoder import build_from_config
from reelwright.stages.embed.encoding.forward import choose_layout
from reelwright.stages.finetune.config import PARTS, FinetuneConfig
from reelwright.stages.fit.run_models import load_run_model
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store


class FrameNetwork(VideoModel):
    """Base of networks that are fed with uint8 frames, or with what `preparing` made of them."""

    mean: Tensor
    std: Tensor

    def see_as(self, data_config: DataConfig) -> None:
        """Take mean and standard deviation of [0, 1] RGB; they are no part of the state."""
        for name in ("mean", "std"):
            values = torch.tensor(getattr(data_config, name)).reshape(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def as_wanted(self, frames: Tensor) -> Tensor:
        """Normalised float frames (B,T,C,H,W) of uint8 ones (B,T,H,W,C); those that are float already stay."""
        return frames if frames.is_floating_point() else self.normalised(self.unit_range(frames))

    def unit_range(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames as float (B,T,C,H,W) in [0, 1]; those of pictures (B,H,W,C) as (B,C,H,W)."""
        return frames_BTHWC.movedim(-1, -3).to(self.mean.dtype) / 255

    def normalised(self, x_BTCHW: Tensor) -> Tensor:
        """Frames in [0, 1] as the network wants them."""
        return (x_BTCHW - self.mean) / self.std

    def set_up(self, config: FinetuneConfig, *, device: torch.device, where: str) -> None:
        """Freeze what the settings say, and choose the layout of pictures. Raises ConfigError as `freeze`."""
        freeze(self, config.frozen, where=where)
        choose_layout(self.sees_pixels, config.channels_last, device=device)

    @property
    def sees_pixels(self) -> nn.Module:
        """What of the network sees pictures."""
        return self


class FinetuneModule(FrameNetwork, JointModel):
    """An encoder and a model of its rows. Its state is that of the two parts, `spatial.*` and `temporal.*`."""

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
        self.see_as(data_config)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """As of JointModel; in eval mode frames that `first_shown` (B,T) names alike are encoded once."""
        first_BT = batch.get("first_shown")
        if first_BT is None or self.training or self.sees_clips:
            return super().forward(batch)
        mask_BT = batch["mask"]
        first_N, of_first = torch.unique(first_BT[mask_BT], return_inverse=True)
        frames_1N = batch["frames"].flatten(0, 1)[first_N][None]
        rows_ND = self.encode(frames_1N, torch.ones_like(first_N, dtype=torch.bool)[None])[0]
        rows_BTD = rows_ND.new_zeros(*mask_BT.shape, *rows_ND.shape[1:])
        rows_BTD[mask_BT] = rows_ND[of_first]
        outputs: dict[str, Tensor] = self.temporal({**batch, "rows": rows_BTD})
        return outputs

    def encode(self, frames: Tensor, mask_BT: Tensor) -> Tensor:
        """As of JointModel, of frames (B,T,H,W,C) uint8, or normalised float (B,T,C,H,W).

        Video encoders, which know no mask, are shown black frames in the place of padded ones, as embed shows them.
        """
        x_BTCHW = self.as_wanted(frames)
        if self.sees_clips:
            x_BTCHW = torch.where(mask_BT[:, :, None, None, None], x_BTCHW, -self.mean / self.std)
        return super().encode(x_BTCHW, mask_BT)

    @property
    def sees_pixels(self) -> nn.Module:
        """See FrameNetwork."""
        return self.spatial


class ClipNetwork(FrameNetwork):
    """A clip model; its state is `model.*`."""

    def __init__(self, model: ClipModel, *, data_config: DataConfig, heads: Mapping[str, int]) -> None:
        """``heads`` are the names of those whose logits are to lie side by side in `logits`; empty: there is one."""
        super().__init__()
        self.model, self._heads = model, tuple(heads)
        self.see_as(data_config)

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """Those of the model."""
        return prefixed("model", self.model.parts)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """What the model gives of `frames`, uint8 or float as of `as_wanted`, and `mask` (B,T)."""
        outputs: dict[str, Tensor] = self.model({**batch, "frames": self.as_wanted(batch["frames"])})
        if self._heads and "logits" not in outputs:
            outputs = {**outputs, "logits": torch.cat([outputs[f"logits.{name}"] for name in self._heads], dim=-1)}
        return outputs


def freeze(module: VideoModel, patterns: Sequence[str], *, where: str) -> None:
    """Freeze parameters whose name fits a part or a pattern. ConfigError for one that fits nothing."""
    names = dict(module.named_parameters())
    parts = [part for part in PARTS if hasattr(module, part)]
    for pattern in patterns:
        fits = [name for name in names if fnmatchcase(name, f"{pattern}.*" if pattern in parts else pattern)]
        if not fits:
            raise ConfigError(
                f"{where}: freeze: {pattern!r} fits no parameter. Give {''.join(f'{part}, ' for part in parts)}"
                f"{'or ' if parts else ''}a pattern of names, as in {', '.join(list(names)[:3])}."
            )
        for name in fits:
            names[name].requires_grad = False
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ConfigError(f"{where}: freeze: {', '.join(patterns)} freezes every parameter; nothing is left to learn.")


def load_network(run: InputRef, *, store: Store, plugins: Mapping[str, Any]) -> FrameNetwork:
    """The network of a run that sees clips (`frames_seen`), in eval mode on the CPU.

    Raises what `load_run_model` raises, ConfigError for a run that sees no clips.
    """
    with unchanged_run(store, run) as folder:
        model, values = load_run_model(folder, plugins=plugins)
    seen = frames_seen(values)
    if seen is None:
        raise ConfigError(f"run {run.node} sees no clips of frames, its model reads rows")
    if isinstance(model, ClipModel):
        return ClipNetwork(model, data_config=seen, heads=values["model"]["heads"]).eval()
    wanted = EmbedConfig(run=run.node, outputs=(str(values["output"]),))
    loaded = build_from_config(wanted, store=store, run=run, where=run.node, plugins=plugins)
    return FinetuneModule(loaded.encoder, model, data_config=seen, frozen_norm=True).eval()
