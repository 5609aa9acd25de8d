"""Probe on a small store and in a pipeline: numbers, what is left out without labels, actions, and refusals."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.cli.run.scores import scores_table
from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo
from reelwright.models.metrics.probes.kendalls_tau import kendalls_tau
from reelwright.pipeline.project import Project
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.probe.config import ProbeConfig, TaskName
from reelwright.stages.probe.tasks import TASKS, headline, numbered_phases
from reelwright.stages.probe.work import run
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.tables.annotations import Annotation

CLASSES = ["pour", "reach", "squat", "swing"]  # two phases, whose order of time is the other way round, two actions
ALL = tuple(TASKS)


def add(toy, digest, split, *, seed, num_rows=24, is_labelled=True, action=-1, noise=0.2):
    """Reach, then pour; half a second a row."""
    generator, half = np.random.default_rng(seed), num_rows // 2 + seed % 3
    place = np.linspace(0, 1, num_rows)[:, None]
    rows = np.hstack([place, 1 - place, generator.normal(size=(num_rows, 2))])
    rows[:, 2:] *= noise
    toy.write("emb", digest, rows.astype(np.float32))
    segments = ((0.0, half / 2, 1), (half / 2, num_rows / 2, 0)) if is_labelled else ()
    toy.add(digest, split, Annotation(label=action, segments=segments))
    return rows.astype(np.float32)


def work_of(toy, **config):
    return Work(
        node="probe",
        stage="probe",
        key="p" * 32,
        config={"embeddings": "emb", **config},
        spec={},
        store=str(toy.root),
        inputs={"embeddings": (InputRef(node="emb", stage="embed", key="emb"),)},
        payload=toy.payload(classes=CLASSES),
    )


def probe(toy, **config):
    summary = run(work_of(toy, **config), toy.reporter)
    metrics = json.loads((toy.store.report("p" * 32) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["headline"] == summary
    return summary, metrics


@pytest.fixture
def labelled(toy):
    for seed, name in enumerate("abcd"):
        add(toy, name, "train", seed=seed)
    for seed, name in enumerate("xyz", 10):
        add(toy, name, "test", seed=seed, num_rows=20 + seed)
    return toy


def test_all_tasks(labelled):
    summary, metrics = probe(labelled, tasks=ALL, linear_probe={"epochs": 30, "learning_rate": 1.0})
    assert set(metrics["tasks"]) == set(ALL)
    assert metrics["skipped"] == {}
    assert (summary["num_videos"], summary["num_labelled"]) == (3, 3)
    between = summary["intervals"]  # none of progression, time retrieval and the linear probe
    assert set(between) > {"phase_accuracy", "phase_accuracy_svm", "precision@5", "average_precision@15"}
    assert not any(name.startswith(("progression", "time_error", "linear")) for name in between)
    assert all(low <= summary[name] <= high for name, (low, high) in between.items())
    right = [
        video["right_rows"] / video["num_rows"] for video in metrics["tasks"]["phase_classification"]["svm"]["videos"]
    ]
    assert min(right) <= between["phase_accuracy_svm"][0] or set(right) == {1.0}
    assert summary["phase_accuracy"] == summary["phase_accuracy@100%"] > 0.8 > summary["chance_phase_accuracy"]
    assert summary["phase_accuracy_svm@10%"] > 0.8
    assert summary["linear_accuracy"] > 0.8
    assert summary["progression_r2"] > 0.9
    assert summary["kendalls_tau"] > 0.8
    assert summary["precision@5"] > summary["chance_precision"]
    assert 0 < summary["dtw_error_seconds"] == pytest.approx(summary["dtw_error_rows"] / 2)
    assert labelled.reporter.totals == [len(ALL)]
    assert labelled.reporter.advanced == len(ALL)


def test_numbers_are_those_of_the_measures_on_rows_of_unit_length(toy):
    stored = [add(toy, name, "test", seed=seed) for seed, name in enumerate("xy")]
    for normalize in (True, False):
        summary, _ = probe(toy, tasks=["kendalls_tau"], stride=2, normalize=normalize)
        rows = [values.astype(np.float64) for values in stored]
        if normalize:
            rows = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in rows]
        expected = kendalls_tau([EmbeddedVideo(name="v", rows=values) for values in rows], stride=2)
        assert summary["kendalls_tau"] == pytest.approx(expected["kendalls_tau"], abs=1e-12)


def test_videos_without_labels_take_part_in_what_needs_none(labelled):
    before, _ = probe(labelled)
    add(labelled, "bare", "test", seed=20, is_labelled=False)
    after, metrics = probe(labelled)
    assert (after["num_videos"], after["num_labelled"]) == (4, 3)
    assert metrics["tasks"]["kendalls_tau"]["num_pairs"] == 12
    assert after["phase_accuracy"] == before["phase_accuracy"]
    assert after["precision@5"] == before["precision@5"]


def test_no_labels_at_all(toy):
    for seed, name in enumerate("xy"):
        add(toy, name, "test", seed=seed, is_labelled=False, action=2)  # an action is no phase
    summary, metrics = probe(toy)
    assert set(metrics["tasks"]) == {"kendalls_tau"}
    assert metrics["skipped"]["retrieval"] == "0 videos of splits have labelled rows, 2 are needed"
    assert set(summary) == {"num_videos", "num_labelled", "kendalls_tau"}
    assert "progression is left out: 0 videos of splits have labelled rows, 1 are needed" in toy.reporter.notes
    with pytest.raises(StageError, match=r"probe: nothing can be measured\. retrieval: 0 videos of splits"):
        probe(toy, tasks=["retrieval"])


def test_retrieval_by_time_needs_no_labels(toy):
    for seed, name in enumerate("xyz"):
        add(toy, name, "test", seed=seed, is_labelled=False, noise=0.01)
    summary, metrics = probe(toy, tasks=["time_retrieval", "kendalls_tau"], depths=[1])
    assert metrics["skipped"] == {}
    assert summary["time_error@1"] < 0.1 < 0.3 < summary["chance_time_error"]
    assert summary["time_error_seconds@1"] == pytest.approx(summary["time_error@1"] * 11.5)
    page = (toy.store.report("p" * 32) / "report.html").read_text(encoding="utf-8")
    assert "time error@1 ↓" in page
    assert "No frames to show" in page


def beside(toy, **config):
    """Rows of emb measured with those of raw beside them: the summary, metrics.json, and the page."""
    work = work_of(toy, beside=["raw"], **config)
    refs = {**work.inputs, "beside": (InputRef(node="raw", stage="embed", key="raw"),)}
    summary = run(dataclasses.replace(work, inputs=refs), toy.reporter)
    folder = toy.store.report("p" * 32)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return summary, metrics, (folder / "report.html").read_text(encoding="utf-8")


def test_rows_beside_are_measured_on_the_same_videos(labelled):
    alone, _ = probe(labelled)
    for place, entry in enumerate(list(labelled.videos)):
        rows = np.random.default_rng(place).normal(size=(20 + place, 3)).astype(np.float32)
        if entry["digest"] != "z":
            labelled.write("raw", entry["digest"], rows, name="embedding")
    summary, metrics, page = beside(labelled)
    assert (alone["num_videos"], summary["num_videos"]) == (3, 2)  # z has no rows beside
    assert summary["kendalls_tau"] > summary["beside"]["raw"]["kendalls_tau"]
    assert metrics["beside"]["raw"]["output"] == "embedding"
    assert set(metrics["beside"]["raw"]["tasks"]) == set(metrics["tasks"])
    lines = scores_table({"probe": summary}).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[2:]] == ["probe", "probe: raw"]
    cells = re.search(
        r"<td>Kendall&#39;s tau ↑</td><td class=\"number\">(.*?)</td><td class=\"number\">(.*?)</td>", page
    )
    shown = [summary["kendalls_tau"], summary["beside"]["raw"]["kendalls_tau"]]
    assert [cell.removeprefix("<b>").removesuffix("</b>") for cell in cells.groups()] == [f"{x:.3f}" for x in shown]
    assert cells[1].startswith("<b>")
    assert not cells[2].startswith("<b>")


def test_the_page_shows_shares_spreads_and_reasons(labelled):
    _, metrics = probe(labelled, tasks=["phase_classification", "retrieval"], fractions=[0.5, 1.0], classifiers=["svm"])
    page = (labelled.store.report("p" * 32) / "report.html").read_text(encoding="utf-8")
    found = metrics["tasks"]["phase_classification"]["svm"]
    assert f"{found['accuracy@50%']:.3f} ± {found['accuracy_spread@50%']:.3f}" in page
    assert "<script" not in page
    for video in labelled.videos:
        if video["digest"] in "yz":
            video["annotation"]["segments"] = []
    probe(labelled, tasks=["phase_classification", "retrieval"])
    page = (labelled.store.report("p" * 32) / "report.html").read_text(encoding="utf-8")
    assert "<li>retrieval: 1 videos of splits have labelled rows, 2 are needed</li>" in page


def test_the_page_says_which_videos_have_no_rows(labelled):
    work = work_of(labelled, tasks=["kendalls_tau"])
    left = [{"video_id": "<bad>", "split": "test", "why": "failed in emb: broken: no frame"}]
    run(replace(work, payload={**work.payload, "left_out": left, "num_left_out": 1}), labelled.reporter)
    page = (labelled.store.report("p" * 32) / "report.html").read_text(encoding="utf-8")
    assert '<td class="class">&lt;bad&gt;</td><td>test</td><td>failed in emb: broken: no frame</td>' in page
    (note,) = (note for note in labelled.reporter.notes if "no number" in note)
    assert note == "1 video of these splits is in no number: <bad> (failed in emb: broken: no frame)"


def test_the_page_shows_each_action(toy):
    for seed, name in enumerate("wxyz"):
        add(toy, name, "test", seed=10 + seed, action=2 + seed % 2)
    _, metrics = probe(toy, per_action=True, tasks=["kendalls_tau"])
    page = (toy.store.report("p" * 32) / "report.html").read_text(encoding="utf-8")
    for action, found in metrics["tasks"]["kendalls_tau"]["actions"].items():
        assert f'<td>{action}</td><td class="number">{found["kendalls_tau"]:.3f}</td>' in page


def test_a_video_of_one_row(toy):
    for name, num_rows in (("x", 1), ("y", 1), ("z", 9)):
        toy.write("emb", name, np.random.default_rng(num_rows).normal(size=(num_rows, 3)).astype(np.float32))
        toy.add(name, "test", Annotation())
    summary, metrics = probe(toy, tasks=["kendalls_tau", "time_retrieval"])
    assert metrics["tasks"]["kendalls_tau"]["num_undefined"] >= 4  # a query of one row, or a key of one, has no order
    assert "time_error@5" in summary


def test_no_report(labelled):
    probe(labelled, report=False)
    assert [path.name for path in labelled.store.report("p" * 32).iterdir()] == ["metrics.json"]


def test_one_labelled_video_of_each_kind(toy):
    """One to learn from, one to measure: no pair of labelled videos, so that what needs one is left out."""
    for name, split, is_labelled in (("a", "train", True), ("b", "train", False), ("x", "test", True)):
        add(toy, name, split, seed=ord(name), is_labelled=is_labelled)
    add(toy, "y", "test", seed=3, is_labelled=False)
    summary, metrics = probe(toy, tasks=ALL, linear_probe={"epochs": 30, "learning_rate": 1.0})
    assert set(metrics["skipped"]) == {"retrieval", "alignment"}
    assert summary["phase_accuracy@10%"] == summary["phase_accuracy"] > 0.8
    assert metrics["tasks"]["phase_classification"]["logistic"]["accuracy_spread@10%"] is None
    assert metrics["tasks"]["kendalls_tau"]["num_pairs"] == 2


def test_only_the_training_videos_lack_labels(toy):
    add(toy, "a", "train", seed=0, is_labelled=False)
    add(toy, "x", "test", seed=1)
    with pytest.raises(StageError, match="no video of train_splits has labelled rows"):
        probe(toy, tasks=["phase_classification"])


def test_phases_come_numbered_phases(labelled):
    """By ids the last phase, pour, comes first, and progress to the end of the video would be asked for."""
    _, metrics = probe(labelled, tasks=["progression"], fractions=[1.0])
    assert metrics["tasks"]["progression"]["num_phases"] == 1
    labels = np.array([-1, 5, 5, 3, 3, -1])
    video = EmbeddedVideo(name="v", rows=np.zeros((6, 1)), labels=labels)
    bare = EmbeddedVideo(name="bare", rows=np.zeros((2, 1)))
    (first,), (second, third) = numbered_phases([video], [video, bare])
    assert first.labels.tolist() == second.labels.tolist() == [-1, 0, 0, 1, 1, -1]
    assert third.labels is None
    assert numbered_phases([video], [], by_id=True)[0][0].labels.tolist() == [-1, 1, 1, 0, 0, -1]


def test_one_phase_has_no_progress(toy):
    for name, split in (("a", "train"), ("x", "test"), ("y", "test")):
        add(toy, name, split, seed=1)
    for video in toy.videos:
        video["annotation"]["segments"] = [[0.0, 99.0, 0]]
    summary, metrics = probe(toy)
    assert metrics["tasks"]["progression"] == {"r2": None, "num_phases": 1}
    assert "progression_r2" not in summary
    assert summary["phase_accuracy"] == 1


def test_per_action(toy):
    for seed, name in enumerate("abcd"):
        add(toy, name, "train", seed=seed, action=2 + seed % 2)
    for seed, name in enumerate("wxyz"):
        add(toy, name, "test", seed=10 + seed, action=2 + seed % 2, noise=0.9 * (seed % 2))
    add(toy, "lone", "test", seed=20, action=0)
    summary, metrics = probe(toy, per_action=True)
    tau = metrics["tasks"]["kendalls_tau"]
    assert {name: found["num_pairs"] for name, found in tau["actions"].items()} == {"squat": 2, "swing": 2}
    mean = np.mean([found["kendalls_tau"] for found in tau["actions"].values()])
    assert summary["kendalls_tau"] == pytest.approx(mean)
    assert tau["left_out"] == ["pour"]
    classification = metrics["tasks"]["phase_classification"]
    accuracies = [found["logistic"]["accuracy"] for found in classification["actions"].values()]
    assert summary["phase_accuracy"] == pytest.approx(np.mean(accuracies))
    assert accuracies[0] != accuracies[1]
    for video in toy.videos:  # phases of one action are not those of the other
        if video["annotation"]["label"] == 3:
            video["annotation"]["segments"] = [[*times, phase + 2] for *times, phase in video["annotation"]["segments"]]
    again, metrics = probe(toy, per_action=True, compat=True)
    assert again["phase_accuracy"] > 0.5
    progression = metrics["tasks"]["progression"]["actions"]
    assert [found["num_phases"] for found in progression.values()] == [1, 1]


def test_per_action_without_actions(labelled):
    with pytest.raises(StageError, match=r"no action has enough videos \(no video has a label of its own"):
        probe(labelled, per_action=True)


def test_one_content_counts_once(labelled):
    before, _ = probe(labelled, tasks=["kendalls_tau"])
    labelled.videos.append({**labelled.videos[-1], "video_id": "a copy"})
    after, _ = probe(labelled, tasks=["kendalls_tau"])
    assert after == before


def test_compat_takes_the_first_videos(labelled):
    _, metrics = probe(labelled, tasks=["phase_classification"], compat=True, fractions=[0.5])
    draws = metrics["tasks"]["phase_classification"]["logistic"]["draws"]
    assert [draw["videos"] for draw in draws] == [["name of a", "name of b"]]


def test_outputs(toy):
    toy.write("emb", "x", np.ones((3, 2, 4), np.float32), name="tokens")
    toy.add("x", "test", Annotation())
    with pytest.raises(StageError, match=r"output 'tokens' has rows of shape \(2, 4\); \(D,\) is needed\. Set output"):
        probe(toy, tasks=["kendalls_tau"])


def test_rows_that_are_not_numbers(toy):
    toy.write("emb", "x", np.full((3, 2), np.nan, np.float32))
    toy.add("x", "test", Annotation())
    with pytest.raises(StageError, match="probe: video 'name of x': 3 of 3 rows hold NaN"):
        probe(toy, tasks=["kendalls_tau"])


def test_no_video_of_the_splits_has_rows(labelled):
    with pytest.raises(StageError, match="probe: no video of the splits val has rows"):
        probe(labelled, splits=["val"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["retrieval", "retrieval"]}, "tasks must not repeat"),
        ({"train_splits": []}, "phase_classification, progression: learns from labelled videos; give train_splits"),
        ({"tasks": []}, "tasks"),
        ({"fractions": [0.0]}, "fractions"),
        ({"tasks": ["clustering"]}, "tasks"),
        ({"beside": ["emb"]}, "beside must name other nodes than embeddings, each once; got emb"),
        ({"beside": ["a", "a"]}, "beside must name other nodes"),
    ],
)
def test_settings_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(ProbeConfig, {"embeddings": "emb", **settings}, where="probe")


def test_settings_that_say_nothing_enter_no_key():
    tau = ProbeConfig(embeddings="emb", tasks=("kendalls_tau",))
    assert tau.spec() == ProbeConfig(embeddings="emb", tasks=("kendalls_tau",), seeds=(7,), depths=(1,)).spec()
    assert tau.spec() != ProbeConfig(embeddings="emb", tasks=("kendalls_tau",), stride=2).spec()
    by_time = [ProbeConfig(embeddings="emb", tasks=("kendalls_tau",), stride_seconds=1, stride=each) for each in (1, 2)]
    assert by_time[0].spec() == by_time[1].spec() != tau.spec()
    named = [ProbeConfig(embeddings="emb", beside=(name,)).spec() for name in ("raw", "other", "raw")]
    assert named[0] == named[2] != named[1]  # pages and scores call rows beside by name
    assert "names" not in tau.spec()
    assert tau.wanted_splits() == ("test",)
    assert tau.named_splits() == {"splits": (("test",), True)}
    assert ProbeConfig(embeddings="emb").wanted_splits() == ("test", "train")


def test_every_task_has_a_measure_and_scores():
    assert set(TASKS) == set(TaskName.__args__)
    assert headline("retrieval", {"precision@5": 0.5, "num_queries": 3, "average_precision@5": None}) == {
        "precision@5": 0.5
    }
    assert headline("progression", {"r2@10%": 0.5, "r2": 0.25}) == {
        "progression_r2@10%": 0.5,
        "progression_r2": 0.25,
    }


def test_in_a_pipeline(copied):
    """Scores beside those of evaluate; nothing to do a second time; other labels are noticed."""
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    node = "  phases: {uses: probe, embeddings: embed, fractions: [0.4, 1], depths: [1]}\n"
    (copied / "reelwright.yaml").write_text(text + node, encoding="utf-8")
    result = Project.open(copied / "reelwright.yaml").run()
    assert result.exit_code == 0
    (found,) = [each for each in result.nodes if each.node == "phases"]
    assert {"phase_accuracy", "progression_r2", "precision@1"} < set(found.outputs)
    assert {"phase accuracy", "Kendall's tau"} <= set(
        re.split(r"\s{2,}", scores_table({"phases": found.outputs}).splitlines()[0])
    )
    folder = Project.open(copied / "reelwright.yaml").report("phases")
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["headline"]["num_videos"] == 2
    shown = CliRunner().invoke(app, ["report", "phases", "--config", str(copied / "reelwright.yaml")])
    assert shown.output.strip() == f"phases: {folder / 'report.html'}"
    assert Project.open(copied / "reelwright.yaml").run().nothing_to_do
    segments = (copied / "segments.csv").read_text(encoding="utf-8")
    (copied / "segments.csv").write_text(segments.replace("blue", "navy"), encoding="utf-8")
    again = Project.open(copied / "reelwright.yaml").run().nodes
    assert {each.node: each.state for each in again}["phases"] == "ran"
