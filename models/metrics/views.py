"""Merge the predictions of several views of a video: mean of softmax, each view counted once.

Shape letters: N views of all videos, V numbers that name a view (segment, crop), G videos, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax


@dataclass(frozen=True)
class MergedViews:
    """Predictions by video."""

    video: npt.NDArray[np.int64]  # (G,) ascending
    probabilities: npt.NDArray[np.float64]  # (G,K)
    num_views: npt.NDArray[np.int64]  # (G,) different views of each


def merge_views(logits_NK: npt.ArrayLike, *, video_N: npt.ArrayLike, view_NV: npt.ArrayLike) -> MergedViews:
    """Mean over each video's views of the softmax of `logits_NK`; of a view that is there twice the first row counts.

    `video_N` int, `view_NV` int (N,) or (N,V), for example segment and crop. The order of the rows, rows that are there
    twice and how they were spread over processes change nothing, not a bit. Raises ValueError for wrong shapes or NaN.
    Source: CAST's merging of its test views (KHU-VLL/CAST, section 1.6 of the domain reference).
    """
    logits = _checked(logits_NK, video_N, view_NV, what="logits")
    return merge_probabilities(softmax(logits, axis=-1), video_N=video_N, view_NV=view_NV)


def merge_probabilities(
    probabilities_NK: npt.ArrayLike, *, video_N: npt.ArrayLike, view_NV: npt.ArrayLike
) -> MergedViews:
    """As `merge_views`, of what is no softmax over all K (several heads, sigmoids) or has been through one."""
    values = _checked(probabilities_NK, video_N, view_NV, what="probabilities")
    videos, views = np.asarray(video_N), np.asarray(view_NV)
    names = np.column_stack([videos, views.reshape(len(views), -1)]).astype(np.int64)
    different, first = np.unique(names, axis=0, return_index=True)  # sorted: sums do not depend on the order of rows
    merged, position = np.unique(different[:, 0], return_inverse=True)
    sums = np.zeros((len(merged), values.shape[1]))
    np.add.at(sums, position, values[first])
    counts = np.bincount(position, minlength=len(merged)).astype(np.int64)
    return MergedViews(merged, sums / counts[:, None], counts)


def _checked(
    values_NK: npt.ArrayLike, video_N: npt.ArrayLike, view_NV: npt.ArrayLike, *, what: str
) -> npt.NDArray[np.float64]:
    values, videos, views = np.asarray(values_NK, dtype=np.float64), np.asarray(video_N), np.asarray(view_NV)
    if values.ndim != 2 or videos.shape != values.shape[:1] or views.shape[:1] != values.shape[:1]:
        raise ValueError(
            f"{what} must be (N, K), videos (N,), views (N, V); got {values.shape}, {videos.shape}, {views.shape}."
        )
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).any(axis=1).sum())} of {len(values)} views have {what} that are NaN.")
    return values
