"""Clip models by name: whole networks from clips of frames to answers, without an encoder of their own in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.contracts import ClipModel, ClipSizes
from reelwright.models.systems.cast.model import Cast
from reelwright.models.systems.st_abn import StAbn
from reelwright.models.temporal.options import check_options

CLIP_MODELS: dict[str, type[ClipModel]] = {"st_abn": StAbn, "cast": Cast}


def build_token_model(
    name: str, *, length: int, heads: Mapping[str, int], num_outputs: int, **options: Any
) -> ClipModel:
    """Create the clip model ``name`` on stored tokens of clips of `length` frames; see `build_clip_model`."""
    check_options(name, options, known=CLIP_MODEL_OPTIONS, what="clip model")
    model, own = CLIP_MODELS[name], CLIP_MODEL_OPTIONS[name](**options)
    return model.of_tokens(length=length, heads=heads, num_outputs=num_outputs, options=own)


def build_clip_model(name: str, sizes: ClipSizes, **options: Any) -> ClipModel:
    """Create the clip model ``name``; initial weights come from torch's global random state.

    Raises ValueError for an unknown name or option (naming the nearest), or a value out of range.
    """
    check_options(name, options, known=CLIP_MODEL_OPTIONS, what="clip model")
    return CLIP_MODELS[name].of(sizes, CLIP_MODEL_OPTIONS[name](**options))
