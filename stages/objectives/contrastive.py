"""Losses that compare the embeddings of a batch: supervised contrastive, SimCLR, triplets; and cross entropy beside."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from reelwright.models.contracts import Inputs, Outputs
from reelwright.models.losses.contrastive import (
    TripletLoss,
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    nearest_accuracy,
    supervised_contrastive_loss,
)
from reelwright.stages.objectives.contract import LossParts, Objective
from reelwright.stages.objectives.self_supervised import ranked_cross_entropy


class Contrast(Objective):
    """The loss ``name``; targets are classes, 0 the background (of simclr, numbers of frames)."""

    def __init__(self, name: str, *, temperature: float, margin: float, exclude_background: bool) -> None:
        super().__init__()

        def contrastive(z_BE: Tensor, label_B: Tensor) -> Tensor:
            return supervised_contrastive_loss(
                z_BE[:, None],
                label_B,
                temperature=temperature,
                base_temperature=None,
                exclude_background=exclude_background,
            )

        def triplets(find: Callable[..., TripletLoss]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda z_BE, label_B: find(z_BE, label_B, margin=margin, exclude_background=exclude_background).loss

        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "supcon": contrastive,
            "simclr": contrastive,  # with a label for each frame and its copies
            "batch_all": triplets(batch_all_triplet_loss),
            "batch_hard": triplets(batch_hard_triplet_loss),
            "ce": functional.cross_entropy,
        }
        self.loss = losses[name]
        self.output = "logits" if name == "ce" else "embedding"
        self.gathers = () if name == "ce" else ("embedding", "targets")
        self.num_views = 2 if name == "simclr" else 1

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective; of simclr with `nearest_accuracy` beside it (`accuracy_1`, `accuracy_5`)."""
        values, label_B = outputs[self.output].float(), batch["targets"]
        loss = self.loss(values, label_B)
        if self.num_views == 1:
            return LossParts(loss)
        shares = {f"accuracy_{top}": nearest_accuracy(values.detach(), label_B, top=top) for top in (1, 5)}
        return LossParts(loss, measures=shares)


class RankedClasses(Objective):
    """Cross entropy of `logits` (B,K) and classes (B,), with the accuracies of `ranked_cross_entropy` beside it."""

    def forward(self, outputs: Outputs, batch: Inputs) -> LossParts:
        """See Objective."""
        return ranked_cross_entropy(outputs["logits"].float(), batch["targets"])
