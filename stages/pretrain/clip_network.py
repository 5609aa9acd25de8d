"""The network that pretrain trains on clips: a video encoder, and a classifier or the heads that compare clips.

Shape letters: B clips, T frames, C channels, H height, W width, D features, E size of what is compared, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from torch import Tensor, nn

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.contracts import Inputs, Part
from reelwright.models.encoders.build import DataConfig, Encoder
from reelwright.models.systems.embedding_head import ComparisonHeads
from reelwright.stages.finetune.module import FrameNetwork


class ClipEncoderNetwork(FrameNetwork):
    """`spatial`, the encoder, as runs call it, and what is thrown away afterwards."""

    def __init__(
        self,
        spatial: Encoder,
        *,
        data_config: DataConfig,
        heads: ComparisonHeads | None = None,
        classifier: nn.Linear | None = None,
    ) -> None:
        """Without ``heads`` clips are classified, by the encoder's own last layer where there is no ``classifier``."""
        super().__init__()
        self.spatial, self.heads, self.classifier = spatial, heads, classifier
        self.see_as(data_config)

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """The encoder, then what is behind it."""
        found = {"spatial": Part(layers={f"model.{name}": n for name, n in layer_ids(self.spatial.model).items()})}
        behind = {"heads": self.heads, "classifier": self.classifier}
        return found | {name: Part(layers=layer_ids(part)) for name, part in behind.items() if part is not None}

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """`frames` uint8 (B,T,H,W,C), or normalised (B,T,C,H,W) -> `logits` (B,K), or `embedding` (B,D) and heads'."""
        found: dict[str, Tensor] = self.spatial(self.as_wanted(batch["frames"]).transpose(1, 2))
        if self.heads is not None:
            return {"embedding": found["pooled"], **self.heads(found["pooled"])}
        return {"logits": found["logits"] if self.classifier is None else self.classifier(found["pooled"])}
