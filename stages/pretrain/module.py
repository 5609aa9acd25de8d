"""The networks that pretrain trains: bytes of frames in, augmentation on the device, what the loss compares out.

Shape letters: B frames or clips, T frames of a clip, C channels (RGB), H height, W width, D features, E size of what is
compared, K classes with background.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.contracts import Inputs, Part
from reelwright.models.encoders.build import DataConfig, Encoder
from reelwright.models.systems.embedding_head import ComparisonHeads, EmbeddingEncoder, ProjectionHead
from reelwright.stages.augment.clips import blur, flip, recolour
from reelwright.stages.finetune.module import FrameNetwork
from reelwright.stages.pretrain.examples_config import ImageAugmentSettings

BLUR_RADIUS = 2  # pixels on each side: a kernel of 5


def augment_images(x_BCHW: Tensor, settings: ImageAugmentSettings) -> Tensor:
    """Mirror, recolour and blur frames in [0, 1]; same shape and range. Draws from torch's own CPU state.

    Crops are cut where frames are read.
    """
    num, x_B1CHW = len(x_BCHW), x_BCHW[:, None]  # clips of one frame
    if settings.flip:
        x_B1CHW = flip(x_B1CHW, torch.rand(num) < settings.flip)
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    x_B1CHW = recolour(x_B1CHW, torch.stack([1 + strength * (2 * torch.rand(num) - 1) for strength in strengths]))
    low, high = settings.blur_sigma
    sigma_B = low + (high - low) * torch.rand(num)
    return blur(x_B1CHW, sigma_B, torch.rand(num) < settings.blur, radius=BLUR_RADIUS)[:, 0]


class PretrainModule(FrameNetwork):
    """`spatial`, the encoder, and the head that the loss needs. In eval mode it gives embeddings."""

    def __init__(
        self,
        spatial: Encoder,
        *,
        data_config: DataConfig,
        augmentation: ImageAugmentSettings,
        embed_dim: int,
        projection: bool,
        num_classes: int | None,
    ) -> None:
        """`num_classes` K makes a classifier of it; None compares embeddings. `embed_dim` is E."""
        super().__init__()
        self.spatial = spatial
        self.projection = ProjectionHead(embed_dim) if projection and num_classes is None else None
        self.classifier = None if num_classes is None else nn.Linear(embed_dim, num_classes)
        self._augmentation = augmentation
        self.see_as(data_config)

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """uint8 `frames` (B,H,W,C) -> `embedding` (B,E) of unit length; in train mode its projection, or `logits`."""
        x_BCHW = self.unit_range(batch["frames"])
        if self.training:
            x_BCHW = augment_images(x_BCHW, self._augmentation)
        x_BCHW = self.normalised(x_BCHW)
        if self.training and self.classifier is not None:
            return {"logits": self.classifier(self._unscaled(x_BCHW))}
        embedding_BE = functional.normalize(self.spatial(x_BCHW)["pooled"].float(), dim=1)
        if self.training and self.projection is not None:
            embedding_BE = self.projection(embedding_BE)
        return {"embedding": embedding_BE}

    def _unscaled(self, x_BCHW: Tensor) -> Tensor:
        if isinstance(self.spatial, EmbeddingEncoder):
            return self.spatial.unscaled(x_BCHW)
        pooled: Tensor = self.spatial(x_BCHW)["pooled"]
        return pooled


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
