"""Metrics and their directions."""

from __future__ import annotations

import pytest

from reelwright.models.metrics.metric import metric_named


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
