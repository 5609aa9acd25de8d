"""The example pipeline on real videos with real weights: the temporal model is at least at the linear probe's level."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import mean

import pytest

from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.project import Project

SEEDS = range(3)


@pytest.mark.slow
def test_a_temporal_model_is_at_the_level_of_the_linear_probe(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REELWRIGHT_REAL_DATA", str(real_data))
    (tmp_path / "reelwright.yaml").write_text(read_recipe("falls"), encoding="utf-8")
    project = Project.open(tmp_path / "reelwright.yaml")
    result = project.run()
    assert result.exit_code == 0, result
    scores = {kind: [accuracy(project, f"scores_{kind}_{seed}") for seed in SEEDS] for kind in ("linear", "gru")}
    chance = json.loads((project.report("scores_gru_0") / "metrics.json").read_text())["headline"]["chance_top1"]
    with capsys.disabled():
        message = {kind: [round(value, 3) for value in values] for kind, values in scores.items()}
        print(f"\nframe accuracy of 3 seeds: {message}, always the commonest: {chance:.3f}")
    assert 0.4 < chance < 0.6
    assert mean(scores["linear"]) > chance + 0.08
    assert mean(scores["gru"]) >= mean(scores["linear"])
    assert project.run().nothing_to_do


def accuracy(project: Project, node: str) -> float:
    return json.loads((project.report(node) / "metrics.json").read_text())["headline"]["top1"]


def test_the_recipe_names_no_folder_of_ours() -> None:
    assert str(Path.home()) not in read_recipe("falls")
    assert os.sep + "shared" not in read_recipe("falls")
