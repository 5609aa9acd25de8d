"""Fine-tune an encoder and a temporal model together: one run.

frame store -> windows of frames -> augmentation -> encoder -> temporal model -> Trainer -> runs/<key>/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from reelwright.models.encoders.build import Encoder
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, Reporter, Work
from reelwright.stages.datasets.labelled import KnownRows, distinct_videos, label_space
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, build_from_config
from reelwright.stages.embed.encoding.forward import row_shapes
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.clips import FrameBatches, StoredVideos, open_videos, reader, stored_reader
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.finetune.module import PARTS, FinetuneModule, freeze
from reelwright.stages.finetune.preparing import ClipAugmentation
from reelwright.stages.fit.mixing import build_mixing, mix_frames
from reelwright.stages.fit.run_models import clips_of_run, load_run_model, task_of_run
from reelwright.stages.fit.setup import Learning, learn
from reelwright.stages.fit.train_context import TrainContext, train_in_processes
from reelwright.stages.fit.validation import build_objective, chosen_metric
from reelwright.stages.train.drawn_windows import WindowSampling, find_windows
from reelwright.storage.arrays.frames import FrameStore
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
    _check_frames(work, config)
    return train_in_processes(work, reporter, config=config, train=_tune)


def _tune(work: Work, config: FinetuneConfig, place: TrainContext) -> dict[str, Any] | None:
    store = Store.at(work.store)
    temporal, values = load_run_model(RunFolder(store.run(_only(work, "temporal").key)), plugins=work.plugins)
    labels = _labels(work, values)
    loaded = _spatial(work, store, values)
    task = task_of_run(values, background=labels.background)
    metric = chosen_metric(config, task, plugins=work.plugins)
    module = FinetuneModule(
        loaded.encoder, temporal, data_config=loaded.data_config, frozen_norm=config.frozen_norm
    ).to(place.device)
    still = [part for part in PARTS if getattr(config, f"{part}_lr_scale") == 0]
    freeze(module, (*config.freeze, *still), where=work.node)
    if config.channels_last or (config.channels_last is None and place.device.type == "cuda"):
        module.spatial.to(memory_format=torch.channels_last)

    def load() -> Learning:
        return replace(
            _learning(work, config, values, loaded, task, place=place, metric=metric),
            prepare=ClipAugmentation(
                module,
                config.augment,
                seed=config.seed,
                mixing=build_mixing(config, mix_frames, num_extents=2, task=task, world=place.world),
            ),
        )

    described = _described(values, loaded)
    return learn(module, load, work=work, config=config, place=place, labels=labels, values=described)


def _only(work: Work, name: str) -> InputRef:
    (reference,) = work.inputs[name]
    return reference


def _check_frames(work: Work, config: FinetuneConfig) -> None:
    decode = parse_config(DecodeConfig, dict(_only(work, "frames").config), where=_only(work, "frames").node)
    config.check_inputs({"frames": [decode]})


def _labels(work: Work, values: Mapping[str, Any]) -> LabelSpace:
    """The classes; the same as the temporal run's."""
    labels = replace(label_space(work.payload, node=work.node), of_window=values.get("labels_of_window", "any"))
    if list(labels.classes) != list(values["classes"]):
        raise InputError(
            f"{work.node}: the temporal run knows the classes {', '.join(values['classes'])}, the labels have "
            f"{', '.join(labels.classes)}. Run the train node again."
        )
    return labels


def _spatial(work: Work, store: Store, values: Mapping[str, Any]) -> LoadedEncoder:
    """The encoder of the embed node, with the one output that the temporal model reads."""
    reference = _only(work, "spatial")
    config = parse_config(EmbedConfig, dict(reference.config), where=reference.node)
    output = str(values.get("output", "pooled"))
    if output not in config.outputs:
        raise ConfigError(
            f"{work.node}: the temporal run reads {output!r}, but {reference.node} gives {', '.join(config.outputs)}. "
            "Name the embed node that it was trained on."
        )
    generation = reference.inputs.get("run", ())
    only = config.model_copy(update={"outputs": (output,)})
    run = generation[0] if generation else None
    loaded = build_from_config(only, store=store, run=run, where=reference.node, plugins=work.plugins)
    shape = row_shapes(loaded.encoder, loaded.data_config, where=reference.node)[output]
    _check_fit(work, loaded.encoder, shape, values)
    return loaded


def _check_fit(work: Work, encoder: Encoder, shape: tuple[int, ...], values: Mapping[str, Any]) -> None:
    if encoder.kind != "image":
        raise ConfigError(f"{work.node}: rows of a video encoder are clips; finetune needs one of images (timm/NAME).")
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
    path = Store.at(work.store).frames(_only(work, "frames").key)
    videos, names = _videos(work, config, FrameStore(path), place.reporter)
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
    is_cropped = config.augment.crop_scale is not None
    of_train, of_val = (set(labelled.windows.video.tolist()) for labelled in (data.train, data.val))
    as_seen = of_val if is_cropped else of_train | of_val
    seen = reader(videos, as_seen, geometry, store=path, memory_bytes=config.memory_bytes)
    stored = stored_reader(videos, of_train, memory_bytes=config.memory_bytes - seen.held_bytes)
    transforms = clip_transforms(config.augment, geometry, seed=config.seed)
    batches, share = partial(FrameBatches, names=names), place.world.share
    read = (stored if is_cropped else seen).read
    return Learning(
        train=data.train_batches(partial(batches, read=read, transforms=transforms), config, share),
        val=data.val_batches(partial(batches, read=seen.read), config, share),
        objective=build_objective(config, task, counts=data.counts, device=place.device, plugins=work.plugins),
        task=task,
        metric=metric,
        multipliers={f"{part}.": getattr(config, f"{part}_lr_scale") for part in PARTS},
        evaluate_start=True,
    )


def _videos(
    work: Work, config: FinetuneConfig, store: FrameStore, reporter: Reporter
) -> tuple[StoredVideos, tuple[str, ...]]:
    """The videos that have stored frames, and their names."""
    wanted = distinct_videos(work.payload, splits=(*config.train_splits, *config.val_splits))
    names = {video.digest: video.video_id for video in wanted}
    videos = open_videos(store, list(names))
    missing = [video.video_id for video in wanted if video.digest not in videos.digests]
    if missing:
        reporter.note(f"{len(missing)} videos have no stored frames and are left out: {', '.join(missing[:5])}")
    return videos, tuple(names[digest] for digest in videos.digests)


def _described(values: Mapping[str, Any], loaded: LoadedEncoder) -> dict[str, Any]:
    """What config.yaml says of both parts, enough to build them again."""
    names = ("task", "labels_of_window", "output", "window", "clips", "heads", "model")
    kept = {name: values[name] for name in names if name in values}
    used = ("encoder", "model_args", "embed_dim", "outputs", "preprocess", "clip")
    return {
        **kept,
        "spatial": {**loaded.config.model_dump(mode="json", include=set(used)), "weights": "none"},
        "started_from": loaded.weights_digest,
    }
