"""Targets by task, on a video of eight rows of half a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.datasets.labelled import KnownRows, LabelledVideo, label_windows
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape, grid_windows
from reelwright.stages.datasets.tasks.labels import LabelSpace, is_described, label_sets
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import InputError
from reelwright.storage.tables.annotations import Annotation

LABELS = LabelSpace(classes=("a", "b", "c"))
SHAPE = WindowShape(length=3, hop=2)  # rows 0-2, 2-4, 4-6
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
    "multi_label times": ("multi_label", Annotation(times=((0.2, 1), (2.5, 0))), [[0, 1, 0], [0, 1, 0], [1, 1, 0]]),
    "multi_label times that begin late": (
        "multi_label",
        Annotation(times=((1.6, 2),)),
        [[0, 0, 0], [0, 0, 1], [0, 0, 1]],
    ),
    "multi_label several of one time": (
        "multi_label",
        Annotation(times=((0.2, 1), (0.2, 2), (1.2, 0))),
        [[1, 1, 1], [1, 1, 1], [1, 0, 0]],
    ),
    # windows reach over the source frames [0, 3), [2, 5), [4, 7)
    "multi_label frames": (
        "multi_label",
        Annotation(frames=((0, 0), (1, 1), (3, 0), (3, 2), (6, 1))),
        [[1, 1, 0], [1, 0, 1], [0, 1, 0]],
    ),
}


@pytest.mark.parametrize(("task", "annotation", "expected"), CASES.values(), ids=CASES)
def test_targets(task, annotation, expected, spans_of):
    windows = grid_windows([8], SHAPE)
    found = build_task(task, LABELS).targets(windows, shape=SHAPE, annotation=annotation, spans=spans_of(8))
    assert found.tolist() == expected
    assert found.dtype == (np.float32 if task == "multi_label" else np.int64)


@pytest.mark.parametrize("task", ["last_row", "majority", "per_row", "video", "multi_label"])
def test_padding_has_no_label(task, spans_of):
    shape = WindowShape(length=4)
    annotation = Annotation(label=1, segments=((0.0, 9.0, 1),))
    found = build_task(task, LABELS).targets(
        grid_windows([2], shape), shape=shape, annotation=annotation, spans=spans_of(2)
    )
    assert found.tolist() == {"per_row": [[1, 1, -1, -1]], "multi_label": [[0, 1, 0]]}.get(task, [1])


def test_background_stands_for_rows_without_a_label(spans_of):
    labels = LabelSpace(classes=LABELS.classes, background=2)
    found = build_task("last_row", labels).targets(
        grid_windows([8], SHAPE), shape=SHAPE, annotation=SEGMENTS, spans=spans_of(8)
    )
    assert found.tolist() == [0, 1, 2]


def test_background_is_all_of_a_video_without_a_line(spans_of):
    labels = LabelSpace(classes=LABELS.classes, background=2)
    for task, expected in (("last_row", [2, 2, 2]), ("per_row", [[2, 2, 2]] * 3), ("multi_label", [[0, 0, 0]] * 3)):
        found = build_task(task, labels).targets(
            grid_windows([8], SHAPE), shape=SHAPE, annotation=Annotation(), spans=spans_of(8)
        )
        assert found.tolist() == expected


def test_steps_label_no_row(spans_of):
    video = LabelledVideo("v", "d", "train", STEPS)
    rows = KnownRows(("d",), (spans_of(8),))
    found = label_windows([video], rows, shape=SHAPE, task=build_task("multi_label", LABELS))
    assert len(found) == 3
    for task in ("last_row", "majority", "per_row"):
        with pytest.raises(InputError, match=f"task {task} needs a label of each row.* Set task: multi_label, or give"):
            label_windows([video], rows, shape=SHAPE, task=build_task(task, LABELS))


def test_heads_are_told_apart_by_class_whatever_their_order(spans_of):
    labels = LabelSpace(classes=("verb: a", "verb: b", "noun: c"), heads=(("verb", 2), ("noun", 1)))
    for own, expected in (((1, 2), [1, 0]), ((2, 1), [1, 0]), ((2, -1), [-1, 0]), ((1,), [1, -1]), ((), [-1, -1])):
        found = build_task("heads", labels).targets(
            grid_windows([8], SHAPE), shape=SHAPE, annotation=Annotation(labels=own), spans=spans_of(8)
        )
        assert found.tolist() == [expected] * 3


def test_known_windows_and_counts():
    per_row = np.array([[0, -1], [-1, -1], [1, 1]])
    task = build_task("per_row", LABELS)
    assert task.known(per_row, SEGMENTS).tolist() == [True, False, True]
    assert task.counts(per_row).tolist() == [1, 2, 0]
    assert build_task("last_row", LABELS).known(np.array([-1, 2]), SEGMENTS).tolist() == [False, True]
    sets = np.array([[1, 0], [1, 1]], dtype=np.float32)
    task = build_task("multi_label", LabelSpace(classes=("a", "b")))
    assert task.known(sets, SEGMENTS).tolist() == [True, True]
    assert task.known(sets, Annotation()).tolist() == [False, False]
    assert task.counts(sets).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("annotation", "background", "expected"), [(Annotation(), -1, False), (Annotation(), 0, True), (STEPS, -1, True)]
)
def test_a_video_without_annotation_is_described_by_a_background_only(annotation, background, expected):
    assert is_described(annotation, LabelSpace(classes=LABELS.classes, background=background)) is expected


PSR = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())["psr"]
NET = LabelSpace(classes=("a", "b", "c"), of_window="net_change")
# start and stop of three windows, seconds and source frames
SPANS = Spans(np.array([0.0, 1.0, 2.0]), np.array([1.5, 2.5, 3.5]), np.array([0, 1, 2]), np.array([2, 3, 4]))
NET_CHANGES = {
    "steps": (Annotation(steps=((1.2, 1), (3.4, 2))), [[0, 1, 0], [0, 1, 0], [0, 0, 1]]),
    "put on and taken off": (Annotation(steps=((1.1, 1), (1.4, 1), (2.4, 0))), [[0, 0, 0], [1, 0, 0], [1, 0, 0]]),
    "three times": (Annotation(steps=((1.0, 1), (1.1, 1), (1.2, 1))), [[0, 1, 0], [0, 1, 0], [0, 0, 0]]),
    # open from 0.5 to 2.2 s: begins in window 0, ends in windows 1 and 2
    "segments": (Annotation(segments=((0.5, 2.2, 1),)), [[0, 1, 0], [0, 1, 0], [0, 1, 0]]),
    "a segment inside": (Annotation(segments=((1.1, 1.4, 1),)), [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
    "two that meet": (Annotation(segments=((0.0, 1.2, 1), (1.2, 9.0, 1))), [[0, 1, 0], [0, 0, 0], [0, 0, 0]]),
    "labels that hold": (Annotation(times=((0.0, 0), (0.5, 0), (2.1, 1))), [[0, 0, 0], [1, 1, 0], [1, 1, 0]]),
    "several of one time": (
        Annotation(times=((0.0, 0), (0.0, 1), (1.2, 1), (1.2, 2))),  # 0 goes and 2 comes, 1 stays
        [[1, 0, 1], [1, 0, 1], [0, 0, 0]],
    ),
    "a label unknown to the run": (Annotation(times=((0.0, 0), (1.2, -1))), [[1, 0, 0], [1, 0, 0], [0, 0, 0]]),
    # frames [0, 2), [1, 3), [2, 4): 0 goes and 1 comes in frame 1, and back in frame 2
    "frames": (Annotation(frames=((0, 0), (1, 1), (2, 0), (3, 0))), [[1, 1, 0], [0, 0, 0], [1, 1, 0]]),
    "frames with a gap": (Annotation(frames=((0, 0), (3, 1))), [[0, 0, 0], [0, 0, 0], [1, 1, 0]]),
    "the video's own": (Annotation(label=2), [[0, 0, 0]] * 3),
}


@pytest.mark.parametrize(("annotation", "expected"), NET_CHANGES.values(), ids=NET_CHANGES)
def test_net_changes_of_windows(annotation, expected):
    found = label_sets(annotation, SPANS, NET)
    assert found.tolist() == expected
    assert found.dtype == np.float32


@pytest.mark.parametrize("of_window", ["any", "net_change"])
def test_windows_of_storm_psr(of_window, spans_of):
    """A component's changes as steps: training clips there are "any", the GT column at test is "net_change" (A3.6)."""
    raw = PSR["change_labels"]["raw"]
    states = np.maximum([state for _, state in raw], 0)
    steps = [
        (float(time), int(component))
        for (time, _), change in zip(raw[1:], np.diff(states, axis=0), strict=True)
        for component in np.flatnonzero(change)
    ]
    labels = LabelSpace(classes=("a", "b", "c", "d"), of_window=of_window)
    spans = spans_of(200, seconds=1.0)
    if of_window == "any":
        cases = [
            (case["T"], case["skip_factor"], case["expected"]["first"], case["expected"]["label"])
            for case in PSR["train_clip"]
        ]
    else:
        case = PSR["window_labels_test_mode"]
        cases = [(case["T"], 0, int(last) - case["T"] + 1, label) for last, label in case["by_last_frame"].items()]
    for length, skip, start, expected in cases:
        shape = WindowShape(length=length, dilation=skip + 1)
        windows = Windows(np.array([0]), np.array([start]), np.array([length]))
        task = build_task("multi_label", labels)
        found = task.targets(windows, shape=shape, annotation=Annotation(steps=tuple(steps)), spans=spans)
        assert found.tolist() == [expected]
