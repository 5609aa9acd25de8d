"""Metrics of window and row classification, from score arrays; plain numbers and lists out, ready for JSON.

Shares are in [0, 1] here; the segmental metrics (segmental.py) are percentages, as their literature has them.
Shape letters: N entries, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.segmental import segmental_metrics

__all__ = ["chance_levels", "classification_metrics", "multilabel_metrics", "segmental_metrics"]

Scores = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

IGNORED = -1  # a target that is not known


def classification_metrics(scores_NK: Scores, target_N: Integers, *, topk: Sequence[int] = (1, 5)) -> dict[str, Any]:
    """Compare class scores (higher is likelier) with targets; entries of target -1 are left out.

    Returns `num_entries`; `top1` and the other `topK` (a k of K or more would always be 1 and is left out);
    `mean_class_accuracy` (mean recall of the classes that have targets); `macro_f1` (mean F1 of the classes that have
    targets or predictions); `mean_average_precision` (of the classes that have targets, one against the rest);
    `per_class` lists of K: `support`, `precision`, `recall`, `f1`, `average_precision` (None where undefined: nothing
    predicted, no targets, neither, no targets); and `confusion` (K lists of K counts, rows are targets).
    Equal scores rank by class index. Raises ValueError for wrong shapes, targets outside [-1, K), NaN, or no target.
    """
    scores_NK, target_N = _check_classification(np.asarray(scores_NK), np.asarray(target_N))
    num_classes = scores_NK.shape[1]
    ranks_N = target_ranks(scores_NK, target_N)
    confusion_KK = confusion_matrix(scores_NK.argmax(axis=1), target_N, num_classes=num_classes)
    per_class = _per_class(confusion_KK)
    per_class["average_precision"] = _average_precisions(scores_NK, target_N[:, None] == np.arange(num_classes))
    shares = {f"top{k}": float((ranks_N < k).mean()) for k in topk if k == 1 or k < num_classes}
    return {
        "num_entries": len(target_N),
        **shares,
        "mean_class_accuracy": _mean_defined(per_class["recall"]),
        "macro_f1": _mean_defined(per_class["f1"]),
        "mean_average_precision": _mean_defined(per_class["average_precision"]),
        "per_class": per_class,
        "confusion": confusion_KK.tolist(),
    }


def _check_classification(scores_NK: Scores, target_N: Integers) -> tuple[Scores, Integers]:
    if scores_NK.ndim != 2 or target_N.shape != scores_NK.shape[:1]:
        raise ValueError(f"scores must be (N, K) and targets (N,), got {scores_NK.shape} and {target_N.shape}.")
    num_classes = scores_NK.shape[1]
    if target_N.size and (target_N.min() < IGNORED or target_N.max() >= num_classes):
        message = f"targets span [{target_N.min()}, {target_N.max()}]; allowed: -1 (unknown) to {num_classes - 1}."
        raise ValueError(message)
    is_known = target_N != IGNORED
    if not is_known.any():
        raise ValueError("no entry has a target; metrics need at least one target that is not -1.")
    _check_no_nan(scores_NK)
    return scores_NK[is_known], target_N[is_known]


def _check_no_nan(scores_NK: Scores) -> None:
    if np.isnan(scores_NK).any():
        raise ValueError(f"{int(np.isnan(scores_NK).any(axis=1).sum())} of {len(scores_NK)} rows of scores hold NaN.")


def target_ranks(scores_NK: Scores, target_N: Integers) -> Integers:
    """Number of classes ranked before the target's, (N,); all targets are known. Equal scores rank by class index."""
    target_score_N1 = np.take_along_axis(scores_NK, target_N[:, None].astype(np.int64), axis=1)
    comes_first = np.arange(scores_NK.shape[1]) < target_N[:, None]
    is_before = (scores_NK > target_score_N1) | ((scores_NK == target_score_N1) & comes_first)
    ranks_N: Integers = is_before.sum(axis=1)
    return ranks_N


