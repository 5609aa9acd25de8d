"""Fine-tune an encoder and a temporal model together, or a network that sees clips of frames: one run.

frame store -> windows of frames -> augmentation -> encoder -> temporal model -> Trainer -> runs/<key>/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_run
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.labelled import label_space
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.inputs import frames_node, only_input, spatial_encoder, spatial_facts
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.view_learning import tune_views
from reelwright.stages.finetune.window_learning import tune_windows, window_learning
from reelwright.stages.fit.network_config import MODEL_OPTIONS, ModelSettings
from reelwright.stages.fit.run_models import clips_of_run, load_run_model, task_of_run
from reelwright.stages.fit.setup import TrainContext, learn, train_in_processes
from reelwright.stages.fit.validation import chosen_metric
from reelwright.stages.train.drawn_windows import WindowSampling
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Train the run ``work.key``, or go on with it where it was interrupted; a complete one stays as it is.

    Returns {"weights": digest of the best weights, "metrics": the best epoch's line of metrics.jsonl}. The best weights
    on val may be those it started from (epoch 0). Raises ConfigError, InputError or StoreError before training where
    that can be seen, StageError when it diverges, Interrupted on SIGTERM.
    """
    config = parse_config(FinetuneConfig, dict(work.config), where=work.node)
    config.check_inputs({"frames": [frames_node(work)]})
    return train_in_processes(work, reporter, config=config, train=_tune)


def _tune(work: Work, config: FinetuneConfig, context: TrainContext) -> dict[str, Any] | None:
    if config.views is not None:
        return tune_views(work, config, context)
    if config.model is not None:
        return tune_windows(work, config, context)
    with unchanged_run(Store.at(work.store), only_input(work, "temporal")) as folder:
        temporal, values = load_run_model(folder, plugins=work.plugins)
    own = values["model"]
    if own["name"] in MODEL_OPTIONS and config.loss.attention_weight is not None:
        config.check_attention_weight(ModelSettings(name=own["name"], **own["options"]))
    config.check_order(task=str(values["task"]), labels_of_window=str(values.get("labels_of_window", "any")))
    labels = _labels(work, values)
    loaded = _spatial(work, values)
    task = task_of_run(values, background=labels.background)
    config.check_smoothing([head.label_smoothing for head in task.heads])
    metric = chosen_metric(config, task, plugins=work.plugins)
    module = FinetuneModule(
        loaded.encoder, temporal, data_config=loaded.data_config, frozen_norm=config.frozen_norm
    ).to(context.device)
    module.set_up(config, device=context.device, where=work.node)

    shape = WindowShape(**values["window"])
    sampling = WindowSampling(
        shape=shape,
        clips=clips_of_run(values, shape),
        seed=config.seed,
        per_epoch=config.windows_per_epoch,
        repeats=config.repeats,
    )
    load = partial(
        window_learning,
        work,
        config,
        module,
        sampling=sampling,
        geometry=geometry_of(loaded.data_config),
        task=task,
        metric=metric,
        context=context,
        evaluate_start=True,
    )
    names = ("task", "labels_of_window", "output", "window", "clips", "heads", "model")
    described = {**{name: values[name] for name in names if name in values}, **spatial_facts(loaded)}
    return learn(module, load, work=work, config=config, context=context, labels=labels, values=described)


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
