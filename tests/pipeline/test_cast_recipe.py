"""The recipe cast, whole, with small experts: labels of each, scores of all, and no token computed anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project

RUNS = ("cast", "adapters", "space_alone", "time_alone", "concat")
SMALL = [
    "videos.synthesize={size: 32, samples: 16, num_val: 1, num_test: 1}",
    "videos.synthesize.actions={num_frames: 8, verbs: [move_left, move_right], nouns: [striped_disc, dotted_star]}",
    "videos.workers=1",
    "frames.workers=1",
    "space_start.model_args={embed_dim: 16, num_heads: 2, img_size: 32, patch_size: 16, clip_length: 8}",
    "time_start.model_args={width: 16, heads: 2, img_size: 32, patch_size: 16, clip_length: 8}",
    *(f"{node}.preprocess={{size: [32, 32], resize: 32}}" for node in ("space_start", "time_start")),
    *(f"{node}.clip={{length: 8, hop: 8}}" for node in ("space_start", "time_start", "space", "time")),
    *(
        f"{node}.{name}"
        for node in ("space_start", "time_start", "space", "time")
        for name in ("batch_size=8", "channels_last=false")
    ),
    *(f"{node}.window={{length: 8, hop: 8}}" for node in ("nouns", "verbs")),
    *(f"{node}.schedule.warmup_epochs=0" for node in ("nouns", "verbs", *RUNS)),
    *(f"{node}.epochs=1" for node in ("nouns", "verbs", *RUNS)),
]


def recipe(folder: Path, *overrides: str) -> Project:
    (folder / "reelwright.yaml").write_text(read_recipe("cast"), encoding="utf-8")
    return Project.open(folder / "reelwright.yaml", overrides=[*SMALL, *overrides])


def test_its_nodes_fit_together(tmp_path: Path) -> None:
    (tmp_path / "reelwright.yaml").write_text(read_recipe("cast"), encoding="utf-8")
    file = load_pipeline(tmp_path / "reelwright.yaml")
    assert set(build_graph(file).nodes) == set(file.nodes)
    assert {f"{run}_scores" for run in RUNS} <= set(file.nodes)


@pytest.mark.slow
def test_the_recipe_runs_whole_and_another_exchange_computes_no_token_anew(tmp_path: Path) -> None:
    project = recipe(tmp_path)
    ends = ["cast_scores", "concat_scores"]
    result = project.run(until=ends)
    assert result.exit_code == 0, [node.message for node in result.nodes]
    assert project.trained("nouns").config()["classes"] == ["dotted_star", "striped_disc"]
    assert project.trained("verbs").config()["classes"] == ["move_left", "move_right"]
    for node in ends:
        headline = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))["headline"]
        assert {"action_top1", "verb_top1", "noun_top1", "video_action_top1"} <= set(headline)
    again = recipe(tmp_path, "cast.model.exchange=lateral").run(until=ends)
    assert again.exit_code == 0
    assert {node.node for node in again.nodes if node.state == "ran"} == {"cast", "cast_predict", "cast_scores"}
