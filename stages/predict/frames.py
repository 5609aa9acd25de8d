"""Predict over frames.

Rows come straight out of the spatial encoder: each frame is encoded once, whatever windows hold it; of runs on clips
only the frames that some clip needs are decoded and encoded; with crops, each crop of them. Networks that see clips are
shown windows of stored frames.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.encoders.build import DataConfig
from reelwright.stages.base.unit import cached_model
from reelwright.stages.base.work import Reporter, VideoItem, Work
from reelwright.stages.datasets.sampling.views import Box
from reelwright.stages.datasets.stored_rows import failed_row, mean_vectors
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, build_from_config, encoder_of
from reelwright.stages.embed.encoding.forward import ForwardPass
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.embed.encoding.runtimes import EAGER
from reelwright.stages.embed.sink import MemorySink
from reelwright.stages.embed.videos import Selection, clip_of, embed_videos, expected_rows, frame_input, prepare_forward
from reelwright.stages.finetune.clips import spans_of
from reelwright.stages.predict.clip_frames import SeenFrames
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.crops import Crops, RowStreams, Whole
from reelwright.stages.predict.loaded_run import LoadedRun, VideoRows
from reelwright.stages.predict.scorer import Scorer
from reelwright.stages.predict.sink import ScoreWriter
from reelwright.storage.arrays.frames import FrameRows, FrameStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store


def score_frames(work: Work, config: PredictConfig, scorer: Scorer, *, writer: ScoreWriter, reporter: Reporter) -> None:
    """Send the frames of ``work.items`` through the run's spatial encoder and score the rows as videos complete.

    Raises ConfigError when the run was trained on several embeddings, whose rows cannot be joined on the way, and for
    crops that the encoder does not take.
    """
    run = scorer.run

    def make() -> tuple[LoadedEncoder, ForwardPass]:
        loaded = _encoder(work, run)
        settings = loaded.config.model_copy(
            update={
                "device": config.device,
                "batch_size": config.frame_batch_size,
                "deterministic": config.deterministic,
                "precision": config.precision or loaded.config.precision,
                "runtime": loaded.config.runtime if loaded.config.runtime == EAGER else "auto",  # others are of embed
            }
        )
        tuning = Store.at(work.store).root / "tuning"
        is_sparse = scorer.needed(clip_of(loaded, where=work.node)) is not None  # a few frames of each video
        num_rows = 0.0 if is_sparse else expected_rows(work, loaded)
        return loaded, prepare_forward(loaded, settings, tuning=tuning, note=reporter.note, num_rows=num_rows)

    loaded, forward = cached_model(f"predict frames {work.key}", make)
    if run.output not in loaded.config.outputs:
        raise ConfigError(f"the run reads {run.output!r}, but its encoder gives {', '.join(loaded.config.outputs)}.")
    crops = _crops(config, loaded.data_config, where=work.node)
    if scorer.kept is not None:
        scorer.kept.see(_seen(loaded.data_config, crops).to_plain())
    needed = scorer.needed(clip_of(loaded, where=work.node))
    streams = RowStreams(needed, crops)
    embed_videos(
        work.items,
        loaded=loaded,
        forward=forward,
        frames=frame_input(work),
        sink=FrameScoreSink(writer, output=run.output, streams=streams, keeps_positions=run.keeps_positions),
        reporter=reporter,
        shard_rows=loaded.config.shard_rows if config.deterministic else None,
        selection=Selection(
            needed=needed,
            geometry=None if crops is None else crops.geometry(loaded.data_config),
            through=streams.through,
        ),
    )


def _seen(config: DataConfig, crops: Crops | None) -> Geometry:
    """The part of a frame that the encoder sees; of crops there is one, since of several nothing is kept."""
    own = geometry_of(config)
    return own if crops is None else replace(own, resize=crops.short_side, crop="center")


def _crops(config: PredictConfig, data_config: DataConfig, *, where: str) -> Crops | None:
    if not config.is_cropped:
        return None
    return Crops.of(data_config, num_crops=config.crops, short_side=config.short_side, where=where)


def _encoder(work: Work, run: LoadedRun) -> LoadedEncoder:
    """The encoder inside a finetune run; of a train run, the one whose embeddings it was trained on."""
    (ref,) = work.inputs["run"]
    store = Store.at(work.store)
    if run.stage == "finetune":
        wanted = EmbedConfig(run=ref.node, outputs=(run.output,), dtype="float32")
        return build_from_config(wanted, store=store, run=ref, where=work.node, plugins=work.plugins)
    embeddings = ref.inputs.get("embeddings", ())
    if len(embeddings) != 1:
        raise ConfigError(
            f"{work.node}: run {ref.node} was trained on {len(embeddings)} embeddings; over frames there must be one. "
            "Give embeddings instead of frames."
        )
    return encoder_of(work, embeddings[0])


class FrameScoreSink(MemorySink):
    """Rows of a video until all its streams are complete; then they are scored and forgotten."""

    def __init__(self, writer: ScoreWriter, *, output: str, streams: RowStreams, keeps_positions: bool) -> None:
        super().__init__()
        self._writer = writer
        self._output = output
        self._streams = streams
        self._keeps_positions = keeps_positions
        self._ended: dict[str, dict[str, ItemRow]] = {}  # by video, then by stream

    def fail(self, row: ItemRow) -> None:
        """One stream could not be decoded or encoded, and so the video."""
        self.finish(row)

    def finish(self, row: ItemRow) -> None:
        """All rows of one stream have come."""
        video = self._streams.video_of(row.digest)
        ended = self._ended.setdefault(video, {})
        ended[row.digest] = row
        if len(ended) < self._streams.num_streams(video):
            return
        del self._ended[video]
        whole = self._streams.take_whole(video)
        failed = [entry for entry in ended.values() if not entry.is_done]
        seconds = round(sum(entry.seconds for entry in ended.values()), 3)
        summary = replace((failed or [ended[video]])[0], digest=video, seconds=seconds)
        if failed:
            for digest in ended:
                self.discard(digest)
            self._writer.fail(summary)
            return
        spread = {digest: self._rows(digest, whole) for digest in ended}
        rows, spans = spread.pop(video)
        self._writer.add(VideoRows(video, rows, spans, tuple(others for others, _ in spread.values())), summary)

    def _rows(self, digest: str, whole: Whole | None) -> tuple[npt.NDArray[Any], Spans]:
        """Rows (T, ...) of one stream; those that no clip needs, and that were never made, are NaN."""
        taken = self.take(digest)
        values = taken.outputs[self._output]
        rows = values if self._keeps_positions else mean_vectors(values)
        if whole is None:
            return rows, taken.spans
        places, spans = whole
        spread = np.full((len(spans.start_seconds), *rows.shape[1:]), np.nan, dtype=rows.dtype)
        spread[places] = rows
        return spread, spans


def score_clips(work: Work, config: PredictConfig, scorer: Scorer, *, writer: ScoreWriter, reporter: Reporter) -> None:
    """Score windows of the stored frames of ``work.items``, one video after the other.

    Raises ConfigError for frames that are not stored, and crops that the network does not take.
    """
    run = scorer.run
    assert run.sees is not None
    store = frame_input(work).frames_store
    if store is None:
        (source,) = work.inputs["frames"]
        raise ConfigError(
            f"{work.node}: run {work.inputs['run'][0].node} sees clips of stored frames, but {source.node} has "
            "materialize: false. Set materialize: true there"
        )
    crops = _crops(config, run.sees, where=work.node)
    if scorer.kept is not None:
        scorer.kept.see(_seen(run.sees, crops).to_plain())
    geometry = geometry_of(run.sees) if crops is None else crops.geometry(run.sees)
    frames = FrameStore(store)
    reporter.total(len(work.items), "videos")
    for item in work.items:
        try:
            rows = _stored(frames, item)
            seen = SeenFrames(rows, geometry, store / item.digest)
            boxes: tuple[Box | None, ...] = (None,) if crops is None else crops.boxes(*seen.shape[1:3])
            seen_crops = [SeenFrames(rows, geometry, store / item.digest, box) for box in boxes]
            video = VideoRows(item.digest, seen_crops[0], spans_of(rows), tuple(seen_crops[1:]))
            writer.add(video, ItemRow(digest=item.digest, status="ok"))
            writer.flush()
        except StoreError as error:
            writer.fail(failed_row(item.digest, error, cause="no_frames"))
        reporter.advance(1)


def _stored(frames: FrameStore, item: VideoItem) -> FrameRows:
    rows = frames.rows(item.digest)
    if rows.num_rows == 0:
        raise StoreError(f"{item.video_id} has no stored frame, so there is no clip of it")
    return rows
