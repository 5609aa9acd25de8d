"""The recipe st_abn, whole, on fewer and smaller videos: actions in, scores and films of attention out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from reelwright.pipeline.config.pipeline_file import without_effect
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.project import Project
from reelwright.stages.base.config import parse_config
from reelwright.stages.train.config import TrainConfig
from tests.benchmarks.st_abn_shows import auc, in_box, mirror_image, stages_of

SMALL = [
    *("videos.synthesize.size=32", "videos.synthesize.samples=24", "videos.synthesize.num_val=1"),
    *("videos.synthesize.num_test=1", "videos.synthesize.actions.num_frames=8", "frames.workers=1"),
    *("maps.encoder=timm/test_resnet", "maps.preprocess={size: [32, 32], resize: 32}", "maps.batch_size=16"),
    *("maps.outputs=[map]", "maps.channels_last=false", "train.output=map", "train.window.length=4"),
    *("train.model.width=8", "train.model.layers=1", "train.epochs=2", "looked.worst=1", "looked.best=1"),
]


@pytest.mark.slow
def test_the_recipe_runs_whole_and_then_not_again(tmp_path: Path) -> None:
    path = tmp_path / "reelwright.yaml"
    path.write_text(read_recipe("st_abn"), encoding="utf-8")
    project = Project.open(path, overrides=SMALL)
    result = project.run(jobs=1)
    assert result.exit_code == 0, [node.message for node in result.nodes]
    headline = json.loads((project.report("scores") / "metrics.json").read_text(encoding="utf-8"))["headline"]
    assert headline["num_scored"] == 8
    folder = project.report("looked")
    assert {path.suffix for path in (folder / "attention").iterdir()} == {".mp4", ".jpg"}
    outputs = next(iter(project.attention("predict").values()))
    assert outputs.output("attention.time").shape == (1, 4)
    assert outputs.output("attention.space").ndim == 4
    assert Project.open(path, overrides=SMALL).run().nothing_to_do


def test_figures_of_attention_are_those_by_hand() -> None:
    """A box over the left half of a map of 2 x 2, and one over a quarter of its first place."""
    space = np.array([[0.1, 0.2], [0.5, 0.2]])
    share, inside, points = in_box(space, (0.0, 0.0, 0.5, 1.0))
    assert (share, inside, points) == (0.5, pytest.approx(0.6), True)
    share, inside, points = in_box(space, (0.25, 0.25, 0.5, 0.5))
    assert (share, inside, points) == (1 / 16, pytest.approx(0.025), False)
    assert auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])) == (1 + 1 + 0.5 + 1) / 4
    stages = stages_of(yaml.safe_load(read_recipe("st_abn"))["stages"], range(2))
    plain, ungated = stages["plain__as_deep_1"], stages["S___M___1_1"]
    assert (plain["seed"], plain["model"]["branch"], "loss" in plain) == (1, False, False)
    assert plain["model"]["layers"] == 2 * stages["plain_1"]["model"]["layers"]
    assert (ungated["model"]["branch"], ungated["loss"]["attention_weight"]) == ("ungated", 1.0)
    text = (Path(__file__).parents[1] / "benchmarks" / "st_abn_actions.yaml").read_text(encoding="utf-8")
    for made in stages_of(yaml.safe_load(text)["stages"], range(1)).values():  # whose attention in space is positive
        if made["uses"] == "train":
            settings = parse_config(TrainConfig, {k: v for k, v in made.items() if k != "uses"}, where="train")
            assert not list(without_effect(settings))
    assert [mirror_image(name) for name in ("turn_left", "move_right", "grow")] == ["turn_right", "move_left", "grow"]
