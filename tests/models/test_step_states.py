"""States to steps, change labels and key frames against the public code's values."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.models.systems.key_frames import key_frames
from reelwright.models.systems.step_states import change_labels, has_errors, steps_between, steps_of_states
from tests.models.psr import STATES, bits, vectors


@pytest.mark.parametrize("case", vectors("metrics")["raw_to_steps"], ids=lambda case: str(case["include_errors"]))
def test_steps_of_states(case):
    found = steps_of_states(case["raw"], include_errors=case["include_errors"])
    expected, num_errors = case["expected"]
    assert [list(step) for step in found.steps] == [[step["frame"], step["id"]] for step in expected]
    assert found.num_errors == num_errors
    assert found.unexpected == ((320,) if case["include_errors"] else ())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(0, 0, []), (-1, -1, []), (-1, 0, []), (-1, 1, [0]), (0, 1, [0]), (0, -1, [1]), (1, -1, [1]), (1, 0, [2])],
)
def test_each_change(before, after, expected):
    assert steps_between([1, before], [1, after]) == [3 + step for step in expected]


def test_change_labels():
    values = vectors("changes")["change_labels"]
    for name, errors in (("no_error", False), ("errors", True)):
        found = change_labels(values["raw"], include_errors=errors)
        assert {str(frame): list(label) for frame, label in found} == values[name]


@pytest.mark.parametrize(
    ("steps", "states", "expected"),
    [
        ([0, 3], [], False),
        ([0], [], True),
        ([0, 3, 4], [], True),
        ([0, 3], [(1, -1)], True),
        ([0, 3, 9], [(1, 1)], False),
    ],
    ids=["all done", "missing", "wrong step", "wrong state", "more than expected"],
)
def test_has_errors(steps, states, expected):
    assert has_errors(steps, expected=[0, 3], states=states) is expected


def test_wrong_states():
    with pytest.raises(ValueError, match=r"state \[1, 2\] at 5: 2 values of -1, 0 or 1"):
        steps_of_states([(0, (0, 0)), (5, (1, 2))], include_errors=False)


KFS = vectors("kfs")
KFS_ROWS = [(frame, bits(text)) for frame, text in KFS["raw_rows"][:-1]] + [(398, (1, -1, *[0] * 9))]


@pytest.mark.parametrize("exclude_errors", [True, False])
def test_key_frames(exclude_errors):
    expected = KFS[f"error_state={exclude_errors}"]
    found = key_frames(
        KFS_ROWS, list(map(bits, STATES)), num_frames=400, exclude_errors=exclude_errors, negatives_from="last"
    )
    frames = {label: found.frames[found.classes == label] for label in np.unique(found.classes).tolist()}
    assert {str(label): [int(own.min()), int(own.max()), len(own)] for label, own in frames.items()} == expected[
        "state_frames"
    ]
    assert sorted(found.negatives.tolist()) == expected["hard_negative_frames"]


def test_negatives_lie_before_the_completion():
    found = key_frames([(150, (1, 0)), (155, (1, 1))], [(1, 1)], num_frames=160, length=10)
    assert found.frames.tolist() == [155, 156, 157, 158, 159]
    assert set(found.classes.tolist()) == {1}
    assert found.negatives.tolist() == [*range(80, 90), *range(85, 95)]  # of the row without a class too
    nothing = key_frames([(5, (0, 1)), (400, (1, 1))], [(1, 1)], num_frames=160, length=10)
    assert nothing.frames.size == 0
    with pytest.raises(ValueError, match="choose first or last"):
        key_frames([], [], num_frames=1, negatives_from="middle")
