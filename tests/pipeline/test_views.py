"""CARL in a pipeline file: stored rows without any label, what is checked before work, and what makes it stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.pipeline.plan.graph import FRESH
from reelwright.pipeline.project import Project
from reelwright.stages.fit.run_models import load_run_model
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.results.runs import RunFolder
from tests.small_project import PIPELINE, SPLITS, write_rows

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


BEHIND = """
  aligned: {uses: embed, embeddings: [embed], run: train, device: cpu}
  scores: {uses: probe, embeddings: aligned, beside: [embed], tasks: [kendalls_tau, time_retrieval], depths: [1]}
  pictures: {uses: render, embeddings: aligned, what: [strip, similarity]}
"""


def test_rows_are_embedded_measured_and_drawn_without_a_label_file(unlabelled: Path) -> None:
    with (unlabelled / "reelwright.yaml").open("a", encoding="utf-8") as file:
        file.write(BEHIND)
    project = Project.open(unlabelled / "reelwright.yaml")
    assert project.run().exit_code == 0
    found = json.loads((project.report("scores") / "metrics.json").read_text(encoding="utf-8"))
    assert set(found["tasks"]) == {"kendalls_tau", "time_retrieval"}
    assert -1 <= found["headline"]["kendalls_tau"] <= 1
    assert {"kendalls_tau", "time_error@1"} <= set(found["headline"]["beside"]["embed"])
    pictures = json.loads(next(unlabelled.glob(".reelwright/store/pictures/*/pictures.json")).read_text("utf-8"))
    assert pictures["left_out"] == {}


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


# --- the action of a video beside the phases of its rows

ACTIONS = """
  train:
    uses: train
    embeddings: [embed]
    model: {name: vanilla, hidden: 8, embed_dim: 4}
    objective: {name: tcc}
    views: {length: 4, one_label: true}
    epochs: 1
    batch_size: 2
    val_splits: []
  plain: {uses: train, embeddings: [embed], task: per_row, window: {length: 4}, model: {name: linear}, val_splits: []}
  scores:
    uses: probe
    embeddings: embed
    per_action: true
    tasks: [kendalls_tau, phase_classification]
    classifiers: [logistic]
    fractions: [1.0]
    report: false
"""


@pytest.fixture
def acted(copied: Path) -> Path:
    """The finished project up to its embeddings, with actions in the manifest, and nodes that read them or do not."""
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8").partition("  train:")[0] + ACTIONS.lstrip("\n")
    text = text.replace("{segments: segments.csv}", "{segments: segments.csv, column: action}")
    (copied / "reelwright.yaml").write_text(text, encoding="utf-8")
    write_actions(copied, "one two one one one")
    return copied


def write_actions(folder: Path, actions: str) -> None:
    names = zip(SPLITS.items(), actions.split(), strict=True)
    rows: list[dict[str, object]] = [
        {"video_id": name, "path": f"{name}.mp4", "split": split, "action": action, "label": ""}
        for (name, split), action in names
    ]
    write_rows(folder / "videos.csv", rows)


def keys(folder: Path, *overrides: str) -> dict[str, str]:
    planner = Project.open(folder / "reelwright.yaml", overrides=overrides).planner()
    return {name: planner.plan(name).key for name in ("train", "plain", "scores")}


def test_measures_and_batches_are_of_one_action_at_a_time(acted: Path) -> None:
    project = Project.open(acted / "reelwright.yaml")
    assert project.run().exit_code == 0
    metrics = json.loads((project.report("scores") / "metrics.json").read_text(encoding="utf-8"))
    for task in metrics["tasks"].values():
        assert (list(task["actions"]), task["left_out"]) == (["one"], [])
    drawn = metrics["tasks"]["phase_classification"]["actions"]["one"]["logistic"]["draws"][0]["videos"]
    assert sorted(drawn) == ["a", "c"]
    assert metrics["classes"] == ["blue", "bright"]  # actions are none
    write_actions(acted, "one two three one one")
    result = Project.open(acted / "reelwright.yaml").run()
    assert result.exit_code == 1
    failed = {node.node: node.message for node in result.nodes if node.message}
    assert "with one_label, those of one label); 3 are too few" in failed["train"]


def test_actions_are_in_the_keys_of_what_reads_them_alone(acted: Path) -> None:
    first, measured_together = keys(acted), keys(acted, "scores.per_action=false", "train.views.one_label=false")
    write_actions(acted, "one two two one one")
    second = keys(acted)
    assert {name for name in first if first[name] != second[name]} == {"train", "scores"}
    assert keys(acted, "scores.per_action=false", "train.views.one_label=false") == measured_together
    text = (acted / "reelwright.yaml").read_text(encoding="utf-8")
    (acted / "reelwright.yaml").write_text(text.replace(", column: action", ""), encoding="utf-8")
    assert keys(acted, "scores.per_action=false", "train.views.one_label=false") == measured_together


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("labels.column=acton", "labels.column: the manifest has no column 'acton'. Did you mean 'action'"),
        ("labels.column=label", "labels.column: column 'label' of the manifest is empty"),
        ("labels.column=null", r"stages.scores.per_action: none of the 5 videos has a label of its own"),
        ("labels.column=null", r"stages.train.views.one_label: none of the 3 videos has a label of its own"),
    ],
)
def test_actions_that_are_not_there_are_told_before_work(acted: Path, override: str, match: str) -> None:
    with pytest.raises((ConfigError, InputError), match=match):
        Project.open(acted / "reelwright.yaml", overrides=[override]).run()
