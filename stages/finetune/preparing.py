"""What is done to training clips on the device before the network sees them: augmented, normalised, mixed.

Everything is drawn from the seed, the epoch and a clip's place in its order, so a resumed run sees the same clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from reelwright.stages.finetune.augment import Generators, augment
from reelwright.stages.finetune.config import AugmentSettings
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.learning.batches import Batch
from reelwright.stages.learning.mixing import Mixing
from reelwright.stages.sampling.generators import generators_at


@dataclass(frozen=True)
class Preparation:
    """Makes normalised float clips (B, T, C, H, W) of batches of uint8 ones (B, T, H, W, C)."""

    module: FinetuneModule  # knows mean and standard deviation
    settings: AugmentSettings = field(kw_only=True)
    seed: int = field(kw_only=True)
    mixing: Mixing | None = field(default=None, kw_only=True)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """The same batch, ready for the network; its targets are soft where it was mixed."""
        frames_BTHWC, *others = batch.inputs
        origin = batch.origin
        assert origin is not None

        def generators(purpose: str) -> Generators:
            return generators_at(self.seed, purpose, epoch=origin.epoch, places=origin.positions.tolist())

        x_BTCHW = augment(self.module.unit_range(frames_BTHWC), self.settings, generators)
        prepared = replace(batch, inputs=(self.module.normalised(x_BTCHW), *others))
        return prepared if self.mixing is None else self.mixing(prepared)
