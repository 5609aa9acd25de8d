"""Steps out of predictions and tables, written and read again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.steps.config import StepsConfig
from reelwright.stages.steps.work import run
from reelwright.storage.errors import ConfigError, InputError, StageError
from reelwright.storage.results.steps import StepSet
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import Annotation

from .conftest import STEPS, predict

# Rows of half a second. The board is put at 1.2 s and the screw driven at 4 s; each shows in 3 windows.
ANNOTATION = Annotation(steps=((1.2, 1), (4.0, 0)))
CHANGES = [[0.1, 0.1]] * 3 + [[0.1, 0.8]] * 3 + [[0.1, 0.1]] * 2 + [[0.9, 0.1]] * 3 + [[0.1, 0.1]]
NONE, BOARD, BOTH = [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]
STATES = [NONE] * 3 + [BOARD] * 5 + [BOTH] * 4


def decoded(work):
    outputs = run(work, SilentReporter())
    steps = StepSet(Store.at(work.store).output("steps", work.key))
    columns = ("video_id", "time_seconds", "frame", "step")
    return outputs, steps, [tuple(row[name] for name in columns) for row in steps.steps().to_pylist()]


def change_ref(tmp_path, key="c" * 32, **videos):
    return predict(
        Store.at(tmp_path / "store"), key, task="multi_label", classes=STEPS, scores=videos or {"a": CHANGES}
    )


def state_ref(tmp_path, **videos):
    scores = videos or {"a": STATES}
    return predict(
        Store.at(tmp_path / "store"), "p" * 32, task="last_row", classes=("nothing", "10", "11"), scores=scores
    )


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        ("naive", [("a", 1.5, 3, "put the board"), ("a", 4.0, 8, "drive the screw")]),
        ("expected", [("a", 2.0, 4, "put the board"), ("a", 4.5, 9, "drive the screw")]),
    ],
)
@pytest.mark.parametrize("fps", [2, None], ids=["frames", "rows"])
def test_changes(tmp_path, work_of, decoder, expected, fps):
    work = work_of(change_ref(tmp_path), annotations={"a": ANNOTATION}, decoder=decoder, fps=fps)
    outputs, steps, found = decoded(work)
    assert found == expected
    assert outputs == {"num_videos": 1, "num_steps": 2, "num_true_steps": 2, "num_with_truth": 1}
    assert [(row["frame"], row["step"]) for row in steps.truth().to_pylist()] == [
        (2 if fps else 3, "put the board"),
        (8, "drive the screw"),
    ]
    video = steps.videos().to_pylist()[0]
    assert [video["procedure"], video["has_truth"], video["has_errors"], video["num_steps"]] == [
        "procedure",
        True,
        False,
        2,
    ]
    info = steps.info
    assert [info.procedure, info.decoder, info.fps, info.window] == ["shelf", decoder, fps, 3]


def test_the_window_counts_in_frames_of_the_procedure(tmp_path, work_of):
    _, steps, found = decoded(work_of(change_ref(tmp_path), annotations={"a": ANNOTATION}, fps=10))
    assert steps.info.window == 15  # 3 rows of 5 frames
    assert found == [("a", 2.0, 20, "put the board"), ("a", 4.5, 45, "drive the screw")]


def test_a_component_as_class(tmp_path, work_of):
    ref = predict(
        Store.at(tmp_path / "store"),
        "c" * 32,
        task="multi_label",
        classes=("screw", "board"),
        scores={"a": CHANGES},
    )
    assert len(decoded(work_of(ref, annotations={"a": ANNOTATION}))[2]) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # The initial state is the first one detected: the board is there from the start of what is known.
        ({"decoder": "naive"}, [("a", 4.0, 8, "drive the screw")]),
        (
            {"decoder": "naive", "initial": "procedure"},
            [("a", 1.5, 3, "put the board"), ("a", 4.0, 8, "drive the screw")],
        ),
        ({"decoder": "expected"}, [("a", 2.0, 4, "put the board"), ("a", 4.5, 9, "drive the screw")]),
    ],
    ids=["first", "procedure", "expected"],
)
def test_states(tmp_path, work_of, settings, expected):
    assert decoded(work_of(state_ref(tmp_path), annotations={"a": ANNOTATION}, **settings))[2] == expected


def detections(tmp_path, text):
    path = tmp_path / "detections.csv"
    path.write_text("video_id,frame,class,confidence\n" + text, encoding="utf-8")
    return str(path)


def test_a_table_of_detections(tmp_path, work_of):
    table = detections(tmp_path, "".join(f"a,{frame},1,0.9\n" for frame in (2, 3, 4)) + "other,1,1,0.9\n")
    work = work_of(annotations={"a": ANNOTATION, "b": Annotation()}, detections=table)
    outputs, steps, found = decoded(work)
    assert found == [("a", 1.5, 3, "put the board")]
    assert outputs["num_videos"] == 2  # the detector saw nothing in b
    assert steps.videos()["has_truth"].to_pylist() == [True, False]
    assert steps.videos()["has_errors"].to_pylist() == [False, None]
    # A frame without a detection fades the sums: 0.9, faded once, and 0.9 are 1.575; faded thrice, 1.28.
    gapped = detections(tmp_path, "a,2,1,0.9\na,6,1,0.9\n")
    assert decoded(work_of(annotations={"a": ANNOTATION}, detections=gapped, threshold=1.3))[2] == []


def test_ids_of_tables_are_those_of_the_videos(tmp_path, work_of):
    """A detector that seems to have seen nothing in any video, or truth of none, is a table of other ids."""
    notes = []
    reporter = SilentReporter()
    reporter.note = notes.append
    truth = tmp_path / "truth.csv"
    truth.write_text("video_id,time_seconds,step\na,1.2,0\nz,1,0\n", encoding="utf-8")
    table = detections(tmp_path, "a,2,1,0.9\na2,2,1,0.9\n")
    run(work_of(annotations={"a": ANNOTATION, "b": ANNOTATION}, detections=table, truth=str(truth)), reporter)
    assert notes == [
        f"{table}: 1 of its 2 videos are not decoded: a2",
        f"{truth}: 1 of its 2 videos are not decoded: z",
    ]
    with pytest.raises(InputError, match=r"none of its 1 videos is decoded; the first is 'A01'\. Did you mean 'a01'"):
        decoded(work_of(annotations={"a01": ANNOTATION}, detections=detections(tmp_path, "A01,2,1,0.9\n")))
    with pytest.raises(InputError, match=r"truth\.csv: none of its 2 videos is decoded; the first is 'a'"):
        decoded(work_of(annotations={"b": ANNOTATION}, detections=detections(tmp_path, ""), truth=str(truth)))


def test_detections_behind_the_end_are_said(tmp_path, work_of):
    """Videos are 6 s, frames two a second: frame 14 is at 7 s, 15 at 7.5 s, 27 at 13.5 s."""
    notes = []
    reporter = SilentReporter()
    reporter.note = notes.append
    for last, wanted in ((14, []), (15, ["a (7.5 of 6.0 s)"])):
        table = detections(tmp_path, f"a,2,1,0.9\na,{last},1,0.9\n")
        run(work_of(annotations={"a": ANNOTATION}, detections=table), reporter)
        assert [note.rpartition(": ")[2] for note in notes] == wanted
    for last in (27, 10**12):  # the latter, frame by frame, would never end
        table = detections(tmp_path, f"a,2,1,0.9\na,{last},1,0.9\n")
        with pytest.raises(InputError, match=r"at 2 frames a second\. Are frames numbered at another"):
            run(work_of(annotations={"a": ANNOTATION}, detections=table), reporter)


def test_two_streams(tmp_path, work_of):
    table = detections(tmp_path, "".join(f"a,{frame},1,0.9\n" for frame in range(3, 8)))
    refs = (change_ref(tmp_path),)
    shared = {"annotations": {"a": ANNOTATION}, "detections": table}
    voted = decoded(work_of(*refs, **shared, fusion="shared"))
    assert voted[2][0] == ("a", 1.5, 3, "put the board")  # 0.9 and 0.8 in one frame
    sources = voted[1].steps()["source"].to_pylist()
    assert sources[1:] == ["changes"]
    averaged = decoded(work_of(*refs, **shared, weight=1.0))[2]
    assert averaged[0] == ("a", 2.0, 4, "put the board")  # the changes alone count
    naive = decoded(work_of(*refs, **shared, decoder="naive", initial="procedure"))[2]
    assert naive == [("a", 1.5, 3, "put the board"), ("a", 4.0, 8, "drive the screw")]
    assert decoded(work_of(*refs, state_ref(tmp_path), annotations={"a": ANNOTATION}))[2]


def test_truth_of_a_table_goes_before_labels(tmp_path, work_of):
    truth = tmp_path / "truth.csv"
    truth.write_text("video_id,frame,step\na,4,5\na,2,put the board\n", encoding="utf-8")
    _, steps, _ = decoded(work_of(change_ref(tmp_path), annotations={"a": ANNOTATION}, truth=str(truth)))
    rows = [(row["time_seconds"], row["step_id"], row["action"]) for row in steps.truth().to_pylist()]
    assert rows == [(1.0, 0, "install"), (2.0, 5, "remove")]
    assert steps.videos()["has_errors"].to_pylist() == [True]  # the screw was never driven
    truth.write_text("video_id,time_seconds,step\na,1,put the bord\na,x,0\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"(?s)2 problem.*Did you mean 'put the board'.*time_seconds 'x' is not a number"
    ):
        decoded(work_of(change_ref(tmp_path), annotations={"a": ANNOTATION}, truth=str(truth)))


def test_truth_of_states(tmp_path, work_of):
    annotation = Annotation(segments=((0.0, 1.0, 0), (1.0, 2.0, 1), (2.0, 3.0, 3), (3.0, 4.0, 2)))
    work = work_of(change_ref(tmp_path), annotations={"a": annotation}, classes=("00", "10", "11", "hand"))
    _, steps, _ = decoded(work)
    assert [(row["time_seconds"], row["step_id"]) for row in steps.truth().to_pylist()] == [(1.0, 0), (3.0, 3)]


def test_steps_at_one_time_come_by_component(tmp_path, work_of):
    annotation = Annotation(steps=((1.0, 0), (1.0, 1)))  # as classes sort: the screw first
    _, steps, _ = decoded(work_of(change_ref(tmp_path), annotations={"a": annotation}))
    assert steps.truth()["step_id"].to_pylist() == [0, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to decode"),
        ({"predictions": ("a", "b"), "detections": "d"}, "more than two streams"),
        ({"predictions": ("a",), "initial": "first"}, "set initial to auto or procedure"),
        ({"predictions": ("a",), "decoder": "best"}, "'naive', 'accumulated' or 'expected'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        StepsConfig(procedure="p.yaml", **settings)


def test_streams_that_do_not_fit(tmp_path, work_of):
    two = (change_ref(tmp_path), change_ref(tmp_path, key="d" * 32))
    with pytest.raises(ConfigError, match="must be one of changes"):
        decoded(work_of(*two, annotations={"a": ANNOTATION}))
    with pytest.raises(ConfigError, match="needs an fps"):
        decoded(work_of(change_ref(tmp_path), state_ref(tmp_path), annotations={"a": ANNOTATION}, fps=None))
    with pytest.raises(InputError, match="has no fps, which a table of detections needs"):
        decoded(work_of(annotations={"a": ANNOTATION}, fps=None, detections=detections(tmp_path, "a,1,1,0.9\n")))
    with pytest.raises(InputError, match="class 4 is not known; classes are 0 to 3"):
        decoded(work_of(annotations={"a": ANNOTATION}, detections=detections(tmp_path, "a,1,4,0.9\n")))
    store = Store.at(tmp_path / "store")
    for task, message in (
        ("multi_label", "'x' is no component or step"),
        ("last_row", "is a state of the procedure shelf"),
    ):
        ref = predict(store, "x" * 32, task=task, classes=("x", "y"), scores={"a": CHANGES})
        with pytest.raises(InputError, match=message):
            decoded(work_of(ref, annotations={"a": ANNOTATION}))
    with pytest.raises(StageError, match="no video of the manifest has predictions"):
        decoded(work_of(change_ref(tmp_path), annotations={"z": ANNOTATION}))


def test_videos_without_predictions_are_told(tmp_path, work_of):
    notes = []
    reporter = SilentReporter()
    reporter.note = notes.append
    work = work_of(change_ref(tmp_path), annotations={"a": ANNOTATION, "z": ANNOTATION})
    assert run(work, reporter)["num_videos"] == 1
    assert notes == ["1 of 2 videos have nothing to decode and are left out"]
    assert StepSet(Store.at(work.store).output("steps", work.key)).videos()["video_id"].to_pylist() == ["a"]
    with pytest.raises(InputError, match="no steps at"):
        StepSet(Store.at(replace(work, store="nowhere").store).output("steps", work.key))
