"""Learn from windows of stored frames: what all networks do alike, and those whose model begins anew.

frames -> augmentation -> encoder of images, a row a frame -> model of rows -> run
                          encoder of clips, a window a row -> model of rows
                          clip model
"""

from __future__ import annotations

from functools import partial
from typing import Any

from reelwright.models.encoders.base import DataConfig
from reelwright.stages.augment.scene.augmentation import EpochSteps
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import KnownRows
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task, build_task
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.embed.config import ClipSettings
from reelwright.stages.embed.encoding.clip_models import build_run_clip_model, clip_model_class
from reelwright.stages.embed.encoding.preprocess import described, geometry_of, override
from reelwright.stages.finetune.clips import FrameBatches
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.inputs import clip_reading, only_input, spatial_encoder, spatial_facts, stored_videos
from reelwright.stages.finetune.module import ClipNetwork, FinetuneModule, FrameNetwork
from reelwright.stages.finetune.preparing import ClipAugmentation
from reelwright.stages.fit.mixing import build_mixing, mix_frames
from reelwright.stages.fit.run_models import build_run_model
from reelwright.stages.fit.setup import Learning, TrainContext, learn
from reelwright.stages.fit.validation import build_objective, chosen_metric
from reelwright.stages.train.config import SHAPE_FIELDS
from reelwright.stages.train.drawn_windows import (
    WindowSampling,
    find_windows,
    window_facts,
    window_heads,
    window_labels,
)
from reelwright.stages.train.experts import Experts


def tune_windows(work: Work, config: FinetuneConfig, context: TrainContext) -> dict[str, Any] | None:
    """Train the run of a model that begins anew; as `work.run`."""
    labels = window_labels(work, config)
    heads = window_heads(config, labels, where=work.node)
    task = build_task(config.task, labels, heads=heads)
    metric = chosen_metric(config, task, plugins=work.plugins)
    facts = window_facts(config, heads)
    make = _clip_network if config.is_whole else _behind_encoder
    module, data_config, own_facts = make(work, config, labels, context)
    module.to(context.device)
    module.set_up(config, device=context.device, where=work.node)
    load = partial(
        window_learning,
        work,
        config,
        module,
        sampling=WindowSampling.of(config, repeats=config.repeats),
        geometry=geometry_of(data_config),
        task=task,
        metric=metric,
        context=context,
    )
    return learn(module, load, work=work, config=config, context=context, labels=labels, values=facts | own_facts)


def window_learning(
    work: Work,
    config: FinetuneConfig,
    module: FrameNetwork,
    *,
    sampling: WindowSampling,
    geometry: Geometry,
    task: Task,
    metric: str,
    context: TrainContext,
    evaluate_start: bool = False,
) -> Learning:
    """Windows of train and val over stored frames, what is done to them, and the loss."""
    videos, names = stored_videos(work, config, context.reporter)
    rows = KnownRows(videos.digests, videos.spans)
    data = find_windows(work, rows, config=config, sampling=sampling, task=task, note=context.reporter.note)
    of_train, of_val = (set(labelled.windows.video.tolist()) for labelled in (data.train, data.val))
    reading = clip_reading(work, config, videos, geometry, of_train=of_train, of_val=of_val)
    batches, world = partial(FrameBatches, names=names), context.world
    mixing = build_mixing(config, mix_frames, num_extents=2, task=task, world=world)
    train = data.train_batches(partial(batches, read=reading.train, transforms=reading.transforms), config, world)
    steps = EpochSteps(num_batches=train.num_batches, clips_per_batch=config.batch_size)
    return Learning(
        train=train,
        val=data.val_batches(partial(batches, read=reading.val, is_val=True), config, world),
        objective=build_objective(config, task, counts=data.counts, device=context.device, plugins=work.plugins),
        task=task,
        metric=metric,
        multipliers=config.multipliers,
        prepare=ClipAugmentation(module, config.augment, seed=config.seed, mixing=mixing, steps=steps),
        evaluate_start=evaluate_start,
    )


Made = tuple[FrameNetwork, DataConfig, dict[str, Any]]  # the network, the frames it wants, what config.yaml says of it


def _clip_network(work: Work, config: FinetuneConfig, labels: LabelSpace, context: TrainContext) -> Made:
    assert config.model is not None
    own, options = clip_model_class(config.model.name, plugins=work.plugins).data_config, config.model.options()
    experts = Experts.of(work, "experts") if config.experts else None
    if experts is not None:
        own, options = experts.data_config(own, given=config.preprocess), experts.options(options)
    elif config.model.joins_tokens and config.init_from is None:
        context.reporter.note(
            "warning: the weights of both experts are random; name the embed nodes whose encoders they are with experts"
        )
    data_config = override(own, config.preprocess, clip=ClipSettings(length=config.window.length))
    heads = dict(labels.heads) if config.task == "heads" else {}
    model = {
        "name": config.model.name,
        "options": options,
        "num_outputs": len(labels.classes),
        "length": config.window.length,
        "per_row": config.traits_per_row,
        "frame_size": list(data_config.size),
        "heads": heads,
    }
    built = build_run_clip_model(model, plugins=work.plugins, seed=config.seed)
    if experts is not None:
        experts.give_weights(built)
    network = ClipNetwork(built, data_config=data_config, heads=heads)
    return network, data_config, {"model": model, "sees": dict(described(data_config))}


def _behind_encoder(work: Work, config: FinetuneConfig, labels: LabelSpace, context: TrainContext) -> Made:
    assert config.model is not None
    window = config.window
    clip = ClipSettings(**window.model_dump(include=set(SHAPE_FIELDS)))
    loaded, (input_dim,) = spatial_encoder(work, "pooled", clip=clip)
    _warn_of_random_weights(work, config, context)
    is_of_clips = loaded.encoder.kind == "video"
    model = {
        "name": config.model.name,
        "options": config.model.options(),
        "input_dim": input_dim,
        "num_outputs": len(labels.classes),
        "length": 1 if is_of_clips else window.length,
        "per_row": config.traits_per_row,
    }
    module = FinetuneModule(
        loaded.encoder,
        build_run_model(model, plugins=work.plugins, seed=config.seed),
        data_config=loaded.data_config,
        frozen_norm=config.frozen_norm,
    )
    sees = {"sees": dict(described(loaded.data_config))} if is_of_clips else {}
    return module, loaded.data_config, {"output": "pooled", "model": model, **sees, **spatial_facts(loaded)}


def _warn_of_random_weights(work: Work, config: FinetuneConfig, context: TrainContext) -> None:
    reference = only_input(work, "spatial")
    if reference.config.get("weights") == "none" and config.frozen_norm and config.init_from is None:
        context.reporter.note(
            f"warning: the weights of {reference.node} are random, and frozen_norm keeps the statistics of its batch "
            "norms as they are; set frozen_norm: false to learn them"
        )
