"""Mixup and cutmix in training: draws for each batch, its inputs mixed on the device, its targets made soft.

Draws follow from the seed, the epoch and the place of the batch in it, so a resumed run mixes as it would have. Of
several processes each mixes within its own share of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reelwright.models.heads import Head, mix_head_targets, soft_head_targets
from reelwright.models.mixing import (
    Mix,
    MixSettings,
    draw_mix,
    mix_clips,
    mix_labels,
    mix_rows,
    mix_targets,
    window_share,
)
from reelwright.models.soft_targets import soft_targets
from reelwright.stages.learning.batches import Batch
from reelwright.stages.learning.config import LearningSettings
from reelwright.stages.learning.world import World
from reelwright.stages.sampling.generators import generator_at
from reelwright.storage.errors import ConfigError

Mixed = tuple[Tensor, Tensor]  # rows or frames, mixed, and the share of itself that each target keeps
MixInputs = Callable[[Tensor, Tensor, Mix, str], Mixed]  # values, mask (B, T), what was drawn, task


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixes the rows or frames of batches, and their targets."""

    settings: MixSettings
    mix_inputs: MixInputs
    num_extents: int  # sides of a cut: 1 a stretch of rows, 2 a box of pixels
    task: str
    num_classes: int
    label_smoothing: float
    seed: int
    heads: Sequence[Head] = ()  # of task heads

    def __call__(self, batch: Batch) -> Batch:
        """The same batch, mixed: targets are shares of classes (..., K) float32, labels in [0, 1] for multi_label."""
        name = "rows" if self.num_extents == 1 else "frames"
        values, mask = batch.inputs[name], batch.inputs["mask"]
        assert batch.origin is not None
        generator = generator_at(
            self.seed, "mix", epoch=batch.origin.epoch, place=int(batch.origin.positions[0]) if len(batch) else 0
        )
        extent = values.shape[1:2] if self.num_extents == 1 else values.shape[-2:]
        drawn = draw_mix(self.settings, len(batch), extent=extent, generator=generator)
        mixed, share = self.mix_inputs(values, mask, drawn, self.task)
        return replace(batch, inputs={**batch.inputs, name: mixed}, targets=self._targets(batch.targets, share))

    def _targets(self, targets: Tensor, share: Tensor) -> Tensor:
        if self.task == "multi_label":
            return mix_labels(targets, share)
        if self.task == "heads":
            return mix_head_targets(soft_head_targets(targets, self.heads), share, self.heads)
        return mix_targets(soft_targets(targets, num_classes=self.num_classes, smoothing=self.label_smoothing), share)


def mix_windows(rows_BTD: Tensor, mask_BT: Tensor, mix: Mix, task: str) -> Mixed:
    """Mix windows of rows. What a target keeps is what its rows keep: each its own, the last, or the mean of them."""
    mixed, share_BT = mix_rows(rows_BTD, mask_BT, mix)
    if task == "per_row":
        return mixed, share_BT
    if task == "last_row":
        last_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1) - 1
        return mixed, torch.gather(share_BT, 1, last_B1).squeeze(1)
    return mixed, window_share(share_BT, mask_BT)


def mix_frames(frames_BTCHW: Tensor, _mask_BT: Tensor, mix: Mix, _task: str) -> Mixed:
    """Mix clips: every frame, and so every target, keeps the same share."""
    return mix_clips(frames_BTCHW, mix)


def build_mixing(
    config: LearningSettings,
    mix_inputs: MixInputs,
    *,
    num_extents: int,
    task: str,
    num_classes: int,
    world: World,
    heads: Sequence[Head] = (),
) -> Mixing | None:
    """What ``config.mix`` asks for; None where it asks for nothing.

    Raises ConfigError where a process would have a single window to mix with itself.
    """
    if config.mix is None:
        return None
    if config.batch_size // world.size < 2:
        raise ConfigError(
            f"mix: batch_size is {config.batch_size}, shared by {world.size} processes, which leaves some of them a "
            f"single window, with none to mix it with. Set batch_size to at least {2 * world.size}, or mix: null."
        )
    return Mixing(
        settings=MixSettings(**config.mix.model_dump()),
        mix_inputs=mix_inputs,
        num_extents=num_extents,
        task=task,
        num_classes=num_classes,
        label_smoothing=config.loss.label_smoothing,
        seed=config.seed,
        heads=heads,
    )
