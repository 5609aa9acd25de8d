"""Procedure order similarity (POS) of two sequences of steps, and the reordering of ties before it.

POS: Schoonbeek et al. 2024, "IndustReal: A Dataset for Procedure Step Recognition Handling Execution Errors in
Egocentric Videos in an Industrial-Like Setting", the measures of procedure step recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def order_distance(truth: Sequence[int], predicted: Sequence[int]) -> int:
    """Damerau-Levenshtein distance: insert, delete and transpose cost 1, substitute 2; ids are any ints.

    Unrestricted: between two transposed steps there may be insertions and deletions, so `3 6 0` is 2 away from `0 3`
    (delete 6, transpose) where the restricted distance is 3. Lowrance and Wagner 1975.
    """
    above = len(truth) + len(predicted) + 1  # more than any distance
    table = [[above] * (len(predicted) + 2) for _ in range(len(truth) + 2)]  # shifted by one: row and column -1
    for row in range(len(truth) + 1):
        table[row + 1][1] = row
    for column in range(len(predicted) + 1):
        table[1][column + 1] = column
    last_row: dict[int, int] = {}  # of each step, where it came last in truth
    for row, left in enumerate(truth, start=1):
        last_column = 0  # where `left` came last in predicted, before `column`
        for column, right in enumerate(predicted, start=1):
            crossed = last_row.get(right, 0)
            swapped = table[crossed][last_column] + (row - crossed - 1) + 1 + (column - last_column - 1)
            replaced = table[row][column] + (0 if left == right else 2)
            table[row + 1][column + 1] = min(replaced, table[row + 1][column] + 1, table[row][column + 1] + 1, swapped)
            if left == right:
                last_column = column
        last_row[left] = row
    return table[-1][-1]


def order_similarity(truth: Sequence[int], predicted: Sequence[int]) -> float:
    """POS in [0, 1]: 1 - min(distance / len(truth), 1), by the order in which the steps are given, not their times.

    Nothing predicted where nothing was to be is 1; something predicted there is 0 (the public code divides by zero).
    """
    if not truth:
        return 0.0 if predicted else 1.0
    return 1.0 - min(order_distance(truth, predicted) / len(truth), 1.0)


def reorder_ties(
    truth: Sequence[int],
    predicted: Sequence[int],
    *,
    truth_times: Sequence[float],
    predicted_times: Sequence[float],
    window: float,
) -> tuple[list[int], list[float]]:
    """Predicted steps and times in the order that the public code of STORM-PSR scores for windows of length ``window``.

    First, when the steps predicted together at the very first time are those that were to come until then, the whole
    prediction is overwritten with the truth's order, position by position, as far as both go. Then each two
    neighbours that stand in the opposite order somewhere in the truth, less than a window apart, are exchanged, which
    may also turn a right order into a wrong one. Times are in the unit of ``window``.
    """
    order, times = list(predicted), list(predicted_times)
    if any(times) and _same_start(truth, order, truth_times=truth_times, times=times):
        shared = min(len(truth), len(order))
        order[:shared] = truth[:shared]
    opposite = {(later, earlier) for earlier, later in pairwise(truth)}
    for index in range(1, len(order)):
        if (order[index - 1], order[index]) in opposite and abs(times[index] - times[index - 1]) < window:
            order[index - 1], order[index] = order[index], order[index - 1]
            times[index - 1], times[index] = times[index], times[index - 1]
    return order, times


def _same_start(
    truth: Sequence[int], order: Sequence[int], *, truth_times: Sequence[float], times: Sequence[float]
) -> bool:
    together = [index for index, time in enumerate(times) if time == times[0]]
    due = [index for index, time in enumerate(truth_times) if time <= times[0]]
    return bool(due) and set(order[together[0] : together[-1] + 1]) == set(truth[due[0] : due[-1] + 1])
