"""Settings of an encoder's weights, which embed and pretrain share: what there is, and what of them means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelwright.models.encoders.names import has_hub_weights, is_of_library
from reelwright.stages.base.plugins import PluginUse, is_plugin

NO_FILE = ("hub", "none")


def check_weights(weights: str, encoder: str | None, *, is_own: bool, renames: object) -> None:
    """ValueError for weights that no hub has (``is_own``: of a plug-in), and ``renames`` of what is in no file."""
    if weights in NO_FILE and renames:
        raise ValueError(f"prefix and key_map are of names in a file, but weights is {weights}; leave them out")
    if weights == "hub" and is_own:
        raise ValueError("weights: hub has none of an encoder that is a plug-in; set weights: none, or a file")
    if weights == "hub" and encoder is not None and not has_hub_weights(encoder):
        raise ValueError(f"weights: hub has none of {encoder}; set weights: none (random ones), or a file")


def encoder_plugin(encoder: str | None, model_args: Mapping[str, Any]) -> dict[str, PluginUse]:
    """What `StageConfig.plugins` says of an encoder and its arguments."""
    if encoder is None or is_of_library(encoder) or not is_plugin("encoders", encoder):
        return {}
    return {"encoder": PluginUse(group="encoders", name=encoder, options=model_args, num_given=1)}
