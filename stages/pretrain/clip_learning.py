"""Pre-train a video encoder on clips of stored videos, with their labels or without: one run, which `embed` takes.

frame store -> clips from random starts -> augmentation -> encoder -> classifier, or heads that compare two clips -> run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from reelwright.models.contracts import Forward
from reelwright.models.metrics.views import merge_views
from reelwright.stages.augment.scene.augmentation import EpochSteps
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import check_classes, distinct_videos, label_space
from reelwright.stages.datasets.sampling.dense import covering_starts, multi_starts
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task, build_task
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, build_from_config
from reelwright.stages.embed.encoding.forward import choose_layout, row_shapes
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.clips import Read, StoredVideos, open_videos, reader, stored_reader
from reelwright.stages.finetune.inputs import spatial_facts
from reelwright.stages.finetune.preparing import ClipAugmentation
from reelwright.stages.fit.setup import Learning, TrainContext, learn
from reelwright.stages.objectives.contract import Objective
from reelwright.stages.objectives.contrastive import RankedClasses
from reelwright.stages.objectives.self_supervised import comparison_heads, self_supervised_objective
from reelwright.stages.pretrain.batches import ClipBatches, ClipVideos, read_clips
from reelwright.stages.pretrain.config import OF_ENCODER, PretrainConfig
from reelwright.stages.pretrain.examples_config import CLIP_METRICS, ClipPretrainSettings
from reelwright.stages.pretrain.module import ClipEncoderNetwork
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import UNKNOWN

_CLASSIFIERS = ("fc.*", "classifier.*", "head.*", "blocks.5.proj.*")  # of timm's, torchvision's and X3D's networks


def pretrain_clips(work: Work, config: PretrainConfig, context: TrainContext) -> dict[str, Any] | None:
    """Train the run; as `work.run`."""
    clips = config.clips
    assert clips is not None
    labels = LabelSpace(classes=(), background=UNKNOWN)
    if config.learns_labels:
        labels = label_space(work.payload, node=work.node)
    task = build_task("video", labels) if labels.classes else None
    if task is not None:
        task.choose_metric(config.metric)  # there is no top5 of five classes
    loaded = _encoder(work, config, num_classes=len(labels.classes))
    shape = WindowShape(length=loaded.data_config.clip_length, dilation=clips.dilation, short="repeat")
    module = _network(loaded, config, num_classes=len(labels.classes), where=work.node).to(context.device)
    choose_layout(module.spatial, config.channels_last, device=context.device)

    def load() -> Learning:
        return _learning(work, config, module, loaded, task=task, shape=shape, context=context)

    clip = {**loaded.config.clip.model_dump(mode="json"), "length": shape.length, "dilation": shape.dilation}
    # The classifier is not among what is kept of the encoder.
    facts = spatial_facts(loaded, model_args=config.model_args, clip=clip, outputs=["pooled"])
    values = {"task": "pretrain", **facts}
    return learn(module, load, work=work, config=config, context=context, labels=labels, values=values)


def _encoder(work: Work, config: PretrainConfig, *, num_classes: int) -> LoadedEncoder:
    """The encoder with the weights it starts from; with classes, its own last layer is new and of so many.

    Raises ConfigError for an encoder of images.
    """
    clips = config.clips
    assert clips is not None
    given = config.model_dump(include=set(OF_ENCODER))
    given |= {"frames": config.frames, "clip": {"length": clips.length, "dilation": clips.dilation}}
    if num_classes and not config.plugins():
        given["outputs"] = ("logits",)
        given["model_args"] = {**config.model_args, "num_classes": num_classes}
        given["ignore"] = (*config.ignore, *(_CLASSIFIERS if config.weights != "none" else ()))
    wanted = parse_config(EmbedConfig, given, where=work.node)
    with unchanged_sources(work):
        loaded = build_from_config(wanted, store=Store.at(work.store), run=None, where=work.node, plugins=work.plugins)
    if loaded.encoder.kind != "video":
        raise ConfigError(f"{work.node}: encoder: {config.encoder!r} reads images, but clips are given; leave them out")
    return loaded


def _network(loaded: LoadedEncoder, config: PretrainConfig, *, num_classes: int, where: str) -> ClipEncoderNetwork:
    """Raises ConfigError for clips that the encoder does not take."""
    shapes = row_shapes(loaded.encoder, loaded.data_config, where=where)
    make = partial(ClipEncoderNetwork, loaded.encoder, data_config=loaded.data_config)
    if "logits" in loaded.encoder.outputs:
        return make()
    size = shapes["pooled"][0]
    if not num_classes:
        return make(heads=comparison_heads(config.objective.of_views(), size, seed=config.seed))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return make(classifier=nn.Linear(size, num_classes))


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What on val is classified, and how."""

    videos: ClipVideos
    read: Read
    shape: WindowShape
    clips: ClipPretrainSettings
    task: Task
    context: TrainContext

    def __call__(self, forward: Forward) -> dict[str, float]:
        """Metrics of videos: class probabilities of each are the mean over its clips."""
        windows = val_clips(self.videos.num_rows.tolist(), self.shape, self.clips)
        stored = self.videos.positions[windows.video]
        own = self.context.world.share(np.arange(len(windows)))
        parts = []
        with torch.inference_mode():
            for start in range(0, len(own), self.clips.batch_size):
                part = own[start : start + self.clips.batch_size]
                chosen = replace(windows.take(part), video=stored[part])
                frames = torch.from_numpy(np.stack(read_clips(chosen, self.shape, self.read))).to(self.context.device)
                parts.append((part, forward({"frames": frames})["logits"].float().cpu().numpy()))
        found = [part for each in self.context.world.gather(parts) for part in each]
        at, logits = (np.concatenate([part[side] for part in found]) for side in (0, 1))
        merged = merge_views(logits, video_N=windows.video[at], view_NV=windows.start[at])
        metrics = self.task.all_metrics(merged.probabilities.astype(np.float32), self.videos.labels[merged.video])
        return {name: metrics[name] for name in CLIP_METRICS if name in metrics}


