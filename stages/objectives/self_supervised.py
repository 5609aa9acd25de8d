"""Two views of a video are to be alike, without labels: SimCLR, MoCo with its queue, BYOL with its target network.

Views of a video stand side by side. Of the model they read `aux.vector` and `aux.predicted` (ComparisonHeads), of the
batch `video` (B,) int64, which video each view is of. In several processes batch norms have the statistics of the whole
batch (synced_norm), those of the target network too: what shuffling of keys is to prevent in the public code, that a
pair is known by the statistics of its part of the batch, cannot be.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.contracts import Inputs, Outputs
from reelwright.models.losses.contrastive import (
    byol_loss,
    byol_momentum,
    moco_logits,
    simclr_logits,
    top_accuracy,
)
from reelwright.models.systems.embedding_head import PREDICTED, VECTOR, ComparisonHeads
from reelwright.stages.objectives.config import ComparisonSettings, SelfSupervisedSettings
from reelwright.stages.objectives.contract import LossParts, Objective

TARGET = "aux.target"  # what the target network makes of views


class SimClr(Objective):
    """See `simclr_logits`; each view's other one among all views of the batch."""

    num_views = 2
    gathers = (VECTOR,)

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective."""
        del batch
        z = outputs[VECTOR].float()
        return ranked_cross_entropy(*simclr_logits(z[::2], z[1::2], temperature=self.temperature))


class WithTarget(Objective):
    """An objective with a copy of the model that follows it slowly; only parameters are averaged (as published)."""

    num_views = 2

    def __init__(self) -> None:
        super().__init__()
        self.target: nn.Module | None = None
        self._learning: frozenset[str] = frozenset()  # names of modules that are in train mode while training

    def start(self, module: nn.Module) -> None:
        """See Objective."""
        is_training = module.training
        module.train()
        self._learning = frozenset(name for name, part in module.named_modules() if part.training)
        module.train(is_training)
        self.target = copy.deepcopy(module).requires_grad_(False)

    def momentum(self, update: int) -> float:
        """Share of itself that the target keeps at an update (1, 2, ...)."""
        raise NotImplementedError

    @torch.no_grad()
    def after_step(self, module: nn.Module, update: int) -> None:
        """See Objective: the target follows."""
        own = dict(module.named_parameters())
        followed = [(mean, own[name]) for name, mean in self._target().named_parameters()]
        torch._foreach_lerp_([m for m, _ in followed], [v.detach() for _, v in followed], 1 - self.momentum(update))

    def train(self, mode: bool = True) -> Self:
        """As of every module. What is frozen a model puts into eval mode, but the target's norms are as the model's."""
        super().train(mode)
        for name, part in [] if self.target is None else self.target.named_modules():
            part.training = mode and name in self._learning
        return self

    @torch.no_grad()
    def _answer(self, inputs: Inputs) -> Tensor:
        """What the target network makes of views, (B,E)."""
        found: Tensor = self._target()(inputs)[VECTOR]
        return found.float()

    def _target(self) -> nn.Module:
        if self.target is None:
            raise RuntimeError(f"{type(self).__name__} has no target network yet; call start(model) first.")
        return self.target


class MoCo(WithTarget):
    """Each query, of the first view, is told apart from the keys of a queue; see `moco_logits`.

    Queue, videos of its keys and pointer are buffers. A batch that does not fit in front of the end of the queue goes
    on at its beginning.
    """

    gathers = (VECTOR, TARGET, "video")
    queue: Tensor
    queue_video: Tensor
    pointer: Tensor

    def __init__(self, *, temperature: float, size: int, dim: int, momentum: float, seed: int) -> None:
        """`size` Q of the queue, which starts with random directions drawn from ``seed``; `dim` is E."""
        super().__init__()
        self.temperature, self._momentum = temperature, momentum
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("queue", functional.normalize(torch.randn(size, dim, generator=generator), dim=1))
        self.register_buffer("queue_video", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def momentum(self, update: int) -> float:
        """Constant."""
        del update
        return self._momentum

    def model_inputs(self, inputs: Inputs) -> Inputs:
        """See Objective: the model sees the first views."""
        return {name: value[::2] for name, value in inputs.items()}

    def target_outputs(self, batch: Inputs) -> dict[str, Tensor]:
        """See Objective: keys of the second views."""
        return {TARGET: functional.normalize(self._answer({name: value[1::2] for name, value in batch.items()}), dim=1)}

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective; in train mode the keys then take the place of the oldest ones."""
        video_B, key_BE = batch["video"][::2], outputs[TARGET]
        found = ranked_cross_entropy(
            *moco_logits(
                outputs[VECTOR].float(),
                key_BE,
                queue_QE=self.queue,
                queue_video_Q=self.queue_video,
                video_B=video_B,
                temperature=self.temperature,
            )
        )
        if self.training:
            self.enqueue(key_BE.detach(), video_B)
        return found

    def enqueue(self, key_BE: Tensor, video_B: Tensor) -> None:
        """Put keys of unit length at the pointer, and move it; of more keys than the queue holds the last stay."""
        size = len(self.queue)
        place_B = (self.pointer + torch.arange(len(key_BE), device=key_BE.device)) % size
        place_B, key_BE, video_B = (values[-size:] for values in (place_B, key_BE, video_B))
        # Not in place: the gradient of the logits still needs the queue that they were made with.
        self.queue = self.queue.index_copy(0, place_B, key_BE)
        self.queue_video = self.queue_video.index_copy(0, place_B, video_B)
        self.pointer = (place_B[-1] + 1) % size


