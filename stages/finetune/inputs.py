"""What finetune starts from and reads: the encoder of the embed node, and stored frames of the videos."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, Reporter, Work
from reelwright.stages.datasets.labelled import distinct_videos
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.embed.config import ClipSettings
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, encoder_of
from reelwright.stages.embed.encoding.forward import row_shapes
from reelwright.stages.finetune.clips import ClipReading, StoredVideos, open_videos, reader, stored_reader
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store


def only_input(work: Work, name: str) -> InputRef:
    """The one node of an input."""
    (reference,) = work.inputs[name]
    return reference


def frames_node(work: Work) -> DecodeConfig:
    """The settings of the decode node whose frames are read."""
    reference = only_input(work, "frames")
    return parse_config(DecodeConfig, dict(reference.config), where=reference.node)


def spatial_encoder(
    work: Work, output: str, *, clip: ClipSettings | None = None
) -> tuple[LoadedEncoder, tuple[int, ...]]:
    """The encoder of the embed node with one output, and the shape of a row of it.

    ``clip`` is what an encoder of clips is to see in place of the embed node's clips; None: none is allowed. Raises
    ConfigError for an encoder of clips where none is, one that does not take such clips, or has no such output.
    """
    reference = only_input(work, "spatial")
    loaded = encoder_of(work, reference, outputs=(output,))
    if loaded.encoder.kind == "image":
        return loaded, row_shapes(loaded.encoder, loaded.data_config, where=reference.node)[output]
    settings = parse_config(FinetuneConfig, dict(work.config), where=work.node)
    try:
        settings.check_clip_encoder(loaded.name)
    except ConfigError as error:
        raise ConfigError(f"{work.node}: {error}") from None
    assert clip is not None
    loaded = replace(
        loaded,
        data_config=replace(loaded.data_config, clip_length=clip.length or loaded.data_config.clip_length),
        config=loaded.config.model_copy(update={"clip": clip}),
    )
    try:
        return loaded, row_shapes(loaded.encoder, loaded.data_config, where=reference.node)[output]
    except ConfigError as error:
        raise ConfigError(
            f"{work.node}: window.length: {clip.length} is not allowed for {loaded.name}, which takes a window as one "
            f"clip: {error}"
        ) from error


def stored_videos(work: Work, config: FinetuneConfig, reporter: Reporter) -> tuple[StoredVideos, tuple[str, ...]]:
    """The videos that have stored frames, and their names."""
    wanted = distinct_videos(work.payload, splits=(*config.train_splits, *config.val_splits))
    names = {video.digest: video.video_id for video in wanted}
    videos = open_videos(FrameStore(Store.at(work.store).frames(only_input(work, "frames").key)), list(names))
    missing = [video.video_id for video in wanted if video.digest not in videos.digests]
    if missing:
        reporter.note(f"{len(missing)} videos have no stored frames and are left out: {', '.join(missing[:5])}")
    return videos, tuple(names[digest] for digest in videos.digests)


def clip_reading(
    work: Work,
    config: FinetuneConfig,
    videos: StoredVideos,
    geometry: Geometry,
    *,
    of_train: Collection[int],
    of_val: Collection[int],
) -> ClipReading:
    """Clips of the videos at these positions: as they are stored where crops are cut, else as the encoder sees them."""
    is_cropped = config.augment.crop_scale is not None
    as_seen = of_val if is_cropped else {*of_train, *of_val}
    path = Store.at(work.store).frames(only_input(work, "frames").key)
    seen = reader(videos, as_seen, geometry, store=path, memory_bytes=config.memory_bytes)
    stored = stored_reader(videos, of_train, memory_bytes=config.memory_bytes - seen.memory_bytes)
    return ClipReading(
        train=(stored if is_cropped else seen).read,
        val=seen.read,
        transforms=clip_transforms(config.augment, geometry, seed=config.seed),
    )


def spatial_facts(loaded: LoadedEncoder, **own: object) -> dict[str, object]:
    """What config.yaml says of the encoder, enough to build it again; ``own`` are settings that are others by now."""
    used = ("encoder", "model_args", "embed_dim", "outputs", "preprocess", "clip")
    return {
        "spatial": {**loaded.config.model_dump(mode="json", include=set(used)), **own, "weights": "none"},
        "started_from": loaded.weights_digest,
    }
