"""Targets by task, on a video of eight rows of half a second."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.stages.sampling.windows import WindowShape, grid_windows
from reelwright.stages.train.targets import LabelSpace, class_counts, is_described, known_windows, window_targets
from reelwright.storage.annotations import Annotation

LABELS = LabelSpace(classes=("a", "b", "c"))
SHAPE = WindowShape(length=3, stride=2)  # rows 0-2, 2-4, 4-6
SEGMENTS = Annotation(label=2, segments=((0.0, 1.5, 0), (2.0, 3.0, 1)))  # rows 0 1 2 | 3 unknown | 4 5 | 6 7 unknown
STEPS = Annotation(steps=((1.2, 1), (3.4, 2)))

CASES = {
    "video": ("video", SEGMENTS, [2, 2, 2]),
    "video unknown": ("video", STEPS, [-1, -1, -1]),
    "last_row": ("last_row", SEGMENTS, [0, 1, -1]),
    "majority": ("majority", SEGMENTS, [0, 0, 1]),
    "per_row": ("per_row", SEGMENTS, [[0, 0, 0], [0, -1, 1], [1, 1, -1]]),
    # windows span [0, 1.5), [1, 2.5), [2, 3.5) seconds; the video's own label always counts
    "multi_label segments": ("multi_label", SEGMENTS, [[1, 0, 1], [1, 1, 1], [0, 1, 1]]),
    "multi_label steps": ("multi_label", STEPS, [[0, 1, 0], [0, 1, 0], [0, 0, 1]]),
}


@pytest.mark.parametrize(("task", "annotation", "expected"), CASES.values(), ids=CASES)
def test_targets(task, annotation, expected, spans_of):
    windows = grid_windows([8], SHAPE)
    found = window_targets(task, windows, shape=SHAPE, annotation=annotation, spans=spans_of(8), labels=LABELS)
    assert found.tolist() == expected
    assert found.dtype == (np.float32 if task == "multi_label" else np.int64)


@pytest.mark.parametrize("task", ["last_row", "majority", "per_row", "video", "multi_label"])
def test_padding_has_no_label(task, spans_of):
    shape = WindowShape(length=4)
    annotation = Annotation(label=1, segments=((0.0, 9.0, 1),))
    found = window_targets(
        task, grid_windows([2], shape), shape=shape, annotation=annotation, spans=spans_of(2), labels=LABELS
    )
    assert found.tolist() == {"per_row": [[1, 1, -1, -1]], "multi_label": [[0, 1, 0]]}.get(task, [1])


def test_background_stands_for_rows_without_a_label(spans_of):
    labels = LabelSpace(classes=LABELS.classes, background=2)
    found = window_targets(
        "last_row", grid_windows([8], SHAPE), shape=SHAPE, annotation=SEGMENTS, spans=spans_of(8), labels=labels
    )
    assert found.tolist() == [0, 1, 2]


def test_known_windows_and_counts():
    per_row = np.array([[0, -1], [-1, -1], [1, 1]])
    assert known_windows("per_row", per_row).tolist() == [True, False, True]
    assert class_counts("per_row", per_row, num_classes=3).tolist() == [1, 2, 0]
    assert known_windows("last_row", np.array([-1, 2])).tolist() == [False, True]
    sets = np.array([[1, 0], [1, 1]], dtype=np.float32)
    assert known_windows("multi_label", sets).tolist() == [True, True]
    assert class_counts("multi_label", sets, num_classes=2).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("annotation", "background", "expected"), [(Annotation(), -1, False), (Annotation(), 0, True), (STEPS, -1, True)]
)
def test_a_video_without_annotation_is_described_by_a_background_only(annotation, background, expected):
    assert is_described(annotation, LabelSpace(classes=LABELS.classes, background=background)) is expected
