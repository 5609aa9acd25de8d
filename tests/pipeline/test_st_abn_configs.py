"""The shipped configs of ST-ABN as pipeline files: read, planned, and as the public code has them (2.2 to 2.4)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.plan.graph import build_graph
from reelwright.stages.datasets.sampling.clips import clip_sampling
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.fit.optim.build import build_lr_schedule, scaled_lr

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "st_abn"
TABLE = {  # name of images, segments, frames apart
    "ssv1_32": ("{:05d}.jpg", None, 1),
    "ssv1_32_2": ("{:05d}.jpg", 1, 2),
    "ssv2_32": ("{:06d}.jpg", None, 1),
    "ssv2_32_2": ("{:06d}.jpg", 1, 2),
}


def test_every_shipped_config_has_its_file_and_its_line() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(TABLE)
    linked = re.findall(r"\]\(st_abn/(\w+)\.yaml\)", (DOCS / "st-abn.md").read_text(encoding="utf-8"))
    assert linked == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_values_are_those_of_the_public_code(name: str) -> None:
    file = load_pipeline(FOLDER / f"{name}.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes)
    config = file.nodes["st_abn"]
    assert isinstance(config, FinetuneConfig)
    template, segments, step = TABLE[name]
    decode = file.nodes["frames"]
    assert (decode.image_tmpl, decode.image_start, decode.short_side) == (template, 1, 256)  # type: ignore[attr-defined]
    window = config.window
    assert (window.length, window.segments, window.dilation, window.segment_rule) == (32, segments, step, "whole")
    assert config.loss.attention_weight == 1.0
    assert (config.augment.flip, config.augment.crop_scale) == (0, (0.08, 1.0))
    assert file.labels is not None
    assert file.labels.directed  # the lists number the classes, so that their names do not tell
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm) == ("sgd", 0.9, 5e-4, 20)
    # stabn.json step_lr: 8 processes of 8 videos, and the linear rule
    for batch_size, expected in ((64, 0.01), (32, 0.005), (8, 0.00125), (256, 0.04)):
        assert scaled_lr(optimizer, batch_size=batch_size)[0] == pytest.approx(expected)
    schedule = build_lr_schedule(config.schedule, epochs=config.epochs, updates_per_epoch=3)
    rates = {epoch: 0.01 * schedule(3 * epoch) for epoch in (0, 74, 75, 124, 125, 149)}
    assert rates == pytest.approx({0: 0.01, 74: 0.01, 75: 0.001, 124: 0.001, 125: 0.0001, 149: 0.0001})


@pytest.mark.parametrize(
    ("name", "num_frames", "first_and_last"),
    [("ssv1_32", 64, (1, 63)), ("ssv1_32", 5, (0, 4)), ("ssv1_32_2", 64, (0, 62)), ("ssv1_32_2", 100, (18, 80))],
)
def test_frames_at_test_are_those_of_the_public_code(name: str, num_frames: int, first_and_last) -> None:
    """stabn.json rawframe_sampling, test_frames, counted from 0."""
    config = load_pipeline(FOLDER / f"{name}.yaml").nodes["st_abn"]
    assert isinstance(config, FinetuneConfig)
    shape = WindowShape(length=config.window.length, dilation=config.window.dilation)
    clips = clip_sampling("segments", shape, segments=config.window.segments)
    assert clips is not None
    rows = clips.views([num_frames]).rows
    assert rows is not None
    assert rows.shape == (1, 32)
    assert (rows[0, 0], rows[0, -1]) == first_and_last
    assert bool((np.diff(rows[0]) >= 0).all())
