"""What a video file is: digest, duration, counted frames, rate, size, codec, rotation; asked in killable processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reelwright.stages.base.work import Reporter
from reelwright.stages.decode.processes.attempts import num_workers, raise_unusable
from reelwright.stages.decode.processes.pool import Task, WorkerPool
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ItemError
from reelwright.storage.ledger.digest_cache import VideoProbe
from reelwright.storage.store_errors import why_broken
from reelwright.storage.tables.feature_files import is_feature_file

if TYPE_CHECKING:
    from reelwright.stages.decode.timing.index import FrameIndex

_FUNCTION = "reelwright.stages.index.probe:probe_task"
_VARIABLE_TICKS = 1.5  # frame spans that differ by more than the rounding to the time base are of variable rate


def probe_videos(
    paths: Sequence[Path | str],
    *,
    workers: int | None = None,
    reporter: Reporter | None = None,
    quick: bool = False,
    image_fps: float = 25.0,
    timeout_seconds: float = 300.0,
    index: Path | None = None,
) -> Iterator[tuple[Path | str, VideoProbe]]:
    """Yield (path, probe) for each file, folder of images or URL, as they are done.

    What cannot be used yields a probe whose status is not ok, with cause and message; its digest is empty where the
    file could not be read. quick: see `file_digest`. image_fps: frames per second of folders of images.
    timeout_seconds: for each file. index: the folder where frame indexes are kept. Raises UnusableStoreError and
    UnusableMachineError, see `attempt_all`.
    """
    if reporter is not None:
        reporter.total(len(paths), "videos")
    common = {"quick": quick, "image_fps": image_fps, "index": None if index is None else str(index)}
    tasks = [
        Task(
            name=str(number),
            function=_FUNCTION,
            arguments={"path": str(path), **common},
            timeout_seconds=timeout_seconds,
        )
        for number, path in enumerate(paths)
    ]
    with WorkerPool(num_workers(workers, len(paths))) as pool:
        for task, messages, ended in pool.run(tasks):
            raise_unusable(ended)
            probe = VideoProbe(**messages[-1].body) if messages else VideoProbe(digest="")
            if ended.status != "ok":
                message = f"{ended.message}, twice" if ended.is_killed else ended.message
                probe = VideoProbe(digest=probe.digest, status=ended.status, cause=ended.cause, message=message)
            if reporter is not None:
                reporter.advance(1)
            yield paths[int(task.name)], probe


def probe_task(
    *, path: str, quick: bool, image_fps: float, index: str | None = None
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Runs in a worker: the digest first, so that it is known even of what does not open; then the whole probe."""
    from reelwright.stages.decode.timing.packets import check_file

    source = Path(path)
    if not source.is_dir():
        check_file(source)
    try:
        digest = file_digest(source, quick=quick)
    except PermissionError as error:
        raise ItemError("no_permission", f"{path} cannot be read: {error}. Change its mode or owner.") from None
    except OSError as error:
        if why_broken(error):
            raise
        raise ItemError("unreadable", f"{path} cannot be read: {error}. Check the disk.") from None
    yield VideoProbe(digest=digest)._asdict(), []
    if is_feature_file(source) and source.is_file():
        probe = VideoProbe(digest=digest, codec=source.suffix[1:].lower())  # its rows are read where they are imported
    else:
        folder = None if index is None else Path(index)
        probe = (
            _probe_folder(source, digest, image_fps) if source.is_dir() else probe_file(source, digest, index=folder)
        )
    yield probe._asdict(), []


def probe_file(path: Path, digest: str, *, index: Path | None = None) -> VideoProbe:
    """Probe one video file in this process; its frame index is kept in the folder ``index``.

    Raises ItemError when it is no usable video.
    """
    from reelwright.stages.decode.timing.packets import index_of

    return probe_of(index_of(path, digest=digest, folder=index), path, digest)


def probe_of(found: FrameIndex, path: Path | str, digest: str) -> VideoProbe:
    """What the frame index of a file says of it. Raises ItemError when it has no frames."""
    if not found.num_frames:
        raise ItemError("no_frames", f"{path}: the video stream has no frames. Replace the file.")
    spans = np.diff(found.ticks)
    duration = found.end_seconds - found.first_seconds
    return VideoProbe(
        digest=digest,
        message="; ".join(filter(None, (found.ended_early, found.damage, *found.notes))),
        duration_seconds=duration,
        num_frames=found.num_frames,
        fps=found.num_frames / duration if duration > 0 else found.average_fps,
        height=found.height,
        width=found.width,
        codec=found.codec,
        rotation=found.rotation,
        start_seconds=found.first_seconds,
        variable_frame_rate=bool(len(spans)) and bool(spans.max() - spans.min() > _VARIABLE_TICKS),
        is_exact=found.is_known,
        pixel_aspect=found.pixel_aspect,
    )


def _probe_folder(folder: Path, digest: str, fps: float) -> VideoProbe:
    """Probe a folder of images (whose numbers count frames at ``fps``) or of stored frames; notes are its message."""
    from reelwright.stages.decode.readers.images import ImagesReader, image_series
    from reelwright.stages.decode.readers.stored import is_stored, stored_rows

    if is_stored(folder):
        rows = stored_rows(folder)
        start, stop = float(rows.pts_seconds[0]), float(rows.stop_seconds[-1])
        (height, width), count = rows.frame_size, rows.num_rows
        return VideoProbe(
            digest=digest, duration_seconds=stop - start, num_frames=count, fps=count / (stop - start), height=height,
            width=width, codec="zarr", start_seconds=start,
        )  # fmt: skip
    series = image_series(folder, template=None, start=None)  # decode may name one: nothing is refused here
    reader = ImagesReader(series, fps=fps)
    _, frame = next(reader.read([0]))
    height, width = frame.shape[:2]
    duration = reader.times.end_seconds - float(reader.times.pts_seconds[0])
    problem = (f"Without image_tmpl this folder cannot be decoded: {series.problem}.",) if series.problem else ()
    return VideoProbe(
        digest=digest, duration_seconds=duration, num_frames=len(series.names),
        fps=fps, height=height, width=width, codec=reader.format.lower(), message=" ".join((*problem, *reader.notes)),
        variable_frame_rate=len(series.names) < series.numbers[-1] - series.numbers[0] + 1,
    )  # fmt: skip
