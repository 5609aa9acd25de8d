"""Mixup and cutmix in training: draws for each batch, its inputs mixed on the device, its targets made soft.

Draws follow from the seed, the epoch and the place of the batch in it, so a resumed run mixes as it would have. Of
several processes each mixes within its own share of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from reelwright.models.blocks.mixing import Mix, MixDistribution, draw_mix, mix_clips, mix_rows
from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.loop.batches import Batch
from reelwright.stages.fit.processes.world import World
from reelwright.storage.errors import ConfigError

Mixed = tuple[Tensor, Tensor]  # rows or frames, mixed, and the share of itself that each target keeps
MixInputs = Callable[[Tensor, Tensor, Mix, Task], Mixed]  # values, mask (B, T), what was drawn, task


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixes the rows or frames of batches, and their targets."""

    settings: MixDistribution
    mix_inputs: MixInputs
    num_extents: int  # sides of a cut: 1 a stretch of rows, 2 a box of pixels
    task: Task
    label_smoothing: float
    seed: int

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
        targets = self.task.mixed_targets(batch.targets, share, label_smoothing=self.label_smoothing)
        return replace(batch, inputs={**batch.inputs, name: mixed}, targets=targets)


def mix_windows(rows_BTD: Tensor, mask_BT: Tensor, mix: Mix, task: Task) -> Mixed:
    """Mix windows of rows. What a target keeps is what its rows keep: each its own, the last, or the mean of them."""
    mixed, share_BT = mix_rows(rows_BTD, mask_BT, mix)
    return mixed, task.kept_share(share_BT, mask_BT)


def mix_frames(frames_BTCHW: Tensor, _mask_BT: Tensor, mix: Mix, _task: Task) -> Mixed:
    """Mix clips: every frame, and so every target, keeps the same share."""
    return mix_clips(frames_BTCHW, mix)


def build_mixing(
    config: LearningSettings, mix_inputs: MixInputs, *, num_extents: int, task: Task, world: World
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
        settings=MixDistribution(**config.mix.model_dump()),
        mix_inputs=mix_inputs,
        num_extents=num_extents,
        task=task,
        label_smoothing=config.loss.label_smoothing,
        seed=config.seed,
    )
