"""What the config.yaml of a run describes: its model, its task and its clips. No training is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.contracts import VideoModel
from reelwright.models.systems.carl import FRAME_MODELS, build_frame_model
from reelwright.models.systems.embedding_head import NETWORK
from reelwright.models.temporal.build import TEMPORAL_MODELS, build_temporal
from reelwright.models.temporal.common import TemporalSizes
from reelwright.models.testing import checked_model
from reelwright.stages.base.plugins import checked_options, load_plugin
from reelwright.stages.datasets.sampling.clips import ClipSampling, clip_sampling
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.sets import heads_of
from reelwright.stages.datasets.tasks.task import Task, build_task
from reelwright.stages.embed.encoding.clip_models import WHOLE, build_run_clip_model, sees_frames
from reelwright.stages.fit.loop.checkpoints import load_weights
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.tables.annotations import UNKNOWN

TEMPORAL = "temporal."  # of the temporal model's weights in a finetune run


def build_run_model(values: Mapping[str, Any], *, plugins: Mapping[str, Any], seed: int = 0) -> VideoModel:
    """The model that the `model` block of a config.yaml describes, with random weights from ``seed``.

    A block with a `frame_size` is of a clip model (`build_run_clip_model`). What learns from views has no `num_outputs`
    (null) where it does not classify, and its `length` is that of the views. ``plugins`` are those that the unit of
    work names. Raises ConfigError for an unknown name or option, and for a plug-in that is not named or does not give
    what models give.
    """
    if sees_frames(values):
        return build_run_clip_model(values, plugins=plugins, seed=seed)
    name, options, num_classes = values["name"], values["options"], values["num_outputs"]
    sizes = {name: values[name] for name in ("input_dim", "length", "per_row")} | {"num_outputs": num_classes or 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if name in TEMPORAL_MODELS:
                return build_temporal(name, **sizes, **options)
            if name in FRAME_MODELS:
                frames = {"length": values["length"], "input_dim": values["input_dim"]}
                return build_frame_model(name, **frames, num_classes=num_classes, **options)
            if name in CLIP_MODEL_OPTIONS:
                from reelwright.models.clip_models import build_token_model  # here, since it takes seconds

                of_clips = {"length": values["clip_length"], "heads": values["heads"], "num_outputs": num_classes}
                return build_token_model(name, **of_clips, **options)
            model = load_plugin("models", name, plugins)
            given = TemporalSizes(**sizes)
            checked = checked_options(model, options, name=name, num_given=1)
            return checked_model(model(given, **checked), given)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def load_run_model(folder: RunFolder, *, plugins: Mapping[str, Any]) -> tuple[VideoModel, dict[str, Any]]:
    """The model of a complete train or finetune run with its best weights, and its config.yaml.

    Of a finetune run it is what is behind the encoder, or all where there is none.

    ``plugins`` are those that may be imported for it. Raises StoreError or StageError when it is not complete or does
    not fit, ConfigError for a plug-in not named, and for a run that is an encoder alone.
    """
    values = folder.config()
    if "model" not in values:
        raise ConfigError(
            f"the run of {values.get('node')} ({values.get('stage')}) is an encoder without a model of rows and gives "
            "no scores. Embed frames with it (embed: {run: ...}), and train on these rows"
        )
    folder.weights_digest()
    model = build_run_model(values["model"], plugins=plugins)
    own = NETWORK if values.get("compares_views") else ""
    prefix = WHOLE if sees_frames(values["model"]) else TEMPORAL if values["stage"] == "finetune" else own
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
