"""The mean and the standard deviation of measures over runs that differ by their seed alone; plain numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Numbers = Mapping[str, float]


def mean_and_deviation(sets: Sequence[Numbers]) -> tuple[dict[str, float], dict[str, float]]:
    """By name, of the numbers that all ``sets`` have: the mean, and the standard deviation with n - 1 below.

    Of one set no number has a deviation.
    """
    names = [name for name in sets[0] if all(name in numbers for numbers in sets)]
    columns = {name: [float(numbers[name]) for numbers in sets] for name in names}
    means = {name: statistics.fmean(values) for name, values in columns.items()}
    deviations = {name: statistics.stdev(values) for name, values in columns.items()} if len(sets) > 1 else {}
    return means, deviations
