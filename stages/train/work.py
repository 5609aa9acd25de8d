"""Train a temporal model on stored embeddings: one run.

embeddings -> block -> windows and targets (train, val) -> model -> Trainer -> runs/<key>/
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from reelwright.models.blocks.heads import Head
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.feature_bank import FeatureBank, load_block, num_features, split_missing
from reelwright.stages.datasets.labelled import KnownRows, distinct_videos, label_space
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task, build_task
from reelwright.stages.fit.mixing import build_mixing, mix_windows
from reelwright.stages.fit.processes.world import machine_name
from reelwright.stages.fit.run_models import build_run_model
from reelwright.stages.fit.setup import Learning, learn
from reelwright.stages.fit.train_context import TrainContext, train_in_processes
from reelwright.stages.fit.validation import build_objective, chosen_metric
from reelwright.stages.train.config import SHAPE_FIELDS, TrainConfig
from reelwright.stages.train.drawn_windows import WindowSampling, find_windows
from reelwright.stages.train.window_batches import WindowBatches
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, InputError, nearest
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


def _train(work: Work, config: TrainConfig, place: TrainContext) -> dict[str, Any] | None:
    labels = replace(label_space(work.payload, node=work.node), of_window=config.labels_of_window)
    heads = _heads(config, labels, where=work.node)
    task = build_task(config.task, labels, heads=heads)
    metric = chosen_metric(config, task, plugins=work.plugins)
    store = Store.at(work.store)
    stores = [EmbeddingStore(store.embeddings(ref.key)) for ref in work.inputs["embeddings"]]
    values = _model_values(config, input_dim=num_features(stores, config.output), num_classes=len(labels.classes))
    values |= {"heads": [asdict(head) for head in heads]} if heads else {}
    if config.model.keeps_positions:
        values["model"]["row_shape"] = list(stores[0].spec["outputs"][config.output])
    model = build_run_model(values["model"], plugins=work.plugins, seed=config.seed).to(place.device)
    scratch = store.root / "scratch" / f"{work.key}.{machine_name()}.rows"

    def load() -> Learning:
        loaded = _load(work, config, stores, place=place, scratch=scratch)
        return _learning(work, config, loaded, task, place=place, metric=metric)

    try:
        return learn(model, load, work=work, config=config, place=place, labels=labels, values=values)
    finally:
        if place.world.local_rank == 0:
            remove(scratch)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """The rows of all videos, and the names of these."""

    block: FeatureBank
    names: tuple[str, ...]


def _load(
    work: Work, config: TrainConfig, stores: list[EmbeddingStore], *, place: TrainContext, scratch: Path
) -> _Loaded:
    """The block; several processes on a machine share one, which the first of them writes."""
    videos = distinct_videos(work.payload, splits=(*config.train_splits, *config.val_splits))
    names = {video.digest: video.video_id for video in videos}
    present, missing = split_missing(stores, list(names))
    if missing:
        listed = ", ".join(names[digest] for digest in missing[:5])
        place.reporter.note(f"{len(missing)} of {len(names)} videos have no embeddings and are left out: {listed}")
    if not present:
        raise InputError(
            f"{work.node}: none of the {len(names)} videos of splits {', '.join(config.train_splits)} has embeddings; "
            "`reelwright status` says why, or look at train_splits."
        )
    present_names = {digest: names[digest] for digest in present}
    is_shared = place.world.size > 1
    read = partial(
        load_block,
        stores,
        present_names,
        output=config.output,
        memory_bytes=0 if is_shared else config.memory_bytes,
        scratch=scratch,
        keeps_positions=config.model.keeps_positions,
    )
    if not is_shared:
        block = read()
    elif place.world.local_rank == 0:
        block = read()
        place.world.wait()
    else:
        place.world.wait()
        block = read(is_written=True)
    place.world.wait()
    return _Loaded(block=block.on(place.device), names=tuple(present_names[digest] for digest in block.digests))


def _learning(
    work: Work, config: TrainConfig, loaded: _Loaded, task: Task, *, place: TrainContext, metric: str
) -> Learning:
    """Windows of train and val, and the loss."""
    rows, sampling = KnownRows(loaded.block.digests, loaded.block.spans), WindowSampling.of(config)
    data = find_windows(work, rows, config=config, sampling=sampling, task=task, note=place.reporter.note)

    batches, share = partial(WindowBatches, block=loaded.block, names=loaded.names), place.world.share
    return Learning(
        train=data.train_batches(batches, config, share),
        val=data.val_batches(batches, config, share),
        objective=build_objective(config, task, counts=data.counts, device=place.device, plugins=work.plugins),
        task=task,
        metric=metric,
        prepare=build_mixing(config, mix_windows, num_extents=1, task=task, world=place.world),
    )


def _heads(config: TrainConfig, labels: LabelSpace, *, where: str) -> list[Head]:
    """Those of task heads. Raises InputError where the labels have none, ConfigError for weights of others."""
    if not config.traits.has_heads:
        return []
    if not labels.heads:
        raise InputError(
            f"{where}: task is heads, but the labels are of one kind. Give labels.columns, a column of the manifest "
            "for each head, or choose another task."
        )
    names = [name for name, _ in labels.heads]
    for name in config.head_weights:
        if name not in names:
            raise ConfigError(
                f"{where}: head_weights: no head {name!r}.{nearest(name, names)} Heads: {', '.join(names)}."
            )
    weights = {name: config.head_weights.get(name, 1.0) for name in names}
    smoothing = config.loss.label_smoothing
    return [Head(name=n, num_classes=k, weight=weights[n], label_smoothing=smoothing) for n, k in labels.heads]


def _model_values(config: TrainConfig, *, input_dim: int, num_classes: int) -> dict[str, Any]:
    """The part of config.yaml from which predict and finetune build the model again."""
    model = {
        "name": config.model.name,
        "options": config.model.options(),
        "input_dim": input_dim,
        "num_outputs": num_classes,
        "length": config.window.length,
        "per_row": config.traits.per_row,
    }
    window = config.window.model_dump(include=set(SHAPE_FIELDS))
    task = {"task": config.task, "labels_of_window": config.labels_of_window}
    clips = config.window.model_dump(include={"sampling", "segments", "segment_rule"})
    return {**task, "output": config.output, "window": window, "clips": clips, "model": model}
