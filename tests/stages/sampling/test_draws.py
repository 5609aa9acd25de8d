"""What an epoch takes: densities around events against STORM-PSR, weights by hand, repeats, the same order again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelwright.models.systems.step_states import change_labels
from reelwright.stages.datasets.sampling.densities import (
    row_density,
    rows_at,
    start_of_last_row,
    start_probabilities,
    windows_miss_events,
)
from reelwright.stages.datasets.sampling.draws import (
    EpochSampler,
    balanced_weights,
    event_weights,
    per_video_weights,
)
from reelwright.stages.datasets.sampling.settings import EventSettings
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows
from reelwright.stages.datasets.tasks.labels import step_changes, window_changes

PSR = json.loads((Path(__file__).parents[2] / "data" / "sampling_vectors.json").read_text())["psr"]
KCAS = {f"{case['mode']} {case['events']}": case for case in PSR["kcas"]["cases"]}


@pytest.mark.parametrize("case", KCAS.values(), ids=KCAS)
def test_densities_of_storm_psr(case):
    density = row_density(
        case["events"], case["num_frames"], EventSettings(density=case["mode"].replace("poission", "poisson"))
    )
    assert density.sum() == pytest.approx(case["sum"])
    assert density.argmax() == case["argmax"]
    for row, expected in case["values"].items():
        assert density[int(row)] == pytest.approx(expected, rel=1e-9)


def test_other_widths():
    """At the peak of one event far from the border: 1 / (sigma sqrt(2 pi)), and half of it for either of two."""
    peak = 1 / (4 * np.sqrt(2 * np.pi))
    gaussian = row_density([100], 200, EventSettings(density="gaussian", sigma_rows=4, epsilon=0))
    assert gaussian[100] == pytest.approx(peak)
    bimodal = row_density([100], 200, EventSettings(sigma_rows=4, separation_rows=30, epsilon=0))
    assert bimodal[[70, 130]] == pytest.approx([peak / 2, peak / 2])
    poisson = row_density([50], 200, EventSettings(density="poisson", sigma_rows=2, epsilon=0))
    assert poisson[47:51] == pytest.approx([0, np.exp(-2), 2 * np.exp(-2), 2 * np.exp(-2)])


def test_without_events_all_rows_are_alike():
    for how in (EventSettings(), EventSettings(epsilon=0), EventSettings(density="uniform")):
        assert row_density([], 4, how).tolist() == [0.25] * 4


def test_rows_where_no_window_ends_count_to_the_first():
    density = np.array([0.1, 0.2, 0.3, 0.1, 0.3])
    assert start_probabilities(density, WindowShape(length=3)).tolist() == pytest.approx([0.6, 0.1, 0.3])
    assert start_probabilities(density, WindowShape(length=9)).tolist() == pytest.approx([1.0])


CLIPS = {
    f"T {case['T']} skip {case['skip_factor']} last {case['selected_last_frame']}": case for case in PSR["train_clip"]
}
RAW = PSR["change_labels"]["raw"]


def changes_of(rows):
    """Times (R,) and changes (R, K) as `window_changes` takes them; right installations alone count."""
    changes = change_labels(rows, include_errors=False)
    moved = np.array([moved for _, moved in changes], dtype=np.int64).reshape(len(changes), len(rows[0][1]))
    return [time for time, _ in changes], moved


@pytest.mark.parametrize("case", CLIPS.values(), ids=CLIPS)
def test_clips_of_storm_psr(case):
    shape, expected = WindowShape(length=case["T"], dilation=case["skip_factor"] + 1), case["expected"]
    start = int(start_of_last_row(case["selected_last_frame"], case["num_frames"], shape))
    assert [start, start + shape.span_rows - 1] == [expected["first"], expected["last"]]
    labels = window_changes(*changes_of(RAW), start=start, stop=start + shape.span_rows, mode="any")
    assert labels.tolist() == [expected["label"]]


def test_net_changes_of_storm_psr():
    case = PSR["window_labels_test_mode"]
    last = np.array([int(row) for row in case["by_last_frame"]])
    labels = window_changes(*changes_of(RAW), start=last - case["T"] + 1, stop=last + 1)
    assert labels.tolist() == list(case["by_last_frame"].values())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=2, max_size=2), min_size=1, max_size=12), st.data())
def test_xor_is_first_state_against_last(states, data):
    start = data.draw(st.integers(0, len(states) - 1))
    stop = data.draw(st.integers(start + 1, len(states)))
    found = window_changes(*changes_of(list(enumerate(states))), start=start + 1, stop=stop)
    seen = np.maximum(states, 0)
    assert found[0].tolist() == (seen[start] != seen[stop - 1]).astype(float).tolist()


def test_steps_as_changes():
    times, changes = step_changes([(3.0, 1), (1.0, 0), (2.0, 1)], num_classes=3)
    start, stop = np.array([0.0, 0.0, 2.0, 5.0]), np.array([2.0, 9.0, 3.0, 9.0])
    assert window_changes(times, changes, start=start, stop=stop).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0] * 3]
    found = window_changes(times, changes, start=start, stop=stop, mode="any")
    assert found.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0] * 3]
    none = window_changes(*step_changes([], num_classes=3), start=0, stop=9)
    assert none.tolist() == [[0, 0, 0]]


def test_every_video_weighs_alike():
    windows = grid_windows([5, 2, 0], WindowShape(length=3))
    assert windows.start.tolist() == [0, 1, 2, 0]
    assert windows.video.tolist() == [0, 0, 0, 1]
    assert per_video_weights(windows).tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])


BALANCED = {
    # targets, weights
    "classes": (np.array([0, 0, 0, 2]), [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
    "unknown": (np.array([-1, 1, 1, 0]), [0, 1 / 4, 1 / 4, 1 / 2]),
    "rows": (np.array([[0, 0], [0, 1], [-1, -1]]), [1 / 3, 1 / 6 + 1 / 2, 0]),
    "labels": (np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), [1 / 6, 1 / 6 + 1 / 3, 1 / 3]),
}


@pytest.mark.parametrize(("targets", "weights"), BALANCED.values(), ids=BALANCED)
def test_balanced_weights(targets, weights):
    assert balanced_weights(targets).tolist() == pytest.approx(weights)


def test_event_weights_share_out_by_video():
    shape, how = WindowShape(length=3), EventSettings(density="gaussian", sigma_rows=2)
    windows = grid_windows([40, 20, 2], shape)
    weights = event_weights(windows, [40, 20, 2], shape, events=[[10.0], [], []], how=how)
    assert [weights[windows.video == video].sum() for video in range(3)] == pytest.approx([1 / 3] * 3)
    first = windows.video == 0
    assert windows.last_row(shape)[first][weights[first].argmax()] == 10
    density = row_density([10.0], 40, how)
    assert (weights[first] * 3)[1:].tolist() == pytest.approx(density[3:].tolist())
    some = windows.take(np.arange(5, 40))
    assert event_weights(some, [40, 20, 2], shape, events=[[10.0], [], []], how=how).sum() == pytest.approx(1)


def test_rows_at_times():
    starts = np.array([0.5, 1.0, 1.5])
    assert rows_at([0.0, 0.5, 0.99, 1.0, 9.0], starts).tolist() == [0, 0, 0, 1, 2]
    assert rows_at([], starts).tolist() == []


def test_draws_follow_the_weights():
    weights = np.array([0.0, 1.0, 3.0, 0.0])
    drawn = EpochSampler(seed=0, per_epoch=8000, weights=weights).order(4, 0)
    assert set(drawn.tolist()) == {1, 2}
    assert (drawn == 2).mean() == pytest.approx(0.75, abs=0.02)


def test_without_weights_each_is_taken_once_before_any_is_taken_twice():
    assert sorted(EpochSampler(seed=0).order(6, 2).tolist()) == list(range(6))
    assert len(set(EpochSampler(seed=0, per_epoch=4).order(6, 2).tolist())) == 4
    counts = np.bincount(EpochSampler(seed=0, per_epoch=15).order(6, 2))
    assert counts.min() == 2
    assert counts.max() == 3


REPEATS = {
    # settings, windows an epoch, different ones
    "each three times": ({"repeats": 3}, 30, 10),
    "of some": ({"repeats": 2, "per_epoch": 6}, 12, 6),
}


@pytest.mark.parametrize(("how", "length", "different"), REPEATS.values(), ids=REPEATS)
def test_repeated_augmentation(how, length, different):
    draws = EpochSampler(seed=5, **how)
    order = draws.order(10, 1)
    assert len(order) == length == draws.num_drawn(10)
    assert len(set(order.tolist())) == different
    repeats = how["repeats"]
    whole = order[: length // repeats * repeats].reshape(-1, repeats)
    assert (whole == whole[:, :1]).all()  # side by side


def test_an_epoch_is_the_same_whenever_it_is_asked_for():
    draws = EpochSampler(seed=3, per_epoch=50, weights=np.arange(20.0))
    orders = [draws.order(20, epoch) for epoch in (0, 1, 0)]
    assert (orders[0] == orders[2]).all()
    assert (orders[0] != orders[1]).any()
    assert (EpochSampler(seed=4, per_epoch=50, weights=np.arange(20.0)).order(20, 0) != orders[0]).any()


def test_windows_that_hardly_hold_their_event_are_told():
    assert "Lengthen the window" in windows_miss_events(EventSettings(), WindowShape(length=65))
    assert windows_miss_events(EventSettings(), WindowShape(length=65, dilation=4)) is None
    assert windows_miss_events(EventSettings(density="gaussian"), WindowShape(length=65)) is None


BAD = {
    "rows": (lambda: row_density([], 0, EventSettings()), "a video has 0 rows"),
    "all 0": (lambda: EpochSampler(seed=0, weights=np.zeros(3)), "all weights of windows are 0"),
    "NaN": (lambda: EpochSampler(seed=0, weights=np.array([np.nan])), "must be finite"),
    "repeats": (lambda: EpochSampler(seed=0, repeats=0), "repeats is 0"),
    "unknown": (lambda: balanced_weights(np.array([-1, -1])), "every target is unknown"),
    "mode": (lambda: window_changes([], np.zeros((0, 1), int), start=0, stop=1, mode="and"), "mode 'and' is not known"),
    "order": (lambda: window_changes([2, 1], np.zeros((2, 1), int), start=0, stop=1), "ascending order"),
}


@pytest.mark.parametrize(("call", "match"), BAD.values(), ids=BAD)
def test_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
