"""What is done to training clips before the network sees them: augmented, normalised, erased, mixed.

Everything is drawn from the seed, the epoch and a clip's place in its order, so a resumed run sees the same clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.finetune.augment import Generators, augment
from reelwright.stages.finetune.config import AugmentSettings
from reelwright.stages.finetune.erasing import erase
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.rand_augment import parse_rand_augment, rand_augment
from reelwright.stages.finetune.resized_crop import Crop, CropSettings, build_crop
from reelwright.stages.learning.batches import Batch, Origin
from reelwright.stages.learning.mixing import Mixing
from reelwright.stages.sampling.generators import generator_at, generators_at
from reelwright.storage.errors import ConfigError

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3) RGB
Redraw = Callable[[Frames, int, int], Frames]  # a clip, the epoch, its place in the epoch's order


def build_redraw(settings: AugmentSettings, *, seed: int) -> Redraw | None:
    """RandAugment of single clips, as the settings say; None without it. Raises ConfigError for a set too small."""
    if settings.rand_augment is None:
        return None
    try:
        how = parse_rand_augment(
            settings.rand_augment,
            interpolation=settings.rand_augment_interpolation,
            fill=settings.rand_augment_fill,
        )
    except ValueError as error:
        raise ConfigError(f"augment.rand_augment: {error}") from error
    return lambda frames, epoch, place: rand_augment(
        frames, how, generator_at(seed, "rand_augment", epoch=epoch, place=place)
    )


def crop_of(settings: AugmentSettings, geometry: Geometry, *, seed: int) -> Crop | None:
    """Random crops of single clips, as the settings say; None without them."""
    if settings.crop_scale is None:
        return None
    return build_crop(CropSettings(area=settings.crop_scale, aspect=settings.crop_aspect), geometry, seed=seed)


@dataclass(frozen=True)
class Preparation:
    """Makes normalised float clips (B, T, C, H, W) of batches of uint8 ones (B, T, H, W, C)."""

    module: FinetuneModule  # knows mean and standard deviation
    settings: AugmentSettings = field(kw_only=True)
    seed: int = field(kw_only=True)
    redraw_last: Redraw | None = field(default=None, kw_only=True)  # where it comes first, reading does it
    mixing: Mixing | None = field(default=None, kw_only=True)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """The same batch, ready for the network; its targets are soft where it was mixed."""
        origin = batch.origin
        assert origin is not None

        def generators(purpose: str) -> Generators:
            return generators_at(self.seed, purpose, epoch=origin.epoch, places=origin.positions.tolist())

        x_BTCHW = augment(self.module.unit_range(batch.inputs["frames"]), self.settings, generators)
        if self.redraw_last is not None:
            x_BTCHW = self._redrawn(x_BTCHW, self.redraw_last, origin)
        x_BTCHW = self.module.normalised(x_BTCHW)
        if self.settings.erasing is not None:
            x_BTCHW = erase(x_BTCHW, self.settings.erasing, generators("erase"))
        prepared = replace(batch, inputs={**batch.inputs, "frames": x_BTCHW})
        return prepared if self.mixing is None else self.mixing(prepared)

    def _redrawn(self, x_BTCHW: Tensor, redraw: Redraw, origin: Origin) -> Tensor:
        """Clips in [0, 1] rounded to bytes, drawn anew, and in [0, 1] again."""
        clips = (x_BTCHW * 255).round().clamp(0, 255).byte().movedim(2, -1).cpu().numpy()
        drawn = [redraw(clip, origin.epoch, int(at)) for clip, at in zip(clips, origin.positions, strict=True)]
        return self.module.unit_range(torch.from_numpy(np.stack(drawn)).to(x_BTCHW.device))
