"""Metrics of several heads and of their joint answer: an action is a verb and a noun, and both must be right.

    pairs          all pairs ranked by p(verb) * p(noun)         the official measure (EPIC-Kitchens-100 challenge)
    rank_paired    the k-th verb together with the k-th noun     CAST's while it trains; its top 5 is not a top 5
    independent    verb among k verbs and noun among k nouns     CAST's after its final test; optimistic

Shares are in [0, 1]. Shape letters: N entries, H heads, K classes of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.models.metrics.classification import IGNORED, classification_metrics, target_ranks

Scores = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

CELLS_AT_ONCE = 1 << 22  # products of probabilities in memory: 32 MiB


def multi_head_metrics(
    probabilities: Mapping[str, Scores], target_NH: Integers, *, joint: str = "action", topk: Sequence[int] = (1, 5)
) -> dict[str, dict[str, Any]]:
    """`classification_metrics` of each head, and under the name `joint` the `topK` of all heads at once ("pairs").

    `probabilities` (N,K) by head; `target_NH` int, a column a head in the same order, -1 unknown. A head that no entry
    has a target of is left out. Entries that any head does not know are left out of `joint`, which is left out itself
    where there is no other. Raises ValueError for wrong shapes, values or a name used twice.
    """
    if joint in probabilities:
        raise ValueError(f"{joint!r} is a head already; choose another name for the joint answer.")
    scores = list(probabilities.values())
    _check(scores, target_NH)
    found = {
        name: classification_metrics(part, target_NH[:, position], topk=topk)
        for position, (name, part) in enumerate(probabilities.items())
        if (target_NH[:, position] != IGNORED).any()
    }
    if (target_NH != IGNORED).all(axis=1).any():
        ranks = joint_ranks(scores, target_NH)
        found[joint] = {"num_entries": len(ranks), **{f"top{k}": float((ranks < k).mean()) for k in topk}}
    return found


def joint_accuracy(
    scores: Sequence[Scores], target_NH: Integers, *, measure: str = "pairs", topk: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Shares `topK` of entries whose classes of all heads are found, by a measure of the table above.

    `scores` (N,K) a head: probabilities for "pairs", else anything that rises with them. Equal scores rank by class.
    Raises ValueError for an unknown measure, wrong shapes, or no entry that every head knows.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure {measure!r} is not known; allowed: {', '.join(MEASURES)}.")
    _check(scores, target_NH)
    return {f"top{k}": float(MEASURES[measure](scores, target_NH, k).mean()) for k in topk}


def joint_ranks(probabilities: Sequence[Scores], target_NH: Integers) -> Integers:
    """How many combinations of classes have a larger product of probabilities than the target's, int64 (N known,).

    Equal products rank by class, the first head's first. Raises ValueError for a probability outside [0, 1].
    """
    parts, target = _known(probabilities, target_NH)
    if any(part.size and (part.min() < 0 or part.max() > 1) for part in parts):
        raise ValueError("scores must be probabilities in [0, 1]: take the softmax of the logits of each head first.")
    cells = int(np.prod([part.shape[1] for part in parts]))
    step = max(1, CELLS_AT_ONCE // cells)
    ranks = [
        _ranks([part[start : start + step] for part in parts], target[start : start + step])
        for start in range(0, len(target), step)
    ]
    return np.concatenate(ranks)


def _ranks(parts: Sequence[Scores], target_NH: Integers) -> Integers:
    products = parts[0].astype(np.float64)
    cell = target_NH[:, 0].astype(np.int64)
    for position, part in enumerate(parts[1:], start=1):
        products = (products[:, :, None] * part[:, None, :]).reshape(len(part), -1)
        cell = cell * part.shape[1] + target_NH[:, position]
    return target_ranks(products, cell)


def _rank_paired(scores: Sequence[Scores], target_NH: Integers, k: int) -> npt.NDArray[np.bool_]:
    parts, target = _known(scores, target_NH)
    depth = min(k, *(part.shape[1] for part in parts))
    hits = [
        np.argsort(-part, axis=1, kind="stable")[:, :depth] == target[:, [position]]
        for position, part in enumerate(parts)
    ]
    return np.asarray(np.logical_and.reduce(hits).any(axis=1))


def _independent(scores: Sequence[Scores], target_NH: Integers, k: int) -> npt.NDArray[np.bool_]:
    parts, target = _known(scores, target_NH)
    hits = [_ranks([part], target[:, [position]]) < k for position, part in enumerate(parts)]
    return np.asarray(np.logical_and.reduce(hits))


MEASURES: dict[str, Callable[[Sequence[Scores], Integers, int], npt.NDArray[np.bool_]]] = {
    "pairs": lambda scores, target_NH, k: joint_ranks(scores, target_NH) < k,
    "rank_paired": _rank_paired,
    "independent": _independent,
}


def _known(scores: Sequence[Scores], target_NH: Integers) -> tuple[list[Scores], Integers]:
    is_known = (target_NH != IGNORED).all(axis=1)
    if not is_known.any():
        raise ValueError("no entry has a target of every head; a joint answer needs at least one.")
    return [np.asarray(part)[is_known] for part in scores], target_NH[is_known]


def _check(scores: Sequence[Scores], target_NH: Integers) -> None:
    shapes = [np.shape(part) for part in scores]
    if target_NH.ndim != 2 or not scores or any(len(s) != 2 or s[0] != len(target_NH) for s in shapes):
        raise ValueError(f"scores must be (N, K) a head and targets (N, H); got {shapes} and {target_NH.shape}.")
    if len(shapes) != target_NH.shape[1]:
        raise ValueError(f"there are {len(shapes)} heads of scores, but {target_NH.shape[1]} columns of targets.")
    for position, (part, shape) in enumerate(zip(scores, shapes, strict=True)):
        column = target_NH[:, position]
        if np.isnan(part).any():
            raise ValueError(f"scores of head {position} hold NaN.")
        if column.size and not IGNORED <= column.min() <= column.max() < shape[1]:
            raise ValueError(
                f"targets of head {position} span [{column.min()}, {column.max()}]; allowed: -1 to {shape[1] - 1}."
            )
