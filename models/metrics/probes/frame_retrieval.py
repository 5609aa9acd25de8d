"""Retrieval of frames: how many of the nearest rows of the other videos are of the same phase.

Precision@K is what tables of CARL and of GTA call AP@K; the true average precision stands beside it.
Shape letters: Q queries of one video, N rows of all videos, K nearest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.probes.embedded_videos import (
    UNKNOWN,
    EmbeddedVideo,
    Floats,
    Integers,
    distance_chunks,
    labelled_only,
)


def frame_retrieval(
    videos: Sequence[EmbeddedVideo],
    *,
    depths: Sequence[int] = (5, 10, 15),
    stride: int = 1,
    distance: str = "sqeuclidean",
) -> dict[str, Any]:
    """Search the rows of each video among those of all others; means over the rows of a video, then over videos.

    Rows without a label are left out, then every ``stride`` rows of each video are taken. For each K of ``depths``:

    - `precision@K`: share of the K nearest that have the query's label; of all others where these are fewer than K;
    - `average_precision@K`: sum over ranks i <= K of [rank i has the label] times the precision of the first i, over
      the number that could be found, min(K, rows of the label in other videos); in [0, 1]. Queries whose label no
      other video has are left out, and counted in `num_unanswerable`; None when there is no other query.

    Of rows that are equally near, the earlier video and row comes first. Returns also `chance` (the expected
    precision of rows drawn blindly, mean as above), `num_queries`, and `videos`: name -> its own numbers.
    Raises ValueError for depths below 1, or fewer than two videos with labels.
    """
    if not depths or min(depths) < 1:
        raise ValueError(f"depths must be 1 or more, got {list(depths)}.")
    chosen = [video.every(stride) for video in labelled_only(videos, what="retrieval")]
    if len(chosen) < 2:
        raise ValueError("retrieval: one video has labels; the frames of a video are searched in other videos.")
    labels_N = np.concatenate([video.label_of_rows for video in chosen])
    found: dict[str, dict[str, float | None]] = {}
    num_unanswerable = 0
    for video, own, nearest_QK in _nearest_in_others(chosen, depth=max(depths), distance=distance):
        hits_QK = labels_N[nearest_QK] == labels_N[own, None]
        relevant_Q = np.bincount(np.delete(labels_N, own), minlength=int(labels_N.max()) + 1)[labels_N[own]]
        num_unanswerable += int((relevant_Q == 0).sum())
        chance = float(relevant_Q.mean() / (len(labels_N) - len(video)))
        found[_own_name(video.name, found)] = {**_scores(hits_QK, relevant_Q, depths), "chance": chance}
    return {
        **{name: _mean([values[name] for values in found.values()]) for name in next(iter(found.values()))},
        "num_queries": len(labels_N),
        "num_unanswerable": num_unanswerable,
        "videos": found,
    }


def time_retrieval(
    videos: Sequence[EmbeddedVideo],
    *,
    depths: Sequence[int] = (5, 10, 15),
    stride: int = 1,
    distance: str = "sqeuclidean",
) -> dict[str, Any]:
    """How far in time the nearest rows of other videos are from where the query is in its own: needs no labels.

    Videos of one course of events are meant. A row's place is the share of its video that is over, in [0, 1]; every
    ``stride`` rows of each video are taken. For each K of ``depths``, means over the rows of a video, then over videos:

    - `time_error@K`: mean absolute difference of the query's place and those of its K nearest (all, if there are less);
    - `time_error_seconds@K`: the same times the length of the query's video; None where a video has no times.

    Returns also `chance` (the expected `time_error` of rows drawn blindly) and `num_queries`.
    Raises ValueError for depths below 1, or fewer than two videos.
    """
    if not depths or min(depths) < 1:
        raise ValueError(f"depths must be 1 or more, got {list(depths)}.")
    if len(videos) < 2:
        raise ValueError("time retrieval: the rows of a video are searched in other videos, of which there are none.")
    chosen = [video.every(stride) for video in videos]
    place_N = np.concatenate([np.arange(len(video)) / max(1, len(video) - 1) for video in chosen])
    found: list[dict[str, float | None]] = []
    for video, own, nearest_QK in _nearest_in_others(chosen, depth=max(depths), distance=distance):
        error_QK = np.abs(place_N[nearest_QK] - place_N[own, None])
        other_places = np.delete(place_N, own)
        blind_Q = [np.abs(other_places - place).mean() for place in place_N[own]]
        seconds = None if video.seconds is None else float(video.seconds[-1] - video.seconds[0])
        means = {k: float(error_QK[:, :k].mean()) for k in depths}
        found.append(
            {f"time_error@{k}": mean for k, mean in means.items()}
            | {f"time_error_seconds@{k}": None if seconds is None else seconds * mean for k, mean in means.items()}
            | {"chance": float(np.mean(blind_Q))}
        )
    values = {name: [each[name] for each in found] for name in found[0]}
    return {
        **{name: None if None in numbers else _mean(numbers) for name, numbers in values.items()},
        "num_queries": len(place_N),
    }


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row that was retrieved."""

    video: EmbeddedVideo
    row: int
    distance: float
    is_right: bool | None  # whether it has the query's label; None where one of both is not known