def val_clips(num_rows: Sequence[int], shape: WindowShape, clips: ClipPretrainSettings) -> Windows:
    """The clips of each video in validation."""
    if clips.val_step is None:
        return covering_starts(num_rows, shape, max_clips=clips.val_clips)
    return multi_starts(num_rows, shape, max_clips=clips.val_clips, min_step=clips.val_step, rule="whole")


def _learning(
    work: Work,
    config: PretrainConfig,
    module: ClipEncoderNetwork,
    loaded: LoadedEncoder,
    *,
    task: Task | None,
    shape: WindowShape,
    context: TrainContext,
) -> Learning:
    clips, note = config.clips, context.reporter.note
    assert clips is not None
    path = Store.at(work.store).frames(work.inputs["frames"][0].key)
    wanted = distinct_videos(work.payload, splits=(*config.train_splits, *config.val_splits))
    videos = open_videos(FrameStore(path), list(dict.fromkeys(video.digest for video in wanted)))
    train, val = (
        _videos(work, videos, splits=splits, is_labelled=task is not None)
        for splits in (config.train_splits, config.val_splits)
    )
    if not len(train):
        raise InputError(
            f"{work.node}: none of the videos of splits {', '.join(config.train_splits)} has stored frames"
            f"{' and a label of its own' if task else ''}; look at train_splits{' and labels' if task else ''}."
        )
    found = {*train.names, *val.names}
    if task is None:  # of files with the same content one is taken, which stands for all
        used_digests = {videos.digests[at] for at in (*train.positions.tolist(), *val.positions.tolist())}
        found |= {video.video_id for video in wanted if video.digest in used_digests}
    missing = [video.video_id for video in wanted if video.video_id not in found]
    if missing:
        why = "no stored frames, or no label of their own," if task else "no stored frames"
        note(f"{len(missing)} videos have {why} and are left out: {', '.join(missing[:5])}")
    objective: Objective = RankedClasses()
    if config.objective.name != "ce":
        objective = self_supervised_objective(config.objective.of_views(), seed=config.seed)
    is_scored = task is not None and len(val) > 0
    used = "" if is_scored or not len(val) else " (not used: the last weights count)"
    note(f"{len(train)} videos to train on, {len(val)} to validate on{used}")
    if task is not None and (warning := check_classes(task.counts(train.labels), task.labels, balanced_by=None)):
        note(warning)
    geometry, augment = geometry_of(loaded.data_config), clips.augment
    is_cropped, of_train = augment.crop_scale is not None, set(train.positions.tolist())
    as_seen = {*(val.positions.tolist() if is_scored else ()), *(() if is_cropped else of_train)}
    seen = reader(videos, as_seen, geometry, store=path, memory_bytes=config.memory_bytes)
    stored = stored_reader(videos, of_train, memory_bytes=config.memory_bytes - seen.memory_bytes)
    batches = ClipBatches(
        videos=train,
        read=(stored if is_cropped else seen).read,
        shape=shape,
        batch_size=clips.batch_size,
        seed=config.seed,
        num_views=objective.num_views,
        transforms=clip_transforms(augment, geometry, seed=config.seed),
        drop_last=config.drop_last,
        world=context.world,
    )
    steps = EpochSteps(num_batches=max(1, batches.num_batches), clips_per_batch=clips.batch_size * objective.num_views)
    return Learning(
        train=batches,
        unit="clips",
        val=None,
        objective=objective,
        metric=config.metric or CLIP_METRICS[0],
        prepare=ClipAugmentation(module, augment, seed=config.seed, steps=steps, num_views=objective.num_views),
        evaluate=Scoring(videos=val, read=seen.read, shape=shape, clips=clips, task=task, context=context)
        if is_scored and task is not None
        else None,
    )


def _videos(work: Work, stored: StoredVideos, *, splits: Sequence[str], is_labelled: bool) -> ClipVideos:
    """The videos of some splits with frames and, where these are learned, a label; without labels each content once."""
    place_of = {digest: position for position, digest in enumerate(stored.digests)}
    found = [
        video
        for video in distinct_videos(work.payload, splits=splits)
        if video.digest in place_of and stored.rows[place_of[video.digest]].num_rows
    ]
    if is_labelled:
        found = [video for video in found if video.annotation.label != UNKNOWN]
    else:
        found = list({video.digest: video for video in found}.values())
    positions = np.array([place_of[video.digest] for video in found], dtype=np.int64)
    labels = [video.annotation.label if is_labelled else 0 for video in found]
    return ClipVideos(
        positions=positions,
        num_rows=np.array([stored.rows[position].num_rows for position in positions.tolist()], dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        names=tuple(video.video_id for video in found),
    )
