"""A metric by its name, which way it is better, and measures over runs that differ by their seed; plain numbers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NAME = re.compile(r"(?:(?P<node>.*)\.)?(?P<number>[^\W\d][^.@]*(?:@.*)?)$")
_LOSS = re.compile(r"(^|_)loss(_|$)")  # val_loss, and parts of a loss: train_loss_stage1
_ERROR = re.compile(r"(^|_)error(_(rows|seconds))?$")
_LOWER_IS_BETTER = frozenset({"step_delay_seconds", "step_false_positives", "step_false_negatives"})


@dataclass(frozen=True)
class Metric:
    """One number that is measured."""

    name: str
    is_lower_better: bool = False

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether ``value`` is better; anything is better than None, and nothing than its equal."""
        return than is None or (value < than if self.is_lower_better else value > than)

    def sort_key(self, value: float) -> float:
        """Rises from the best value to the worst."""
        return value if self.is_lower_better else -value


def metric_named(name: str) -> Metric:
    """The metric ``name``, which may say where it was measured: `val_loss`, `NODE.step_delay_seconds`."""
    plain = split_name(name)[1].partition("@")[0]  # without the K or the share of `time_error@5`, `accuracy@12.5%`
    is_lower = plain in _LOWER_IS_BETTER or any(pattern.search(plain) for pattern in (_LOSS, _ERROR))
    return Metric(name, is_lower_better=is_lower)


def split_name(name: str) -> tuple[str, str]:
    """The node that a number was measured by, if ``name`` says it, and the number: `scores@0.f1@50`, `accuracy@12.5%`.

    A number begins with a letter, which what stands behind the point of a share does not.
    """
    found = _NAME.match(name)
    return ("", name) if found is None else (found["node"] or "", found["number"])


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
