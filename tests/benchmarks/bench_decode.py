"""Decoding: frames/s of each backend through `stream_frames` and into the frame store, against the bare library loop.

Whole 640x480 frames, all of them. The bare loop has a decoder thread for each core; ours once the same in a single
worker process, and once as stages do it, a process of one thread for each core. What comes before the first frame
(start of the process, imports, first look at a file) stands in rows of its own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from reelwright.stages.base.work import SilentReporter, VideoItem, Work
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.source import FrameChunk, Opened, stream_frames
from reelwright.stages.decode.work import run_items
from reelwright.storage.digests import digest, file_digest
from tests.benchmarks.bare import backends, decode_rate
from tests.benchmarks.harness import Figures, Options, Row, Turns, usable_cores
from tests.benchmarks.videos import bench_videos

AIM = 0.9
WORKERS = {"one process": 1, "a process a core": None}
CODECS = {"lossless": {}, "jpeg": {"codec": "jpeg"}}


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    paths = bench_videos()[: options.num_videos]
    items = [VideoItem(digest=file_digest(path), path=str(path), video_id=path.stem) for path in paths]
    threads, names = usable_cores(), backends()
    turns, starts = Turns(options.repeats), {name: [] for name in names}
    for name in names:
        turns.add(f"{name} bare", partial(decode_rate, paths, backend=name, threads=threads))
        for way, workers in WORKERS.items():
            rate = partial(_stream_rate, items, name, starts[name], options.folder / "index", workers=workers)
            turns.add(f"{name} {way}", rate)
    number = itertools.count()
    for codec, settings in CODECS.items():
        turns.add(f"store {codec}", lambda settings=settings: _store_rate(items, settings, options.folder, number))
    found = turns.measure()
    rows = [row for name in names for row in _backend_rows(name, found, starts[name][1:])]
    reference = f"{names[0]} bare"
    for codec in CODECS:
        what, figures = f"into the frame store, {codec}", found[f"store {codec}"]
        rows.append(Row(what=what, unit="frames/s", figures=figures, reference=reference, against=found[reference]))
    return rows


def _backend_rows(name: str, found: dict[str, Figures], starts: Sequence[float]) -> list[Row]:
    reference = f"{name} bare"
    bare = found[reference]
    rows = [Row(what=reference, unit="frames/s", figures=bare)]
    for way in WORKERS:
        ours = {"figures": found[f"{name} {way}"], "reference": reference, "against": bare, "aim": AIM}
        rows.append(Row(what=f"{name} stream_frames, {way}", unit="frames/s", **ours))
    opening = Figures(tuple(starts), bare.cores)
    return [*rows, Row(what=f"{name} until the first video is open", unit="s", figures=opening)]


def _stream_rate(
    items: Sequence[VideoItem], backend: str, starts: list[float], index: Path, *, workers: int | None
) -> float:
    """Frames a second from the moment that the first video is open; the time before goes into ``starts``.

    Frame indexes are kept in ``index``, as a store keeps them: only the first round makes them.
    """
    started, opened, frames = time.perf_counter(), 0.0, 0
    decode = DecodeConfig(backend=backend)
    for event in stream_frames(items, decode=decode, frames_store=None, geometry=None, workers=workers, index=index):
        if isinstance(event, Opened) and not frames:
            opened = time.perf_counter()
            assert event.backend == backend
        elif isinstance(event, FrameChunk):
            frames += len(event.frames)
    starts.append(opened - started)
    return frames / (time.perf_counter() - opened)


def _store_rate(items: Sequence[VideoItem], settings: dict[str, str], folder: Path, number: itertools.count) -> float:
    """Frames a second of the decode stage, all of it, default workers."""
    config = DecodeConfig(**settings)
    key = digest(["bench_decode", settings, next(number)])
    work = Work(
        node="frames",
        stage="decode",
        key=key,
        config=config.model_dump(mode="json"),
        spec=config.spec(),
        store=str(folder / "decode"),
        inputs={},
        items=tuple(items),
    )
    reporter = SilentReporter()
    started = time.perf_counter()
    run_items(work, reporter)
    seconds = time.perf_counter() - started
    assert [row.status for row in reporter.rows] == ["ok"] * len(items), reporter.rows
    return sum(row.rows for row in reporter.rows) / seconds
