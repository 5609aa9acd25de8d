"""A network that sees clips, from nothing: videos that the pipeline makes, stored frames, one node that learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project

PIPELINE = """
videos:
  synthesize:
    family: actions
    size: 40
    fps: 8
    samples: 24
    num_val: 0
    num_test: 0
    actions:
      num_frames: 10
      verbs: [appear, vanish]
      nouns: [striped_disc]
      num_distractors: 0
      jitter: 0
      noise: 0
      acting: [0.8, 1.0]
labels: {column: verb}
stages:
  frames: {uses: decode, workers: 1}
  tune:
    uses: finetune
    frames: frames
    model: {name: st_abn, depth: 18, dropout: 0.1}
    preprocess: {size: [32, 32], resize: 32}
    task: video
    window: {length: 4, sampling: segments}
    augment: {crop_scale: null, color_jitter: 0}
    val_splits: []
    epochs: 10
    batch_size: 12
    device: cpu
    optimizer: {name: momentum, lr: 0.02}
    schedule: {warmup_epochs: 0}
  predict: {uses: predict, run: tune, keep: [attention]}
"""


@pytest.mark.slow
def test_st_abn_learns_two_verbs_and_its_attention_is_kept(tmp_path: Path) -> None:
    """Its loss on videos that it sees falls; two dozen are too few to know others."""
    path = tmp_path / "reelwright.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    result = Project.open(path).run()
    assert result.exit_code == 0, [node.message for node in result.nodes]
    project = Project.open(path)
    lines = project.trained("tune").metrics()
    chance = math.log(2)  # the loss of one of the two classifiers that know nothing
    assert lines[0]["train_loss"] > 1.5 * chance
    assert lines[-1]["train_loss_perception"] < 0.7 * chance
    assert {plan.state for plan in project.status()} == {"up to date"}
    attention = project.attention("predict")
    assert len(attention) == 24
    for name in attention:
        space, time = (attention[name].output(f"attention.{kind}") for kind in ("space", "time"))
        assert space.shape == (1, 4, 2, 2)
        assert 0 < time.min() <= time.max() < 1
