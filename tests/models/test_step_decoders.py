"""Decoders of both streams against the public code's values, and where ours are meant to differ from it."""

from __future__ import annotations

import numpy as np
import pytest

from reelwright.models.systems.step_changes import AccumulatedChanges, NaiveChanges
from reelwright.models.systems.step_decoders import (
    AccumulatedDetections,
    Completion,
    Detection,
    NaiveDetections,
    StateClasses,
)
from reelwright.models.systems.step_fusion import Observation, merge_completions, soft_vote
from tests.models.psr import EXPECTED, INITIAL, NUM_COMPONENTS, STATES, bits, vectors

VALUES = vectors("decoders")
CLASSES = StateClasses(states=(None, *map(bits, STATES), None))
B3 = {name: {"initial": bits(INITIAL[name]), "expected": EXPECTED[name]} for name in INITIAL}


def message(decoder):
    return [[completion.frame, completion.step] for completion in decoder.completed]


def detections(frame):
    return [Detection(*row) for row in frame]


def changes(row, other):
    if row is None:
        return None
    on = [int(k in row["on"]) for k in range(NUM_COMPONENTS)]
    return on, [row["p"] if bit else other for bit in on]


def sums(decoder, digits):
    return {str(step): round(float(value), digits) for step, value in enumerate(decoder.sums) if round(value, digits)}


ASD = {case["name"]: case for case in vectors("metrics")["asd_psr"]}
ASD_DECODERS = {
    "naive_B1": lambda: NaiveDetections(CLASSES),
    "confidence_B2": lambda: AccumulatedDetections(CLASSES),
    "expected_B3_assy": lambda: AccumulatedDetections(CLASSES, **B3["assy"]),
    "expected_B3_main": lambda: AccumulatedDetections(CLASSES, **B3["main"]),
}


@pytest.mark.parametrize("decoder", ASD_DECODERS)
@pytest.mark.parametrize("name", ASD)
def test_detections(name, decoder):
    running, expected = ASD_DECODERS[decoder](), ASD[name][decoder]
    for frame, rows in enumerate(ASD[name]["predictions"]):
        running.update(frame, detections(rows))
    assert [message(running), list(running.state)] == [expected["y_hat"], expected["final_state"]]
    if expected["cum_confs_nonzero"] is not None:
        assert sums(running, 6) == pytest.approx(expected["cum_confs_nonzero"])


@pytest.mark.parametrize(
    ("non_states", "expected"), [("ignore", [[3, 9], [3, 18]]), ("reference", [])], ids=["ignore", "reference"]
)
def test_a_background_loses_the_state_only_as_in_the_public_code(non_states, expected):
    decoder = NaiveDetections(StateClasses(states=CLASSES.states, non_states=non_states))
    for frame, class_id in enumerate([0, 1, 0, 2]):
        decoder.update(frame, [Detection(class_id, 0.9)])
    assert message(decoder) == expected


def test_a_background_first_kills_accumulation_only_as_in_the_public_code():
    found = {}
    for non_states in ("ignore", "reference"):
        decoder = AccumulatedDetections(StateClasses(states=CLASSES.states, non_states=non_states), threshold=0.5)
        for frame, class_id in enumerate([23, 1, 2]):
            decoder.update(frame, [Detection(class_id, 0.9)])
        found[non_states] = message(decoder)
    assert found == {"ignore": [[2, 9], [2, 18]], "reference": []}


def test_an_initial_state_that_is_given():
    decoder = NaiveDetections(CLASSES, initial=bits(INITIAL["assy"]))
    decoder.update(0, [Detection(1, 0.9)])
    decoder.update(1, [Detection(2, 0.5)])  # not above the threshold
    decoder.update(2, [Detection(2, 0.6), Detection(3, 0.6)])  # the first of equals
    assert decoder.completed == [Completion(2, 9, 0.6), Completion(2, 18, 0.6)]


