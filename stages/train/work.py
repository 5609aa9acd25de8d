"""Train a temporal model on stored embeddings: one run.

embeddings -> block -> windows and targets (train, val) -> model -> Trainer -> runs/<key>/
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reelwright.models.blocks.heads import Head
from reelwright.models.contracts import VideoModel
from reelwright.models.systems.carl import FrameModel
from reelwright.models.systems.embedding_head import SelfSupervisedRows, embedding_size
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.feature_bank import FeatureBank, load_block
from reelwright.stages.datasets.labelled import KnownRows, distinct_videos
from reelwright.stages.datasets.stored_rows import num_features, split_missing
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task, build_task
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.fit.mixing import build_mixing, mix_windows
from reelwright.stages.fit.processes.world import machine_name
from reelwright.stages.fit.run_models import build_run_model
from reelwright.stages.fit.setup import Learning, TrainContext, learn, train_in_processes
from reelwright.stages.fit.validation import build_objective, chosen_metric
from reelwright.stages.objectives.self_supervised import comparison_heads
from reelwright.stages.train.config import TrainConfig
from reelwright.stages.train.drawn_windows import (
    WindowSampling,
    find_windows,
    window_facts,
    window_heads,
    window_labels,
)
from reelwright.stages.train.experts import Experts, row_shape
from reelwright.stages.train.view_batches import MapBatches, ViewBatches, map_channels
from reelwright.stages.train.view_learning import MakeViews, learn_views, start_resnet, view_labels, view_values
from reelwright.stages.train.window_batches import WindowBatches
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.files import remove
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Train the run ``work.key``, or go on with it where it was interrupted; a complete one stays as it is.

    Returns {"weights": digest of the best weights, "metrics": the best epoch's line of metrics.jsonl}. Raises
    ConfigError, InputError or StoreError before training where that can be seen, StageError when it diverges,
    Interrupted on SIGTERM.
    """
    config = parse_config(TrainConfig, dict(work.config), where=work.node)
    return train_in_processes(work, reporter, config=config, train=_train)


def _train(work: Work, config: TrainConfig, context: TrainContext) -> dict[str, Any] | None:
    task: Task | None
    if config.views is None:
        labels = window_labels(work, config)
        heads = window_heads(config, labels, where=work.node)
        task = build_task(config.task, labels, heads=heads)
    else:
        labels, heads = view_labels(work, config), []
        task = build_task("per_row", labels) if config.classifies_rows else None
    metric = chosen_metric(config, task, plugins=work.plugins)
    store = Store.at(work.store)
    stores = [EmbeddingStore(store.embeddings(ref.key)) for ref in work.inputs["embeddings"]]
    model, values = _build(work, config, stores, labels, heads)
    model.to(context.device)
    scratch = store.root / "scratch" / f"{work.key}.{machine_name()}.rows"

    def load() -> Learning:
        names = _present(work, config, stores, context.reporter)
        of_maps = config.reads_maps
        if of_maps or "views" in stores[0].spec:
            opened = [stores[0].rows(digest) for digest in names]
            rows = KnownRows(tuple(names), tuple(each.spans for each in opened))
            make: MakeViews = partial(MapBatches, rows=opened, output=config.output, row_axes=3 if of_maps else 1)
        else:
            block = _load(config, stores, names, context=context, scratch=scratch)
            rows, make = KnownRows(block.digests, block.spans), partial(ViewBatches, block=block)
            if config.views is None:
                assert task is not None
                return _learning(work, config, block, names, task, context=context, metric=metric)
        num_contexts = int(config.model.option("contexts", 1))
        how: dict[str, Any] = {"metric": metric, "make": make, "num_contexts": num_contexts, "context": context}
        return learn_views(work, config, rows, labels, task=task, **how)

    try:
        return learn(model, load, work=work, config=config, context=context, labels=labels, values=values)
    finally:
        if context.world.local_rank == 0:
            remove(scratch)


def _build(
    work: Work, config: TrainConfig, stores: list[EmbeddingStore], labels: LabelSpace, heads: list[Head]
) -> tuple[VideoModel, dict[str, Any]]:
    """The model with its first weights, and what config.yaml says of it."""
    of_maps = config.reads_maps
    if of_maps:
        input_dim = map_channels(stores[0], config.output)
    else:
        input_dim = num_features(stores, config.output, takes_views=config.views is not None)
    values = _model_values(config, heads, input_dim=input_dim, num_classes=len(labels.classes))
    experts = Experts.of(work, "embeddings") if config.model.joins_tokens else None
    if config.model.keeps_positions:
        values["model"]["row_shape"] = row_shape(stores, config.output)
    if experts is not None:
        experts.check_rows(stores)
        options = experts.options({**config.model.options(), "source": "tokens"})
        values["model"] |= {
            "options": options,
            "clip_length": experts.clip_length(),
            "input_dim": row_shape(stores, config.output)[-1],
            "heads": dict(labels.heads),
        }
    model = build_run_model(values["model"], plugins=work.plugins, seed=config.seed)
    if experts is not None:
        experts.check_output(model, config.output)
        experts.give_weights(model)
    if of_maps and isinstance(model, FrameModel) and model.backbone is not None and len(model.backbone.tuned):
        (reference,) = work.inputs["embeddings"]
        start_resnet(model, encoder_of(work, reference), of=reference.node, where=work.node)
    if config.compares_views:
        model = _with_heads(model, config, values["model"], where=work.node)
    return model, values