class Byol(WithTarget):
    """A view's prediction is to be what the target network makes of the other view; see `byol_loss`."""

    def __init__(self, *, momentum: float) -> None:
        """`momentum` of the first update; it rises to 1 at the last (`byol_momentum`)."""
        super().__init__()
        self._base = momentum

    def momentum(self, update: int) -> float:
        """See byol_momentum."""
        return byol_momentum(update, self.num_steps, base=self._base)

    def target_outputs(self, batch: Inputs) -> dict[str, Tensor]:
        """See Objective: both views as the target network sees them."""
        return {TARGET: self._answer(batch)}

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective."""
        del batch
        target_BVE = outputs[TARGET].reshape(-1, 2, outputs[TARGET].shape[1])
        target = target_BVE.flip(1).flatten(0, 1)
        return LossParts(byol_loss(outputs[PREDICTED].float(), target))


def comparison_heads(settings: ComparisonSettings, num_features: int, *, seed: int) -> ComparisonHeads:
    """Heads on vectors of so many features, their weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ComparisonHeads(
            num_features,
            dim=settings.dim_used,
            hidden=settings.hidden,
            predictor_hidden=settings.predictor_used,
        )


def self_supervised_objective(settings: SelfSupervisedSettings, *, seed: int) -> Objective:
    """The loss that ``settings`` name; ``seed`` is of what a queue starts with."""
    if settings.name == "simclr":
        return SimClr(temperature=settings.temperature_used)
    if settings.name == "byol":
        return Byol(momentum=settings.momentum_used)
    return MoCo(
        temperature=settings.temperature_used,
        size=settings.queue,
        dim=settings.dim_used,
        momentum=settings.momentum_used,
        seed=seed,
    )


def ranked_cross_entropy(logits_NK: Tensor, target_N: Tensor) -> LossParts:
    """Cross entropy, and how often the target is the first, or among the first five (`accuracy_1`, `accuracy_5`)."""
    loss = functional.cross_entropy(logits_NK, target_N)
    with torch.no_grad():
        shares = {f"accuracy_{top}": top_accuracy(logits_NK, target_N, top=top) for top in (1, 5)}
    return LossParts(loss, measures=shares)
