"""The recipe cast on fewer and smaller videos: experts that learn on their own, CAST on their tokens, none anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.plan.graph import FRESH, build_graph
from reelwright.pipeline.project import Project
from tests.benchmarks.cast_shows import ARMS, ENSEMBLE, measure, name_of, opened, read_stages, stages_of

SMALL = [
    *("videos.synthesize.size=32", "videos.synthesize.samples=12", "videos.synthesize.num_val=1"),
    *("videos.synthesize.num_test=1", "videos.synthesize.actions.verbs=[move_left,grow]"),
    *("videos.synthesize.actions.nouns=[dotted_disc,striped_bar]", "videos.workers=1", "stages.frames.workers=1"),
    "stages.nouns.model_args={embed_dim: 16, depth: 4, num_heads: 2, img_size: 32, clip_length: 8}",
    "stages.verbs.model_args={width: 16, depth: 4, heads: 2, img_size: 32, clip_length: 8}",
    *(f"stages.{node}.preprocess={{size: [32, 32], resize: 32}}" for node in ("nouns", "verbs")),
    *(f"stages.{node}.{setting}=1" for node in ("nouns", "verbs", "cast") for setting in ("epochs", "evaluate_every")),
    *(f"stages.{node}.schedule.warmup_epochs=0" for node in ("nouns", "verbs", "cast")),
    *(f"stages.{node}.batch_size=4" for node in ("space", "time")),
    *(f"stages.{node}.channels_last=false" for node in ("space", "time")),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reelwright.yaml").write_text(read_recipe("cast"), encoding="utf-8")
    return tmp_path


def test_all_arms_are_nodes_that_fit_together(folder: Path) -> None:
    project = opened(folder, [], stages_of(read_stages(folder, []), range(2)))
    names = set(build_graph(project.file).nodes)
    assert {name_of(arm, seed) for arm in ARMS for seed in range(2)} < names
    models = {arm: project.file.nodes[name_of(arm, 1)].model.options() for arm in ARMS}  # type: ignore[attr-defined]
    assert models["CAST"] == {"top": 4}
    assert models["CAST top 2"] == {"top": 2}
    assert models["late add"] == {"top": 0, "exchange": "none", "fusion": "add"}


@pytest.mark.slow
def test_the_recipe_runs_whole_and_another_experiment_computes_no_token_anew(folder: Path) -> None:
    def project(*more: str) -> Project:
        return Project.open(folder / "reelwright.yaml", overrides=[*SMALL, *more])

    result = project().run()
    assert result.exit_code == 0, [node.message for node in result.nodes]
    assert project().trained("nouns").config()["classes"] == ["dotted_disc", "striped_bar"]
    assert project().trained("verbs").config()["classes"] == ["grow", "move_left"]
    metrics = json.loads((project().report("scores") / "metrics.json").read_text(encoding="utf-8"))
    assert {"video_action_top1", "video_verb_top1", "video_noun_top1"} <= set(metrics["headline"])
    assert project().run().nothing_to_do
    other = project("stages.cast.model.top=4", "stages.cast.output=block0.input", "stages.cast.model.exchange=lateral")
    changed = {plan.node.name for plan in other.status() if plan.state != FRESH}
    assert changed == {"cast", "predict", "scores"}
    found = measure(folder, range(1), changes=SMALL, arms=("space", "time"))
    assert set(found) == {"space", "time", ENSEMBLE}
    assert all(0 <= figure <= 100 for runs in found.values() for figures in runs for figure in figures.values())
