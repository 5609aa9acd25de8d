"""Names and options of the temporal models, without torch, so that a slip is reported before anything is loaded."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from reelwright.models.option_checks import ModelOptions

POSITIONS = ("learned", "sinusoidal")
ATTENTIONS = ("full", "neighbours", "linformer")


@dataclass(frozen=True, kw_only=True)
class LinearOptions(ModelOptions):
    """Options of `linear`: one linear layer on each row, or on the pooled rows."""

    norm: bool = False  # LayerNorm on each row first.
    pool: str | None = None  # last or mean of the rows; None: last. Not for per-row models.
    dropout: float = 0.0  # Before the linear layer.
    head_std: float | None = None
    # Weights of the linear layer start normally distributed with this standard deviation, its bias at 0 (TSM: 0.001);
    # None: as torch has it.

    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {"pool": ("mean", "last")}

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        super().__post_init__()
        if self.head_std is not None and not 0 < self.head_std < math.inf:
            raise ValueError(f"head_std is {self.head_std}; it must be above 0, and finite.")


@dataclass(frozen=True, kw_only=True)
class MlpOptions(ModelOptions):
    """Options of `mlp`: one hidden layer on all rows of a window as one vector."""

    hidden: int = 512  # Features of the hidden layer.
    dropout: float = 0.1  # Before the last layer.
    between: str = "gelu"  # gelu, or norm: LayerNorm and nothing else, with hidden 2048 the baseline of STORM-PSR.

    POSITIVE: ClassVar[tuple[str, ...]] = ("hidden",)
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {"between": ("gelu", "norm")}


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(ModelOptions):
    """Options of `transformer`: pre-norm blocks over the rows of a window, with positions."""

    layers: int = 4  # Blocks.
    heads: int = 4  # Attention heads.
    head_dim: int | None = None  # Features per head; None: width / heads.
    width: int | None = None
    # Features of a row inside the model; None: the input's own. A linear layer leads in where they differ.
    mlp_width: int | None = None  # None: 4 x width.
    dropout: float = 0.1  # In the blocks.
    positions: str = "learned"  # learned (windows up to `length`) or sinusoidal (any length).
    pool: str | None = None  # cls, mean or last; None: cls. Not for per-row models.
    causal: bool = False
    # True: a row sees itself and earlier rows only. The CLS token stands behind the last row and sees all.

    POSITIVE: ClassVar[tuple[str, ...]] = ("layers", "heads", "head_dim", "width", "mlp_width")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {"positions": POSITIONS, "pool": ("cls", "mean", "last")}


@dataclass(frozen=True, kw_only=True)
class StormTransformerOptions(ModelOptions):
    """Options of `storm_transformer`, that of STORM-PSR; the defaults are those of the paper."""

    layers: int = 6  # Blocks.
    heads: int = 8  # Attention heads.
    head_dim: int = 128  # Features of a head.
    mlp_width: int = 4096  # Features inside a block's MLP.
    dropout: float = 0.1  # In the blocks.
    embedding_dropout: float = 0.0  # Of the rows with their positions.
    pool: str | None = None
    # cls, or mean over rows and CLS; None: cls. Not for per-row models.
    attention: str = "full"
    # full, neighbours or linformer.
    neighbours: int = 8
    # neighbours: rows on each side that a row sees.
    projected: int = 256
    # linformer: rows that keys and values are projected to.

    POSITIVE: ClassVar[tuple[str, ...]] = ("layers", "heads", "head_dim", "mlp_width", "neighbours", "projected")
    SHARES: ClassVar[tuple[str, ...]] = ("dropout", "embedding_dropout")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {"attention": ATTENTIONS, "pool": ("cls", "mean")}

    def without_effect(self) -> tuple[str, ...]:
        """As of all models."""
        of_kinds = {"neighbours": "neighbours", "linformer": "projected"}
        return tuple(name for kind, name in of_kinds.items() if kind != self.attention)


@dataclass(frozen=True, kw_only=True)
class RecurrentOptions(ModelOptions):
    """Options of `gru` and `lstm`: a recurrent network over the rows of a window."""

    layers: int = 1  # One above the other.
    width: int = 128
    # Hidden features per direction.
    bidirectional: bool = False  # Forwards and backwards in time, side by side.
    dropout: float = 0.1
    # Between layers and before the head.
    pool: str | None = None
    # last (real row) or mean; None: last. Not for per-row models.

    POSITIVE: ClassVar[tuple[str, ...]] = ("layers", "width")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {"pool": ("mean", "last")}


@dataclass(frozen=True, kw_only=True)
class MsTcnOptions(ModelOptions):
    """Options of `ms_tcn`: dilated convolutions over the rows, stage after stage (MS-TCN)."""

    stages: int = 1
    # The first predicts from the rows, each further one refines the class probabilities of the one before.
    layers: int = 8
    # Dilated layers per stage; layer i looks 2**i rows to each side.
    width: int = 64  # Channels.
    dropout: float = 0.3  # In each layer.
    causal: bool = False
    # True: layers look back only, twice as far.
    input_norm: bool = False
    # LayerNorm on each row first.
    pool: str | None = None
    # mean or last of the rows' logits; None: mean. Not for per-row models.

    POSITIVE: ClassVar[tuple[str, ...]] = ("stages", "layers", "width")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {"pool": ("mean", "last")}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model gives."""
        return (*(f"aux.stage{number}" for number in range(1, self.stages)), "logits")