def confusion_matrix(prediction_N: Integers, target_N: Integers, *, num_classes: int) -> Integers:
    """Counts (K,K), rows are targets, columns predictions; both in [0, K)."""
    cells = target_N.astype(np.int64) * num_classes + prediction_N
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _per_class(confusion_KK: Integers) -> dict[str, list[Any]]:
    hits, support, predicted = confusion_KK.diagonal(), confusion_KK.sum(axis=1), confusion_KK.sum(axis=0)
    return {
        "support": support.tolist(),
        "precision": _ratios(hits, predicted),
        "recall": _ratios(hits, support),
        "f1": _ratios(2 * hits, support + predicted),
    }


def _ratios(numerators: Integers, denominators: Integers) -> list[float | None]:
    return [float(n / d) if d else None for n, d in zip(numerators, denominators, strict=True)]


def _mean_defined(values: Sequence[float | None]) -> float:
    """Mean of what is not None; 0 when nothing is defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else 0.0


def _average_precisions(scores_NK: Scores, is_positive_NK: npt.NDArray[np.bool_]) -> list[float | None]:
    from sklearn.metrics import average_precision_score  # here, since importing it takes seconds

    columns = zip(scores_NK.T, is_positive_NK.T, strict=True)
    return [
        float(average_precision_score(positive, scores)) if positive.any() else None for scores, positive in columns
    ]


def multilabel_metrics(
    scores_NK: Scores,
    target_NK: npt.ArrayLike,
    *,
    threshold: float = 0.5,
    known_NK: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Compare label scores (probabilities) with targets, bool or 0/1 (N,K); predicted is `threshold` or above.

    Where `known_NK` is False it is not known whether the label is there: neither right nor wrong.

    Returns `num_entries`; `mean_average_precision` (mean over labels that have targets) and
    `micro_average_precision` (all entries and labels as one list); `macro_f1` (labels that have targets or
    predictions) and `micro_f1`; `per_class` lists of K: `support`, `precision`, `recall`, `f1`, `average_precision`
    (None where undefined). A metric over nothing is 0. Raises ValueError for wrong shapes, values, or NaN.
    """
    scores_NK, target = np.asarray(scores_NK), np.asarray(target_NK)
    if scores_NK.ndim != 2 or target.shape != scores_NK.shape or len(scores_NK) == 0:
        message = f"scores and targets must both be (N, K) with N > 0, got {scores_NK.shape} and {target.shape}."
        raise ValueError(message)
    if not np.isin(target, (0, 1)).all():
        raise ValueError("multi-label targets must be False or True (0 or 1); leave unknown rows out.")
    _check_no_nan(scores_NK)
    is_known = np.ones(target.shape, dtype=np.bool_) if known_NK is None else known_NK
    is_positive, is_predicted = target.astype(bool) & is_known, (scores_NK >= threshold) & is_known
    hits, support, predicted = (m.sum(axis=0) for m in (is_positive & is_predicted, is_positive, is_predicted))
    f1 = _ratios(2 * hits, support + predicted)
    average_precisions = [
        _average_precisions(scores[known, None], positive[known, None])[0]
        for scores, positive, known in zip(scores_NK.T, is_positive.T, is_known.T, strict=True)
    ]
    micro = _average_precisions(scores_NK[is_known][:, None], is_positive[is_known][:, None])
    return {
        "num_entries": len(scores_NK),
        "mean_average_precision": _mean_defined(average_precisions),
        "micro_average_precision": _mean_defined(micro),
        "macro_f1": _mean_defined(f1),
        "micro_f1": _mean_defined(
            _ratios(np.atleast_1d(2 * hits.sum()), np.atleast_1d(support.sum() + predicted.sum()))
        ),
        "per_class": {
            "support": support.tolist(),
            "precision": _ratios(hits, predicted),
            "recall": _ratios(hits, support),
            "f1": f1,
            "average_precision": average_precisions,
        },
    }


def chance_levels(target: Integers, num_classes: int) -> dict[str, float]:
    """Accuracy without looking: `uniform` (1/K) and `majority` (share of the commonest target; -1 left out).

    Raises ValueError when no target is known.
    """
    known = np.asarray(target).ravel()
    known = known[known != IGNORED]
    if known.size == 0:
        raise ValueError("no target is known; chance levels need at least one target that is not -1.")
    return {"uniform": 1.0 / num_classes, "majority": float(np.bincount(known).max() / known.size)}
