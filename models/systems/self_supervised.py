"""What is learned beside a network that compares two views without labels, and thrown away afterwards.

    video -> network -> `embedding` (kept) -> projector -> `aux.vector` -> predictor (BYOL) -> `aux.predicted`

Shape letters: B views, T rows of a view, D features, E size of what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.contracts import Inputs, Part, VideoModel, prefixed
from reelwright.models.temporal.common import pool_mean

VECTOR, PREDICTED = "aux.vector", "aux.predicted"  # outputs (B,E), which only the loss sees
NETWORK = "network."  # of the weights of what is kept, in a run of `SelfSupervisedRows`


class ComparisonHeads(nn.Module):
    """Projector: linear, SiLU, linear (fractal_video); behind it a predictor (BYOL): linear, norm, ReLU, linear."""

    def __init__(self, num_features: int, *, dim: int, hidden: int, predictor_hidden: int | None) -> None:
        """`num_features` is D, `dim` E; `predictor_hidden` None: no predictor."""
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(num_features, hidden), nn.SiLU(), nn.Linear(hidden, dim))
        self.predictor = None
        if predictor_hidden is not None:
            self.predictor = nn.Sequential(
                nn.Linear(dim, predictor_hidden),
                nn.BatchNorm1d(predictor_hidden),
                nn.ReLU(),
                nn.Linear(predictor_hidden, dim),
            )

    def forward(self, x_BD: Tensor) -> dict[str, Tensor]:
        """(B,D) -> `aux.vector` (B,E), and `aux.predicted` (B,E) where there is a predictor."""
        vector_BE = self.projector(x_BD)
        return {VECTOR: vector_BE} | ({} if self.predictor is None else {PREDICTED: self.predictor(vector_BE)})


class SelfSupervisedRows(VideoModel):
    """A model that embeds rows, and heads on the mean of its `embedding` over the real rows of a view."""

    def __init__(self, network: VideoModel, heads: ComparisonHeads) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """Those of the network, then the heads."""
        return {**prefixed("network", self.network.parts), "heads": Part(layers=layer_ids(self.heads))}

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """The network's outputs, and those of ComparisonHeads."""
        outputs = self.network(batch)
        embedding = outputs["embedding"]
        pooled_BD = embedding if embedding.ndim == 2 else pool_mean(embedding, batch["mask"])
        return {**outputs, **self.heads(pooled_BD)}

    def video_positions(self, num_rows: int) -> Tensor | None:
        """Those of the network."""
        return self.network.video_positions(num_rows)


@torch.no_grad()
def embedding_size(network: VideoModel, batch: Inputs) -> int:
    """D of the network's `embedding` of a batch. Raises ValueError where it gives none."""
    was_training = network.training
    outputs = network.eval()(batch)
    network.train(was_training)
    if "embedding" not in outputs:
        raise ValueError(
            f"{type(network).__name__} gives {', '.join(sorted(outputs))}, but views are compared by their `embedding`."
        )
    return int(outputs["embedding"].shape[-1])
