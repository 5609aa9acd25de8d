"""What is done to training clips before the network sees them: augmented, normalised, erased, mixed.

Everything is drawn from the seed, the epoch and a clip's place in its order, so a resumed run sees the same clips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.augment.clips import Generators, augment
from reelwright.stages.augment.config import AugmentSettings
from reelwright.stages.augment.erasing import erase
from reelwright.stages.augment.resized_crop import ClipTransform
from reelwright.stages.augment.transforms import build_redraw
from reelwright.stages.datasets.sampling.generators import generators_at
from reelwright.stages.finetune.module import FrameNetwork
from reelwright.stages.fit.loop.batches import Batch, Origin
from reelwright.stages.fit.mixing import Mixing


class ClipAugmentation:
    """Makes normalised float clips (B, T, C, H, W) of batches of uint8 ones (B, T, H, W, C), and mixes them."""

    def __init__(
        self, module: FrameNetwork, settings: AugmentSettings, *, seed: int, mixing: Mixing | None = None
    ) -> None:
        """``module`` knows mean and standard deviation."""
        self.module, self.settings, self.seed, self.mixing = module, settings, seed, mixing
        self._redraw = build_redraw(settings, seed=seed) if settings.rand_augment_last else None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """The same batch, ready for the network; its targets are soft where it was mixed."""
        origin = batch.origin
        assert origin is not None

        def generators(purpose: str) -> Generators:
            return generators_at(self.seed, purpose, epoch=origin.epoch, places=origin.positions.tolist())

        x_BTCHW = augment(self.module.unit_range(batch.inputs["frames"]), self.settings, generators)
        if self._redraw is not None:
            x_BTCHW = self._redrawn(x_BTCHW, self._redraw, origin)
        x_BTCHW = self.module.normalised(x_BTCHW)
        if self.settings.erasing is not None:
            x_BTCHW = erase(x_BTCHW, self.settings.erasing, generators("erase"))
        prepared = replace(batch, inputs={**batch.inputs, "frames": x_BTCHW})
        return prepared if self.mixing is None else self.mixing(prepared)

    def _redrawn(self, x_BTCHW: Tensor, redraw: ClipTransform, origin: Origin) -> Tensor:
        """Clips in [0, 1] rounded to bytes, drawn anew, and in [0, 1] again."""
        clips = (x_BTCHW * 255).round().clamp(0, 255).byte().movedim(2, -1).cpu().numpy()
        drawn = [redraw(clip, origin.epoch, int(at)) for clip, at in zip(clips, origin.positions, strict=True)]
        return self.module.unit_range(torch.from_numpy(np.stack(drawn)).to(x_BTCHW.device))
