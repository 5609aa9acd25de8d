"""Options of CARL's three frame models, without torch, so that a slip is reported before anything is loaded.

Chen et al. 2022 (Frame-wise Action Representations for Long Videos via Sequence Contrastive Learning), section 3;
defaults that the paper leaves open are those of its public code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from reelwright.models.option_checks import ModelOptions

SOURCES = ("rows", "maps", "frames")
NETWORKS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}  # channels of their layer 4
STATES = ("trained", "frozen", "frozen_norms")


@dataclass(frozen=True, kw_only=True)
class FrameModelOptions(ModelOptions):
    """What the three share: what they are fed, how the ResNet is split, and the heads."""

    source: str = "rows"
    # rows: stored pooled rows, nothing of the ResNet is in the model; maps: stored maps of its layer `split`;
    # frames: normalised pictures.
    network: str = "resnet50"
    # Of maps and frames.
    split: int | None = 3
    # Of maps and frames: the last layer of the ResNet's base, 2 or 3; null: all of it is base.
    base: str = "frozen"
    # Of frames: the stem up to layer `split` is trained, frozen, or frozen_norms (trained but for its batch norms).
    tuned: str = "trained"
    # Of maps and frames: likewise the layers behind `split`.
    frames_per_call: int = 40
    # Frames that the frozen base sees at once; of no influence on the result.
    contexts: int = 1
    # Rows of each step, side by side and the step itself last.
    hidden: int = 512
    # Features of the fully connected layers.
    hidden_layers: int = 2  # How many of them.
    embed_dim: int = 128  # Features of an embedding.
    dropout: float = 0.1  # In the fully connected layers and the transformer.
    normalize: bool = True
    # Embeddings are of unit length.
    projection: bool = True
    # A head that only the loss sees (aux.projected).
    projection_hidden: int = 128  # Features inside that head.

    POSITIVE: ClassVar[tuple[str, ...]] = (
        *("frames_per_call", "contexts", "hidden", "hidden_layers"),
        *("embed_dim", "projection_hidden"),
    )
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {
        "source": SOURCES,
        "network": tuple(NETWORKS),
        "split": (2, 3, None),
        "base": STATES,
        "tuned": STATES,
    }

    @classmethod
    def unused(cls, options: Mapping[str, Any], *, source: str, has_base: bool) -> tuple[str, str] | None:
        """The first of ``options`` that has no effect, and with what; None: all have one, or are as usual.

        ``source`` is what the model is fed; ``has_base``: an encoder learns in front of it, as from frames.
        """
        split, projection = options.get("split", cls.split), options.get("projection", cls.projection)
        without: dict[str, tuple[str, ...]] = {f"source: {source}": () if source == "frames" or has_base else ("base",)}
        without[f"source: {source}"] += ("network", "split", "tuned") if source == "rows" else ()
        without |= {"split: null": ("tuned",) if split is None else ()}
        without |= {"projection: false": () if projection else ("projection_hidden",)}
        found = ((name, why) for why, names in without.items() for name in names)
        return next(
            ((name, why) for name, why in found if options.get(name, getattr(cls, name)) != getattr(cls, name)), None
        )

    def map_channels(self, layer: int | None) -> int:
        """Channels C of the maps of layer 2 or 3 of the network; None is layer 4."""
        return NETWORKS[self.network] >> (4 - (layer or 4))


@dataclass(frozen=True, kw_only=True)
class CarlOptions(FrameModelOptions):
    """Options of `carl`, the transformer embedder."""

    layers: int = 3  # Of the transformer.
    heads: int = 8  # Attention heads.
    width: int = 256
    # Features of a row in the transformer.
    mlp_width: int = 1024  # Features inside a block's MLP.
    equal_layers: bool = False
    # Compat: all layers start with the same weights, as in the public code; else each has its own.

    POSITIVE: ClassVar[tuple[str, ...]] = (*FrameModelOptions.POSITIVE, "heads", "width", "mlp_width")

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        if self.layers < 0:
            raise ValueError(f"layers is {self.layers}; it must be at least 0.")
        if self.contexts != 1:
            raise ValueError(f"contexts is {self.contexts}, but carl sees all rows; leave it out, or use conv.")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads; choose another of the two.")


@dataclass(frozen=True, kw_only=True)
class ConvOptions(FrameModelOptions):
    """Options of `conv`: 3-D convolutions over the maps of a step and of rows before it. It has no tuned layers."""

    source: str = "maps"
    contexts: int = 2
    conv_width: int = 512  # Channels of a convolution.
    conv_layers: int = 2  # Convolutions in all.

    POSITIVE: ClassVar[tuple[str, ...]] = (*FrameModelOptions.POSITIVE, "conv_width", "conv_layers")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {**FrameModelOptions.CHOICES, "source": ("maps", "frames")}


@dataclass(frozen=True, kw_only=True)
class VanillaOptions(FrameModelOptions):
    """Options of `vanilla`: the same as `carl` without transformer and batch norms, each step by itself."""


FRAME_MODEL_OPTIONS: dict[str, type[Any]] = {"carl": CarlOptions, "conv": ConvOptions, "vanilla": VanillaOptions}
