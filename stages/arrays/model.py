"""A trained model over arrays: frames or rows of one video in, scores out; the same steps as predict, in this process.

    frames (T,H,W,3) -> those of the decode node's times -> its geometry -> encoder's geometry -> encoder(s) -> rows
    rows (T,D) -> windows -> scores                         (networks that see clips: frames -> windows -> scores)

The engine of embed and the scorer of predict do the work, fed from memory; so numbers are those of predict.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reelwright.stages.arrays.scores import ModelScores
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import FrameProgress, InputRef, SilentReporter, VideoItem, Work
from reelwright.stages.datasets.stored_rows import mean_vectors
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.decode.sampling import plan_rows
from reelwright.stages.decode.source import Ended, FrameChunk, Opened
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder, build_from_config
from reelwright.stages.embed.encoding.forward import ForwardPass
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.embed.encoding.runtimes import EAGER
from reelwright.stages.embed.encoding.streams import Streams
from reelwright.stages.embed.engine import EmbedEngine
from reelwright.stages.embed.sink import MemorySink, OutputRows
from reelwright.stages.embed.videos import CHUNK_BYTES, clip_of, prepare_forward
from reelwright.stages.predict.clip_frames import SeenFrames
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.predict.loaded_run import VideoRows
from reelwright.stages.predict.work import load_for, scorer_for
from reelwright.storage.arrays.spans import RowTimes, Spans, join_by_time
from reelwright.storage.errors import ConfigError, InputError, ItemError
from reelwright.storage.store import Store

Frames = npt.NDArray[np.uint8]
Times = npt.NDArray[np.float64]
BATCH_SIZE = 32  # rows of a forward pass of an encoder, where the node leaves it to a measurement


@dataclass(frozen=True)
class _Encoder:
    """What makes rows of frames."""

    loaded: LoadedEncoder
    forward: ForwardPass
    decode: DecodeConfig
    output: str


@dataclass(frozen=True)
class _ArrayFrames:
    """Frames in memory where predict has stored ones."""

    frames: Frames

    @property
    def num_rows(self) -> int:
        return len(self.frames)

    def take(self, rows: npt.NDArray[np.int64]) -> Frames:
        return self.frames[rows]


class ArrayModel:
    """A run with all that leads from frames to its scores, in eval mode on its device."""

    def __init__(self, work: Work, *, device: str = "auto") -> None:
        """``work`` is that of the predict node. Raises ConfigError, StoreError or StageError where something is amiss.

        Encoders are loaded when frames come first.
        """
        self._work, self._device = work, device
        config = parse_config(PredictConfig, {**work.config, "device": device}, where=work.node)
        self.run = load_for(work, config)
        self.reads_frames = self.run.stage == "finetune"  # itself: clips of them, or by an encoder of its own
        self.scorer = scorer_for(self.run, config)
        self._encoders: list[_Encoder] | None = None

    @property
    def fps(self) -> float | None:
        """Frames a second that the model was made for; None where it was not told by a rate."""
        decodes = self._decodes()
        return decodes[0].fps if decodes and len({decode.fps for decode in decodes}) == 1 else None

    def of_rows(self, rows: npt.ArrayLike, times: npt.ArrayLike | None = None, *, name: str = "rows") -> ModelScores:
        """Scores of the rows of one video, (T, D) floats or as stored (tokens, maps); times (T, 2) seconds."""
        if self.run.sees is not None:
            raise ConfigError("this model sees clips of frames, not rows; give it frames, or a video")
        values = np.asarray(rows)
        if values.ndim > 2 and not self.run.keeps_positions:
            values = mean_vectors(values)
        if values.shape[1:] != self.run.row_shape or not len(values):
            raise InputError(
                f"rows have the shape {values.shape}, but this model takes (T, "
                f"{', '.join(map(str, self.run.row_shape))}) with T >= 1, the output {self.run.output!r} of its "
                "encoder"
            )
        if not np.isfinite(values).all():
            raise InputError("rows hold NaN or infinity; take these rows out, or make them again")
        numbers = np.arange(len(values))
        if times is None:
            start = stop = np.full(len(values), np.nan)
        else:
            start, stop = _checked_times(times, len(values))
        return self._scored(VideoRows(name, values, Spans(start, stop, numbers, numbers + 1)), name)

    def of_frames(
        self, frames: npt.ArrayLike, *, fps: float | None = None, times: npt.ArrayLike | None = None, name: str
    ) -> ModelScores:
        """Scores of frames, uint8 (T, H, W, 3) RGB, shown at ``times`` (T,) or ``fps`` a second.

        Of these, those are taken that decode would take. Without both they are taken to be so already.
        """
        pixels = np.asarray(frames)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not len(pixels):
            raise InputError(f"frames are {pixels.dtype} {pixels.shape}; allowed are uint8 (T, H, W, 3) RGB, T >= 1")
        decodes = self._decodes()
        if fps is None and times is None and len({decode.fps for decode in decodes}) > 1:
            raise InputError("this model takes frames at several rates; fps or times must say when these were shown")
        if self.run.sees is not None:
            decode = decodes[0] if decodes else DecodeConfig()
            taken, spans = _taken(pixels, decode, fps=fps, times=times)
            seen = SeenFrames(_ArrayFrames(_stored(taken, decode)), geometry_of(self.run.sees), Path(name))
            return self._scored(VideoRows(name, seen, spans), name)
        found = [self._rows_of(encoder, pixels, fps=fps, times=times, name=name) for encoder in self._loaded()]
        values, spans = self._joined(found)
        return self._scored(VideoRows(name, values, spans), name)

    def _scored(self, video: VideoRows, name: str) -> ModelScores:
        if not self.scorer.num_windows(len(video.spans.start_seconds)):
            raise InputError(
                f"{len(video.spans.start_seconds)} rows make no window: it has {self.scorer.shape.span_rows}, and "
                "shorter videos were left out"
            )
        return ModelScores.of(self.run.task, self.scorer.score([video])[0], run=self.run.key, video_id=name)

    def _joined(self, found: Sequence[tuple[str, OutputRows]]) -> tuple[npt.NDArray[Any], Spans]:
        """Rows of all encoders side by side, as training joined them (stages/datasets/stored_rows.py)."""
        spans = found[0][1].spans
        if self.run.keeps_positions:
            for _, rows in found[1:]:
                if not np.array_equal(rows.spans.source_start, spans.source_start):
                    raise InputError("the encoders' rows are not of the same frames, so their tokens cannot be joined")
            return np.concatenate([rows.outputs[output] for output, rows in found], axis=1), spans
        parts = [mean_vectors(rows.outputs[output])[join_by_time(spans, rows.spans)] for output, rows in found]
        return np.concatenate(parts, axis=1), spans

    def _rows_of(self, encoder: _Encoder, pixels: Frames, *, name: str, **how: Any) -> tuple[str, OutputRows]:
        taken, spans = _taken(pixels, encoder.decode, **how)
        item, sink = VideoItem(name, "", name), MemorySink()
        engine = EmbedEngine(
            encoder.forward,
            clip=clip_of(encoder.loaded, where=self._work.node),
            sink=sink,
            progress=FrameProgress([item], SilentReporter()),
        )
        engine.run(_events(item, taken, spans, encoder), start_rows={})
        row = sink.items[name]
        if row.status != "ok":
            raise InputError(f"{name}: {row.message}")
        return encoder.output, sink.take(name)

    def _decodes(self) -> list[DecodeConfig]:
        refs = self._work.inputs.get("frames") or [
            ref for embed in self._work.inputs.get("embeddings", ()) for ref in embed.inputs.get("frames", ())
        ]
        return [parse_config(DecodeConfig, dict(ref.config), where=ref.node) for ref in refs]

    def _loaded(self) -> list[_Encoder]:
        if self._encoders is None:
            work = self._work
            if self.run.stage == "finetune":
                (run,) = work.inputs["run"]
                wanted = EmbedConfig(run=run.node, outputs=(self.run.output,), dtype="float32")
                decode = next(iter(self._decodes()), DecodeConfig())
                self._encoders = [self._load(wanted, run, decode)]
            else:
                self._encoders = [self._of_node(ref) for ref in work.inputs.get("embeddings", ())]
            if not self._encoders:
                raise ConfigError(
                    "this model is a run alone, whose encoder is not known: give it rows. Of a project, "
                    "project['NODE'].model() and what `reelwright export-model` writes know the encoder"
                )
        return self._encoders

    def _of_node(self, ref: InputRef) -> _Encoder:
        if not ref.inputs.get("frames"):
            raise ConfigError(
                f"the rows of {ref.node} are not made of frames alone, so frames in memory are not enough; give rows, "
                "or a video (model.predict)"
            )
        config = parse_config(EmbedConfig, dict(ref.config), where=ref.node)
        (frames,) = ref.inputs["frames"]
        run = next(iter(ref.inputs.get("run", ())), None)
        return self._load(config, run, parse_config(DecodeConfig, dict(frames.config), where=frames.node))

    def _load(self, config: EmbedConfig, run: InputRef | None, decode: DecodeConfig) -> _Encoder:
        """Without measuring: what is left to a measurement is fixed, which changes no result beyond rounding."""
        store, where = Store.at(self._work.store), self._work.node
        loaded = build_from_config(config, store=store, run=run, where=where, plugins=self._work.plugins)
        if self.run.output not in loaded.config.outputs:
            raise ConfigError(f"the run reads {self.run.output!r}, but its encoder gives {loaded.config.outputs}")
        if loaded.config.views is not None:
            raise ConfigError(f"the rows of {where} are several views each, of which nothing is scored")
        given = loaded.config
        fixed = {"batch_size": given.batch_size or BATCH_SIZE, "channels_last": bool(given.channels_last)}
        wish = given.model_copy(update={"device": self._device, "runtime": EAGER, **fixed})
        one_by_one = Streams()  # a batch or two is waited for
        forward = prepare_forward(loaded, wish, tuning=store.root / "tuning", note=lambda _: None, streams=one_by_one)
        return _Encoder(loaded, forward, decode, self.run.output)


def _taken(
    pixels: Frames, decode: DecodeConfig, *, fps: float | None, times: npt.ArrayLike | None
) -> tuple[Frames, Spans]:
    """The frames that ``decode`` takes, and their spans. Raises InputError for times that do not fit."""
    count = len(pixels)
    if fps is not None and times is not None:
        raise InputError("give fps or times, not both")
    if fps is None and times is None:
        if decode.fps is None:
            raise InputError(
                "this model was not made for a fixed rate, so fps or times (seconds of each frame) must say when the "
                "frames were shown"
            )
        pts = np.arange(count) / decode.fps
        source, step = np.arange(count), 1 / decode.fps
    else:
        if fps is not None and not (np.isfinite(fps) and fps > 0):
            raise InputError(f"fps is {fps}; it must be a number above 0")
        pts = np.arange(count) / fps if fps is not None else np.asarray(times, dtype=np.float64)
        if pts.shape != (count,) or not np.isfinite(pts).all() or (np.diff(pts) <= 0).any():
            raise InputError(f"times have the shape {pts.shape}; needed are {count} ascending seconds, one a frame")
        step = 1 / fps if fps is not None else float(np.median(np.diff(pts))) if count > 1 else 1.0
        try:
            source = plan_rows(pts, decode, end_seconds=float(pts[-1]) + step)
        except ItemError as error:
            raise InputError(f"frames: {error}") from error
    stops = np.append(pts[1:], pts[-1] + step)
    return pixels[source], Spans(pts[source], stops[source], source, source + 1)


def _stored(frames: Frames, decode: DecodeConfig) -> Frames:
    """Frames as the decode node gives them: cut and resized, and through JPEG where it stores them so."""
    geometry = Geometry.of(decode)
    try:
        made = frames if geometry is None else apply(frames, geometry)
    except ValueError as error:
        raise InputError(f"frames: {error}") from error
    if decode.codec == "lossless":
        return made
    through = np.empty_like(made)
    for place, frame in enumerate(made):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=decode.quality)
        through[place] = np.asarray(Image.open(file))
    return through


def _events(item: VideoItem, frames: Frames, spans: Spans, encoder: _Encoder) -> Iterator[Opened | FrameChunk | Ended]:
    """What decoding would send of a video."""
    height, width = encoder.loaded.data_config.size
    size, count = max(1, CHUNK_BYTES // (height * width * 3)), len(frames)
    yield Opened(item=item, num_rows=count, backend="array", start_row=0)
    for start in range(0, count, size):
        part = slice(start, start + size)
        seen = apply(_stored(frames[part], encoder.decode), geometry_of(encoder.loaded.data_config))
        yield FrameChunk(
            item=item,
            start_row=start,
            frames=seen,
            times=RowTimes(
                source_frame=spans.source_start[part],
                pts_seconds=spans.start_seconds[part],
                stop_seconds=spans.stop_seconds[part],
            ),
        )
    yield Ended(item=item, status="ok", cause="", message="", backend="array", seconds=0.0, attempts=1, num_rows=count)


def _checked_times(times: npt.ArrayLike, count: int) -> tuple[Times, Times]:
    values = np.asarray(times, dtype=np.float64)
    if values.shape != (count, 2) or not np.isfinite(values).all() or (values[:, 1] < values[:, 0]).any():
        raise InputError(f"times have the shape {values.shape}; needed are start and stop of each row, ({count}, 2)")
    return values[:, 0], values[:, 1]
