"""Options of clip models (whole networks from frames), without torch: a slip is found before anything is loaded.

One line of `CLIP_MODEL_OPTIONS` here and one of `clip_models.CLIP_MODELS` make a model that nodes can name. Options may
say `outputs`, the names of what the model gives (else `logits`), and `answers_rows`, whether it can give logits of
every frame, for task per_row (else not).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reelwright.models.option_checks import ModelOptions, check_choice, check_unused

_WINDOWS = ("time", "space", "space_time")
_OF_BCAST = ("t2s_window", "s2t_window", "bottleneck", "positions")


@dataclass(frozen=True, kw_only=True)
class StAbnOptions(ModelOptions):
    """Options of `st_abn`, frames in, scores and attention out; the defaults are those of the public code."""

    depth: int = 50
    # Of the ResNet: 18, 34, 50, 101 or 152.
    version: str = "v1"
    # v2: the authors' later code, without the ReLU behind the gate.
    time: str = "dense"
    # Attention in time. dense: as published, for windows of exactly `length` frames; convolutional: of any length.
    space: str = "signed"
    # Attention in space. signed: as published; positive: it never falls where evidence of a class rises.
    dropout: float = 0.5  # Before the last layer.

    outputs: ClassVar[tuple[str, ...]] = ("attention.space", "attention.time", "aux.attention_logits", "logits")
    # Names of what the model gives.

    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {
        "depth": (18, 34, 50, 101, 152),
        "version": ("v1", "v2"),
        "time": ("dense", "convolutional"),
        "space": ("signed", "positive"),
    }


@dataclass(frozen=True, kw_only=True)
class CastOptions(ModelOptions):
    """Options of `cast`, two experts that look at each other; defaults of the paper's EPIC-KITCHENS model."""

    space: str = "timm/vit_base_patch16_clip_quickgelu_224"
    # The spatial expert: timm/NAME of a vision transformer, or videomae/NAME.
    time: str = "videomae/vit_base_patch16_224"
    # The temporal expert, of the same kinds; both need the same width, depth and grid of tokens.
    space_args: dict[str, Any] = field(default_factory=dict)
    # Arguments of its constructor, such as img_size.
    time_args: dict[str, Any] = field(default_factory=dict)  # Those of the temporal expert.
    source: str = "frames"
    # frames, or tokens: stored ones that enter the first of the last `top` blocks of both experts.
    every: int = 2
    # An expert on single frames sees the last of every so many.
    pixels: str = "own"
    # own: each expert sees frames normalised as it was trained; imagenet: both by ImageNet's mean and deviation, as in
    # the public code.
    experts: str = "frozen"
    # frozen, or trained with the rest.

    top: int | None = None
    # Only the last so many blocks have adapters and exchange; null: all.
    adapters: bool = True  # Adapters in the experts' blocks; false: none.
    adapter_ratio: float = 0.25
    # Width inside an adapter, times that of a token.
    exchange: str = "bcast"
    # bcast: bottleneck cross-attention; lateral: a linear layer of the other expert's token at the same place; none.
    exchange_blocks: list[int] | None = None
    # Blocks, counted from 0, behind whose attention the experts exchange; null: all that have adapters (`top`).
    direction: str = "both"
    # both; t2s: only the spatial expert asks the temporal one; s2t: only the temporal one asks.
    t2s_window: str = "time"
    # What a token of the spatial expert sees of the other. time: the same place in all frames; space: all places of its
    # frame; space_time: everything.
    s2t_window: str = "space"  # The same of a token of the temporal expert.
    bottleneck: float = 0.5
    # Width of the cross-attention, times that of a token; 1: none.
    positions: bool = True
    # Learned positions in the cross-attention.

    heads_from: dict[str, str] = field(default_factory=dict)
    # Of several heads: name -> space or time, the expert that answers; verb is answered by time and noun by space
    # unless said otherwise.
    fusion: str = "own"
    # own: each head reads its expert, a single one the sum of both behind adapters; add, concat: every head reads the
    # sum of both experts' vectors, or both side by side (late fusion).
    drop_path: float = 0.1
    # Stochastic depth of what is added to the experts, rising from 0 at the first block to this at the last.
    head_dropout: float = 0.0  # Before the heads.
    init_scale: float = 1.0
    # Factor on the initial weights of the heads.

    reads_grids: ClassVar[bool] = True
    # Stored tokens are not averaged.
    joins_tokens: ClassVar[bool] = True
    # Stored tokens of several embeddings lie one behind the other.
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    # Names of what the model gives, of all heads together.
    answers_rows: ClassVar[bool] = False
    # Whether it can give logits of every frame (task per_row).

    POSITIVE: ClassVar[tuple[str, ...]] = ("every",)
    SHARES: ClassVar[tuple[str, ...]] = ("drop_path", "head_dropout")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {
        "source": ("frames", "tokens"),
        "pixels": ("own", "imagenet"),
        "experts": ("frozen", "trained"),
        "exchange": ("bcast", "lateral", "none"),
        "direction": ("both", "t2s", "s2t"),
        "fusion": ("own", "add", "concat"),
        "t2s_window": _WINDOWS,
        "s2t_window": _WINDOWS,
    }

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        super().__post_init__()
        for name in ("adapter_ratio", "bottleneck", "init_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name, expert in self.heads_from.items():
            check_choice(f"heads_from: {name}", expert, ("space", "time"))
        if self.top is not None and self.top < 0:
            raise ValueError(f"top is {self.top}; it must be at least 0 blocks.")
        if self.source == "tokens" and self.top is None:
            raise ValueError("source: tokens needs top, the number of last blocks that learn from what enters them.")
        if self.source == "tokens" and self.experts == "trained":
            raise ValueError("experts: trained needs source: frames; blocks before the stored tokens cannot learn.")
        if self.exchange == "none" and self.exchange_blocks:
            raise ValueError(f"exchange is none, but exchange_blocks are {self.exchange_blocks}; leave them out.")
        self._check_effects()
        if self.heads_from and self.fusion != "own":
            raise ValueError(f"heads_from is of fusion: own; with fusion: {self.fusion} every head reads both experts.")

    def _check_effects(self) -> None:
        """Refuse values, other than the usual ones, of what there is nothing of."""
        is_bcast = self.exchange == "bcast"
        without = {
            "direction": ("exchange: none", self.exchange == "none"),
            "t2s_window": ("direction: s2t", is_bcast and self.direction == "s2t"),
            "s2t_window": ("direction: t2s", is_bcast and self.direction == "t2s"),
            "adapter_ratio": ("adapters: false", not self.adapters and self.fusion != "own"),
            "drop_path": ("exchange: none and adapters: false", self.exchange == "none" and not self.adapters),
        }
        of_bcast = dict.fromkeys(_OF_BCAST, (f"exchange: {self.exchange}", not is_bcast))
        for given in (of_bcast, without):
            for name, (setting, has_none) in given.items():
                check_unused(self, [name] if has_none else [], because=setting)


CLIP_MODEL_OPTIONS: dict[str, type[Any]] = {"st_abn": StAbnOptions, "cast": CastOptions}
