"""Build a temporal model (what learns over rows) by name.

Shape letters: B batch, T rows of a window, D features, K outputs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from reelwright.models.clip_transformer import ClipTransformer, ClipTransformerOptions
from reelwright.models.probes import LinearOptions, LinearProbe, MlpOptions, WindowMlp
from reelwright.models.recurrent import Gru, Lstm, RecurrentOptions
from reelwright.models.tcn import Tcn, TcnOptions
from reelwright.models.temporal_parts import TemporalModel, TemporalSizes
from reelwright.models.transformer import Transformer, TransformerOptions


@dataclass(frozen=True)
class TemporalEntry:
    """A temporal model and the dataclass of its options (their names, defaults and meaning)."""

    model: Callable[[TemporalSizes, Any], TemporalModel]
    options: Callable[..., Any]


TEMPORAL_MODELS: dict[str, TemporalEntry] = {
    "linear": TemporalEntry(LinearProbe, LinearOptions),
    "mlp": TemporalEntry(WindowMlp, MlpOptions),
    "transformer": TemporalEntry(Transformer, TransformerOptions),
    "clip_transformer": TemporalEntry(ClipTransformer, ClipTransformerOptions),
    "gru": TemporalEntry(Gru, RecurrentOptions),
    "lstm": TemporalEntry(Lstm, RecurrentOptions),
    "tcn": TemporalEntry(Tcn, TcnOptions),
}


def build_temporal(
    name: str, *, input_dim: int, num_outputs: int, length: int, per_row: bool, **options: object
) -> TemporalModel:
    """Create the temporal model `name` for rows of `input_dim` features in windows of up to `length` rows.

    The model maps x_BTD and mask_BT (bool, True at real rows) to logits (B,T,K) when `per_row`, else (B,K), with
    K = `num_outputs`. Initial weights come from torch's global random state.
    Raises ValueError for an unknown name or option (naming the nearest), or a value out of range.
    """
    entry = TEMPORAL_MODELS.get(name)
    if entry is None:
        raise ValueError(_unknown("temporal model", name, list(TEMPORAL_MODELS)))
    check_options(name, options)
    sizes = TemporalSizes(input_dim=input_dim, num_outputs=num_outputs, length=length, per_row=per_row)
    return entry.model(sizes, entry.options(**options))


def option_names(name: str) -> list[str]:
    """Names of the options of the temporal model `name` (a key of TEMPORAL_MODELS)."""
    options: Any = TEMPORAL_MODELS[name].options
    return [option.name for option in fields(options)]


def check_options(name: str, options: Mapping[str, object]) -> None:
    """ValueError, naming the nearest allowed, for an option that the temporal model `name` does not have."""
    allowed = option_names(name)
    for option in options:
        if option not in allowed:
            raise ValueError(_unknown(f"option of {name}", option, allowed))


def _unknown(what: str, value: str, allowed: list[str]) -> str:
    nearest = difflib.get_close_matches(value, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {value!r}; allowed: {', '.join(allowed)}{hint}"
