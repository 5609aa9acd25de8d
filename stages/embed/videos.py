"""Embed a list of videos into any sink: encoder, preprocessing and device, tuned, over a stream of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.devices import pick_device
from reelwright.stages.base.work import FrameProgress, Reporter, VideoItem, Work
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.processes.attempts import num_cores
from reelwright.stages.decode.source import Events, stream_frames
from reelwright.stages.embed.clips import Clip, clips_leave_out
from reelwright.stages.embed.config import ClipSettings, EmbedConfig
from reelwright.stages.embed.encoding.encoder import LoadedEncoder
from reelwright.stages.embed.encoding.forward import Execution, ForwardPass
from reelwright.stages.embed.encoding.preprocess import described, geometry_of
from reelwright.stages.embed.encoding.runtimes import EAGER, fastest, memory_of, of_name
from reelwright.stages.embed.encoding.streams import Streams
from reelwright.stages.embed.encoding.tuning import fixed_batch, tuned
from reelwright.stages.embed.engine import EmbedEngine
from reelwright.stages.embed.sink import RowSink
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store

_PARTS_OF_A_PROCESS = 3
CHUNK_BYTES = 4 << 20  # of frames as the encoder sees them, handed over by a decoding process at once


@dataclass(frozen=True, kw_only=True)
class FrameInput:
    """Where frames come from: decoded on the way, or read from the frame store where they were materialised."""

    decode: DecodeConfig
    frames_store: Path | None  # None: decoded on the way
    index: Path | None = None  # where frame indexes are kept


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of the videos goes through the encoder, where that is not every frame as the encoder wants it."""

    needed: Needed | None = None  # only these frames
    geometry: Geometry | None = None  # instead of the encoder's; `through` then gives frames of the encoder's size
    through: Callable[[Events], Events] | None = None  # what becomes of the frames before the encoder sees them


