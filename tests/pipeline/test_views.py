"""CARL in a pipeline file: stored rows without any label, what is checked before work, and what makes it stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.pipeline.plan.graph import FRESH
from reelwright.pipeline.project import Project
from reelwright.stages.fit.run_models import load_run_model
from reelwright.storage.errors import ConfigError
from reelwright.storage.results.runs import RunFolder
from tests.small_project import PIPELINE

VIEWS = """
  train:
    uses: train
    embeddings: [embed]
    model: {name: carl, layers: 1, width: 32, heads: 4, hidden: 32, mlp_width: 32}
    objective: {name: scl}
    views: {length: 8}
    epochs: 2
    batch_size: 2
    val_splits: [test]
"""


@pytest.fixture
def unlabelled(copied: Path) -> Path:
    """The finished project up to its embeddings, with a train node that needs no label and nothing behind it."""
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    head, _, _ = text.partition("  train:")
    lines = [line for line in head.splitlines() if not line.startswith("labels:")]
    (copied / "reelwright.yaml").write_text("\n".join(lines) + VIEWS, encoding="utf-8")
    (copied / "segments.csv").unlink()
    return copied


def test_stored_rows_train_without_a_label(unlabelled: Path) -> None:
    assert "labels:" in PIPELINE
    result = Project.open(unlabelled / "reelwright.yaml").run()
    assert result.exit_code == 0
    project = Project.open(unlabelled / "reelwright.yaml")
    plan = project.planner().plan("train")
    assert plan.state == FRESH
    model, values = load_run_model(RunFolder(project.file.store.run(plan.key)), plugins={})
    assert (values["model"]["name"], values["classes"]) == ("carl", [])
    assert model.embedder.length == 8
    other = Project.open(unlabelled / "reelwright.yaml", overrides=["train.views.overlap=0.5"])
    assert other.planner().plan("train").state != FRESH


def test_labels_that_come_later_make_nothing_stale(copied: Path) -> None:
    """They are for what measures; train of views with labels, and windows, learn from them."""
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    (copied / "reelwright.yaml").write_text(text.partition("  train:")[0] + VIEWS.lstrip("\n"), encoding="utf-8")
    assert Project.open(copied / "reelwright.yaml").run().exit_code == 0
    rows = (copied / "segments.csv").read_text(encoding="utf-8")
    (copied / "segments.csv").write_text(rows.replace("blue", "red"), encoding="utf-8")

    def state(*overrides: str) -> str:
        return Project.open(copied / "reelwright.yaml", overrides=overrides).planner().plan("train").state

    assert state() == FRESH
    learned = ("train.objective.name=per_frame",)
    assert Project.open(copied / "reelwright.yaml", overrides=learned).run().exit_code == 0
    assert state(*learned) == FRESH
    (copied / "segments.csv").write_text(rows, encoding="utf-8")
    assert (state(), state(*learned) == FRESH) == (FRESH, False)
    assert any("classes" in reason for reason in _reasons(copied, learned))


def _reasons(folder: Path, overrides: tuple[str, ...]) -> tuple[str, ...]:
    return Project.open(folder / "reelwright.yaml", overrides=overrides).planner().plan("train").reasons


BAD = {
    "window": ("train.window.length=8", "window is of windows, but views are learned from"),
    "option": ("train.views.lenght=8", "lenght: unknown key. Did you mean 'length'"),
    "objective": ("train.objective.name=slc", "unknown objective 'slc'"),
    "model": ("train.model.layer=2", "unknown option of carl 'layer'"),
}


@pytest.mark.parametrize(("override", "match"), BAD.values(), ids=BAD)
def test_a_slip_is_named_before_work(unlabelled: Path, override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Project.open(unlabelled / "reelwright.yaml", overrides=[override]).planner()


def test_predicting_with_it_is_refused_before_work(unlabelled: Path) -> None:
    with (unlabelled / "reelwright.yaml").open("a", encoding="utf-8") as file:
        file.write("  predict: {uses: predict, run: train}\n")
    with pytest.raises(ConfigError, match="'train' learns from views without labels and gives no scores"):
        Project.open(unlabelled / "reelwright.yaml").planner()
