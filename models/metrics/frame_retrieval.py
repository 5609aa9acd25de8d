"""Retrieval of frames: how many of the nearest rows of the other videos are of the same phase.

Precision@K is what tables of CARL and of GTA call AP@K; the true average precision stands beside it.
Shape letters: Q queries of one video, N rows of all videos, K nearest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.embedded_videos import (
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
    rows_ND = np.concatenate([video.rows for video in chosen])
    labels_N = np.concatenate([video.label_of_rows for video in chosen])
    bounds = np.cumsum([0, *map(len, chosen)])
    found: dict[str, dict[str, float | None]] = {}
    num_unanswerable = 0
    for number, video in enumerate(chosen):
        own = slice(int(bounds[number]), int(bounds[number + 1]))
        hits_QK, relevant_Q = _search(rows_ND, labels_N, own, depth=max(depths), distance=distance)
        num_unanswerable += int((relevant_Q == 0).sum())
        chance = float(relevant_Q.mean() / (len(labels_N) - len(video)))
        found[_own_name(video.name, found)] = {**_scores(hits_QK, relevant_Q, depths), "chance": chance}
    return {
        **{name: _mean([values[name] for values in found.values()]) for name in next(iter(found.values()))},
        "num_queries": len(labels_N),
        "num_unanswerable": num_unanswerable,
        "videos": found,
    }


def _own_name(name: str, taken: Collection[str]) -> str:
    """Two videos may be called alike (the same name in two folders); neither may hide the other."""
    return name if name not in taken else f"{name} ({len(taken)})"


def _search(
    rows_ND: Floats, labels_N: Integers, own: slice, *, depth: int, distance: str
) -> tuple[npt.NDArray[np.bool_], Integers]:
    """Whether each of the nearest rows outside ``own`` has the query's label (Q, K), how many there have it (Q,)."""
    queries_QD, labels_Q = rows_ND[own], labels_N[own]
    other_labels = np.delete(labels_N, own)
    number_of = np.bincount(other_labels, minlength=int(labels_N.max()) + 1)
    depth = min(depth, len(other_labels))
    hits = []
    for start, distances in distance_chunks(queries_QD, rows_ND, distance=distance):
        distances[:, own] = np.inf
        nearest = np.stack([nearest_stable(row, depth) for row in distances])
        hits.append(labels_N[nearest] == labels_Q[start : start + len(distances), None])
    return np.concatenate(hits), number_of[labels_Q]


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
