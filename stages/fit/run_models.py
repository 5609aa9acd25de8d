"""What the config.yaml of a run describes: its model, its task and its clips. No training is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from reelwright.models.clip_models import CLIP_MODELS, build_clip_model
from reelwright.models.contracts import ClipModel, ClipSizes, VideoModel
from reelwright.models.encoders.base import DataConfig
from reelwright.models.systems.carl import FRAME_MODELS, build_frame_model
from reelwright.models.temporal.build import TEMPORAL_MODELS, build_temporal
from reelwright.models.temporal.common import TemporalSizes
from reelwright.models.testing import checked_clip_model, checked_model
from reelwright.stages.base.plugins import checked_options, load_plugin
from reelwright.stages.datasets.sampling.clips import ClipSampling, clip_sampling
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.sets import heads_of
from reelwright.stages.datasets.tasks.task import Task, build_task
from reelwright.stages.fit.loop.checkpoints import load_weights
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import UNKNOWN

TEMPORAL = "temporal."  # of the temporal model's weights in a finetune run
WHOLE = "model."  # of the weights of a clip model, which has no encoder before it


def build_run_model(values: Mapping[str, Any], *, plugins: Mapping[str, Any], seed: int = 0) -> VideoModel:
    """The model that the `model` block of a config.yaml describes, with random weights from ``seed``.

    A block with a `frame_size` is of a clip model (`build_run_clip_model`). What learns from views has no `num_outputs`
    (null) where it does not classify, and its `length` is that of the views. ``plugins`` are those that the unit of
    work names. Raises ConfigError for an unknown name or option, and for a plug-in that is not named or does not give
    what models give.
    """
    if sees_frames(values):
        return build_run_clip_model(values, plugins=plugins, seed=seed)
    sizes = {name: values[name] for name in ("input_dim", "num_outputs", "length", "per_row")}
    name, options, num_classes = values["name"], values["options"], values["num_outputs"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if name in TEMPORAL_MODELS:
                return build_temporal(name, **sizes, **options)
            if name in FRAME_MODELS:
                frames = {"length": values["length"], "input_dim": values["input_dim"]}
                return build_frame_model(name, **frames, num_classes=num_classes, **options)
            model = load_plugin("models", name, plugins)
            given = TemporalSizes(**sizes | {"num_outputs": num_classes or 0})
            checked = checked_options(model, options, name=name, num_given=1)
            return checked_model(model(given, **checked), given)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def sees_frames(model: Mapping[str, Any]) -> bool:
    """Whether the `model` block of a config.yaml is of a clip model, which has no encoder before it."""
    return "frame_size" in model


def clip_model_class(name: str, *, plugins: Mapping[str, Any]) -> type[ClipModel]:
    """The clip model called ``name``, ours or a plug-in's, which says what pixels it wants.

    Raises ConfigError for a plug-in that is not named or is no ClipModel with a data_config.
    """
    if name in CLIP_MODELS:
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
            if name in CLIP_MODELS:
                return build_clip_model(name, sizes, **options)
            checked: dict[str, Any] = checked_options(cls, options, name=name, num_given=1)
            return checked_clip_model(cls(sizes, **checked), sizes)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def load_run_model(folder: RunFolder, *, plugins: Mapping[str, Any]) -> tuple[VideoModel, dict[str, Any]]:
    """The model of a complete train or finetune run with its best weights, and its config.yaml.

    Of a finetune run it is what is behind the encoder, or all where there is none.

    ``plugins`` are those that may be imported for it. Raises StoreError or StageError when it is not complete or does
    not fit, ConfigError for a plug-in not named.
    """
    values = folder.config()
    folder.weights_digest()
    model = build_run_model(values["model"], plugins=plugins)
    prefix = WHOLE if sees_frames(values["model"]) else TEMPORAL if values["stage"] == "finetune" else ""
    load_weights(folder.weights, model, prefix=prefix)
    return model, values


def task_of_run(values: Mapping[str, Any], *, background: int = UNKNOWN) -> Task:
    """What the run of a config.yaml was trained for; ``background`` is the class of rows without a label.

    Raises ConfigError for a run that was trained without labels.
    """
    if values["task"] is None:
        raise ConfigError(
            f"the run of {values['node']} was trained without labels and gives no scores; embed rows with it (embed: "
            f"{{run: {values['node']}}}), and probe these or train on them"
        )
    heads = heads_of(values.get("heads", ()))
    labels = LabelSpace(
        classes=tuple(values["classes"]),
        background=background,
        heads=tuple((head.name, head.num_classes) for head in heads),
        of_window=values.get("labels_of_window", "any"),
    )
    return build_task(values["task"], labels, heads=heads)


def clips_of_run(values: Mapping[str, Any], shape: WindowShape) -> ClipSampling | None:
    """How the run of a config.yaml takes clips; None where it has windows."""
    clips = values.get("clips", {"sampling": "grid"})
    return clip_sampling(
        clips["sampling"], shape, segments=clips.get("segments"), segment_rule=clips.get("segment_rule", "even")
    )
