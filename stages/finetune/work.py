"""Fine-tune an encoder and a temporal model together: one run.

frame store -> windows of frames -> augmentation -> encoder -> temporal model -> Trainer -> runs/<key>/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from reelwright.stages.augment.scene.augmentation import EpochSteps
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.labelled import KnownRows, label_space
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.clips import FrameBatches
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.inputs import (
    check_frames,
    clip_reading,
    only_input,
    spatial_encoder,
    spatial_facts,
    stored_videos,
)
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.preparing import ClipAugmentation
from reelwright.stages.finetune.view_learning import tune_views
from reelwright.stages.fit.mixing import build_mixing, mix_frames
from reelwright.stages.fit.run_models import clips_of_run, load_run_model, task_of_run
from reelwright.stages.fit.setup import Learning, learn
from reelwright.stages.fit.train_context import TrainContext, train_in_processes
from reelwright.stages.fit.validation import build_objective, chosen_metric
from reelwright.stages.train.drawn_windows import WindowSampling, find_windows
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Train the run ``work.key``, or go on with it where it was interrupted; a complete one stays as it is.

    Returns {"weights": digest of the best weights, "metrics": the best epoch's line of metrics.jsonl}. The best weights
    on val may be those it started from (epoch 0). Raises ConfigError, InputError or StoreError before training where
    that can be seen, StageError when it diverges, Interrupted on SIGTERM.
    """
    config = parse_config(FinetuneConfig, dict(work.config), where=work.node)
    check_frames(work, config)
    return train_in_processes(work, reporter, config=config, train=_tune)


def _tune(work: Work, config: FinetuneConfig, place: TrainContext) -> dict[str, Any] | None:
    if config.model is not None:
        return tune_views(work, config, place)
    folder = RunFolder(Store.at(work.store).run(only_input(work, "temporal").key))
    temporal, values = load_run_model(folder, plugins=work.plugins)
    config.check_order(task=str(values["task"]), labels_of_window=str(values.get("labels_of_window", "any")))
    labels = _labels(work, values)
    loaded = _spatial(work, values)
    task = task_of_run(values, background=labels.background)
    metric = chosen_metric(config, task, plugins=work.plugins)
    module = FinetuneModule(
        loaded.encoder, temporal, data_config=loaded.data_config, frozen_norm=config.frozen_norm
    ).to(place.device)
    module.set_up(config, device=place.device, where=work.node)

    def load() -> Learning:
        learning = _learning(work, config, values, loaded, task, place=place, metric=metric)
        return replace(
            learning,
            prepare=ClipAugmentation(
                module,
                config.augment,
                seed=config.seed,
                mixing=build_mixing(config, mix_frames, num_extents=2, task=task, world=place.world),
                steps=EpochSteps(num_batches=learning.train.num_batches, clips_per_batch=config.batch_size),
            ),
        )

    described = _described(values, loaded)
    return learn(module, load, work=work, config=config, place=place, labels=labels, values=described)


def _labels(work: Work, values: Mapping[str, Any]) -> LabelSpace:
    """The classes; the same as the temporal run's."""
    labels = replace(label_space(work.payload, node=work.node), of_window=values.get("labels_of_window", "any"))
    if list(labels.classes) != list(values["classes"]):
        raise InputError(
            f"{work.node}: the temporal run knows the classes {', '.join(values['classes'])}, the labels have "
            f"{', '.join(labels.classes)}. Run the train node again."
        )
    return labels


def _spatial(work: Work, values: Mapping[str, Any]) -> LoadedEncoder:
    """The encoder of the embed node, with the one output that the temporal model reads."""
    output, reference = str(values.get("output", "pooled")), only_input(work, "spatial")
    stored = parse_config(EmbedConfig, dict(reference.config), where=reference.node).outputs
    if output not in stored:
        raise ConfigError(
            f"{work.node}: the temporal run reads {output!r}, but {reference.node} gives {', '.join(stored)}. "
            "Name the embed node that it was trained on."
        )
    loaded, shape = spatial_encoder(work, output)
    if len(shape) != 1:
        raise ConfigError(
            f"{work.node}: the temporal run reads output {values['output']!r} of shape {shape}, averaged over "
            "positions; finetune needs a pooled output. Train with output: pooled (or layerK.pooled)."
        )
    if shape[0] != values["model"]["input_dim"]:
        raise ConfigError(
            f"{work.node}: the encoder gives {shape[0]} features, but the temporal run reads "
            f"{values['model']['input_dim']}. Was it trained on several embeddings, or on another embed node?"
        )
    return loaded


def _learning(
    work: Work,
    config: FinetuneConfig,
    values: Mapping[str, Any],
    loaded: LoadedEncoder,
    task: Task,
    *,
    place: TrainContext,
    metric: str,
) -> Learning:
    """Windows of train and val over stored frames, and the loss."""
    shape = WindowShape(**values["window"])
    videos, names = stored_videos(work, config, place.reporter)
    sampling = WindowSampling(
        shape=shape,
        clips=clips_of_run(values, shape),
        seed=config.seed,
        per_epoch=config.windows_per_epoch,
        repeats=config.repeats,
    )
    rows = KnownRows(videos.digests, videos.spans)
    data = find_windows(work, rows, config=config, sampling=sampling, task=task, note=place.reporter.note)
    geometry = geometry_of(loaded.data_config)
    of_train, of_val = (set(labelled.windows.video.tolist()) for labelled in (data.train, data.val))
    reading = clip_reading(work, config, videos, geometry, of_train=of_train, of_val=of_val)
    batches, share = partial(FrameBatches, names=names), place.world.share
    return Learning(
        train=data.train_batches(partial(batches, read=reading.train, transforms=reading.transforms), config, share),
        val=data.val_batches(partial(batches, read=reading.val), config, share),
        objective=build_objective(config, task, counts=data.counts, device=place.device, plugins=work.plugins),
        task=task,
        metric=metric,
        multipliers=config.multipliers,
        evaluate_start=True,
    )


def _described(values: Mapping[str, Any], loaded: LoadedEncoder) -> dict[str, Any]:
    """What config.yaml says of both parts, enough to build them again."""
    names = ("task", "labels_of_window", "output", "window", "clips", "heads", "model")
    return {**{name: values[name] for name in names if name in values}, **spatial_facts(loaded)}
