"""Build a temporal model (what learns over rows) by name.

Shape letters: B batch, T rows of a window, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reelwright.models.option_checks import check_positive
from reelwright.models.temporal.attention_branch import AttentionBranchModel
from reelwright.models.temporal.common import TemporalModel, TemporalSizes
from reelwright.models.temporal.ms_tcn import MsTcn
from reelwright.models.temporal.options import EMBEDS_ROWS, TEMPORAL_OPTIONS, check_options
from reelwright.models.temporal.probes import LinearProbe, WindowMlp
from reelwright.models.temporal.recurrent import Gru, Lstm
from reelwright.models.temporal.storm_transformer import StormTransformer
from reelwright.models.temporal.transformer import Transformer

TEMPORAL_MODELS: dict[str, Callable[[TemporalSizes, Any], TemporalModel]] = {
    "linear": LinearProbe,
    "mlp": WindowMlp,
    "transformer": Transformer,
    "storm_transformer": StormTransformer,
    "gru": Gru,
    "lstm": Lstm,
    "ms_tcn": MsTcn,
    "attention_branch": AttentionBranchModel,
}


def build_temporal(
    name: str, *, input_dim: int, num_outputs: int, length: int, per_row: bool, **options: object
) -> TemporalModel:
    """Create the temporal model `name` for rows of `input_dim` features in windows of up to `length` rows.

    The model maps x_BTD and mask_BT (bool, True at real rows) to logits (B,T,K) when `per_row`, else (B,K), with
    K = `num_outputs`; with 0 of these, EMBEDS_ROWS give `embedding` (B,T,W) or (B,W), what is before their last layer.
    Initial weights come from torch's global random state.
    Raises ValueError for an unknown name or option (naming the nearest), or a value out of range.
    """
    check_options(name, options)
    if num_outputs or name not in EMBEDS_ROWS:
        check_positive("num_outputs", num_outputs)
    sizes = TemporalSizes(input_dim=input_dim, num_outputs=num_outputs, length=length, per_row=per_row)
    return TEMPORAL_MODELS[name](sizes, TEMPORAL_OPTIONS[name](**options))