def nearest_of_each(
    query: EmbeddedVideo, row: int, others: Sequence[EmbeddedVideo], *, depth: int, distance: str = "sqeuclidean"
) -> list[Found]:
    """The nearest row of each other video, the nearest videos first, ``depth`` of them."""
    found = []
    for video in others:
        ((_, far),) = distance_chunks(query.rows[row : row + 1], video.rows, distance=distance)
        nearest = int(far[0].argmin())
        labels = int(query.label_of_rows[row]), int(video.label_of_rows[nearest])
        is_right = None if UNKNOWN in labels else labels[0] == labels[1]
        found.append(Found(video=video, row=nearest, distance=float(far[0, nearest]), is_right=is_right))
    return sorted(found, key=lambda each: each.distance)[:depth]


def spread_rows(num_rows: int, number: int) -> list[int]:
    """The middles of ``number`` equal parts of so many rows, each row once."""
    found: list[int] = np.unique(((np.arange(number) + 0.5) * num_rows / number).astype(int)).tolist()
    return found


def _own_name(name: str, taken: Collection[str]) -> str:
    """Two videos may be called alike (the same name in two folders); neither may hide the other."""
    return name if name not in taken else f"{name} ({len(taken)})"


def _nearest_in_others(
    videos: Sequence[EmbeddedVideo], *, depth: int, distance: str
) -> Iterator[tuple[EmbeddedVideo, slice, Integers]]:
    """Of each video: its rows among those of all, and the nearest rows of the others (Q, K); fewer where there are."""
    rows_ND = np.concatenate([video.rows for video in videos])
    bounds = np.cumsum([0, *map(len, videos)]).tolist()
    for video, own in zip(videos, map(slice, bounds, bounds[1:]), strict=False):
        nearest: list[Integers] = []
        for _, distances in distance_chunks(video.rows, rows_ND, distance=distance):
            distances[:, own] = np.inf
            nearest += [nearest_stable(row, min(depth, len(rows_ND) - len(video))) for row in distances]
        yield video, own, np.stack(nearest)


def nearest_stable(distances_N: Floats, depth: int) -> Integers:
    """Indexes of the ``depth`` smallest, ascending, the earlier index of two that are equal; without sorting all."""
    limit = np.partition(distances_N, depth - 1)[depth - 1]
    candidates = np.flatnonzero(distances_N <= limit)
    order = np.argsort(distances_N[candidates], kind="stable")
    return candidates[order][:depth]


def _scores(hits_QK: npt.NDArray[np.bool_], relevant_Q: Integers, depths: Sequence[int]) -> dict[str, float | None]:
    precision_QK = hits_QK.cumsum(axis=1) / np.arange(1, hits_QK.shape[1] + 1)
    is_answerable_Q = relevant_Q > 0
    scores: dict[str, float | None] = {}
    for depth in depths:
        last = min(depth, hits_QK.shape[1])
        scores[f"precision@{depth}"] = float(precision_QK[:, last - 1].mean())
        summed_Q = (precision_QK * hits_QK)[:, :last].sum(axis=1)
        average_Q = (summed_Q / np.minimum(np.maximum(relevant_Q, 1), depth))[is_answerable_Q]
        scores[f"average_precision@{depth}"] = float(average_Q.mean()) if len(average_Q) else None
    return scores


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
