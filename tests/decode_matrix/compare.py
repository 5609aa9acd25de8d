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

from reelwright.stages.base.work import VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes import attempts
from reelwright.stages.decode.processes.pool import WorkerPool
from reelwright.stages.decode.source import Ended, FrameChunk, stream_frames
from reelwright.storage.digests import file_digest
from tests.decode_matrix.lab import Case
from tests.decode_matrix.pictures import UNREADABLE, nearest, read_number
from tests.decode_matrix.samplings import NAMES, Sampling, expected_rows, sampling
from tests.decode_matrix.truth import Truth

BACKENDS = ("auto", "pyav", "decord", "torchcodec")
TIME_TOLERANCE_SECONDS = 1e-3
_GUESSED_TOLERANCE_SECONDS = 0.1  # of a picture that has no time: one or the other rate that the file states
MAX_DIFFERENCE = 2  # levels of a pixel: releases of FFmpeg round in other ways
MAX_ROWS = 10_000  # that are kept; more are counted only
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
    every = _decode([asked_of(one, "every", Rows()) for one in subjects], backend, workers)
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
class View:
    """One way to see the pictures of a file: releases of FFmpeg differ in a damaged picture at either end."""

    numbers: tuple[int, ...]
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """What a row must be."""

    number: int
    source: int
    seconds: float


@dataclass(frozen=True)
class Asked:
    """What one file is asked for, and how its pictures may be seen, the command line's own way first."""

    subject: Subject
    sampling: Sampling
    views: tuple[View, ...]

    def ways(self) -> list[dict[int, Expected]]:
        """The rows asked for; several ways where the file does not say how long its last picture stays, too."""
        return [way for view in self.views for way in self._ways(view)] or [{}]

    def _ways(self, view: View) -> Iterator[dict[int, Expected]]:
        all_ways = expected_rows(self.sampling, view.seconds, self.subject.truth.last_seconds)
        for rows in all_ways:
            asked = self.sampling.rows_asked(min(map(len, all_ways)))
            places = rows[asked.start : asked.stop] if self.sampling.is_shard else rows
            yield {
                asked.start + place: Expected(view.numbers[source], source, float(view.seconds[source]))
                for place, source in enumerate(places.tolist())
            }


def asked_of(one: Subject, name: str, every: Rows) -> Asked:
    """Ask ``one`` for a sampling; ``every`` is what the backend gave when it was asked for all rows."""
    found = tuple(_views(one, np.asarray([every.seconds[row] for row in sorted(every.seconds)])))
    return Asked(one, sampling(name, found[0].seconds) if found else Sampling(name), found)


def _views(one: Subject, own: NDArray[np.float64]) -> Iterator[View]:
    """Where the true times are missing or go back, those that the backend gave count, if they ascend."""
    truth = one.truth
    last = (truth.last_seconds or (0.04,))[-1]
    for numbers, seconds in _pictures(one):
        ascends = len(own) == len(numbers) and bool(np.all(np.diff(own) >= 0))
        if not truth.is_timed:
            yield View(numbers, own if ascends else np.arange(len(numbers)) * last)
        elif ascends and truth.num_timed < len(seconds) and _continues(own, seconds, truth.num_timed):
            yield View(numbers, own)
        else:
            yield View(numbers, seconds)


def _continues(own: NDArray[np.float64], seconds: NDArray[np.float64], num_timed: int) -> bool:
    """Whether ``own`` are the true times, and those that follow, of pictures without one, may be theirs."""
    is_same = bool(np.all(np.abs(own - seconds)[:num_timed] <= TIME_TOLERANCE_SECONDS))
    return is_same and bool(np.all(np.abs(own - seconds) <= _GUESSED_TOLERANCE_SECONDS))


def _pictures(one: Subject) -> Iterator[tuple[tuple[int, ...], NDArray[np.float64]]]:
    """Numbers and times of the pictures, at least one.

    Pictures before the first key frame that cannot be read are left out by some releases, and the last of a file that
    was cut off is shown, left out or concealed in another way.
    """
    numbers, seconds = one.truth.numbers, one.truth.seconds
    if not numbers:
        return
    if one.case.is_truncated:
        numbers = (*numbers[:-2], *(UNREADABLE for _ in numbers[-2:]))
    yield numbers, seconds
    num_unreadable = next((place for place, number in enumerate(numbers) if number != UNREADABLE), 0)
    if num_unreadable:
        yield numbers[num_unreadable:], seconds[num_unreadable:]
    if one.case.is_truncated and len(numbers) > 1:
        yield numbers[:-1], seconds[:-1]
        after = seconds[-1] + (one.truth.last_seconds or (0.0,))[-1]
        yield (*numbers, UNREADABLE), np.append(seconds, after)


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
            _take(rows, event, truths[event.item.video_id], is_every=wanted.name == "every")
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
        rows = one.ways()[0]
        if one.sampling.is_shard and rows:
            starts[one.subject.digest], stops[one.subject.digest] = min(rows), max(rows) + 1
    return starts, stops


