"""The recipe psr, whole, on a small stand-in: IndustReal's layout in, scored steps out, fine-tuned ones too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reelwright.pipeline.config.pipeline_file import build_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.config.sample_data import make_psr
from reelwright.pipeline.project import Project
from reelwright.storage.arrays.embeddings import EmbeddingStore
from tests.benchmarks.psr_shows import THRESHOLDS, differences, stages_of, table

SMALL = [
    *("frames.short_side=32", "pretrain.encoder=timm/test_resnet", "pretrain.preprocess={size: [32, 32], resize: 32}"),
    *("pretrain.epochs=1", "pretrain.batch.per_epoch=4", "pretrain.schedule.warmup_epochs=0", "embed.batch_size=32"),
    *("embed.channels_last=false", "train.epochs=1", "train.window.per_epoch=64", "frame_train.epochs=1"),
    *("train.window.length=9", "train.window.hop=8", "train.window.events.separation_rows=4"),
    *(f"{node}.thumbnails=0" for node in ("scores", "frame_scores", "both_scores", "scores_tuned")),
    *("tune.epochs=1", "tune.evaluate_every=1", "tune.windows_per_epoch=4", "tune.batch_size=2"),
]
SIZES = {"num_train": 2, "num_val": 1, "num_test": 1, "height": 48, "width": 48}


def ran(result):
    return {node.node for node in result.nodes if node.state == "ran"}


@pytest.mark.slow
def test_the_recipe_runs_whole_and_a_second_experiment_reuses_the_embeddings(tmp_path):
    make_psr(tmp_path, workers=1, **SIZES)
    path = tmp_path / "reelwright.yaml"
    path.write_text(read_recipe("psr"), encoding="utf-8")
    project = Project.open(path, overrides=SMALL)
    result = project.run()
    assert result.exit_code == 0, [node.message for node in result.nodes]
    assert ran(result) == set(project.file.nodes)
    spec_key = project.planner().plan("embed").spec_key
    seen = EmbeddingStore(project.file.store.embeddings(spec_key)).spec["preprocessing"]
    assert (seen["size"], seen["resize"]) == ([32, 32], 32)  # as the encoder was pre-trained
    for node in ("scores", "frame_scores", "both_scores", "scores_tuned"):
        metrics = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))
        headline = metrics["headline"]
        assert headline["step_true_positives"] + headline["step_false_negatives"] <= 4
        assert 0 <= headline["step_pos"] <= 1
    page = (project.report("scores") / "report.html").read_text(encoding="utf-8")
    assert "pca of" in page
    assert {state for state in ("0000", "1000", "1111") if f"<title>{state}</title>" in page} == {
        "0000",
        "1000",
        "1111",
    }
    truth = project.steps("steps").truth()
    assert truth.num_rows == 4 * 4
    assert set(truth["step"].to_pylist()) == {"place_base", "add_red_bar", "add_blue_disc", "add_green_triangle"}
    others = [override for override in SMALL if "window.events" not in override]  # which per_video has none of
    other = Project.open(path, overrides=[*others, "train.window.length=11", "train.window.sampling=per_video"])
    planned = {plan.node.name for plan in other.planner().plans() if plan.reasons}
    assert planned == {
        *("train", "predict", "steps", "scores", "both_steps", "both_scores"),
        *("tune", "predict_tuned", "steps_tuned", "scores_tuned"),
    }
    assert ran(other.run(until=["scores"])) == {"train", "predict", "steps", "scores"}


def test_streams_that_are_compared_differ_in_nothing_else():
    stages = _recipe_stages()
    made = stages_of(stages, range(2))
    key_clips, uniform = made["key_clips_1"], made["uniform_1"]
    assert (key_clips["window"]["sampling"], uniform["window"]["sampling"]) == ("events", "per_video")
    window = {name: value for name, value in key_clips["window"].items() if name != "events"}
    assert {**key_clips, "window": {**window, "sampling": "per_video"}} == uniform
    values = {**yaml.safe_load(read_recipe("psr")), "stages": made}
    assert set(build_pipeline(values, path=Path("psr_shows.yaml")).nodes) == set(made)
    assert made["uniform_0"]["seed"] == 0
    assert made["single_frames_0_steps_3"]["threshold"] == made["key_clips_0_steps_3"]["threshold"] == 3
    assert stages["steps"]["threshold"] in THRESHOLDS
    assert made["key_clips_0_steps_1_5_val"]["splits"] == ["val"]


def _recipe_stages():
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.create(read_recipe("psr")))
    return content["stages"]


def test_differences_seed_by_seed_by_hand():
    """F1 50 60 70 against 48 62 64: +2 -2 +6, mean 2, deviation 4, standard error 4 / sqrt(3)."""
    found = {
        name: [{"pos": 0.5, "f1": value / 100} for value in values]
        for name, values in {"key clips": (50, 60, 70), "uniform": (48, 62, 64)}.items()
    }
    _, line = differences(found)
    assert line == "key clips - uniform, F1 %: +2.0 +- 4.0, standard error 2.3; seed by seed +2.0 -2.0 +6.0"
    assert differences({"key clips": found["key clips"]}) == []
    assert set(stages_of(_recipe_stages(), range(1), streams=["uniform"])) >= {"frames", "uniform_0"}
    assert "key_clips_0" not in stages_of(_recipe_stages(), range(1), streams=["uniform"])


def test_means_and_spreads_by_hand():
    runs = [
        {"pos": value, "f1": 0.5, "delay_seconds": 1.0, "false_negatives": 1, "false_positives": 0} for value in (0, 1)
    ]
    assert table({"uniform": runs}).splitlines()[1].split() == [
        *(
            "uniform",
            "50.0",
            "+-",
            "70.7",
            "50.0",
            "+-",
            "0.0",
            "1.0",
            "+-",
            "0.0",
            "1.0",
            "+-",
            "0.0",
            "0.0",
            "+-",
            "0.0",
        )
    ]