def _with_heads(model: VideoModel, config: TrainConfig, sizes: dict[str, Any], *, where: str) -> VideoModel:
    """The model with what compares its embeddings of views. Raises ConfigError for a model without such."""
    assert config.objective is not None
    rows = 2 * model.options.contexts if isinstance(model, FrameModel) else 2
    row = (sizes["input_dim"], 8, 8) if config.reads_maps else (sizes["input_dim"],)
    batch = {"rows": torch.zeros(1, rows, *row), "mask": torch.ones(1, 2, dtype=torch.bool)}
    try:
        size = embedding_size(model, batch)
    except ValueError as error:
        raise ConfigError(f"{where}: objective {config.objective.name}: {error}") from error
    return SelfSupervisedRows(model, comparison_heads(config.objective.of_views(), size, seed=config.seed))


def _present(work: Work, config: TrainConfig, stores: list[EmbeddingStore], reporter: Reporter) -> dict[str, str]:
    """Digest -> name of the videos that have rows in all stores. Raises InputError where none has."""
    videos = distinct_videos(work.payload, splits=(*config.train_splits, *config.val_splits))
    names = {video.digest: video.video_id for video in videos}
    present, missing = split_missing(stores, list(names))
    if missing:
        listed = ", ".join(names[digest] for digest in missing[:5])
        reporter.note(f"{len(missing)} of {len(names)} videos have no embeddings and are left out: {listed}")
    if not present:
        raise InputError(
            f"{work.node}: none of the {len(names)} videos of splits {', '.join(config.train_splits)} has embeddings; "
            "`reelwright status` says why, or look at train_splits."
        )
    return {digest: names[digest] for digest in present}


def _load(
    config: TrainConfig,
    stores: list[EmbeddingStore],
    names: dict[str, str],
    *,
    context: TrainContext,
    scratch: Path,
) -> FeatureBank:
    """The rows of all videos; several processes on a machine share one block, which the first of them writes."""
    is_shared = context.world.size > 1
    read = partial(
        load_block,
        stores,
        names,
        output=config.output,
        memory_bytes=0 if is_shared else config.memory_bytes,
        scratch=scratch,
        keeps_positions=config.model.keeps_positions,
    )
    if not is_shared:
        block = read()
    elif context.world.local_rank == 0:
        block = read()
        context.world.wait()
    else:
        context.world.wait()
        block = read(is_written=True)
    context.world.wait()
    return block.on(context.device)


def _learning(
    work: Work,
    config: TrainConfig,
    block: FeatureBank,
    names: dict[str, str],
    task: Task,
    *,
    context: TrainContext,
    metric: str,
) -> Learning:
    """Windows of train and val, and the loss."""
    rows, sampling = KnownRows(block.digests, block.spans), WindowSampling.of(config)
    data = find_windows(work, rows, config=config, sampling=sampling, task=task, note=context.reporter.note)

    named = tuple(names[digest] for digest in block.digests)
    batches = partial(WindowBatches, block=block, names=named)
    return Learning(
        train=data.train_batches(batches, config, context.world),
        val=data.val_batches(batches, config, context.world),
        objective=build_objective(config, task, counts=data.counts, device=context.device, plugins=work.plugins),
        task=task,
        metric=metric,
        prepare=build_mixing(config, mix_windows, num_extents=1, task=task, world=context.world),
    )


def _model_values(config: TrainConfig, heads: Sequence[Head], *, input_dim: int, num_classes: int) -> dict[str, Any]:
    """The part of config.yaml from which predict, embed and finetune build the model again."""
    if config.views is not None:
        return view_values(config, config.model, output=config.output, input_dim=input_dim, num_classes=num_classes)
    model = {
        "name": config.model.name,
        "options": config.model.options(),
        "input_dim": input_dim,
        "num_outputs": num_classes,
        "length": config.window.length,
        "per_row": config.traits.per_row,
    }
    return {**window_facts(config, heads), "output": config.output, "model": model}
