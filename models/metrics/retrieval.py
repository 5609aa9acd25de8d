"""Retrieval metrics: are the nearest references of a query of its label? Precision at 1, mAP@R and F1 at 1.

Musgrave et al. 2020, "A Metric Learning Reality Check". Shape letters: Q queries, N references, D size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
DISTANCES = ("cosine", "l2")
_CHUNK = 512  # queries whose distances are in memory at a time


def retrieval_metrics(
    query_QD: Floats, query_labels: Integers, reference_ND: Floats, reference_labels: Integers, *, distance: str
) -> dict[str, Any]:
    """Compare the nearest references of every query with its label; no query is among the references.

    mAP@R of a query with R references of its label: the sum over ranks i <= R of [i is of the label] times the
    precision of the first i, divided by R; R is at most the references of the commonest label. Returns
    `precision_at_1`, `mean_average_precision_at_r` (means over queries), `f1_at_1` (macro F1 of the nearest's label),
    `precision_at_1_class_mean`, `mean_average_precision_at_r_class_mean` (means of the labels' means) and `per_class`:
    label -> both. Queries whose label no reference has are left out of all but F1.
    Raises ValueError for an unknown distance, wrong shapes, or when no query has a reference of its label.
    """
    query_QD, reference_ND = np.asarray(query_QD, np.float64), np.asarray(reference_ND, np.float64)
    query_labels, reference_labels = np.asarray(query_labels), np.asarray(reference_labels)
    _check(query_QD, query_labels, reference_ND, reference_labels, distance)
    if distance == "cosine":
        query_QD, reference_ND = _unit(query_QD), _unit(reference_ND)
    number_of = dict(zip(*(part.tolist() for part in np.unique(reference_labels, return_counts=True)), strict=True))
    depth = max(number_of.values())
    nearest_QR = np.concatenate(
        [_nearest(query_QD[start : start + _CHUNK], reference_ND, depth) for start in range(0, len(query_QD), _CHUNK)]
    )
    found_QR = reference_labels[nearest_QR]
    relevant_Q = np.array([number_of.get(label, 0) for label in query_labels.tolist()])
    known = relevant_Q > 0
    hits_QR = found_QR == query_labels[:, None]
    precision_Q, average_Q = hits_QR[:, 0].astype(float), _average_precision(hits_QR, relevant_Q)
    labels = np.unique(query_labels[known]).tolist()
    per_class = {
        label: {
            "precision_at_1": float(precision_Q[known & (query_labels == label)].mean()),
            "mean_average_precision_at_r": float(average_Q[known & (query_labels == label)].mean()),
        }
        for label in labels
    }
    means = {"precision_at_1": precision_Q, "mean_average_precision_at_r": average_Q}
    return {
        **{name: float(values[known].mean()) for name, values in means.items()},
        **{f"{name}_class_mean": float(np.mean([row[name] for row in per_class.values()])) for name in means},
        "f1_at_1": float(f1_score(query_labels, found_QR[:, 0], average="macro", zero_division=0)),
        "per_class": per_class,
    }


def _average_precision(hits_QR: npt.NDArray[np.bool_], relevant_Q: Integers) -> Floats:
    ranks_R = np.arange(1, hits_QR.shape[1] + 1)
    counted_QR = hits_QR & (ranks_R <= relevant_Q[:, None])
    precision_QR = hits_QR.cumsum(axis=1) / ranks_R
    summed: Floats = (precision_QR * counted_QR).sum(axis=1) / np.maximum(relevant_Q, 1)
    return summed


def _nearest(query_QD: Floats, reference_ND: Floats, depth: int) -> Integers:
    """Indexes (Q, depth) of the nearest references, nearest first, the earlier of two that are equally near."""
    # |q|^2 is the same for all references of a query.
    distance_QN = (reference_ND**2).sum(axis=1) - 2 * query_QD @ reference_ND.T
    nearest: Integers = np.argsort(distance_QN, axis=1, kind="stable")[:, :depth]
    return nearest


def _unit(values_ND: Floats) -> Floats:
    lengths = np.linalg.norm(values_ND, axis=1, keepdims=True)
    unit: Floats = values_ND / np.where(lengths > 0, lengths, 1.0)
    return unit


def _check(
    query_QD: Floats, query_labels: Integers, reference_ND: Floats, reference_labels: Integers, distance: str
) -> None:
    if distance not in DISTANCES:
        raise ValueError(f"distance {distance!r} is not known; choose {' or '.join(DISTANCES)}.")
    shapes = [part.shape for part in (query_QD, query_labels, reference_ND, reference_labels)]
    fits = query_QD.ndim == reference_ND.ndim == 2 and query_QD.shape[1:] == reference_ND.shape[1:]
    if not fits or shapes[0][:1] != shapes[1] or shapes[2][:1] != shapes[3]:
        raise ValueError(f"embeddings must be (Q, D) and (N, D) with labels (Q) and (N), got {shapes}.")
    if not np.isin(query_labels, reference_labels).any():
        raise ValueError("no query has a reference of its label; retrieval needs at least one.")
