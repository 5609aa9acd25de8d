"""Targets of rows and windows: small cases that one can work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.storage.annotations import UNKNOWN, Annotation
from reelwright.storage.spans import Spans, majority, row_labels, window_label_set


def spans(num_rows: int, seconds: float = 1.0) -> Spans:
    start = np.arange(num_rows) * seconds
    frames = np.arange(num_rows, dtype=np.int64)
    return Spans(start, start + seconds, frames, frames + 1)


@pytest.mark.parametrize(
    ("annotation", "background", "expected"),
    [
        (Annotation(segments=((0, 2, 0), (2, 4, 1))), UNKNOWN, [0, 0, 1, 1, -1]),
        (Annotation(segments=((0, 2, 0), (3, 4, 1))), 5, [0, 0, 5, 1, 5]),
        (Annotation(segments=((1, 5, 1), (0, 3, 0))), UNKNOWN, [0, 1, 1, 1, 1]),
        (Annotation(segments=((0, 5, 1), (0, 2, 0))), UNKNOWN, [0, 0, 1, 1, 1]),
        (Annotation(times=((1.0, 2), (3.2, 0))), UNKNOWN, [-1, 2, 2, 0, 0]),
        (Annotation(frames=((0, 1), (4, 2))), UNKNOWN, [1, -1, -1, -1, 2]),
        (Annotation(label=3), UNKNOWN, [3, 3, 3, 3, 3]),
        (Annotation(), 7, [-1, -1, -1, -1, -1]),
    ],
    ids=["touching", "gap", "later start wins", "later line wins", "times", "frames", "own label", "nothing"],
)
def test_row_labels(annotation: Annotation, background: int, expected: list[int]) -> None:
    assert row_labels(annotation, spans(5), background=background).tolist() == expected


def test_a_boundary_on_a_time_stamp_is_not_decided_by_rounding() -> None:
    seconds = 0.1
    rows = spans(10, seconds)
    labels = row_labels(Annotation(segments=((0, 0.3, 0), (0.3, 1.0, 1))), rows)
    assert labels.tolist() == [0] * 3 + [1] * 7


def test_label_sets() -> None:
    annotation = Annotation(steps=((1.0, 0), (2.0, 2)), segments=((0.5, 1.5, 1),))
    assert window_label_set(annotation, start_seconds=1.0, stop_seconds=2.0, num_classes=3).tolist() == [
        True,
        True,
        False,
    ]
    assert window_label_set(annotation, start_seconds=1.5, stop_seconds=2.5, num_classes=3).tolist() == [
        False,
        False,
        True,
    ]


def test_majority_leaves_unknown_out_and_prefers_the_smaller() -> None:
    assert [majority(entry) for entry in ([1, 2, 2], [-1, -1, 0], [1, 0], [-1], [])] == [2, 0, 0, -1, -1]


def test_plain_data_and_back() -> None:
    annotation = Annotation(label=1, segments=((0.0, 1.0, 2),), steps=((1.0, 0),), times=((0.5, 1),), frames=((3, 1),))
    assert Annotation.from_plain(annotation.plain()) == annotation
