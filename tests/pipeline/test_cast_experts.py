"""Experts that learn on their own, CAST on their tokens and beside it: all in one file, and no token computed anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project

RUNS = ("cast", "concat")
PIPELINE = """
videos:
  synthesize:
    {family: actions, size: 32, fps: 8, samples: 16, num_val: 1, num_test: 1,
     actions: {num_frames: 8, verbs: [move_left, move_right], nouns: [striped_disc, dotted_star]}}
  workers: 1
labels: {columns: {verb: verb, noun: noun}}
stages:
  frames: {uses: decode, workers: 1}
  space_start: &start
    uses: embed
    frames: frames
    encoder: frames/vit_small_patch16_224
    model_args: {embed_dim: 16, depth: 3, num_heads: 2, img_size: 32, clip_length: 8}
    preprocess: {size: [32, 32], resize: 32}
    weights: none
    clip: {length: 8, hop: 8}
    batch_size: 8
    channels_last: false
  time_start:
    <<: *start
    encoder: videomae/vit_small_patch16_224
    model_args: {width: 16, depth: 3, heads: 2, img_size: 32, clip_length: 8}
  nouns: &expert
    uses: finetune
    frames: frames
    spatial: space_start
    model: {name: linear}
    task: video
    labels: {column: noun}
    window: {length: 8, hop: 8}
    epochs: 1
    schedule: {warmup_epochs: 0}
  verbs: {<<: *expert, spatial: time_start, labels: {column: verb}}
  space: &tokens
    {uses: embed, frames: frames, run: nouns, outputs: [pooled, block-2.input], clip: {length: 8, hop: 8},
     batch_size: 8, channels_last: false}
  time: {<<: *tokens, run: verbs}
  cast: &cast
    uses: train
    embeddings: [space, time]
    output: block-2.input
    task: heads
    window: {length: 1}
    model: {name: cast, top: 2}
    epochs: 1
    schedule: {warmup_epochs: 0}
  concat: {<<: *cast, output: pooled, model: {name: linear}}
  cast_predict: {uses: predict, run: cast}
  concat_predict: {uses: predict, run: concat}
  cast_scores: {uses: evaluate, predictions: cast_predict}
  concat_scores: {uses: evaluate, predictions: concat_predict}
"""


def project_of(folder: Path, *overrides: str) -> Project:
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    return Project.open(folder / "reelwright.yaml", overrides=overrides)


@pytest.mark.slow
def test_it_runs_whole_and_another_exchange_computes_no_token_anew(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    result = project.run()
    assert result.exit_code == 0, [node.message for node in result.nodes]
    assert project.trained("nouns").config()["classes"] == ["dotted_star", "striped_disc"]
    assert project.trained("verbs").config()["classes"] == ["move_left", "move_right"]
    for run in RUNS:
        metrics = json.loads((project.report(f"{run}_scores") / "metrics.json").read_text(encoding="utf-8"))
        assert {"action_top1", "verb_top1", "noun_top1", "video_action_top1"} <= set(metrics["headline"])
    again = project_of(tmp_path, "cast.model.exchange=lateral").run()
    assert again.exit_code == 0
    assert {node.node for node in again.nodes if node.state == "ran"} == {"cast", "cast_predict", "cast_scores"}
