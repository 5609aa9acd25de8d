"""A sixth system, all of it outside the package: the examples of docs/plug-ins.md over five short videos.

Its own encoder, temporal model with two outputs, objective with a buffer, and evaluator learn from rows and from
frames, predict, measure, go on exactly where they were interrupted, and run on dask and in several processes.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from reelwright.pipeline.project import Project
from reelwright.storage.errors import Interrupted
from tests.page_code import write_files
from tests.small_project import write_project

pytestmark = [pytest.mark.slow, pytest.mark.sixth_system, pytest.mark.timeout(500)]


def opened(folder: Path, *overrides: str) -> Project:
    return Project.open(folder / "reelwright.yaml", overrides=overrides)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The system, run to its end."""
    folder = write_project(tmp_path_factory.mktemp("sixth"))
    write_files("plug-ins.md", folder)
    assert opened(folder).run().exit_code == 0
    return folder


@pytest.fixture
def system(made: Path, tmp_path: Path) -> Path:
    """A copy to change, in a store of its own; its videos are those of the original."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.mp4"))
    path = tmp_path / "reelwright.yaml"
    path.write_text(path.read_text().replace("manifest: videos.csv", f"manifest: videos.csv, root: {made}"))
    store = opened(tmp_path).file.store
    store.project(made / "reelwright.yaml").rename(store.project(path))  # last records are known by path
    return tmp_path


def test_it_learns_from_rows_and_from_frames_predicts_and_is_measured(made: Path) -> None:
    project = opened(made)
    assert {plan.state for plan in project.status()} == {"up to date"}
    for node in ("train", "tune"):
        line = project.trained(node).metrics()[-1]
        assert line["train_loss"] == pytest.approx(line["train_loss_fit"] + line["train_loss_pull"], rel=1e-4)
    assert all(0 <= line["val_worst_recall"] <= 1 for line in project.trained("train").metrics())
    record = project.record("scores")
    assert record is not None
    metrics = json.loads((project.report("scores") / "metrics.json").read_text())
    measured = metrics["evaluators"]["test"]["Steadiness"]["changes_per_video"]
    assert record.outputs["Steadiness_changes_per_video"] == measured
    rows = project.predictions("predict").rows(columns=["video_id", "label"]).to_pylist()
    changes = sum(a["video_id"] == b["video_id"] and a["label"] != b["label"] for a, b in itertools.pairwise(rows))
    assert measured == changes / len({row["video_id"] for row in rows})
    assert "changes_per_video" in (project.report("scores") / "report.html").read_text()


@pytest.mark.parametrize("node", ["train", "tune"])
def test_it_goes_on_exactly_where_it_was_interrupted(system: Path, node: str) -> None:
    whole = opened(system).record(node)
    assert whole is not None
    shutil.rmtree(opened(system).trained(node).path)
    interruptions = 0
    while True:
        try:
            result = opened(system, f"{node}.max_minutes=1e-6").run(only=[node])
        except Interrupted:
            interruptions += 1
        else:
            assert result.exit_code == 0
            break
        assert interruptions < 50
    again = opened(system).record(node)
    assert again is not None
    assert interruptions >= 2
    assert again.outputs["weights"] == whole.outputs["weights"]


def test_it_runs_on_dask_with_the_same_results(system: Path) -> None:
    before = {name: opened(system).record(name) for name in ("embed", "predict", "scores")}
    shutil.rmtree(system / ".reelwright")
    result = opened(system).run(cluster={"executor": "dask", "workers": 1})
    assert result.exit_code == 0, result
    for name, record in before.items():
        again = opened(system).record(name)
        assert record is not None
        assert again is not None
        assert again.key == record.key
    found, known = (dict(record.outputs) for record in (again, before["scores"]))  # type: ignore[union-attr]
    assert found.pop("intervals") == known.pop("intervals")
    assert found == pytest.approx(known)


def test_it_trains_in_several_processes(system: Path) -> None:
    result = opened(system, "train.processes=2", "train.device=cpu").run(until=["train"], force=["train"])
    assert result.exit_code == 0, result


@pytest.mark.parametrize(
    ("file", "old", "new", "first", "reason"),
    [
        ("tiny.py", "stride=4", "stride=2", "embed", "encoder tiny.py:Tiny: source changed"),
        ("net.py", "GELU", "ReLU", "train", "model net.py:Net: source changed"),
        ("loss.py", "0.9 *", "0.8 *", "train", "objective loss.py:Loss: source changed"),
        ("steadiness.py", "", "", None, None),
        ("steadiness.py", ">= self", "> self", "scores", "evaluators[0] steadiness.py:Steadiness: source changed"),
    ],
)
def test_a_changed_source_makes_anew_what_rests_on_it(
    system: Path, file: str, old: str, new: str, first: str | None, reason: str | None
) -> None:
    text = (system / file).read_text()
    if first is None:
        (system / file).write_text(f"# changed\n{text}")
        assert {plan.state for plan in opened(system).status()} == {"up to date"}
        return
    assert old in text
    (system / file).write_text(text.replace(old, new))
    plans = opened(system).status()
    names = [plan.node.name for plan in plans]
    stale = [plan.node.name for plan in plans if plan.state != "up to date"]
    assert stale == names[names.index(first) :]
    assert reason in next(plan.reasons for plan in plans if plan.node.name == first)
    assert opened(system).run().exit_code == 0
