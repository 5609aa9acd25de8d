"""What is minimised: named outputs of a model and the targets of a batch -> loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from reelwright.models.contracts import Outputs


@dataclass(frozen=True)
class LossParts:
    """The loss of a batch, which is learned from, and the parts that are logged beside it."""

    total: Tensor  # a mean: what it was divided by is `Objective.weight`
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # they add up to it; empty where it has no parts


class Objective(nn.Module):
    """Subclasses give the loss of a batch.

    Buffers (a queue, a target network) are kept in checkpoints, those of the first process. Parameters are not trained:
    what learns belongs to the model.
    """

    def forward(self, outputs: Outputs, targets: Tensor) -> LossParts:
        """The loss; each call names the same parts. Evaluation calls it too, in eval mode."""
        raise NotImplementedError

    def weight(self, targets: Tensor) -> Tensor | None:
        """What the loss of such a batch counts for beside others, so that parts of a batch add up to the whole.

        None: its number of items.
        """
        del targets
        return None

    def after_step(self, module: nn.Module, update: int) -> None:
        """Called after each update (1, 2, ...) of the weights of ``module``, as where a target network follows it."""
