"""The scores of a video out of those of its crops: one line a window, and a row, with the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reelwright.models.metrics.views import merge_probabilities
from reelwright.storage.results.scores import Scores, VideoScores


def merge_crops(crops: Sequence[VideoScores]) -> VideoScores:
    """The mean over the different crops of one video, whose windows are the same. Source: CAST (1.6)."""
    first = crops[0]
    if len(crops) == 1:
        return first
    return replace(
        first,
        scores=_mean([crop.scores for crop in crops]),
        row_scores=None if first.row_scores is None else _mean_of_rows(crops),
    )


def merge_windows(scores: Scores) -> Scores:
    """The mean over all N windows (N, K) of a video, (1, K)."""
    return _mean(list(scores[:, None]))


def _mean_of_rows(crops: Sequence[VideoScores]) -> Scores:
    """Of rows that some window has; the others stay NaN."""
    of_crops = [crop.row_scores for crop in crops if crop.row_scores is not None]
    rows = np.flatnonzero(crops[0].num_windows)
    means = np.full_like(of_crops[0], np.nan)
    means[rows] = _mean([scores[rows] for scores in of_crops])
    return means


def _mean(scores: Sequence[Scores]) -> Scores:
    """Mean over views of (N, K) each."""
    num = len(scores[0])
    line, view = np.tile(np.arange(num), len(scores)), np.repeat(np.arange(len(scores)), num)
    merged = merge_probabilities(np.concatenate(scores), video_N=line, view_NV=view)
    return merged.probabilities.astype(np.float32)
