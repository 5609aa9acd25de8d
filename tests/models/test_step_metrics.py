"""Step metrics against the public code's values (tests/data/psr_metrics.json) and by hand."""

from __future__ import annotations

import pytest

from reelwright.models.metrics.step_order import order_distance, order_similarity, reorder_ties
from reelwright.models.metrics.step_summary import mean_performance, once_delays, percent_observed, step_table
from reelwright.models.metrics.steps import StepEvent, f1_score, nearest_matches, step_performance
from reelwright.models.metrics.steps import _public_matches as public_matches
from tests.models.psr import STEPS, vectors

VALUES = vectors("metrics")
CASES = {case["name"]: case for case in VALUES["determine_performance"]}
POS_CASES = {case["name"]: case for case in VALUES["pos"] if isinstance(case["expected"], list)}


def events(rows):
    return [StepEvent(*row) for row in rows]


def counts(found):
    return {
        "system_TPs": found.true_positives,
        "system_FPs": found.false_positives,
        "system_FNs": found.false_negatives,
        "perception_FPs": found.perception_false_positives,
        "perception_FNs": found.perception_false_negatives,
        "f1": pytest.approx(found.f1, abs=1e-12),
        "pos": pytest.approx(found.pos, abs=1e-12),
        "avg_delay": None if found.delay is None else pytest.approx(found.delay, abs=1e-12),
    }


def perform(case, variant, **options):
    return step_performance(events(case["gt"]), events(case["pred"]), steps=STEPS, variant=variant, **options)


@pytest.mark.parametrize("name", CASES)
def test_industreal(name):
    assert counts(perform(CASES[name], "industreal")) == CASES[name]["expected_industreal"]


@pytest.mark.parametrize("name", CASES)
def test_storm(name):
    expected = CASES[name]["expected_storm_no_window"]
    found = perform(CASES[name], "storm")
    assert counts(found) == expected["metrics"]
    assert list(found.delays.values()) == expected["delays"]


@pytest.mark.parametrize("name", CASES)
def test_storm_with_a_window(name):
    expected = CASES[name]["expected_storm_window64"]
    found = perform(CASES[name], "storm", pos_tie_window=64)
    assert counts(found) == expected["metrics"]
    assert list(found.delays.values()) == expected["delays"]
    assert [list(found.order), list(found.times)] == [expected["pred_order_after"], expected["pred_times_after"]]


@pytest.mark.parametrize("name", CASES)
def test_corrected(name):
    expected = dict(CASES[name]["proposed_corrected"])
    found = perform(CASES[name], "corrected")
    assert list(found.delays.values()) == expected.pop("delays")
    assert expected.items() <= counts(found).items()
    assert found.pos == pytest.approx(CASES[name]["expected_industreal"]["pos"])


def test_mean_of_videos():
    expected = VALUES["aggregate_first4_industreal"]
    first, second, last = list(CASES.values())[:3]
    early = {"gt": first["gt"], "pred": [[12, 3, 1], [15, 6, 1], [33, 9, 1]]}  # the middle one early by 5
    found = [perform(case, "industreal") for case in (first, second, early, last)]
    means = mean_performance(found, unit=10)
    assert {"pos": means["pos"], "f1": means["f1"]} == pytest.approx({n: expected["means"][n] for n in ("pos", "f1")})
    assert means["delay_seconds"] == pytest.approx(expected["delay_seconds_at_10fps"])
    assert [means["true_positives"], means["false_positives"], means["false_negatives"]] == [8, 3, 1]
    assert mean_performance([]) == {"num_videos": 0}


@pytest.mark.parametrize(
    ("variant", "delay", "with_delay"), [("corrected", 5.0, 1), ("industreal", 52.5, 1), ("storm", 2.5, 1)]
)
def test_a_video_without_a_delay(variant, delay, with_delay):
    late = step_performance([StepEvent(10, 3)], [StepEvent(15, 3)], steps=STEPS, variant=variant)
    none = step_performance([StepEvent(10, 3)], [], steps=STEPS, variant=variant)
    means = mean_performance([late, none])
    assert [means["delay_seconds"], means["num_with_delay"]] == [delay, with_delay]
    only = mean_performance([none])["delay_seconds"]
    assert only == {"corrected": None, "industreal": 100.0, "storm": 0.0}[variant]


