"""What the config.yaml of a run describes: its temporal model and its clips. Nothing of training is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from reelwright.models.temporal import build_temporal
from reelwright.models.temporal_parts import TemporalModel
from reelwright.stages.sampling.clips import ClipSampling, clip_sampling
from reelwright.stages.sampling.windows import WindowShape
from reelwright.storage.errors import ConfigError


def build_run_model(values: Mapping[str, Any], *, seed: int = 0) -> TemporalModel:
    """The temporal model that the `model` block of a config.yaml describes, with random weights from ``seed``.

    Raises ConfigError for an unknown name or option.
    """
    sizes = {name: values[name] for name in ("input_dim", "num_outputs", "length", "per_row")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return build_temporal(values["name"], **sizes, **values["options"])
        except (ValueError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def clips_of_run(values: Mapping[str, Any], shape: WindowShape) -> ClipSampling | None:
    """How the run of a config.yaml takes clips; None where it has windows."""
    clips = values.get("clips", {"sampling": "grid"})
    return clip_sampling(
        clips["sampling"], shape, segments=clips.get("segments"), segment_rule=clips.get("segment_rule", "even")
    )
