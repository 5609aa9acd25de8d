"""Pre-train an encoder: of images on key frames of states, of clips see `clip_learning`; one run, which `embed` takes.

frame store -> key frames and background -> batches -> encoder -> embedding -> projection -> loss -> runs/<key>/
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from reelwright.models.contracts import Forward
from reelwright.models.encoders.build import output_shapes
from reelwright.models.metrics.retrieval import retrieval_metrics
from reelwright.stages.augment.resized_crop import CropSettings, build_crop
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.labelled import distinct_videos, label_space
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, build_from_config, with_embedding
from reelwright.stages.embed.encoding.forward import choose_layout
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.clips import StoredVideos, open_videos
from reelwright.stages.finetune.inputs import frames_node, spatial_facts
from reelwright.stages.fit.setup import Learning, TrainContext, learn, train_in_processes
from reelwright.stages.objectives.contrastive import Contrast
from reelwright.stages.pretrain.batches import KeyFrameBatches, ReadFrames, ReadStored, make_pool
from reelwright.stages.pretrain.clip_learning import pretrain_clips
from reelwright.stages.pretrain.config import METRICS, OF_ENCODER, PretrainConfig
from reelwright.stages.pretrain.examples import (
    BACKGROUND,
    Examples,
    IntArray,
    StateClasses,
    find_examples,
    state_classes,
)
from reelwright.stages.pretrain.module import PretrainModule
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.store import Store


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Train the run ``work.key``, or go on with it where it was interrupted; a complete one stays as it is.

    Returns {"weights": digest of the best weights, "metrics": the best epoch's line of metrics.jsonl}. Raises
    ConfigError, InputError or StoreError before training where that can be seen, StageError when it diverges,
    Interrupted on SIGTERM.
    """
    config = parse_config(PretrainConfig, dict(work.config), where=work.node)
    config.check_inputs({"frames": [frames_node(work)]})
    if config.clips is None:
        return train_in_processes(work, reporter, config=config, train=_train)
    of_clips = config.model_copy(update={"batch_size": config.clips.batch_size})
    return train_in_processes(work, reporter, config=of_clips, train=pretrain_clips)


def _train(work: Work, config: PretrainConfig, context: TrainContext) -> dict[str, Any] | None:
    labels = label_space(work.payload, node=work.node)
    states = state_classes(config, labels.classes, background=labels.background)
    loaded, embed_dim = _encoder(work, config)
    options = {"name", "temperature", "margin", "exclude_background"}
    objective = Contrast(**config.objective.model_dump(include=options))
    num_classes = len(states.names) + 1 if config.objective.name == "ce" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = PretrainModule(
            loaded.encoder,
            data_config=loaded.data_config,
            augmentation=config.augment,
            embed_dim=embed_dim,
            projection=config.projection,
            num_classes=num_classes,
        ).to(context.device)
    choose_layout(module.spatial, config.channels_last, device=context.device)

    def load() -> Learning:
        data = _examples(work, config, states, loaded, context, num_views=objective.num_views)
        score = partial(_retrieval, data=data, batch_size=config.batch_size, context=context)
        return Learning(
            train=data.batches,
            unit="images",
            batch_items=data.batches.num_items // data.batches.num_batches,
            val=None,
            objective=objective,
            metric=config.metric or METRICS[0],
            evaluate=score if len(data.val) else None,
        )

    facts = spatial_facts(loaded, embed_dim=config.embed_dim)
    values = {"task": "pretrain", "states": list(states.names), **facts}
    return learn(module, load, work=work, config=config, context=context, labels=labels, values=values)