@dataclass(frozen=True, kw_only=True)
class AttentionBranchOptions(ModelOptions):
    """Options of `attention_branch`: attention in space and time over the maps of a window."""

    width: int = 256
    # Channels inside the model, a multiple of 4.
    layers: int = 2
    # Bottlenecks in the attention branch, and as many behind the gate.
    time: str = "dense"
    # Attention in time. dense: as published, for windows of exactly `length` rows; convolutional: of any length.
    space: str = "signed"
    # Attention in space, of class evidence. signed: as published, it may be low where there is evidence, since the gate
    # can use either; positive: it never falls where evidence of a class rises.
    version: str = "v1"
    # v2: without the ReLU behind the gate.
    dropout: float = 0.5  # Before the last layer.
    branch: bool | Literal["ungated"] = True
    # To compare with: false, the same network without branch and gate; ungated, of the same depth and with the branch's
    # classifier, but S = M = 1 at the gate. attention.space is then Grad-CAM of the answer.

    reads_grids: ClassVar[bool] = True
    # Rows keep their positions: tokens and maps are not averaged.
    POSITIVE: ClassVar[tuple[str, ...]] = ("width", "layers")
    CHOICES: ClassVar[Mapping[str, Sequence[object]]] = {
        "time": ("dense", "convolutional"),
        "space": ("signed", "positive"),
        "version": ("v1", "v2"),
    }

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model gives."""
        of_branch = ("aux.attention_logits",) if self.branch else ()
        in_time = ("attention.time",) if self.branch is True else ()
        return ("attention.space", *in_time, *of_branch, "logits")

    def without_effect(self) -> tuple[str, ...]:
        """As of all models."""
        return () if self.branch is True else ("space",) if self.branch else ("time", "space", "version")

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        if self.width % 4:
            raise ValueError(f"width is {self.width}; it must be a multiple of 4.")


TEMPORAL_OPTIONS: dict[str, type[Any]] = {
    "linear": LinearOptions,
    "mlp": MlpOptions,
    "transformer": TransformerOptions,
    "storm_transformer": StormTransformerOptions,
    "gru": RecurrentOptions,
    "lstm": RecurrentOptions,
    "ms_tcn": MsTcnOptions,
    "attention_branch": AttentionBranchOptions,
}

EMBEDS_ROWS = ("transformer", "gru", "lstm")  # without outputs they give an `embedding` of each row
RENAMED = {"clip_transformer": "storm_transformer", "tcn": "ms_tcn"}  # models of earlier releases


def check_options(
    name: str,
    options: Iterable[str],
    *,
    known: Mapping[str, type[Any]] = MappingProxyType(TEMPORAL_OPTIONS),
    what: str = "temporal model",
) -> None:
    """ValueError, naming the nearest allowed, for a model that is not ``known``, or an option that it does not have."""
    if name in RENAMED:
        raise ValueError(f"{what} {name!r} is called {RENAMED[name]!r} now.")
    if name not in known:
        raise ValueError(_unknown(what, name, list(known)))
    allowed = [option.name for option in fields(known[name])]
    for option in options:
        if option not in allowed:
            raise ValueError(_unknown(f"option of {name}", option, allowed))


def output_names(
    name: str, options: Mapping[str, Any], *, known: Mapping[str, type[Any]] = MappingProxyType(TEMPORAL_OPTIONS)
) -> tuple[str, ...]:
    """Names of the outputs of the model `name`, one of the ``known``, with those options."""
    return getattr(known[name](**options), "outputs", ("logits",))


def kept_names(wanted: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """Those of the outputs `given` that are `wanted`, by name or by what stands before the dot (`attention`).

    ValueError for a name that fits none.
    """
    for name in wanted:
        if not any(_is_meant(output, name) for output in given):
            raise ValueError(_unknown("output", name, sorted(given)))
    return tuple(sorted(output for output in given if any(_is_meant(output, name) for name in wanted)))


def _is_meant(output: str, name: str) -> bool:
    return output == name or output.startswith(f"{name}.")


def _unknown(what: str, value: str, allowed: list[str]) -> str:
    nearest = difflib.get_close_matches(value, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {value!r}; allowed: {', '.join(allowed)}{hint}"
