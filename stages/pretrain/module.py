"""The network that pretrain trains: bytes of frames in, augmentation on the device, what the loss compares out.

Shape letters: B frames, C channels, H height, W width, E embedding size, K classes with background.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.contracts import Inputs
from reelwright.models.encoders.build import DataConfig, Encoder
from reelwright.models.systems.embedding_head import EmbeddingEncoder, ProjectionHead
from reelwright.stages.finetune.module import FrameNetwork
from reelwright.stages.pretrain.augment import augment_images
from reelwright.stages.pretrain.frame_config import ImageAugmentSettings


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
