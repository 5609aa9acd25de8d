"""An image encoder with a small head behind it: pooled features -> embedding of unit length, for contrastive learning.

STORM-PSR's spatial encoder: Linear, BatchNorm, ReLU, then unit length, so that embeddings have no negative part.
Shape letters: B batch, C channels, H height, W width, D features, E embedding size.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.encoders.base import Encoder
from reelwright.models.temporal.options import check_positive


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
