"""Targets of rows and windows: small cases that one can work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.storage.arrays.spans import Spans, majority, row_labels
from reelwright.storage.tables.annotations import UNKNOWN, Annotation


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
        (Annotation(times=((1.0, 2), (1.0, 0))), UNKNOWN, [-1, 0, 0, 0, 0]),
        (Annotation(frames=((0, 2), (0, 1))), 5, [1, 5, 5, 5, 5]),
        (Annotation(label=3), 7, [3, 3, 3, 3, 3]),
        (Annotation(), UNKNOWN, [-1, -1, -1, -1, -1]),
        (Annotation(), 7, [7, 7, 7, 7, 7]),
    ],
    ids=[
        *("touching", "gap", "later start wins", "later line wins", "times", "frames", "own label"),
        *("later line of a time wins", "later line of a frame wins", "own label before background"),
        *("nothing said", "no line but a background"),
    ],
)
def test_row_labels(annotation: Annotation, background: int, expected: list[int]) -> None:
    assert row_labels(annotation, spans(5), background=background).tolist() == expected


def test_a_boundary_on_a_time_stamp_is_not_decided_by_rounding() -> None:
    seconds = 0.1
    rows = spans(10, seconds)
    labels = row_labels(Annotation(segments=((0, 0.3, 0), (0.3, 1.0, 1))), rows)
    assert labels.tolist() == [0] * 3 + [1] * 7


def test_rows_of_a_label_that_a_run_does_not_know_are_unknown_and_no_background() -> None:
    known = Annotation(segments=((0, 4, 0), (1, 2, 7)), steps=((1.0, 7), (2.0, 0)), frames=((1, 7),), labels=(0, 7))
    found = known.with_ids({0: 3})
    assert found.segments == ((0, 4, 3), (1, 2, UNKNOWN))
    assert (found.steps, found.frames, found.labels) == (((2.0, 3),), ((1, UNKNOWN),), (3, UNKNOWN))
    rows = row_labels(Annotation(segments=found.segments), spans(5), background=9)
    assert rows.tolist() == [3, UNKNOWN, 3, 3, 9]
    assert Annotation(segments=((0, 1, 7),)).with_ids({0: 3}).is_known is False


def test_times_move_and_frames_stay() -> None:
    known = Annotation(segments=((0, 1, 0),), steps=((1.0, 0),), times=((2.0, 0),), frames=((3, 0),))
    moved = Annotation(segments=((9, 10, 0),), steps=((10.0, 0),), times=((11.0, 0),), frames=((3, 0),))
    assert known.later(9.0) == moved


def test_majority_leaves_unknown_out_and_prefers_the_smaller() -> None:
    assert [majority(entry) for entry in ([1, 2, 2], [-1, -1, 0], [1, 0], [-1], [])] == [2, 0, 0, -1, -1]


def test_plain_data_and_back() -> None:
    annotation = Annotation(label=1, segments=((0.0, 1.0, 2),), steps=((1.0, 0),), times=((0.5, 1),), frames=((3, 1),))
    assert Annotation.from_plain(annotation.plain()) == annotation
