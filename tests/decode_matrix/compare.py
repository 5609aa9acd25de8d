"""Decode every file with every backend and sampling, and say of each how it compares with ffmpeg's own decode."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode import attempts
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.pool import WorkerPool
from reelwright.stages.decode.source import Ended, FrameChunk, stream_frames
from reelwright.stages.work import VideoItem
from reelwright.storage.digests import file_digest
from tests.decode_matrix.lab import Case
from tests.decode_matrix.pictures import UNREADABLE, read_number
from tests.decode_matrix.samplings import NAMES, Sampling, expected_rows, sampling
from tests.decode_matrix.truth import Truth

BACKENDS = ("auto", "pyav", "decord", "torchcodec")
TIME_TOLERANCE_SECONDS = 1e-3
MAX_ROWS = 2000  # that are kept; more are counted only
RIGHT, SAID, SILENT, LOST, UNTOLD = "right", "said", "silently wrong", "lost", "untold"
FAULTS = (SILENT, LOST, UNTOLD)
LETTERS = {RIGHT: ".", SAID: "s", SILENT: "W", LOST: "L", UNTOLD: "U"}


@dataclass
class Rows:
    """What came of one file."""

    numbers: dict[int, int] = field(default_factory=dict)  # by row: number read out of the picture
    source: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    differences: dict[int, int] = field(default_factory=dict)  # by row: the largest of any pixel to ffmpeg's picture
    planned: int = 0
    status: str = ""
    message: str = ""
    backend: str = ""

    def clear(self) -> None:
        """Forget the rows: another backend begins again."""
        for rows in (self.numbers, self.source, self.seconds, self.differences):
            rows.clear()


@dataclass(frozen=True)
class Verdict:
    """How one (file, backend, sampling) compares."""

    kind: str
    reason: str
    backend: str  # that gave the rows
    difference: int | None  # the largest of any pixel, over rows that are right


@dataclass(frozen=True)
class Subject:
    """A file with its truth."""

    case: Case
    path: Path
    digest: str
    truth: Truth


def subject(case: Case, path: Path, truth: Truth) -> Subject:
    """A file to be compared."""
    return Subject(case, path, file_digest(path), truth)


def compare(subjects: Sequence[Subject], backend: str, *, workers: int = 2) -> dict[str, dict[str, Verdict]]:
    """The verdict of each sampling for each file, by name of the case."""
    with _one_pool(workers):
        return _compare(subjects, backend, workers)


def _compare(subjects: Sequence[Subject], backend: str, workers: int) -> dict[str, dict[str, Verdict]]:
    verdicts: dict[str, dict[str, Verdict]] = {one.case.name: {} for one in subjects}
    every = _decode([Asked(one, Sampling("every"), one.truth.seconds) for one in subjects], backend, workers)
    for name in NAMES:
        asked = [asked_of(one, name, every[one.case.name]) for one in subjects]
        found = every if name == "every" else _decode(asked, backend, workers)
        for one in asked:
            verdicts[one.subject.case.name][name] = _verdict(one, backend, found[one.subject.case.name])
    return verdicts


@contextlib.contextmanager
def _one_pool(workers: int) -> Iterator[None]:
    """Every call of `stream_frames` inside uses the same processes: starting them takes longer than all else."""
    with WorkerPool(workers) as pool:
        kept = contextlib.nullcontext(pool)
        with mock.patch.object(attempts, "WorkerPool", return_value=kept):
            yield


@dataclass(frozen=True)
class Asked:
    """What one file is asked for, and the times by which the rule is applied to it."""

    subject: Subject
    sampling: Sampling
    axis: NDArray[np.float64]  # (N,)

    def expected(self) -> list[dict[int, int]]:
        """The picture of each row asked for; several where the file does not say how long its last picture stays."""
        if not len(self.axis):
            return [{}]
        ways = expected_rows(self.sampling, self.axis, self.subject.truth.last_seconds)
        part = self.sampling.rows_asked(min(map(len, ways)))
        if self.sampling.is_shard:
            return [{row: int(ways[0][row]) for row in part if row < len(ways[0])}]
        return [dict(enumerate(rows.tolist())) for rows in ways]


def asked_of(one: Subject, name: str, every: Rows) -> Asked:
    """Where the true times are missing or go back, those that the backend gave count, if they ascend."""
    axis = one.truth.seconds
    if not one.truth.is_timed:
        own = np.asarray([every.seconds[row] for row in sorted(every.seconds)])
        ascends = len(own) == len(axis) and bool(np.all(np.diff(own) >= 0))
        axis = own if ascends else np.arange(len(axis)) * (one.truth.last_seconds or (0.04,))[-1]
    return Asked(one, sampling(name, axis) if len(axis) else Sampling(name), axis)


def _decode(asked: Sequence[Asked], backend: str, workers: int) -> dict[str, Rows]:
    """Decode all; files that are asked for the same are decoded together."""
    groups = defaultdict(list)
    for one in asked:
        groups[repr(one.sampling)].append(one)
    found: dict[str, Rows] = {}
    for group in groups.values():
        found.update(_decode_group(group, backend, workers))
    return found


def _decode_group(group: Sequence[Asked], backend: str, workers: int) -> dict[str, Rows]:
    found = {one.subject.case.name: Rows() for one in group}
    truths = {one.subject.case.name: one.subject.truth for one in group}
    starts, stops = _parts(group)
    wanted = group[0].sampling
    events = stream_frames(
        [_item(one.subject) for one in group],
        decode=DecodeConfig(backend=backend, timeout_seconds=100, **wanted.settings),  # type: ignore[arg-type]
        frames_store=None,
        geometry=None,
        workers=workers,
        start_rows=starts,
        stop_rows=stops,
    )
    for event in events:
        rows = found[event.item.video_id]
        if isinstance(event, FrameChunk):
            _take(rows, event, truths[event.item.video_id] if wanted.name == "every" else None)
        elif isinstance(event, Ended):
            rows.status, rows.message, rows.backend = event.status, event.message, event.backend
        else:
            rows.clear()
            rows.planned = event.num_rows
    return found


def _item(one: Subject) -> VideoItem:
    return VideoItem(digest=one.digest, path=str(one.path), video_id=one.case.name, duration_seconds=5.0)


def _parts(group: Sequence[Asked]) -> tuple[dict[str, int], dict[str, int]]:
    starts, stops = {}, {}
    for one in group:
        rows = one.expected()[0]
        if one.sampling.is_shard and rows:
            starts[one.subject.digest], stops[one.subject.digest] = min(rows), max(rows) + 1
    return starts, stops


def _take(rows: Rows, chunk: FrameChunk, truth: Truth | None) -> None:
    pictures = truth.pictures() if truth is not None and len(truth.numbers) else None
    for place, frame in enumerate(chunk.frames[: max(0, MAX_ROWS - chunk.start_row)]):
        row, source = chunk.start_row + place, int(chunk.source_frame[place])
        rows.numbers[row] = read_number(frame)
        rows.source[row], rows.seconds[row] = source, float(chunk.pts_seconds[place])
        if pictures is not None and source < len(pictures) and pictures[source].shape == frame.shape:
            rows.differences[row] = int(np.abs(pictures[source].astype(np.int16) - frame).max())


def _verdict(asked: Asked, backend: str, rows: Rows) -> Verdict:
    kind, reason = judge(asked, backend, rows)
    differences = [rows.differences[row] for row in rows.differences if _is_right(asked, rows, row)]
    return Verdict(kind, reason, rows.backend, max(differences, default=None))


def _is_right(asked: Asked, rows: Rows, row: int) -> bool:
    number = rows.numbers[row]
    return number != UNREADABLE and number == asked.subject.truth.numbers[rows.source[row]]


def judge(asked: Asked, backend: str, rows: Rows) -> tuple[str, str]:
    """The kind of a verdict and its reason."""
    truth, case, is_ok = asked.subject.truth, asked.subject.case, rows.status == "ok"
    told = f"{rows.status}: {rows.message}"
    if not truth.numbers:
        return (SILENT, "rows of a file of which ffmpeg decodes none") if is_ok else (SAID, told)
    ways = asked.expected()
    wrong, missing = min(
        (_differences(asked, rows, way) for way in ways), key=lambda found: len(found[0]) + len(found[1])
    )
    if wrong and rows.status in ("ok", "truncated"):
        return SILENT, f"{len(wrong)} of {len(rows.numbers)} rows, {wrong[0]}; {told}"
    if missing and is_ok:
        return SILENT, f"{len(missing)} rows are missing, from row {missing[0]}, without a word; {told}"
    if missing or wrong:
        lost = [row for row in missing if not _may_miss(asked, ways[0].get(row))]
        return (LOST, f"{len(lost)} rows that ffmpeg decodes; {told}") if lost or wrong else (SAID, told)
    if not is_ok:
        is_damaged = case.is_truncated or truth.errors
        return (SAID, told) if is_damaged else (LOST, f"called damaged though ffmpeg decodes it whole; {told}")
    if case.is_truncated and truth.errors and not rows.message and not _ends_early(asked.sampling):
        return UNTOLD, f"ffmpeg says {truth.errors[-1][-120:]!r}"
    by_another = backend not in ("auto", rows.backend)
    return (SAID, rows.message) if by_another and rows.message else (RIGHT, rows.message)


def _ends_early(wanted: Sampling) -> bool:
    return wanted.is_shard or "times" in wanted.settings or "stop" in wanted.settings


def _may_miss(asked: Asked, picture: int | None) -> bool:
    """Whether a picture is one that another release of FFmpeg may leave out: damaged, or the last before a cut."""
    numbers = asked.subject.truth.numbers
    if picture is None:
        return True
    at_cut = asked.subject.case.is_truncated and picture >= len(numbers) - 2
    return at_cut or numbers[picture] == UNREADABLE


def _differences(asked: Asked, rows: Rows, expected: Mapping[int, int]) -> tuple[list[str], list[int]]:
    """What is wrong with the rows that came, in words, and the rows that did not come."""
    numbers, wrong = asked.subject.truth.numbers, []
    for row, picture in expected.items():
        if row not in rows.numbers:
            continue
        seconds = rows.seconds[row]
        if numbers[picture] not in (UNREADABLE, rows.numbers[row]):
            wrong.append(f"row {row} shows {rows.numbers[row]}, not {numbers[picture]}")
        elif rows.source[row] != picture:
            wrong.append(f"row {row} is called frame {rows.source[row]}, not {picture}")
        elif abs(seconds - asked.axis[picture]) > TIME_TOLERANCE_SECONDS:
            wrong.append(f"row {row} is at {seconds:.4f} s, not {asked.axis[picture]:.4f}")
    if not asked.sampling.is_shard:
        wrong += [f"row {row} is one too many" for row in sorted(rows.numbers) if row not in expected]
    return wrong, [row for row in expected if row not in rows.numbers]
