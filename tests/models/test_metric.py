"""Metrics and their directions."""

from __future__ import annotations

import pytest

from reelwright.models.metrics.metric import metric_named, split_name


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("loss", True),
        ("val_loss", True),
        ("train_loss_stage1", True),
        ("scores.step_delay_seconds", True),
        ("step_false_positives", True),
        ("probe.dtw_error_seconds", True),
        ("error_rows", True),
        ("terror_rows", False),
        ("probe.time_error@5", True),
        ("time_error_seconds@15", True),
        ("probe.phase_accuracy@12.5%", False),
        ("scores@0.step_delay_seconds", True),
        ("probe@anna.time_error_seconds@5", True),
        ("macro_f1", False),
        ("scores.top1", False),
        ("step_true_positives", False),
        ("lossless", False),
        ("loss.top1", False),  # of an evaluate node called loss
    ],
)
def test_direction(name, lower):
    metric = metric_named(name)
    assert metric.is_lower_better is lower
    assert metric.is_better(1.0, than=2.0) is lower
    assert metric.is_better(2.0, than=1.0) is not lower
    assert not metric.is_better(1.0, than=1.0)
    assert metric.is_better(1.0, than=None)
    assert min([2.0, 1.0], key=metric.sort_key) == (1.0 if lower else 2.0)


@pytest.mark.parametrize(
    ("name", "node", "number"),
    [
        ("top1", "", "top1"),
        ("scores.f1@50", "scores", "f1@50"),
        ("scores@0.f1@50", "scores@0", "f1@50"),
        ("accuracy@12.5%", "", "accuracy@12.5%"),
        ("probe.accuracy@12.5%", "probe", "accuracy@12.5%"),
        ("scores.own_map@0.5:0.95", "scores", "own_map@0.5:0.95"),
        ("5%", "", "5%"),
    ],
)
def test_what_measured_it(name, node, number):
    assert split_name(name) == (node, number)
