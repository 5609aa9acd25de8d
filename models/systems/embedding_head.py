"""Heads for learning by comparison: an embedding behind an image encoder, and what is thrown away after training.

STORM-PSR's spatial encoder: Linear, BatchNorm, ReLU, then unit length, so that embeddings have no negative part.
Where two views of a video are compared (SimCLR, MoCo, BYOL):

    view -> network -> `embedding` (kept) -> projector -> `aux.vector` -> predictor (BYOL) -> `aux.predicted`

Shape letters: B batch, T rows of a view, C channels, H height, W width, D features, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.contracts import Inputs, Part, VideoModel, prefixed
from reelwright.models.encoders.base import Encoder
from reelwright.models.option_checks import check_positive
from reelwright.models.temporal.common import pool_mean

VECTOR, PREDICTED = "aux.vector", "aux.predicted"  # outputs (B,E), which only the loss sees
NETWORK = "network."  # of the weights of what is kept, in a run of `SelfSupervisedRows`


class EmbeddingEncoder(Encoder):
    """`encoder` whose output `pooled` is the embedding (B,E); its other outputs stay as they are.

    Weights are named `backbone.*`, as the encoder's own are, and `embedding.*`.
    """

    def __init__(self, encoder: Encoder, embed_dim: int, *, num_features: int) -> None:
        """`num_features` is D of the encoder's pooled output. Raises ValueError for a video encoder, or no `pooled`."""
        super().__init__()
        check_positive("embed_dim", embed_dim)
        if encoder.kind != "image" or "pooled" not in encoder.outputs:
            raise ValueError(
                f"an embedding is made of the pooled output of an image encoder; this is one of {encoder.kind} with "
                f"outputs {', '.join(encoder.outputs)}. Use a timm encoder, and ask for pooled."
            )
        self.kind, self.data_config, self.outputs = encoder.kind, encoder.data_config, encoder.outputs
        head = nn.Sequential(nn.Linear(num_features, embed_dim), nn.BatchNorm1d(embed_dim), nn.ReLU())
        self.model = nn.ModuleDict({"backbone": encoder.model, "embedding": head})
        self.is_reentrant = encoder.is_reentrant
        self._inner = (encoder,)  # in a tuple, or its parameters would be listed twice

    def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        """As of Encoder; `pooled` is of unit length."""
        found = self._inner[0](x_BCHW)
        return {**found, "pooled": functional.normalize(self._head(found["pooled"]), dim=1)}

    def unscaled(self, x_BCHW: Tensor) -> Tensor:
        """The embedding (B,E) before it is brought to unit length, as a classifier reads it."""
        return self._head(self._inner[0](x_BCHW)["pooled"])

    def _head(self, pooled_BD: Tensor) -> Tensor:
        return cast("Tensor", cast("nn.ModuleDict", self.model)["embedding"](pooled_BD))


class ProjectionHead(nn.Module):
    """Linear, BatchNorm, ReLU, Linear, then unit length: what a contrastive loss sees, thrown away afterwards."""

    def __init__(self, dim: int, *, hidden: int | None = None) -> None:
        """`hidden` None: as many features as `dim`."""
        super().__init__()
        inner = hidden or dim
        self.layers = nn.Sequential(nn.Linear(dim, inner), nn.BatchNorm1d(inner), nn.ReLU(), nn.Linear(inner, dim))

    def forward(self, x_BE: Tensor) -> Tensor:
        """(B,E) -> (B,E) of unit length."""
        projected: Tensor = functional.normalize(self.layers(x_BE), dim=1)
        return projected


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