def _take(rows: Rows, chunk: FrameChunk, truth: Truth, *, is_every: bool) -> None:
    pictures = truth.pictures() if is_every and truth.numbers else None
    for place, frame in enumerate(chunk.frames[: max(0, MAX_ROWS - chunk.start_row)]):
        row, source = chunk.start_row + place, int(chunk.times.source_frame[place])
        rows.numbers[row] = read_number(frame) if truth.has_numbers else nearest(frame, truth.pictures(), source)
        rows.source[row], rows.seconds[row] = source, float(chunk.times.pts_seconds[place])
        if pictures is not None and source < len(pictures) and pictures[source].shape == frame.shape:
            rows.differences[row] = int(np.abs(pictures[source].astype(np.int16) - frame).max())


def _verdict(asked: Asked, backend: str, rows: Rows) -> Verdict:
    kind, reason = judge(asked, backend, rows)
    if asked.subject.truth.errors:  # what is damaged is concealed in another way by each release
        return Verdict(kind, reason, rows.backend, None)
    differences = [rows.differences[row] for row in rows.differences if _is_right(asked, rows, row)]
    return Verdict(kind, reason, rows.backend, max(differences, default=None))


def _is_right(asked: Asked, rows: Rows, row: int) -> bool:
    number, numbers = rows.numbers[row], asked.subject.truth.numbers
    return number != UNREADABLE and number == numbers[rows.source[row]]


def judge(asked: Asked, backend: str, rows: Rows) -> tuple[str, str]:
    """The kind of a verdict and its reason."""
    truth, case, is_ok = asked.subject.truth, asked.subject.case, rows.status == "ok"
    message = f"{rows.status}: {rows.message}"
    if not truth.numbers:
        return (SILENT, "rows of a file of which ffmpeg decodes none") if is_ok else (SAID, message)
    ways = asked.ways()
    if not any(ways):
        return (SILENT, f"rows where there are none; {message}") if is_ok else (SAID, message)
    compared = [_differences(rows, way, may_be_more=asked.sampling.is_shard) for way in ways]
    wrong, missing = min(compared, key=lambda found: len(found[0]) + len(found[1]))
    if wrong and rows.status in ("ok", "truncated"):
        return SILENT, f"{len(wrong)} of {len(rows.numbers)} rows, {wrong[0]}; {message}"
    if missing and is_ok:
        return SILENT, f"{len(missing)} rows are missing, from row {missing[0]}, without a word; {message}"
    if missing or wrong:
        return LOST, f"{len(missing)} rows that ffmpeg decodes; {message}"
    if not is_ok:
        is_damaged = case.is_truncated or truth.errors
        return (SAID, message) if is_damaged else (LOST, f"called damaged though ffmpeg decodes it whole; {message}")
    if case.is_truncated and truth.errors and not rows.message and not _ends_early(asked.sampling):
        return UNTOLD, f"ffmpeg says {truth.errors[-1][-120:]!r}"
    by_another = backend not in ("auto", rows.backend)
    return (SAID, rows.message) if by_another and rows.message else (RIGHT, rows.message)


def _ends_early(wanted: Sampling) -> bool:
    return wanted.is_shard or "times" in wanted.settings or "stop" in wanted.settings


def _differences(rows: Rows, expected: Mapping[int, Expected], *, may_be_more: bool) -> tuple[list[str], list[int]]:
    """What is wrong with the rows that came, in words, and the rows that did not come."""
    wrong = []
    for row, right in expected.items():
        if row not in rows.numbers:
            continue
        seconds = rows.seconds[row]
        if right.number not in (UNREADABLE, rows.numbers[row]):
            wrong.append(f"row {row} shows {rows.numbers[row]}, not {right.number}")
        elif rows.source[row] != right.source:
            wrong.append(f"row {row} is called frame {rows.source[row]}, not {right.source}")
        elif abs(seconds - right.seconds) > TIME_TOLERANCE_SECONDS:
            wrong.append(f"row {row} is at {seconds:.4f} s, not {right.seconds:.4f}")
    if not may_be_more:
        wrong += [f"row {row} is one too many" for row in sorted(rows.numbers) if row not in expected]
    return wrong, [row for row in expected if row not in rows.numbers]
