"""Clip models of runs: built as config.yaml describes them, and as encoders whose rows are clips.

clip -> clip model of the run -> `embedding` of the clip, stored as `pooled`, or its `logits`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reelwright.models.blocks.weights import load_weights, remap_state_dict
from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.contracts import ClipModel, ClipSizes
from reelwright.models.encoders.base import DataConfig, Encoder
from reelwright.models.testing import checked_clip_model
from reelwright.stages.base.plugins import checked_options, load_plugin
from reelwright.stages.embed.encoding.preprocess import data_config_from
from reelwright.stages.embed.encoding.weight_files import read_weights
from reelwright.stages.embed.row_outputs import check_clip_outputs, model_output
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder

WHOLE = "model."  # of the weights of a clip model, which has no encoder before it


def sees_frames(model: Mapping[str, Any]) -> bool:
    """Whether the `model` block of a config.yaml is of a clip model, which has no encoder before it."""
    return "frame_size" in model


def clip_model_class(name: str, *, plugins: Mapping[str, Any]) -> type[ClipModel]:
    """The clip model called ``name``, ours or a plug-in's, which says what pixels it wants.

    Raises ConfigError for a plug-in that is not named or is no ClipModel with a data_config.
    """
    if name in CLIP_MODEL_OPTIONS:
        from reelwright.models.clip_models import CLIP_MODELS  # here, since it takes seconds and rows need none of it

        return CLIP_MODELS[name]
    thing = load_plugin("models", name, plugins)
    if not (isinstance(thing, type) and issubclass(thing, ClipModel)):
        raise ConfigError(
            f"model: {name} is no subclass of reelwright.models.contracts.ClipModel, which models of frames are. To "
            "learn from rows of an encoder, give spatial"
        )
    if not isinstance(getattr(thing, "data_config", None), DataConfig):
        raise ConfigError(f"model: {name} has no data_config (a DataConfig), which says how it wants its frames")
    return thing


def build_run_clip_model(values: Mapping[str, Any], *, plugins: Mapping[str, Any], seed: int = 0) -> ClipModel:
    """The clip model that such a block describes, with random weights from ``seed``; raises as `build_run_model`."""
    name, options = values["name"], values["options"]
    cls = clip_model_class(name, plugins=plugins)
    height, width = values["frame_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            sizes = ClipSizes(
                num_outputs=values["num_outputs"],
                length=values["length"],
                frame_size=(height, width),
                per_row=values["per_row"],
                heads=values["heads"],
            )
            if name in CLIP_MODEL_OPTIONS:
                from reelwright.models.clip_models import build_clip_model

                return build_clip_model(name, sizes, **options)
            checked: dict[str, Any] = checked_options(cls, options, name=name, num_given=1)
            return checked_clip_model(cls(sizes, **checked), sizes)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def frames_seen(values: Mapping[str, Any]) -> DataConfig | None:
    """How the network of a run's config.yaml sees the frames of a clip; None for one that reads rows."""
    sees = values.get("sees")
    return None if sees is None else data_config_from(sees)


class ClipModelEncoder(Encoder):
    """A clip model as an encoder of clips: `pooled` is its embedding."""

    kind = "video"
    takes_mask = True

    def __init__(self, model: ClipModel, data_config: DataConfig, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.data_config, self.outputs = model, data_config, outputs

    def forward(self, x: Tensor, mask_BT: Tensor | None = None) -> dict[str, Tensor]:
        """See Encoder; without a mask all frames are real."""
        frames_BTCHW = x.transpose(1, 2)
        if mask_BT is None:
            mask_BT = torch.ones(frames_BTCHW.shape[:2], dtype=torch.bool, device=x.device)
        found = self.model({"frames": frames_BTCHW, "mask": mask_BT})
        return {name: found[model_output(name)] for name in self.outputs}


def clip_model_encoder(
    folder: Path, outputs: tuple[str, ...], *, run: str, plugins: Mapping[str, Any]
) -> tuple[ClipModelEncoder, dict[str, Any]] | None:
    """The clip model of the run ``run`` in ``folder`` with its weights, and its config.yaml; None where it has none.

    Raises ConfigError for an output that it does not give of a clip (one vector), StoreError where there is no run.
    """
    values = RunFolder(folder).config()
    model_values = values.get("model")
    if model_values is None or not sees_frames(model_values):
        return None
    model = build_run_clip_model(model_values, plugins=plugins)
    load_weights(model, remap_state_dict(read_weights(folder / "model.safetensors"), prefix=WHOLE, key_map=None))
    seen = frames_seen(values)
    assert seen is not None
    height, width = seen.size
    batch = {
        "frames": torch.zeros(1, model_values["length"], 3, height, width),
        "mask": torch.ones(1, model_values["length"], dtype=torch.bool),
    }
    with torch.inference_mode():
        found = model.eval()(batch)
    check_clip_outputs(outputs, [name for name, value in found.items() if value.ndim == 2], run=run)
    return ClipModelEncoder(model, seen, outputs), values