@pytest.mark.parametrize("case", VALUES["temporal"], ids=lambda case: case["name"])
def test_changes(case):
    config, expected = case["config"], case["expected_B3_assy"]
    rows = [changes(row, config["other_component_conf"]) for row in case["rows"]]
    naive = NaiveChanges(bits(INITIAL["assy"]), window=config["window"], threshold=config["conf_threshold"])
    options = {"threshold": config["cum_conf_threshold"], "decay": config["cum_decay"], "expected": EXPECTED["assy"]}
    accumulated = AccumulatedChanges(bits(INITIAL["assy"]), window=config["window"], **options)
    trace = []
    for frame, row in enumerate(rows):
        if row is not None:
            naive.update(frame, *row)
            accumulated.update(frame, *row)
        trace.append(sums(accumulated, 6))
    assert [message(naive), naive.state] == [case["naive_assy"]["y_hat"], case["naive_assy"]["final_state"]]
    assert [message(accumulated), accumulated.state] == [expected["y_hat"], expected["final_state"]]
    assert trace == [pytest.approx(row) for row in expected["cum_trace"]]


def test_changes_alternating_with_none():
    decoder = AccumulatedChanges(bits(INITIAL["assy"]), window=20, expected=EXPECTED["assy"])
    for frame in range(14):
        decoder.update(frame, *changes({"on": [] if frame % 2 else [3], "p": 0.9}, 0.01))
    assert message(decoder) == [[12, 9]]  # 7 * 0.9 > 6: what was added to since the last fading does not fade


def vote(case, *, weight, fusion):
    asd = AccumulatedDetections(CLASSES, threshold=6.0, **B3["assy"])
    temporal = AccumulatedChanges(bits(INITIAL["assy"]), window=20, threshold=6.0, expected=EXPECTED["assy"])
    rows = enumerate(zip(case["asd"], case["temporal"], strict=True))
    observations = [Observation(frame, detections(one), changes(two, 0.01)) for frame, (one, two) in rows]
    soft_vote(observations, detections=asd, changes=temporal, weight=weight, fusion=fusion)
    return asd, temporal


@pytest.mark.parametrize("weight", ["0.0", "0.25", "0.5", "1.0"])
@pytest.mark.parametrize("case", VALUES["fusion"], ids=lambda case: case["name"])
@pytest.mark.parametrize(("fusion", "key"), [("shared", "by_weight"), ("average", "with_copies_by_weight")])
def test_soft_voting(case, weight, fusion, key):
    expected = case[key][weight]
    asd, temporal = vote(case, weight=float(weight), fusion=fusion)
    merged = merge_completions(asd.completed, temporal.completed)
    found = {"asd": message(asd), "temporal": message(temporal), "merged": [[c.frame, c.step] for c in merged]}
    assert found == {name: expected[name] for name in found}
    if "cum" in expected:
        assert sums(temporal, 5) == pytest.approx(expected["cum"])
        assert np.array_equal(asd.sums, temporal.sums)


@pytest.mark.parametrize("case", VALUES["merge"], ids=lambda case: case["name"])
def test_merge(case):
    streams = [[Completion(frame, step, 1.0) for frame, step in case[name]] for name in ("asd", "temporal")]
    assert [[c.frame, c.step] for c in merge_completions(*streams)] == case["expected"]


@pytest.mark.parametrize(
    ("make", "told_as"),
    [
        (lambda: CLASSES.of(24), r"class 24 is not known; detector classes are 0 to 23"),
        (lambda: StateClasses(states=((1, 0), (1,))), "must all have the same number of components"),
        (lambda: StateClasses(states=((1,),), non_states="no"), "choose one of ignore, reference"),
        (lambda: vote(VALUES["fusion"][0], weight=0.5, fusion="sum"), "choose average or shared"),
        (lambda: vote(VALUES["fusion"][0], weight=1.5, fusion="average"), r"a weight in \[0, 1\]"),
    ],
    ids=["class", "lengths", "non states", "fusion", "weight"],
)
def test_wrong_values(make, told_as):
    with pytest.raises(ValueError, match=told_as):
        make()