def _encoder(work: Work, config: PretrainConfig) -> tuple[LoadedEncoder, int]:
    """The encoder with the weights it starts from, its embedding head new, and the size of its embedding."""
    given = config.model_dump(include=set(OF_ENCODER))
    wanted = parse_config(EmbedConfig, {**given, "frames": config.frames}, where=work.node)
    with unchanged_sources(work):
        loaded = build_from_config(wanted, store=Store.at(work.store), run=None, where=work.node, plugins=work.plugins)
    if loaded.encoder.kind != "image":
        raise ConfigError(f"{work.node}: encoder: {config.encoder!r} reads clips, key frames are images; use timm/NAME")
    if config.embed_dim is None:
        return loaded, output_shapes(loaded.encoder)["pooled"][0]
    encoder = with_embedding(loaded.encoder, config.embed_dim, seed=config.seed)
    return LoadedEncoder(**{**vars(loaded), "encoder": encoder}), config.embed_dim


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Frames to learn from and to evaluate on."""

    batches: KeyFrameBatches
    read: ReadFrames
    train: Examples  # the references of the retrieval
    val: Examples  # its queries


def _examples(
    work: Work,
    config: PretrainConfig,
    states: StateClasses,
    loaded: LoadedEncoder,
    context: TrainContext,
    *,
    num_views: int,
) -> _Data:
    splits = config.wanted_splits() or ()
    wanted = distinct_videos(work.payload, splits=splits)
    store = FrameStore(Store.at(work.store).frames(work.inputs["frames"][0].key))
    videos = open_videos(store, list(dict.fromkeys(video.digest for video in wanted)))
    rows = {digest: (place_of, videos.spans[place_of]) for place_of, digest in enumerate(videos.digests)}

    def of(names: tuple[str, ...], *, every_frame: bool = False) -> Examples:
        chosen = distinct_videos(work.payload, splits=names)
        return find_examples(chosen, rows, config=config, states=states, every_frame=every_frame)

    try:
        real, val = of(config.train_splits), of(config.val_splits)
        synthetic = of(config.synthetic_splits if config.batch.synthetic_per_class else (), every_frame=True)
        pool = make_pool(real, synthetic, batch=config.batch)
    except InputError as error:
        raise InputError(f"{work.node}: {error}") from error
    known = np.isin(val.label, real.label)  # others have nothing alike among what is searched
    kept = Examples(val.video[known], val.row[known], val.label[known])
    _note_sizes(context.reporter, real, kept, synthetic, states.names, num_left_out=len(val) - len(kept))
    geometry, scale = geometry_of(loaded.data_config), config.augment.crop_scale
    crop = None if scale is None else build_crop(CropSettings(area=scale), geometry, seed=config.seed)
    read = frame_reader(
        videos,
        Examples.joined([real, synthetic, val]),
        geometry=geometry,
        size=loaded.data_config.size,
        memory_bytes=config.memory_bytes,
    )
    batches = KeyFrameBatches(
        read=read,
        pool=pool,
        batch=config.batch,
        seed=config.seed,
        crop=crop,
        read_stored=stored_frames(videos, pool.examples, memory_bytes=config.memory_bytes) if crop else None,
        world=context.world,
        num_copies=num_views,
    )
    return _Data(batches=batches, read=read, train=real, val=kept)


def _note_sizes(
    reporter: Reporter,
    real: Examples,
    val: Examples,
    synthetic: Examples,
    names: tuple[str, ...],
    *,
    num_left_out: int,
) -> None:
    num_background = int((real.label == BACKGROUND).sum())
    reporter.note(
        f"{len(real) - num_background:,} frames of {len(names)} states and {num_background:,} of background to learn "
        f"from, {len(synthetic):,} synthetic ones; {len(val):,} to validate on"
    )
    if num_left_out:
        reporter.note(
            f"{num_left_out:,} more frames to validate on are left out: no real frame to learn from is of their state"
        )
    absent = [name for number, name in enumerate(names, start=1) if number not in {*real.label, *synthetic.label}]
    if absent:
        reporter.note(f"warning: no frame to learn from shows the states {', '.join(absent)}")


def frame_reader(
    videos: StoredVideos, examples: Examples, *, geometry: Geometry, size: tuple[int, int], memory_bytes: int
) -> ReadFrames:
    """How examples are read: all of them are brought into memory at once where they fit into ``memory_bytes``."""
    needed = np.unique(np.stack([examples.video, examples.row], axis=1), axis=0)

    def stored(video: IntArray, row: IntArray) -> Any:
        frames = np.empty((len(row), *size, 3), np.uint8)
        for one in np.unique(video).tolist():
            mine = video == one
            frames[mine] = apply(videos.rows[one].take(row[mine]), geometry)
        return frames

    if len(needed) * size[0] * size[1] * 3 > memory_bytes:
        return stored
    frames = stored(needed[:, 0], needed[:, 1])
    place_of = {(video, row): place for place, (video, row) in enumerate(needed.tolist())}

    def in_memory(video: IntArray, row: IntArray) -> Any:
        return frames[[place_of[pair] for pair in zip(video.tolist(), row.tolist(), strict=True)]]

    return in_memory


def stored_frames(videos: StoredVideos, examples: Examples, *, memory_bytes: int) -> ReadStored:
    """How stored frames are read; those that fit into ``memory_bytes`` all together are kept once they were."""
    pairs = np.unique(np.stack([examples.video, examples.row], axis=1), axis=0)
    sizes = [math.prod(videos.rows[video].frame_size) * 3 for video in pairs[:, 0].tolist()]

    def stored(video: int, row: int) -> Any:
        return videos.rows[video].take([row])

    return functools.cache(stored) if sum(sizes) <= memory_bytes else stored


def _retrieval(forward: Forward, *, data: _Data, batch_size: int, context: TrainContext) -> dict[str, float]:
    """Retrieval of the val frames among those of train; each process embeds its share of them."""

    def embedded(of: Examples) -> Any:
        own, parts = context.world.share(np.arange(len(of))), []
        with torch.inference_mode():
            for start in range(0, len(own), batch_size):
                part = own[start : start + batch_size]
                frames = torch.from_numpy(data.read(of.video[part], of.row[part])).to(context.device)
                parts.append(forward({"frames": frames})["embedding"].float().cpu().numpy())
        return np.concatenate([part for found in context.world.gather(parts) for part in found])

    found = retrieval_metrics(
        embedded(data.val), data.val.label, embedded(data.train), data.train.label, distance="cosine"
    )
    of_states = [entry["mean_average_precision_at_r"] for label, entry in found["per_class"].items() if label]
    found["mean_average_precision_at_r_states"] = float(np.mean(of_states)) if of_states else 0.0
    return {name: float(found[name]) for name in METRICS}
