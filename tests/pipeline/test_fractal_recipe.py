"""The recipe fractal, whole, on fewer and smaller videos: fractals and actions in, scores of both arms out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.config.sample_data import make_fractal
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project
from reelwright.stages.pretrain.config import PretrainConfig
from tests.benchmarks.fractal_falls import measures
from tests.benchmarks.fractal_shows import ARMS, stages_of

SIZES = {"size": 32, "num_classes": 2, "per_class": 2, "num_train": 1, "num_test": 1}
SMALL = [
    *("frames.workers=1", "pretrain.encoder=tsm/test_resnet", "tsm.encoder=tsm/test_resnet", "pretrain.epochs=3"),
    *("pretrain.preprocess={size: [32, 32], resize: 32}", "tsm.preprocess={size: [32, 32], resize: 32}"),
    *("pretrain.clips.batch_size=2", "pretrain.clips.length=4"),
    *("pretrain.schedule.warmup_epochs=1", "tsm.clip.length=4", "tsm.batch_size=8", "tsm.channels_last=false"),
    *(f"{node}.{setting}" for node in ("tune", "scratch") for setting in ("epochs=1", "window.length=4")),
    *(f"{node}.schedule.warmup_epochs=0" for node in ("tune", "scratch")),
]


def recipe() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read_recipe("fractal"))
    return found


def test_arms_are_the_recipe_but_for_what_they_say(tmp_path: Path) -> None:
    values = recipe()
    values["stages"] = stages_of(values["stages"], ARMS, range(2), num_pretrainings=1, more=True)
    path = tmp_path / "reelwright.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    file = load_pipeline(path)
    assert set(build_graph(file).nodes) == set(file.nodes)
    runs = {name: config for name, config in file.nodes.items() if isinstance(config, PretrainConfig)}
    assert set(runs) == {f"{arm}_0" for arm in ARMS if arm != "scratch"}  # one pre-training for both seeds
    scenes = {
        name: config.clips is not None and config.clips.augment.scene is not None for name, config in runs.items()
    }
    assert {name for name, has_scene in scenes.items() if has_scene} == {f"{arm}_0" for arm in ARMS if "-" in arm}
    assert [config.learns_labels for config in runs.values()] == [name.startswith("ce") for name in runs]
    stages = values["stages"]
    (own,) = {json.dumps({**stages[f"{arm}_tuned_1"], "init_from": ""}) for arm in ARMS}  # all alike
    assert json.loads(own) == {**recipe()["stages"]["tune"], "init_from": "", "seed": 1}
    assert stages["simclr_0"]["epochs"] * 2 == stages["ce_0"]["epochs"]  # two clips of each video


def test_figures_of_falls_are_those_by_hand() -> None:
    pairs = [("fall", "fall"), ("fall", "adl"), ("fall", "fall"), ("adl", "adl")]
    found = measures([pairs])
    assert found == {"videos": [75.0], "classes": [pytest.approx(100 * (2 / 3 + 1) / 2)]}


@pytest.mark.slow
def test_the_recipe_runs_whole_and_then_not_again(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    make_fractal(tmp_path, workers=1, progress=lambda num, num_all: done.append((num, num_all)), **SIZES)
    assert done[-1] == (36, 36)
    rows = list(csv.DictReader((tmp_path / "tables" / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    splits = {split: [row for row in rows if row["split"] == split] for split in ("train", "test", "fractals")}
    assert {split: len(of) for split, of in splits.items()} == {"train": 16, "test": 16, "fractals": 4}
    assert len({(row["verb"], row["noun"]) for row in splits["train"]}) == 16
    assert {(bool(row["fractal"]), row["verb"]) for row in splits["fractals"]} == {(True, "")}
    path = tmp_path / "reelwright.yaml"
    path.write_text(read_recipe("fractal"), encoding="utf-8")
    project = Project.open(path, overrides=SMALL)
    result = project.run(jobs=1)
    assert result.exit_code == 0, [node.message for node in result.nodes]
    for node in ("scores", "scores_scratch"):
        headline = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))["headline"]
        assert (headline["num_scored"], headline["chance_verb_top1"]) == (16, 0.25)
    started = json.loads((project.trained("tune").path / "init.json").read_text(encoding="utf-8"))
    assert started["source"] == "run pretrain"
    assert Project.open(path, overrides=SMALL).run().nothing_to_do
