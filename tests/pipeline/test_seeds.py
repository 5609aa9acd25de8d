"""Nodes of several seeds: what they become, what is refused, and that each seed is a run of its own."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.models.metrics.metric import mean_and_deviation
from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.pipeline.inspect.trained_model import _written
from reelwright.pipeline.plan.graph import build_graph
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, SilentReporter, Work
from reelwright.stages.summary.config import SummaryConfig
from reelwright.stages.summary.work import is_share, metric_text
from reelwright.stages.summary.work import run as summarize
from reelwright.storage.errors import ConfigError, InputError, StageError
from reelwright.storage.store import Store
from reelwright.storage.tables.manifest import read_manifest

STAGES = """
videos: {folder: videos}
stages:
  frames: {uses: decode}
  embed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none}
  train: {uses: train, embeddings: [embed], task: video, window: {length: 2}, model: {name: linear}}
  predict: {uses: predict, run: train}
  scores: {uses: evaluate, predictions: predict, embeddings: embed}
"""


def load(folder: Path, *overrides: str) -> PipelineFile:
    path = folder / "reelwright.yaml"
    path.write_text(STAGES, encoding="utf-8")
    return load_pipeline(path, overrides)


def test_what_reads_a_node_of_several_seeds_is_done_for_each(tmp_path: Path) -> None:
    file = load(tmp_path, "train.seeds=[7,2]", "train.epochs=3")
    assert list(file.nodes) == [
        *("frames", "embed", "train@7", "train@2", "predict@7", "predict@2", "scores@7", "scores@2", "scores"),
    ]
    assert [(file.nodes[name].seed, file.nodes[name].epochs) for name in ("train@7", "train@2")] == [(7, 3), (2, 3)]
    graph = build_graph(file)
    assert graph.nodes["predict@2"].parents == ("train@2", "embed")
    assert graph.nodes["scores@2"].inputs["predictions"] == ("predict@2",)
    assert graph.nodes["scores"].inputs == {"scores": ("scores@7", "scores@2")}
    assert graph.named("train") == ["train@7", "train@2"]
    assert set(graph.named("scores")) == {"scores@7", "scores@2", "scores"}
    with pytest.raises(ConfigError, match="no node 'trian'"):
        graph.named("trian")
    plain = load(tmp_path, "train.seed=2", "train.epochs=3")
    assert plain.nodes["train"].spec() == file.nodes["train@2"].spec()
    assert list(load(tmp_path, "train.seeds=null").nodes) == ["frames", "embed", "train", "predict", "scores"]


def test_seeds_meet_in_one_node_and_in_a_summary_of_ones_own(tmp_path: Path) -> None:
    """What reads two nodes reads those of its seed; a summary in the file reads all; a seed may be of an encoder."""
    more = "stages.all={uses: summary, scores: [scores, others]}"
    others = ["stages.others={uses: evaluate, predictions: again}", "stages.again={uses: predict, run: train}"]
    file = load(tmp_path, "embed.seeds=2", "train.seeds=2", more, *others)
    graph = build_graph(file)
    assert graph.nodes["train@1"].parents == ("embed@1",)
    assert graph.nodes["scores@1"].parents == ("predict@1", "embed@1")
    assert file.nodes["all"].scores == ("scores@0", "scores@1", "others@0", "others@1")


def test_each_fold_is_held_out_once_and_scored(tmp_path: Path) -> None:
    """The nodes are those that a person would write, so they have the same keys."""
    people = "videos.splits=[anna,ben,carl]"
    file = load(tmp_path, "train.folds=all", people, "stages.rows={uses: probe, embeddings: own}", *OWN)
    assert [name for name in file.nodes if name.startswith("scores")] == [
        *("scores@anna", "scores@ben", "scores@carl", "scores"),
    ]
    assert file.nodes["scores@ben"].splits == file.nodes["rows@ben"].splits == ("ben",)
    assert file.nodes["rows@ben"].train_splits == ("anna", "carl")
    plain = load(tmp_path, "train.train_splits=[anna,carl]", "train.val_splits=[]", people)
    assert plain.nodes["train"].spec() == file.nodes["train@ben"].spec()
    some = load(tmp_path, "train.folds=[anna,ben]", "train.val_splits=[carl]", people)
    assert (some.nodes["train@anna"].train_splits, some.nodes["train@anna"].val_splits) == (("ben",), ("carl",))
    tune = "stages.tune={uses: finetune, frames: frames, spatial: embed, temporal: train}"
    tuned = load(tmp_path, "train.folds=all", people, tune).nodes["tune@anna"]  # anna is scored, so it learns the same
    assert (tuned.train_splits, tuned.val_splits) == (("ben", "carl"), ())
    assert _written("train@anna") == "train-anna"
    assert _written("train@3") == "train-seed3"


def test_what_learns_behind_a_fold_does_not_see_what_is_held_out_either(tmp_path: Path) -> None:
    """Else it would be scored on what it learned from: splits are train, val and test unless the file says others."""
    tune = "stages.tune={uses: finetune, spatial: embed, temporal: train}"
    drawn = "stages.drawn={uses: render, predictions: predict}"
    file = load(tmp_path, "train.folds=all", tune, "predict.run=tune", "predict.frames=frames", drawn)
    for held in ("train", "val", "test"):
        learns = file.nodes[f"tune@{held}"]
        assert learns.train_splits == file.nodes[f"train@{held}"].train_splits
        assert held not in learns.wanted_splits()
        assert file.nodes[f"scores@{held}"].splits == file.nodes[f"drawn@{held}"].splits == (held,)
    with pytest.raises(
        ConfigError, match=r"stages.tune.train_splits: it reads .* folds train, val, test, each .* leave it out"
    ):
        load(tmp_path, "train.folds=all", tune, "stages.tune.train_splits=[train]")
    chosen = load(tmp_path, "train.folds=[train,test]", tune, "stages.tune.val_splits=[val]")
    assert chosen.nodes["tune@test"].val_splits == ("val",)
    with pytest.raises(ConfigError, match=r"stages.tune.val_splits: it reads"):
        load(tmp_path, "train.folds=all", tune, "stages.tune.val_splits=[val]")
    with pytest.raises(ConfigError, match=r"stages.scores.splits: it reads"):
        load(tmp_path, "train.folds=all", "scores.splits=[test]")


OWN = ["stages.own={uses: embed, embeddings: [embed], run: train}"]
TUNE = "stages.tune={uses: finetune, frames: frames, spatial: embed, temporal: train, SET}"
PEOPLE = "videos.splits=[anna,ben,c d]"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.folds=[anna]"], r"folds: \['anna'\] is not allowed: all \(of videos.splits\), or a list of two"),
        (["train.folds=[anna,anna]"], "is not allowed: all"),
        (["train.folds=3"], "folds: 3 is not allowed"),
        (["train.folds=[anna,dan]"], "'dan' is none of videos.splits.*column of the manifest"),
        (["train.folds=all"], "'c d' is none of videos.splits .*, or has other letters"),
        (["train.folds=[anna,ben]", "train.seeds=2"], "folds and seeds: give one of the two"),
        (["train.folds=[anna,ben]", "train.train_splits=[anna]"], "folds and train_splits: give one of the two"),
        (["train.folds=[anna,ben]", "train.val_splits=[ben]"], "val_splits: ben is a fold"),
        (["train.folds=[anna,ben]", "scores.splits=[anna]"], "scores.splits: it reads a node of the folds"),
        (
            ["train.folds=[anna,ben]", TUNE.replace("SET", "train_splits: [anna]")],
            "tune.train_splits: it reads a node of the folds",
        ),
        (
            ["train.folds=[anna,ben]", TUNE.replace("SET", "val_splits: [ben]")],
            "tune.val_splits: it reads a node of the folds",
        ),
        (["predict.folds=all"], "predict does not learn from videos. Give folds to the node that does"),
        (["train.folds=[anna,ben]", "embed.seeds=2"], "train has seeds anna, ben, but embed, which it reads, has 0, 1"),
        (["videos.split_column=subject"], "split_column is a column of the manifest, and there is none"),
    ],
)
def test_folds_that_say_nothing_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, PEOPLE, *overrides)


def test_a_column_of_the_manifest_may_have_the_splits(tmp_path: Path) -> None:
    table = tmp_path / "videos.csv"
    table.write_text("path,subject,split\na.mp4,anna,train\nb.mp4,ben,test\n", encoding="utf-8")
    read = read_manifest(table, root=tmp_path, default_split="train", split_column="subject")
    assert [(video.split, video.extra) for video in read] == [
        ("anna", {"subject": "anna"}),
        ("ben", {"subject": "ben"}),
    ]
    with pytest.raises(InputError, match="person"):
        read_manifest(table, root=tmp_path, default_split="train", split_column="person")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scores.seeds=2"], r"stages.scores.seeds: evaluate has no seed. Give seeds to the node above it"),
        (["train.seeds=2", "train.seed=1"], r"seed: 1 and seeds: 2; give one of the two"),
        (["train.seeds=0"], "seeds: 0 is not allowed: how many"),
        (["train.seeds=[1,1]"], r"seeds: \[1, 1\] is not allowed"),
        (["train.seeds=[-1]"], r"seeds: \[-1\] is not allowed"),
        (["train.seeds=true"], "seeds: True is not allowed"),
        (["train.seeds=many"], "seeds: 'many' is not allowed"),
        (["train.seeds=3", "embed.seeds=2"], "train has seeds 0, 1, 2, but embed, which it reads, has 0, 1"),
        (["embed.seeds=2", "embed.weights=hub"], "stages.embed.seeds: its settings draw nothing with a seed"),
        (["train.seeds=2", "stages.train@1={uses: predict, run: train}"], "a node's name has letters"),
        (["train.seeds=2", "scores.predictions=predict@0"], r"'predict@0' is no node|has seeds"),
    ],
    ids=["no seed", "both", "none", "twice", "negative", "bool", "text", "others", "no use", "name", "by number"],
)
def test_wrong_seeds_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    if overrides[-1].startswith("scores.predictions"):  # one seed can be named: then only that is scored
        assert build_graph(load(tmp_path, *overrides)).nodes["scores"].parents == ("predict@0", "embed")
        return
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, *overrides)


def test_mean_and_deviation() -> None:
    means, deviations = mean_and_deviation([{"a": 1, "b": 2.0}, {"a": 4}, {"a": 7, "c": 1}])
    assert (means, deviations) == ({"a": 4.0}, {"a": 3.0})
    assert mean_and_deviation([{"a": 1}]) == ({"a": 1.0}, {})


def write_scores(store: Store, **headline: float) -> InputRef:
    key = f"{len(headline)}{sum(headline.values())}"
    store.report(key).mkdir(parents=True)
    (store.report(key) / "metrics.json").write_text(json.dumps({"headline": {**headline, "beside": {"x": 1}}}))
    return InputRef(node=f"scores@{key}", stage="evaluate", key=key)


def summary_work(store: Store, *inputs: InputRef) -> Work:
    config = {"scores": [reference.node for reference in inputs]}
    return Work(
        node="scores",
        stage="summary",
        key="k",
        config=config,
        spec={},
        store=str(store.root),
        inputs={"scores": inputs},
    )


def test_a_summary_by_hand(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    common = {"num_videos": 4, "chance_top1": 0.25}
    inputs = [write_scores(store, top1=0.5, edit=40.0, **common), write_scores(store, top1=0.7, **common)]
    notes: list[str] = []
    reporter = SilentReporter()
    reporter.note = notes.append  # type: ignore[method-assign]
    found = summarize(summary_work(store, *inputs), reporter)
    std = pytest.approx(statistics.stdev([0.5, 0.7]))
    assert found == {
        "num_runs": 2,
        "num_videos": 4,
        "top1": pytest.approx(0.6),
        "chance_top1": 0.25,
        "std": {"top1": std},
    }
    assert notes == ["not of all nodes, so without a mean: edit"]
    others = [write_scores(store, val_loss=loss, mine_latency=12.5, step_delay_seconds=loss) for loss in (0.5, 0.25)]
    summarize(summary_work(store, *others), SilentReporter())
    page = (store.report("k") / "report.html").read_text(encoding="utf-8")
    assert all(f">{text}<" in page for text in ("0.375", "12.5", "0.38 s"))  # neither is a share
    summarize(summary_work(store, *inputs), SilentReporter())
    page = (store.report("k") / "report.html").read_text(encoding="utf-8")
    assert all(
        text in page for text in ("60.0 %", "14.1 %", "50.0 %", "70.0 %", f'href="../{inputs[0].key}/report.html"')
    )
    with pytest.raises(StageError, match="have no measure in common"):
        summarize(summary_work(store, inputs[0], write_scores(store, tau=1.0)), SilentReporter())


def test_a_summary_of_one_node_twice_is_refused() -> None:
    """It would be of one run, with no deviation."""
    with pytest.raises(ConfigError, match="scores names 'one' more than once"):
        parse_config(SummaryConfig, {"scores": ["one", "two", "one"]}, where="scores")


def test_each_seed_is_a_run_of_its_own(copied: Path) -> None:
    """The finished project has seed 0 already; two more are trained, and a third does not touch them."""
    states = {}
    for seeds in (2, 3):
        result = Project.open(copied / "reelwright.yaml", overrides=[f"train.seeds={seeds}"]).run()
        assert result.exit_code == 0
        states[seeds] = {node.node: node.state for node in result.nodes if node.state == "ran"}
    assert list(states[2]) == ["train@1", "predict@1", "scores@1", "scores"]
    assert list(states[3]) == ["train@2", "predict@2", "scores@2", "scores"]
    outputs = {node.node: node.outputs for node in result.nodes}
    values = [outputs[f"scores@{seed}"]["mean_average_precision"] for seed in range(3)]
    assert outputs["scores"]["mean_average_precision"] == pytest.approx(statistics.fmean(values))
    assert outputs["scores"]["std"]["mean_average_precision"] == pytest.approx(statistics.stdev(values))
    only = Project.open(copied / "reelwright.yaml", overrides=["train.seeds=3"]).run(
        until=["train"], observer=SilentObserver()
    )
    assert {node.node for node in only.nodes} == {"frames", "embed", "train@0", "train@1", "train@2"}
    config = ["-c", str(copied / "reelwright.yaml")]
    mean, std = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
    shown = CliRunner().invoke(app, ["run", *config, "-S", "train.seeds=3", "--force", "scores@2"]).stdout
    assert f"{mean:.1f} ± {std:.1f} (" in [line for line in shown.splitlines() if line.startswith("scores  ")][-1]
    grid = CliRunner().invoke(app, ["run", *config, "-m", "train.seed=0,1,2"]).stdout.splitlines()
    assert f"{mean:.1f} ± {std:.1f}" in next(line for line in grid if "of 3 seeds" in line)
    for limit in ([], ["--sort", "top1", "--limit", "2"]):  # the mean is of all, not of the best
        compared = CliRunner().invoke(app, ["compare", *config, *limit]).stdout
        assert f"{mean:.1f} ± {std:.1f}" in compared.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top1", 0.5, "50.0 %"),
        ("f1@50", 50.0, "50.0 %"),
        ("phase_accuracy@12.5%", 0.5, "50.0 %"),
        ("phase_error_rows", 0.5, "0.5"),
        ("step_false_positives", 1.0, "1"),
        ("time_error@5", 0.5, "50.0 %"),
        ("time_error_seconds@5", 0.5, "0.50 s"),
        ("val_loss", 0.5, "0.5"),
    ],
)
def test_what_is_no_share_is_not_in_percent_however_small(name: str, value: float, text: str) -> None:
    assert metric_text(value, name, share=is_share(name, [value])) == text
