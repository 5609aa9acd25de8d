"""The recipe carl, whole, on a small stand-in: Pouring's layout in, rows of three runs and their scores out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.config.sample_data import make_carl
from reelwright.pipeline.project import Project
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.arrays.embeddings import EmbeddingStore

RUNS = ("scl", "tcc", "tcn")
SMALL = [
    *(
        "frames.fps=5",
        "rows.encoder=timm/test_resnet",
        "rows.preprocess={size: [32, 32], resize: 32}",
        "rows.batch_size=32",
    ),
    *("rows.channels_last=false", "scl.model={layers: 1, width: 32, heads: 4, mlp_width: 32, hidden: 32}"),
    *(f"{run}.epochs=2" for run in RUNS),
    *(f"{run}.views.length=8" for run in RUNS),
    *(f"{node}.fractions=[1.0]" for node in ("raw_scores", *(f"{run}_scores" for run in RUNS))),
]
SIZES = {"num_train": 4, "num_val": 2, "height": 48, "width": 48, "fps": 5.0}


def test_no_run_of_the_recipe_learns_labels(tmp_path: Path) -> None:
    path = tmp_path / "reelwright.yaml"
    path.write_text(read_recipe("carl"), encoding="utf-8")
    runs = [config for config in load_pipeline(path).nodes.values() if isinstance(config, TrainConfig)]
    assert len(runs) == 3
    assert not any(config.learns_labels for config in runs)


@pytest.mark.slow
def test_the_recipe_runs_whole_and_other_labels_train_nothing_anew(tmp_path: Path) -> None:
    make_carl(tmp_path, workers=1, **SIZES)
    path = tmp_path / "reelwright.yaml"
    path.write_text(read_recipe("carl"), encoding="utf-8")
    project = Project.open(path, overrides=SMALL)
    result = project.run()
    assert result.exit_code == 0, [node.message for node in result.nodes]
    assert {node.node for node in result.nodes if node.state == "ran"} == set(project.file.nodes) - {"frames"}
    for node in ("raw_scores", *(f"{run}_scores" for run in RUNS)):
        headline = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))["headline"]
        assert {"kendalls_tau", "phase_accuracy", "precision@5"} <= set(headline), headline
    store = EmbeddingStore(project.file.store.embeddings(project.planner().plan("scl_rows").spec_key))
    assert {store.rows(digest).row_shape("pooled") for digest in store.digests()} == {(128,)}

    rows = tmp_path / "tables" / "rows.csv"
    lines = rows.read_text(encoding="utf-8").splitlines()
    rows.write_text("\n".join([lines[0], *(line.rpartition(",")[0] + ",0" for line in lines[1:])]), encoding="utf-8")
    stale = {plan.node.name for plan in Project.open(path, overrides=SMALL).planner().plans() if plan.reasons}
    assert stale == {"raw_scores", *(f"{run}_scores" for run in RUNS)}
