"""CARL's models: an embedding of every step of a long video, from stored rows, stored maps of a ResNet, or frames.

Chen et al. 2022 (Frame-wise Action Representations for Long Videos via Sequence Contrastive Learning), section 3.
Shape letters: B batch, T steps of a window, S contexts of a step, R = T * S rows, N real steps of the batch,
V stored views, P positions, C channels, H height, W width, D features, E embedding size, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelwright.models.blocks.layer_ids import layer_ids
from reelwright.models.blocks.synced_norm import SyncedBatchNorm
from reelwright.models.contracts import Inputs, Part, VideoModel, prefixed, put_rows, real_rows
from reelwright.models.option_checks import check_positive
from reelwright.models.systems.carl_embedders import (
    ConvEmbedder,
    SplitResnet,
    TransformerEmbedder,
    VanillaEmbedder,
    stretched_positions,
)
from reelwright.models.systems.carl_options import (
    FRAME_MODEL_OPTIONS,
    CarlOptions,
    ConvOptions,
    FrameModelOptions,
)
from reelwright.models.systems.embedding_head import ProjectionHead
from reelwright.models.temporal.options import check_options

_MAP_AXES = 3  # C, H, W

PUBLIC_NAMES = {
    r"^embed\.fc_layers\.": "embedder.fc.",
    r"^embed\.conv_layers\.": "embedder.conv.",
    r"^embed\.video_emb\.": "embedder.project.",
    r"^embed\.embedding_layer\.": "embedder.embed.",
    r"^embed\.video_encoder\.enc_layers\.": "embedder.layers.",
    r"\.res_layer0\.norm\.": ".norm_attention.",
    r"\.res_layer1\.norm\.": ".norm_mlp.",
    r"\.self_att\.linear_Q2d\.": ".query.",
    r"\.self_att\.linear_K2d\.": ".key.",
    r"\.self_att\.linear_V2d\.": ".value.",
    r"\.self_att\.linear_d2Q\.": ".out.",
    r"\.feed_forward\.fc1\.": ".mlp.0.",
    r"\.feed_forward\.fc2\.": ".mlp.2.",
    r"^ssl_projection\.net\.": "projection.layers.",
    r"^classifier\.fc_layers\.": "classifier.",
    r"^backbone\.0\.": "backbone.base.conv1.",
    r"^backbone\.1\.": "backbone.base.bn1.",
    r"^backbone\.4\.": "backbone.base.layer1.",
    r"^backbone\.5\.": "backbone.base.layer2.",
    r"^backbone\.6\.": "backbone.base.layer3.",
    r"^backbone\.7\.": "backbone.base.layer4.",
    r"^res_finetune\.0\.(?=\d)": "backbone.tuned.layer3.",  # of split 2
    r"^res_finetune\.1\.(?=\d)": "backbone.tuned.layer4.",
    r"^res_finetune\.": "backbone.tuned.layer4.",  # of split 3
}
# Names in checkpoints of the public code -> names here, for `key_map` (weights.remap_state_dict).


class FrameModel(VideoModel):
    """What `carl`, `conv` and `vanilla` share: their inputs, the ResNet, projection and classifier."""

    is_tuned = True  # layers behind the split are in the model

    def __init__(
        self, options: FrameModelOptions, *, length: int, input_dim: int | None = None, num_classes: int | None = None
    ) -> None:
        """`length` is T of the windows that it is trained on, which positions in others are stretched to.

        `input_dim` is D of source rows, or C of maps (None: that of the network; of frames it means nothing), and
        `num_classes` K (None: no classifier, and no logits). Raises ValueError for sizes below 1, rows of unknown size,
        or maps of another one than the network has.
        """
        super().__init__()
        for name, size in {"length": length, "input_dim": input_dim, "num_classes": num_classes}.items():
            if size is not None:
                check_positive(name, size)
        self.options, self.length = options, length
        embedder_dim = _input_dim(input_dim, options, is_tuned=self.is_tuned)
        self.backbone = None if options.source == "rows" else SplitResnet(options, is_tuned=self.is_tuned)
        self.embedder = self._embedder(embedder_dim)
        dim = options.embed_dim
        self.projection = ProjectionHead(dim, hidden=options.projection_hidden) if options.projection else None
        self.classifier = (
            nn.Sequential(nn.Dropout(options.dropout), nn.Linear(dim, num_classes)) if num_classes else None
        )

    def _embedder(self, input_dim: int) -> nn.Module:
        """What comes behind the ResNet; `input_dim` is D or C of what it is given."""
        raise NotImplementedError

    def _embed(self, rows_NS: Tensor, batch: Inputs, mask_BT: Tensor) -> Tensor:
        """Real steps (N,S,...) behind the ResNet -> (N,E)."""
        raise NotImplementedError

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """`backbone.base` and `backbone.tuned` as the options say, then what is always trained."""
        found = {} if self.backbone is None else prefixed("backbone", self.backbone.parts())
        found["embedder"] = Part(layers=layer_ids(self.embedder))
        for name in ("projection", "classifier"):
            head = getattr(self, name)
            if head is not None:
                found[name] = Part(layers={parameter: 0 for parameter, _ in head.named_parameters()})
        return found

    def load_resnet(self, state: Mapping[str, Tensor]) -> None:
        """Weights of the whole ResNet, named as torchvision and timm do. Raises ValueError where they do not fit."""
        if self.backbone is None:
            raise ValueError("the model is fed stored rows and holds no ResNet; use source: maps or frames.")
        self.backbone.load_resnet(state)

    def of_rows(self) -> Self:
        """Itself, from now on without its ResNet, for rows that are the maximum over positions behind it.

        Raises ValueError for one that sees more of maps.
        """
        if not self.is_tuned:
            raise ValueError("its convolutions see whole maps, not rows.")
        self.options = replace(self.options, source="rows")
        self.backbone = None
        self.__dict__.pop("parts", None)
        return self

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """`embedding` (B,T,E); `aux.projected` (B,T,E) of unit length; with classes `logits` (B,T,K). 0 at padding.

        In: `mask` (B,T) or (B,R), and by source `rows` (B,R,D), or tokens (B,R,P,D), whose maximum is taken; `rows`
        (B,R,C,H,W), maps of layer `split`, or (B,R,V,C,H,W), maps of V augmented views of which `map_view` (B,) int64
        says the one to look at (without it the first); `frames` (B,R,3,H,W), normalised. The contexts of a step lie
        side by side, the step itself last. `positions` (B,T) of a piece of a longer window are seen by `carl` alone.
        Raises ValueError where shapes do not fit, where nothing is real, and in train mode for a single real step.
        """
        steps_BTS, mask_BT = self._steps(batch)
        real_NS = real_rows(steps_BTS, mask_BT)
        self._check_real(len(real_NS), mask_BT)
        embedding_NE = self._embed(self._see(real_NS), batch, mask_BT)
        found_NE = {"embedding": functional.normalize(embedding_NE, dim=1) if self.options.normalize else embedding_NE}
        if self.projection is not None:
            found_NE["aux.projected"] = self.projection(embedding_NE)
        if self.classifier is not None:
            found_NE["logits"] = self.classifier(found_NE["embedding"])
        return {name: put_rows(value, mask_BT) for name, value in found_NE.items()}

    def _steps(self, batch: Inputs) -> tuple[Tensor, Tensor]:
        """What is seen of each step (B,T,S,...), views chosen, and the mask of steps (B,T)."""
        x_BR, mask = batch["frames" if self.options.source == "frames" else "rows"], batch["mask"]
        if self.options.source == "maps" and x_BR.ndim == 3 + _MAP_AXES:
            view_B = batch.get("map_view", torch.zeros(len(x_BR), dtype=torch.int64, device=x_BR.device))
            x_BR = x_BR[torch.arange(len(x_BR), device=x_BR.device), :, view_B]
        self._check_shape(x_BR)
        contexts = self.options.contexts
        if x_BR.shape[1] % contexts or mask.shape[1] not in {x_BR.shape[1], x_BR.shape[1] // contexts}:
            raise ValueError(
                f"{x_BR.shape[1]} rows with a mask of {mask.shape[1]} are no steps of {contexts} rows each; give the "
                "views the same contexts as the model."
            )
        steps_BTS = x_BR.reshape(len(x_BR), -1, contexts, *x_BR.shape[2:])
        return steps_BTS, mask if mask.shape[1] == steps_BTS.shape[1] else mask[:, contexts - 1 :: contexts]

    def _check_shape(self, x_BR: Tensor) -> None:
        allowed = {"rows": (3, 4), "maps": (2 + _MAP_AXES,), "frames": (2 + _MAP_AXES,)}[self.options.source]
        if x_BR.ndim not in allowed:
            raise ValueError(
                f"source {self.options.source} takes tensors of {' or '.join(map(str, allowed))} axes, not of shape "
                f"{tuple(x_BR.shape)}; sources are rows (B,T,D), maps (B,T,C,H,W) and frames (B,T,3,H,W)."
            )
        if self.options.source == "frames" and not x_BR.is_floating_point():
            raise ValueError(f"frames are {x_BR.dtype}; normalise them first, to floats (B,T,3,H,W).")

    def _check_real(self, num_real: int, mask_BT: Tensor) -> None:
        if num_real == 0:
            raise ValueError(f"all {mask_BT.numel()} steps are padded; a batch needs at least one real one.")
        norms = (module for module in self.modules() if isinstance(module, nn.BatchNorm1d))
        if num_real == 1 and any(norm.training and not isinstance(norm, SyncedBatchNorm) for norm in norms):
            raise ValueError(
                "a batch of a single step has no statistics for batch norms to learn from; use more videos a batch, or "
                "leave out videos of one frame."
            )

    def _see(self, x_NS: Tensor) -> Tensor:
        """Real steps (N,S,...) behind the ResNet: maps (N,S,C,H,W), or of stored rows (N,S,D)."""
        x_NS = x_NS.to(next(self.embedder.parameters()).dtype)
        if self.backbone is not None:
            maps: Tensor = self.backbone(x_NS.flatten(0, 1))
            return maps.reshape(*x_NS.shape[:2], *maps.shape[1:])
        return x_NS.amax(dim=2) if x_NS.ndim == 4 else x_NS


class Carl(FrameModel):
    """The transformer embedder: the maximum over positions, then TransformerEmbedder over the steps of the window."""

    options: CarlOptions
    embedder: TransformerEmbedder

    def _embedder(self, input_dim: int) -> nn.Module:
        return TransformerEmbedder(self.options, input_dim=input_dim, length=self.length)

    def _embed(self, rows_NS: Tensor, batch: Inputs, mask_BT: Tensor) -> Tensor:
        out_NE: Tensor = self.embedder(_maximum(rows_NS), mask_BT, batch.get("positions"))
        return out_NE

    def video_positions(self, num_rows: int) -> Tensor:
        """As of every model: the video is stretched as a window of so many steps is."""
        return stretched_positions(torch.ones(1, num_rows, dtype=torch.bool), self.embedder.length)[0]


class Conv(FrameModel):
    """3-D convolutions over maps of layer `split` of a step and its contexts, as for Dwibedi et al. 2019 (TCC)."""

    is_tuned = False
    options: ConvOptions

    def _embedder(self, input_dim: int) -> nn.Module:
        return ConvEmbedder(self.options, channels=input_dim)

    def _embed(self, rows_NS: Tensor, batch: Inputs, mask_BT: Tensor) -> Tensor:
        del batch, mask_BT
        out_NE: Tensor = self.embedder(rows_NS)
        return out_NE


class Vanilla(FrameModel):
    """The maximum over positions and contexts, then fully connected layers: nothing is seen of other steps."""

    def _embedder(self, input_dim: int) -> nn.Module:
        return VanillaEmbedder(self.options, input_dim=input_dim)

    def _embed(self, rows_NS: Tensor, batch: Inputs, mask_BT: Tensor) -> Tensor:
        del batch, mask_BT
        out_NE: Tensor = self.embedder(_maximum(rows_NS))
        return out_NE


FRAME_MODELS: dict[str, type[FrameModel]] = {"carl": Carl, "conv": Conv, "vanilla": Vanilla}


def build_frame_model(
    name: str, *, length: int, input_dim: int | None = None, num_classes: int | None = None, **options: Any
) -> FrameModel:
    """Create `carl`, `conv` or `vanilla`; initial weights come from torch's global random state.

    Raises ValueError for an unknown name or option (naming the nearest), or a value out of range.
    """
    check_options(name, options, known=FRAME_MODEL_OPTIONS, what="frame model")
    own = FRAME_MODEL_OPTIONS[name](**options)
    return FRAME_MODELS[name](own, length=length, input_dim=input_dim, num_classes=num_classes)


def _input_dim(given: int | None, options: FrameModelOptions, *, is_tuned: bool) -> int:
    """D or C of what the embedder is given."""
    if options.source == "rows":
        if given is None:
            raise ValueError("source rows needs input_dim, the features of a stored row.")
        return given
    stored = options.map_channels(options.split)
    if options.source == "maps" and given not in {None, stored}:
        layer = options.split or "4"
        raise ValueError(
            f"the stored maps have {given} channels, those of layer {layer} of {options.network} {stored}; "
            "set network and split to what the maps are of."
        )
    return options.map_channels(None) if is_tuned else stored


def _maximum(x_NS: Tensor) -> Tensor:
    """(N,S,D) or (N,S,C,H,W) -> (N,D) over all but features."""
    return x_NS.amax(dim=1) if x_NS.ndim == 3 else x_NS.amax(dim=(1, 3, 4))
