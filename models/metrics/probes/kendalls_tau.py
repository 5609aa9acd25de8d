"""Kendall's tau of nearest rows: whether time in one video rises with the time of what looks alike in another.

Dwibedi et al. 2019, "Temporal Cycle-Consistency Learning", section 4.2; needs no labels.
Shape letters: Q and N rows of two videos, D size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo, Floats, Integers, distance_chunks


def nearest_rows(query_QD: Floats, key_ND: Floats, *, distance: str = "sqeuclidean") -> Integers:
    """For each query, index (Q,) int64 of the nearest key, the first of those that are equally near."""
    chunks = [found.argmin(axis=1) for _, found in distance_chunks(query_QD, key_ND, distance=distance)]
    return np.concatenate(chunks).astype(np.int64)


def tau_of_nearest(nearest_Q: npt.NDArray[np.integer[Any]]) -> float | None:
    """Kendall's tau-b in [-1, 1] of 0..Q-1 and the nearest rows; None where these are all one, or Q is 1."""
    if len(nearest_Q) < 2 or (nearest_Q == nearest_Q[0]).all():
        return None
    from scipy.stats import kendalltau  # here, since it takes half a second, and each training process loads this

    # asymptotic: of the p-value, which nobody reads; the exact one takes long.
    return float(kendalltau(np.arange(len(nearest_Q)), nearest_Q, method="asymptotic").statistic)


def kendalls_tau(
    videos: Sequence[EmbeddedVideo],
    *,
    stride: int = 1,
    stride_seconds: float | None = None,
    distance: str = "sqeuclidean",
    compat: bool = False,
) -> dict[str, Any]:
    """Mean of tau over all ordered pairs of videos, every ``stride`` rows of each.

    ``stride_seconds`` takes the place of ``stride`` where videos have different rates. Pairs without a tau are left out
    of the mean. Rows count whether they have a label or not; ``compat`` leaves out those of label -1, and videos
    without labels, as the public code of CARL does.

    Returns `kendalls_tau` (None without any pair that has one), `kendalls_tau_spread` (standard deviation over
    pairs, of two or more), `num_pairs`, `num_undefined`, and `pairs`: query, key, tau of each.
    Raises ValueError for an unknown distance, a stride that is not above 0, or rows of different sizes.
    """
    if compat:
        videos = [video.labelled() for video in videos if video.has_labels]
    sampled = [
        video.every(stride) if stride_seconds is None else video.every_seconds(stride_seconds) for video in videos
    ]
    pairs: list[dict[str, Any]] = [
        {
            "query": query.name,
            "key": key.name,
            "tau": tau_of_nearest(nearest_rows(query.rows, key.rows, distance=distance)),
        }
        for query, key in permutations(sampled, 2)
    ]
    taus = [pair["tau"] for pair in pairs if pair["tau"] is not None]
    return {
        "kendalls_tau": math.fsum(taus) / len(taus) if taus else None,
        "kendalls_tau_spread": float(np.std(taus, ddof=1)) if len(taus) > 1 else None,
        "num_pairs": len(pairs),
        "num_undefined": len(pairs) - len(taus),
        "pairs": pairs,
    }
