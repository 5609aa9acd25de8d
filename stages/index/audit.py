"""Compare what each backend gives of a video with what FFmpeg decodes in order, frame by frame: `index --audit`.

    truth      FFmpeg's own decode from the first frame to the last, through PyAV, with nothing taken for granted
    pyav       as it is used: by the frame index, sought at key frames (every seventh frame)
    decord ... whether or not it is used for this kind of file

Times need no comparison: every backend has those of the frame index, and the truth is what that is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from reelwright.stages.base.work import Reporter, VideoItem
from reelwright.stages.decode.processes.attempts import num_workers
from reelwright.stages.decode.processes.pool import Task, WorkerPool
from reelwright.storage.arrays.spans import FloatArray
from reelwright.storage.errors import ItemError

if TYPE_CHECKING:
    from reelwright.stages.decode.timing.index import FrameIndex

INDEX = "index"  # in the place of a backend: the times of the frame index
_SOUGHT_EVERY = 7  # frames


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How one backend compares with FFmpeg's decode on one video."""

    backend: str
    is_used: bool  # whether `backend: auto`, or naming it, takes it for this file
    num_frames: int  # compared
    num_wrong: int = 0
    first_wrong: int | None = None  # number of the frame
    first_seconds: float | None = None  # its presentation time
    refusal: str = ""  # why it gives no frames, or not all

    @property
    def is_wrong(self) -> bool:
        """Whether it gives another frame, or time, than FFmpeg does."""
        return self.num_wrong > 0


def audit_videos(
    items: Sequence[VideoItem], *, index: Path, workers: int | None, timeout_seconds: float, reporter: Reporter
) -> Iterator[tuple[VideoItem, list[Compared], str]]:
    """Yield (video, comparisons, why it could not be audited), in the order in which they are done."""
    reporter.total(len(items), "videos")
    function = "reelwright.stages.index.audit:audit_task"
    tasks = []
    for number, item in enumerate(items):
        arguments = {"path": item.path, "digest": item.digest, "index": str(index)}
        tasks.append(Task(name=str(number), function=function, arguments=arguments, timeout_seconds=timeout_seconds))
    with WorkerPool(num_workers(workers, len(items))) as pool:
        for task, messages, ended in pool.run(tasks):
            reporter.advance(1)
            compared = [Compared(**message.body) for message in messages]
            yield items[int(task.name)], compared, "" if ended.status == "ok" else ended.message


def audit_task(*, path: str, digest: str, index: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Runs in a worker: one `Compared` as plain data for the index and each backend that is installed."""
    for compared in audit(Path(path), digest=digest, index_folder=Path(index)):
        yield asdict(compared), []


def audit(path: Path, *, digest: str, index_folder: Path | None) -> Iterator[Compared]:
    """Compare the frame index and every installed backend with FFmpeg's decode of a video file.

    What decoding teaches is kept as the index. Raises ItemError as `open_reader`.
    """
    from reelwright.stages.decode.readers import BACKENDS, installed
    from reelwright.stages.decode.readers.pyav import PyavReader
    from reelwright.stages.decode.timing.index import keep_index
    from reelwright.stages.decode.timing.packets import index_of

    known = index_of(path, digest=digest, folder=index_folder)
    truth = PyavReader(path, known.doubted())
    hashes = [_hash(shown.pixels()) for shown in truth.frames()]
    truth.close()
    learned = truth.index
    yield _compared(
        INDEX, _other_times(known, learned), learned.pts_seconds, is_used=True, num_frames=learned.num_frames
    )
    if not known.is_known or not np.array_equal(known.ticks, learned.ticks):
        known = learned
        keep_index(learned, digest=digest, folder=index_folder)
    for backend in filter(installed, BACKENDS):
        yield _of_backend(path, backend, known, hashes, learned.pts_seconds)


def _other_times(known: FrameIndex, learned: FrameIndex) -> list[int]:
    """The frames of which the index that was there says another time, or that only one of both has."""
    if not known.is_known:
        return []
    before, after = known.pts_seconds, learned.pts_seconds
    count = min(len(before), len(after))
    return [*np.flatnonzero(before[:count] != after[:count]).tolist(), *range(count, max(len(before), len(after)))]


def _of_backend(path: Path, backend: str, index: FrameIndex, hashes: list[bytes], seconds: FloatArray) -> Compared:
    from reelwright.stages.decode.readers import BACKENDS
    from reelwright.stages.decode.readers.proven import refuse_unproven

    refusal, is_used = "", True
    if backend != "pyav":
        try:
            refuse_unproven(backend, index, stretch=1.0)
        except ItemError:
            is_used = False
    numbers = range(0, len(hashes), _SOUGHT_EVERY if backend == "pyav" else 1)
    differs, count = [], 0
    try:
        module = import_module(f"reelwright.stages.decode.readers.{backend}")
        reader = getattr(module, BACKENDS[backend])(path, index)
        for number, frame in reader.read(numbers):
            count += 1
            if _hash(frame) != hashes[number]:
                differs.append(number)
        reader.close()
    except (ItemError, ImportError, OSError) as error:
        refusal = " ".join(str(error).split())
    return _compared(backend, differs, seconds, num_frames=count, is_used=is_used, refusal=refusal)


def _compared(backend: str, differs: Sequence[int], seconds: FloatArray, **how: Any) -> Compared:
    first = differs[0] if differs else None
    first_seconds = None if first is None else float(seconds[min(first, len(seconds) - 1)])
    return Compared(backend=backend, num_wrong=len(differs), first_wrong=first, first_seconds=first_seconds, **how)


def _hash(frame: Any) -> bytes:
    return blake3(np.ascontiguousarray(frame).data).digest()
