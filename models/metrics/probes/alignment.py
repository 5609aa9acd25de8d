"""Alignment of two videos by their rows: dynamic time warping, nearest rows, uniform stretch; and how far off it is.

Dynamic time warping as in the public code of CARL; cost and path are not divided by their length.
Shape letters: Q and N rows of the two videos, D size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.probes.embedded_videos import UNKNOWN, EmbeddedVideo, Floats, Integers, distance_chunks
from reelwright.models.metrics.probes.kendalls_tau import nearest_rows

_MOST_CELLS = 400_000_000  # steps of a path are kept in one byte each
_CHUNK_CELLS = 32_000_000  # distances in memory at a time (256 MB)
_DIAGONAL, _UP, _LEFT = 0, 1, 2


def warping_path(distance_QN: Floats) -> tuple[float, Integers]:
    """Cost of the cheapest path from (0, 0) to (Q-1, N-1), and the path itself, (P, 2) int64 of (query, key).

    C[i, j] = distance[i, j] + min(C[i-1, j-1], C[i-1, j], C[i, j-1]). Where several are cheapest the path goes back
    diagonally, else to the query before, else to the key before. Raises ValueError for an empty matrix, or one of more
    than 400 million cells (stride the videos then).
    """
    _check_size(*distance_QN.shape)
    return _warped([(0, distance_QN)], *distance_QN.shape)


def _check_size(num_queries: int, num_keys: int) -> None:
    if not 0 < num_queries * num_keys <= _MOST_CELLS:
        raise ValueError(f"{num_queries} by {num_keys} rows cannot be warped; allowed are 1 to {_MOST_CELLS:,} cells.")


def _warped(chunks: Iterable[tuple[int, Floats]], num_queries: int, num_keys: int) -> tuple[float, Integers]:
    """As `warping_path`, of distances that come in chunks of queries."""
    steps_QN = np.zeros((num_queries, num_keys), np.int8)
    above_N = np.full(num_keys + 1, np.inf)  # costs of the query before, at [key + 1]
    above_N[0] = 0.0  # where the path begins
    for first, distance_BN in chunks:
        above_N = _warp_chunk(distance_BN, above_N, steps_QN[first : first + len(distance_BN)])
    return float(above_N[num_keys]), _traced(steps_QN)


def _warp_chunk(distance_BN: Floats, above_N: Floats, steps_BN: npt.NDArray[np.int8]) -> Floats:
    """Costs of the last query of a chunk, as those ``above`` it are given; fills in the steps."""
    num_queries, num_keys = distance_BN.shape
    below_N = np.full(num_keys + 1, np.inf)
    # One antidiagonal after the other, indexed by the query + 1; all of one hang on the two before alone.
    before, last = np.full(num_queries + 1, np.inf), np.full(num_queries + 1, np.inf)
    before[0], last[0] = above_N[0], above_N[1]
    for total in range(num_queries + num_keys - 1):
        queries = np.arange(max(0, total - num_keys + 1), min(num_queries, total + 1))
        options = np.stack([before[queries], last[queries], last[queries + 1]])
        chosen = options.argmin(axis=0)
        steps_BN[queries, total - queries] = chosen
        current = np.full(num_queries + 1, np.inf)
        least = options[chosen, np.arange(len(queries))]
        current[queries + 1] = distance_BN[queries, total - queries] + least
        if total + 2 <= num_keys:
            current[0] = above_N[total + 2]
        if total >= num_queries - 1:
            below_N[total - num_queries + 2] = current[num_queries]
        before, last = last, current
    return below_N


def _traced(steps_QN: npt.NDArray[np.int8]) -> Integers:
    query, key = steps_QN.shape[0] - 1, steps_QN.shape[1] - 1
    path = [(query, key)]
    while query or key:
        step = steps_QN[query, key]
        query, key = query - (step != _LEFT), key - (step != _UP)
        path.append((query, key))
    return np.array(path[::-1], np.int64)


def warped_rows(query_QD: Floats, key_ND: Floats, *, distance: str = "sqeuclidean") -> Integers:
    """For each query, the first key (Q,) int64 on the cheapest warping path. Raises as `warping_path`."""
    _check_size(len(query_QD), len(key_ND))
    chunks = distance_chunks(query_QD, key_ND, distance=distance, most_cells=_CHUNK_CELLS)
    path = _warped(chunks, len(query_QD), len(key_ND))[1]
    first: Integers = path[np.unique(path[:, 0], return_index=True)[1], 1]
    return first


def stretched_rows(query_QD: Floats, key_ND: Floats, *, distance: str = "") -> Integers:
    """The key (Q,) at the same share of the way from the first row to the last; rows are not looked at."""
    del distance
    share_Q = np.linspace(0, len(key_ND) - 1, len(query_QD))
    return np.floor(share_Q + 0.5).astype(np.int64)


Align = Callable[..., Integers]  # query (Q, D), key (N, D), distance -> (Q,)
ALIGNMENTS: dict[str, Align] = {"dtw": warped_rows, "nearest": nearest_rows, "stretch": stretched_rows}


def alignment_errors(
    videos: Sequence[EmbeddedVideo], *, method: str = "dtw", distance: str = "sqeuclidean"
) -> dict[str, Any]:
    """How far the row that a phase's first row is aligned with is from the key's first row of that phase.

    Over all ordered pairs of videos that have labels, and all phases that begin in both, the first time each; a phase
    that a video begins with at row 0 counts too. Labels are those of the whole videos, unlabelled rows are aligned.

    Returns `error_rows` and `error_seconds` (mean over phases of a pair, then over pairs; in seconds None where a key
    has no times; both None where no pair has a phase in common), `num_pairs` and `pairs`: query, key and both errors.
    Raises ValueError for an unknown method.
    """
    if method not in ALIGNMENTS:
        raise ValueError(f"alignment {method!r} is not known; choose one of {', '.join(ALIGNMENTS)}.")
    pairs: list[dict[str, Any]] = []
    for query, key in permutations([video for video in videos if video.has_labels], 2):
        starts, wanted = phase_starts(query.label_of_rows), phase_starts(key.label_of_rows)
        common = sorted(starts.keys() & wanted.keys())
        if not common:
            continue
        aligned_Q = ALIGNMENTS[method](query.rows, key.rows, distance=distance)
        found = aligned_Q[[starts[phase] for phase in common]]
        true = np.array([wanted[phase] for phase in common])
        times_N = key.seconds
        seconds = None if times_N is None else float(np.abs(times_N[found] - times_N[true]).mean())
        rows = float(np.abs(found - true).mean())
        pairs.append({"query": query.name, "key": key.name, "error_rows": rows, "error_seconds": seconds})
    seconds_of = [pair["error_seconds"] for pair in pairs]
    return {
        "error_rows": float(np.mean([pair["error_rows"] for pair in pairs])) if pairs else None,
        "error_seconds": float(np.mean(seconds_of)) if pairs and None not in seconds_of else None,
        "num_pairs": len(pairs),
        "pairs": pairs,
    }


def phase_starts(labels_T: Integers) -> dict[int, int]:
    """Label -> its first row; unknown ones apart."""
    labels, first = np.unique(labels_T, return_index=True)
    return {label: row for label, row in zip(labels.tolist(), first.tolist(), strict=True) if label != UNKNOWN}