@pytest.mark.parametrize("name", POS_CASES)
def test_order_similarity(name):
    case = POS_CASES[name]
    found = [order_similarity(case["gt"], case["pred"]), order_distance(case["gt"], case["pred"])]
    assert found == pytest.approx(case["expected"])
    assert order_distance(case["pred"], case["gt"]) == found[1]


@pytest.mark.parametrize(
    ("truth", "predicted", "pos"),
    [([], [], 1.0), ([], [4], 0.0), ([95, 0], [0, 95], 0.5), ([-1, 4000], [-1, 4000], 1.0), ([7], [], 0.0)],
    ids=["nothing in nothing", "something in nothing", "id 95", "any ids", "nothing in something"],
)
def test_order_similarity_where_the_public_code_fails(truth, predicted, pos):
    assert order_similarity(truth, predicted) == pos


@pytest.mark.parametrize("case", VALUES["f1"], ids=lambda case: f"{case['TP']}-{case['FP']}-{case['FN']}")
def test_f1(case):
    assert f1_score(case["TP"], case["FP"], case["FN"]) == pytest.approx(case["expected"], rel=1e-12)


@pytest.mark.parametrize("case", VALUES["match_indices"])
def test_public_matches(case):
    wanted = [case["times_b"][index] for index in case["idxes_b"]]
    for variant in ("industreal", "storm"):
        match = public_matches(only_later=variant == "industreal")
        assert match(case["idxes_a"], case["times_a"], wanted) == case[variant]


@pytest.mark.parametrize(
    ("times", "wanted", "expected"),
    [([8, 12], [10], [0]), ([12, 8], [10], [0]), ([1, 5, 9], [9, 5], [2, 1]), ([4, 6], [5, 4], [0, 1])],
    ids=["a tie", "a tie by index, not time", "no difference", "taken"],
)
def test_nearest_matches(times, wanted, expected):
    assert nearest_matches(range(len(times)), times, wanted) == expected


def test_order_is_overwritten_from_a_common_start():
    order, times = reorder_ties([3, 6, 9], [6, 3, 12], truth_times=[1, 2, 9], predicted_times=[5, 5, 7], window=1)
    assert (order, times) == ([3, 6, 9], [5, 5, 7])
    same, _ = reorder_ties([3, 6, 9], [6, 12], truth_times=[1, 2, 9], predicted_times=[5, 7], window=1)
    assert same == [6, 12]  # step 3 was due too


def test_by_step():
    truth, predicted = [StepEvent(10, 3), StepEvent(20, 6)], [StepEvent(8, 3), StepEvent(14, 3), StepEvent(26, 40)]
    found = step_performance(truth, predicted, steps=STEPS)
    table = step_table([(truth, found), (truth, found)], unit=2)
    assert table[3] == {
        "num_true": 2,
        "num_predicted": 4,
        "true_positives": 0,  # the nearer one is early, the other has no partner
        "false_positives": 4,
        "false_negatives": 0,
        "f1": 0.0,
        "delay_seconds": None,
    }
    assert [table[6]["false_negatives"], table[40]["false_positives"]] == [2, 2]
    assert sum(row["true_positives"] for row in table.values()) == 2 * found.true_positives
    assert found.pairs == ((0, 0),)


def test_percent_observed():
    truth = events([(10, 3), (20, 6), (30, 9), (40, 12), (50, 15)])
    predicted = events([(12, 3), (25, 6), (29, 9), (41, 12), (45, 12)])
    assert once_delays(truth, predicted) == [2, 5]  # 9 is early, 12 predicted twice, 15 missed
    assert percent_observed([2, 5], at=[0, 2, 4.9, 5]) == [0, 50, 50, 100]
    assert percent_observed([2, 5], at=[5], num_steps=5) == [40]
    assert percent_observed([], at=[1, 2]) == [0, 0]


def test_unknown_variant():
    with pytest.raises(ValueError, match="variant 'best' is not known; choose one of corrected, industreal, storm"):
        step_performance([], [], steps=STEPS, variant="best")
