"""What is minimised: named outputs of a model and the batch that they are of -> loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from reelwright.models.blocks.gathering import gather_rows
from reelwright.models.contracts import Inputs, Outputs


@dataclass(frozen=True)
class LossParts:
    """The loss of a batch, which is learned from, and the parts that are logged beside it."""

    total: Tensor  # a mean: what it was divided by is `Objective.weight`
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # they add up to it; empty where it has no parts
    measures: Mapping[str, Tensor] = field(default_factory=dict)  # means over the same items, logged beside the loss


class Objective(nn.Module):
    """Subclasses give the loss of a batch.

    Buffers (a queue, a target network) are kept in checkpoints, those of the first process. Parameters are not trained:
    what learns belongs to the model.
    """

    num_views: int = 1  # of each item, side by side in the batch; 2 for pairs that are to be alike
    gathers: tuple[str, ...] = ()  # outputs and entries of the batch that it compares: those of all processes
    step: int = 0  # finished updates of all epochs; set before each, for what changes in the course of the training
    num_steps: int = 1  # updates of the whole training; set before the first
    epoch: int = 0  # finished epochs, likewise

    def start(self, module: nn.Module) -> None:
        """Called once, before the first update, with the model as it starts: a target network is a copy of it."""

    def model_inputs(self, inputs: Inputs) -> Inputs:
        """What of a batch the model sees; all, unless some views are of a target network alone."""
        return inputs

    def target_outputs(self, batch: Inputs) -> dict[str, Tensor]:
        """What networks of its own make of the batch of this process, without gradient: outputs beside the model's."""
        del batch
        return {}

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """The loss; each call names the same parts and measures. Evaluation calls it too, in eval mode.

        ``batch`` holds the inputs of the model by name, and `targets` (B, ...).
        """
        raise NotImplementedError

    def weight(self, batch: Inputs) -> Tensor | None:
        """What the loss of such a batch counts for beside others, so that parts of a batch add up to the whole.

        None: its number of items.
        """
        del batch
        return None

    def after_step(self, module: nn.Module, update: int) -> None:
        """Called after each update (1, 2, ...) of the weights of ``module``, as where a target network follows it."""


@dataclass(frozen=True)
class TargetSizes:
    """What a plug-in knows of the targets when it is made."""

    task: str  # video, last_row, majority, per_row, multi_label or heads
    counts: npt.NDArray[np.int64]  # (K,) training targets by class

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)


def batch_loss(
    objective: Objective, outputs: Outputs, batch: Inputs, *, is_shared: bool, is_counted: bool = True
) -> LossParts:
    """The loss of a batch; of one that is shared among processes, what the objective compares is gathered first.

    Then every process must call it, also with a stand-in, which is not counted.
    """
    if is_shared and objective.gathers:
        outputs, batch = (
            {name: gather_rows(v, is_counted=is_counted) if name in objective.gathers else v for name, v in of.items()}
            for of in (outputs, batch)
        )
    found: LossParts = objective(outputs, batch)
    return found
