"""Bootstrap intervals of probe's numbers, over the videos that are measured (models/metrics/bootstrap.py).

What was learned stays as it is, and of retrieval what is searched in: queries alone are drawn anew. Numbers of which no
sum over videos or pairs of videos is kept (progression, linear_probe, time_retrieval) have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reelwright.models.metrics.bootstrap import Mean, Measure, PairMean, Ratio, intervals

Found = Mapping[str, Any]  # what a task found
_CLASSIFIERS = {"logistic": "phase_accuracy", "svm": "phase_accuracy_svm", "svm_linear": "phase_accuracy_svm_linear"}
_SHARES = ("precision@", "average_precision@")


def score_intervals(tasks: Mapping[str, Found]) -> dict[str, list[float]]:
    """[low, high] by the names of the node's scores, of tasks that were done with all videos at once."""
    found: dict[str, list[float]] = {}
    for name, measures_of in _MEASURES.items():
        for measures, num_videos in measures_of(tasks[name]) if name in tasks else ():
            found |= {
                number: [each.low, each.high] for number, each in intervals(measures, num_videos=num_videos).items()
            }
    return found


def _phases(found: Found) -> Iterator[tuple[dict[str, Measure], int]]:
    for classifier, name in _CLASSIFIERS.items():
        videos = found.get(classifier, {}).get("videos", ())
        if videos:
            above = np.array([video["right_rows"] for video in videos])
            below = np.array([video["num_rows"] for video in videos])
            yield {name: Ratio(above=above, below=below)}, len(videos)


def _retrieval(found: Found) -> Iterator[tuple[dict[str, Measure], int]]:
    videos = list(found.get("videos", {}).values())
    if videos:
        names = [name for name in videos[0] if name.startswith(_SHARES)]
        yield {name: Mean(value=_values(videos, name), best=1.0) for name in names}, len(videos)


def _alignment(found: Found) -> Iterator[tuple[dict[str, Measure], int]]:
    for method in ("dtw", "nearest", "stretch"):
        numbers = {f"{method}_{number}": number for number in ("error_rows", "error_seconds")}
        yield from _of_pairs(found.get(method, {}).get("pairs", ()), numbers)


def _of_pairs(pairs: Sequence[Found], numbers: Mapping[str, str]) -> Iterator[tuple[dict[str, Measure], int]]:
    """Nothing where two videos have one name: it is not known then which pair is whose."""
    names = dict.fromkeys(pair[end] for end in ("query", "key") for pair in pairs)
    places = {name: place for place, name in enumerate(names)}
    known = {(pair["query"], pair["key"]) for pair in pairs}
    if not pairs or len(known) < len(pairs) or any(query == key for query, key in known):
        return
    measures: dict[str, Measure] = {}
    for name, number in numbers.items():
        value_VV = np.full((len(places), len(places)), np.nan)
        for pair, value in zip(pairs, _values(pairs, number), strict=True):
            value_VV[places[pair["query"]], places[pair["key"]]] = value
        measures[name] = PairMean(value=value_VV)
    yield measures, len(places)


def _values(found: Sequence[Found], name: str) -> Any:
    return np.array([np.nan if each[name] is None else each[name] for each in found], np.float64)


_MEASURES: dict[str, Callable[[Found], Iterator[tuple[dict[str, Measure], int]]]] = {
    "phase_classification": _phases,
    "retrieval": _retrieval,
    "kendalls_tau": lambda found: _of_pairs(found.get("pairs", ()), {"kendalls_tau": "tau"}),
    "alignment": _alignment,
}