def embed_videos(
    items: Sequence[VideoItem],
    *,
    loaded: LoadedEncoder,
    forward: ForwardPass,
    frames: FrameInput,
    sink: RowSink,
    reporter: Reporter,
    shard_rows: int | None = None,
    selection: Selection = Selection(),
    stop_rows: Mapping[str, int] | None = None,
) -> None:
    """Send the rows of every video to ``sink``; videos that cannot be done end there as failures.

    ``shard_rows`` keeps batches inside shards of that many rows (deterministic results). ``stop_rows`` says, by digest,
    before which row to end. Raises StageError when the device's memory does not suffice for one row.
    """
    clip = clip_of(loaded, where="embed")
    items = list({item.digest: item for item in items}.values())  # one content under two names is embedded once
    starts = {item.digest: row for item in items if (row := sink.start_row(item.digest))}
    height, width = loaded.data_config.size
    # on a CPU half the cores, since the forward pass shares them; beside a GPU as decode likes
    beside = max(1, num_cores() // 2) if forward.execution.device.type == "cpu" else None
    events = stream_frames(
        items,
        decode=frames.decode,
        frames_store=frames.frames_store,
        index=frames.index,
        geometry=selection.geometry or geometry_of(loaded.data_config),
        workers=frames.decode.workers or beside,
        chunk_rows=max(1, CHUNK_BYTES // (height * width * 3)),
        start_rows={digest: clip.first_frame(row) for digest, row in starts.items()},
        needed=selection.needed,
        stop_rows={digest: clip.stop_frame(row) for digest, row in (stop_rows or {}).items()},
    )
    left_out = clips_leave_out(clip)
    engine = EmbedEngine(
        forward,
        clip=clip,
        sink=sink,
        progress=FrameProgress(items, reporter),
        shard_rows=shard_rows,
        needed=selection.needed,
        left_out=left_out,
    )
    engine.run(events if selection.through is None else selection.through(events), start_rows=starts)
    for line in left_out.warnings():
        reporter.note(line)


def prepare_forward(
    loaded: LoadedEncoder,
    config: EmbedConfig,
    *,
    tuning: Path,
    note: Callable[[str], None],
    num_views: int | None = None,
    num_rows: float = 0.0,
    streams: Streams | None = None,
) -> ForwardPass:
    """The encoder on its device; layout, batch size and runtime as set, else as measured (remembered in ``tuning``).

    With ``num_views`` each row is so many frames. About ``num_rows`` frames or clips are to be encoded: whether another
    runtime than eager is worth its building depends on that.

    What is deterministic does not hang on measurements: it has a fixed batch size and layout. Without ``streams`` there
    are as many as suit many batches.
    """
    wish = Execution(
        device=pick_device(config.device),
        precision=config.precision,
        dtype=config.dtype,
        compile=config.compile,
        channels_last=bool(config.channels_last),
        batch_size=config.batch_size or 1,
    )
    streams = streams or Streams.beside(loaded.encoder, wish.device, is_fixed=config.deterministic or config.compile)
    if config.deterministic:
        wish = replace(wish, batch_size=config.batch_size or fixed_batch(loaded.encoder, wish.device))
    elif config.batch_size is None or config.channels_last is None:
        encoder = loaded.encoder.to(wish.device)
        choice = tuned(encoder, loaded.data_config, wish, folder=tuning, name=loaded.name, streams=streams)
        note(
            f"{loaded.name} on {wish.device}: channels_last={choice.channels_last}, batch size {choice.batch_size}, "
            f"{choice.rows_per_second:.0f} rows/s measured"
        )
        wish = replace(
            wish,
            channels_last=choice.channels_last if config.channels_last is None else config.channels_last,
            batch_size=config.batch_size or choice.batch_size,
        )
    forward = ForwardPass(loaded.encoder, loaded.data_config, wish, num_views=num_views, note=note, streams=streams)
    _choose_runtime(forward, loaded, config, tuning=tuning, note=note, num_rows=num_rows)
    return forward


def _choose_runtime(
    forward: ForwardPass,
    loaded: LoadedEncoder,
    config: EmbedConfig,
    *,
    tuning: Path,
    note: Callable[[str], None],
    num_rows: float,
) -> None:
    device = forward.execution.device
    if config.runtime not in {"auto", EAGER}:
        if device.type != "cpu":
            raise ConfigError(f"runtime: {config.runtime} is of CPUs, but the device is {device}. Set runtime: auto")
        x = forward.sample()
        forward.use(of_name(config.runtime, loaded.encoder, x, where=loaded.name, streams=forward.streams))
    is_free = config.runtime == "auto" and not config.deterministic and not config.compile
    if not is_free or device.type != "cpu" or config.precision != "fp32" or num_rows < forward.batch_size:
        return
    x = forward.sample()
    path = memory_of(tuning, loaded.encoder, loaded.data_config, x, name=loaded.name, streams=forward.streams)
    found = fastest(loaded.encoder, x, num_rows=num_rows, path=path, note=note, streams=forward.streams)
    if found is not None:
        forward.use(found)
        note(f"{loaded.name} on {device}: runtime {found.name}")


def clip_of(loaded: LoadedEncoder, *, where: str) -> Clip:
    """Which frames make a row. Raises ConfigError when clips are asked of an image encoder."""
    settings = loaded.config.clip
    if loaded.encoder.kind == "video":
        return Clip(**{**settings.model_dump(), "length": loaded.data_config.clip_length})
    if settings != ClipSettings():
        raise ConfigError(f"{where}: clip is for video encoders; {loaded.name} takes single frames. Remove clip.")
    return Clip()


def attributes_of(loaded: LoadedEncoder, spec: Mapping[str, object]) -> dict[str, object]:
    """What the store says about itself: spec, encoder, weights and preprocessing."""
    return {
        "spec": dict(spec),
        "encoder": loaded.name,
        "kind": loaded.encoder.kind,
        "weights_digest": loaded.weights_digest,
        "preprocessing": dict(described(loaded.data_config)),
        "clip": vars(clip_of(loaded, where="embed")),
        "precision": loaded.config.precision,
        **({} if loaded.config.views is None else {"views": loaded.config.views.num}),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that rows depend on, noted with every video."""
    return {name: version(name) for name in ("torch", "torchvision", "timm")}


def made_with(forward: ForwardPass) -> dict[str, object]:
    """The runtime of rows and the versions of the libraries that they depend on."""
    return {"versions": {**versions(), **forward.runtime_versions}, "runtime": forward.runtime}


def expected_rows(work: Work, loaded: LoadedEncoder) -> float:
    """About how many frames or clips of ``work`` go through its encoder; videos of unknown length do not count.

    A process that does a part of a node's videos is given at most a third of its share, so that it does three.
    """
    decode = frame_input(work).decode
    known = [(item.num_frames, item.duration_seconds) for item in work.items]
    frames = sum(
        decode.expected_frames(num_frames=n, duration_seconds=seconds) for n, seconds in known if n and seconds
    )
    views = 1 if loaded.config.views is None else loaded.config.views.num
    return (_PARTS_OF_A_PROCESS if work.is_part else 1) * views * frames / clip_of(loaded, where=work.node).hop


def frame_input(work: Work) -> FrameInput:
    """Where the frames of ``work`` come from: its decode node, stored or decoded on the way."""
    (source,) = work.inputs["frames"]
    decode = parse_config(DecodeConfig, dict(source.config), where=source.node)
    store = Store.at(work.store)
    stored = store.frames(source.key) if decode.materialize else None
    return FrameInput(decode=decode, frames_store=stored, index=store.frame_index)
