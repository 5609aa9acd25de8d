"""Kendall's tau and alignments against the public code's values (tests/data/carl_evaluation.json) and by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from reelwright.models.metrics.probes import alignment
from reelwright.models.metrics.probes.alignment import (
    alignment_errors,
    phase_starts,
    stretched_rows,
    warped_rows,
    warping_path,
)
from reelwright.models.metrics.probes.kendalls_tau import kendalls_tau, nearest_rows, tau_of_nearest
from tests.models.embedded import PUBLIC, VALUES, given, line


def column(values):
    return np.asarray(values, np.float64)[:, None]


@pytest.mark.parametrize("stride", PUBLIC["kendalls_tau"])
def test_tau_of_the_public_code(stride):
    found = kendalls_tau(given("val"), stride=int(stride))
    assert found["kendalls_tau"] == pytest.approx(PUBLIC["kendalls_tau"][stride], abs=1e-12)
    assert (found["num_pairs"], found["num_undefined"]) == (12, 0)


@pytest.mark.parametrize("case", VALUES["kendalls_tau_tiny"])
def test_tau_of_few_rows(case):
    first, second = line(case["a"], name="a"), line(case["b"], name="b")
    assert nearest_rows(first.rows, second.rows).tolist() == case["nn_a_to_b"]
    assert nearest_rows(second.rows, first.rows).tolist() == case["nn_b_to_a"]
    found = kendalls_tau([first, second])
    assert found["pairs"] == [
        {"query": "a", "key": "b", "tau": case["tau_a_to_b"] and pytest.approx(case["tau_a_to_b"])},
        {"query": "b", "key": "a", "tau": case["tau_b_to_a"] and pytest.approx(case["tau_b_to_a"])},
    ]
    mean = case["mean_after_dropping_nan"]
    assert found["kendalls_tau"] == (mean if mean is None else pytest.approx(mean))
    assert found["num_undefined"] == (2 if mean is None else 0)


def test_tau_by_hand():
    first, second = line([0, 1, 2, 3]), line([0, 0.4, 3.4, 3])
    assert nearest_rows(first.rows, second.rows).tolist() == [0, 1, 3, 3]
    found = kendalls_tau([first, second])
    assert [pair["tau"] for pair in found["pairs"]] == pytest.approx([0.9128709291752769, 0.816496580927726])
    assert found["kendalls_tau"] == pytest.approx(0.8646837550515014)
    assert found["kendalls_tau_spread"] == pytest.approx((0.9128709291752769 - 0.816496580927726) / 2**0.5)


def test_pairs_without_a_tau_are_left_out_and_counted():
    found = kendalls_tau([line([0, 1, 2], name="a"), line([0, 1, 2], name="b"), line([1], name="c")])
    assert found["kendalls_tau"] == pytest.approx(1)
    assert (found["num_pairs"], found["num_undefined"]) == (6, 4)
    assert kendalls_tau([line([0, 1])]) == {
        "kendalls_tau": None,
        "kendalls_tau_spread": None,
        "num_pairs": 0,
        "num_undefined": 0,
        "pairs": [],
    }
    assert tau_of_nearest(np.array([3])) is None


def test_strides_in_seconds_make_rates_alike():
    slow, fast = line([0, 1, 2, 3], fps=10), line(np.arange(8) / 2, fps=20)
    found = kendalls_tau([slow, fast], stride_seconds=0.1)
    assert found["kendalls_tau"] == pytest.approx(1)
    assert nearest_rows(slow.rows, fast.every_seconds(0.1).rows).tolist() == [0, 1, 2, 3]


def test_rows_without_labels_count_but_in_compat():
    labels = [-1, 0, 0, 0]
    first, second = line([9, 0, 1, 2], labels, name="a"), line([0, 1, 2, 9], [0, 0, 0, -1], name="b")
    bare = line([2, 1, 0], name="c")
    assert kendalls_tau([first, second, bare])["num_pairs"] == 6
    found = kendalls_tau([first, second, bare], compat=True)
    assert (found["kendalls_tau"], found["num_pairs"]) == (pytest.approx(1), 2)
    assert kendalls_tau([first, second])["kendalls_tau"] == pytest.approx(0)  # 3 0 1 2 and 1 2 3 0, three of six wrong


@pytest.mark.parametrize("distance", ["sqeuclidean", "euclidean", "cosine"])
def test_distances(distance):
    query, key = np.array([[1.0, 0.1]]), np.array([[0.9, -0.1], [10.0, 1.0]])
    assert nearest_rows(query, key, distance=distance).tolist() == [1 if distance == "cosine" else 0]


@pytest.mark.parametrize("case", VALUES["alignment"])
def test_alignment_of_the_public_code(case):
    query, key = column(case["query"]), column(case["key"])
    cost, path = warping_path(cdist(query, key, "sqeuclidean"))
    assert (cost, path.tolist()) == (case["dtw_cost_sqeuclidean"], case["path"])
    assert warped_rows(query, key).tolist() == case["align_dtw"]
    assert nearest_rows(query, key).tolist() == case["align_nn"]


def test_warping_of_the_public_example():
    example = VALUES["dtw_doc_example_manhattan"]
    query, key = column([2, 0, 1, 1, 2, 4, 2, 1, 2, 0]), column([1, 1, 2, 4, 2, 1, 2, 0])
    cost, path = warping_path(cdist(query, key, "cityblock"))
    assert (cost, path.tolist()) == (example["cost"], example["path"])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (6, 4), (4, 7)])
def test_warping_against_cell_by_cell(shape):
    generator = np.random.default_rng(shape)
    for _ in range(20):
        distances = generator.integers(0, 4, shape).astype(float)  # whole numbers: many ties
        costs = np.full((shape[0] + 1, shape[1] + 1), np.inf)
        costs[0, 0] = 0
        for row, col in product(range(shape[0]), range(shape[1])):
            costs[row + 1, col + 1] = distances[row, col] + min(
                costs[row, col], costs[row, col + 1], costs[row + 1, col]
            )
        row, col = shape[0] - 1, shape[1] - 1
        path = [[row, col]]
        while row or col:
            options = [costs[row, col], costs[row, col + 1], costs[row + 1, col]]
            down, right = [(1, 1), (1, 0), (0, 1)][options.index(min(options))]
            row, col = row - down, col - right
            path.append([row, col])
        cost, found = warping_path(distances)
        assert (cost, found.tolist()) == (costs[-1, -1], path[::-1])


def test_warping_refuses_nothing_and_too_much():
    with pytest.raises(ValueError, match="0 by 3 rows cannot be warped"):
        warping_path(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="30000 by 30000 rows cannot be warped; allowed are 1 to 400,000,000 cells"):
        warping_path(np.broadcast_to(np.zeros(1), (30_000, 30_000)))


def test_stretch():
    assert stretched_rows(column(range(3)), column(range(5))).tolist() == [0, 2, 4]
    assert stretched_rows(column([0]), column(range(5))).tolist() == [0]


def test_errors_in_rows_and_seconds():
    labels = [0, 0, 1, 1, 1, 2], [0, 1, 2, 2, 2, 2, -1, -1]
    first = line([0, 0, 1, 1, 1, 2], labels[0], fps=10, name="a")
    second = line([0, 1, 2, 2, 2, 2, 5, 5], labels[1], fps=2, name="b")
    perfect = alignment_errors([first, second], method="nearest")
    assert (perfect["error_rows"], perfect["error_seconds"], perfect["num_pairs"]) == (0, 0, 2)
    assert alignment_errors([first, second])["error_rows"] == 0  # dtw
    # stretch, a -> b: rows 0 2 5 -> 0 3 7, true 0 1 2; b -> a: rows 0 1 2 -> 0 1 1, true 0 2 5
    stretch = alignment_errors([first, second], method="stretch")
    assert [pair["error_rows"] for pair in stretch["pairs"]] == pytest.approx([7 / 3, 5 / 3])
    assert [pair["error_seconds"] for pair in stretch["pairs"]] == pytest.approx([3.5 / 3, 0.5 / 3])
    assert stretch["error_seconds"] == pytest.approx(2 / 3)


def test_errors_without_times_labels_or_phases_in_common():
    untimed = [line([0, 1], [0, 1], name="a"), line([0, 1], [0, 1], name="b"), line([3], name="bare")]
    found = alignment_errors(untimed)
    assert (found["error_rows"], found["error_seconds"], found["num_pairs"]) == (0, None, 2)
    apart = alignment_errors([line([0], [0]), line([0], [1])])
    assert apart == {"error_rows": None, "error_seconds": None, "num_pairs": 0, "pairs": []}
    with pytest.raises(ValueError, match="'soft' is not known; choose one of dtw, nearest, stretch"):
        alignment_errors(untimed, method="soft")


def test_phase_starts():
    assert phase_starts(np.array([-1, 2, 2, 0, 2])) == {2: 1, 0: 3}


@pytest.mark.parametrize("cells", [1, 7, 40])
def test_warping_in_chunks_of_queries_is_warping_as_a_whole(monkeypatch, cells):
    generator = np.random.default_rng(cells)
    for num_queries, num_keys in ((9, 7), (1, 5), (6, 1), (12, 12)):
        query, key = generator.integers(0, 3, (num_queries, 2)), generator.integers(0, 3, (num_keys, 2))
        query, key = query.astype(float), key.astype(float)  # many are equally near: ties
        whole = warped_rows(query, key)
        with monkeypatch.context() as patched:
            patched.setattr(alignment, "_CHUNK_CELLS", cells)
            assert warped_rows(query, key).tolist() == whole.tolist()


def test_rows_that_are_too_many_are_refused_before_distances_are_made():
    rows = np.broadcast_to(np.zeros((1, 2)), (100_000, 2))
    with pytest.raises(ValueError, match="100000 by 100000 rows cannot be warped"):
        warped_rows(rows, rows)
