"""Files of loggers lie outside of runs: `verify` does not mind them, `gc` takes them with their run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.gc import Limits, collect
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.fit.loop.loggers import MlflowLogger, WandbLogger, notify
from reelwright.storage.results.runs import RunFolder
from tests.small_project import put_back

# As Weights & Biases does: a folder of its own in `dir`, which it goes on writing to after the run.
WANDB = """
import json
from pathlib import Path

class Error(Exception):
    pass

class Run:
    def __init__(self, folder, about):
        self.folder, self.about, self.summary = folder, about, {}

    def log(self, values, step):
        with (self.folder / "run.wandb").open("a") as file:
            file.write(f"{step} {sorted(values)}\\n")

    def finish(self, exit_code):
        values = {**self.about, "summary": self.summary, "exit_code": exit_code}
        (self.folder / "wandb-summary.json").write_text(json.dumps(values))

def init(*, id, config, dir, resume, **about):
    folder = Path(dir) / "wandb" / f"offline-run-{id}"
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, about)
"""


@pytest.fixture
def project(restorable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    put_back(restorable)
    return Project.open(restorable / "reelwright.yaml", overrides=["train.log_to=[wandb]", "train.seed=7"])


def test_verify_and_gc_know_the_files_of_loggers(project: Project) -> None:
    assert project.run().exit_code == 0
    key = project.planner().plan("train").key
    folder = project.file.store.root / "loggers" / key
    assert (folder / "wandb" / f"offline-run-{key}" / "run.wandb").read_text().startswith("1 ")
    said = json.loads((folder / "wandb" / f"offline-run-{key}" / "wandb-summary.json").read_text())
    assert said["name"] == "train: linear, lr 0.001, batch 8, seed 7"
    assert (said["group"], said["job_type"], said["tags"]) == ("train", "train", ["train", "linear"])
    assert said["exit_code"] == 0
    assert {"final/epochs", "final/train_loss", "final/best_epoch"} == set(said["summary"])
    events = EventAccumulator(str(project.file.store.run(key))).Reload()
    assert events.Scalars("final/epochs")[0].value == 2
    assert "_hparams_/session_start_info" in events.summary_metadata
    (folder / "wandb" / "debug.log").write_text("sent later")
    assert verify(project.file, whole=True).problems == ()
    assert not [path for path in project.file.store.run(key).rglob("*") if "wandb" in path.name]
    before = Project.open(project.file.path)  # without the seed: another run
    gone = collect([before.file], SilentObserver(), limits=Limits(guard_seconds=0.0), only_these=True).going
    assert folder in {garbage.path for garbage in gone}
    assert not folder.exists()


def test_files_that_an_older_release_left_among_those_of_a_run_do_not_stop_repair(project: Project) -> None:
    assert project.run().exit_code == 0
    run = project.file.store.run(project.planner().plan("train").key)
    (run / "wandb").mkdir()
    (run / "wandb" / "run.wandb").write_text("before")
    weights = project.record("train").outputs["weights"]
    record = project.file.store.node(run.name) / "record.json"
    record.unlink()
    assert project.run(until=["train"]).exit_code == 0  # its record lists them, as that release did
    (run / "wandb" / "run.wandb").write_text("sent later")
    assert not verify(project.file).is_whole
    fixed = repair(project.file, SilentObserver())
    assert (fixed.problems, [result.node for result in fixed.results]) == ((), [])
    assert project.record("train").outputs["weights"] == weights
    assert project.run().nothing_to_do


def test_a_run_of_mlflow_goes_on_until_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str | None] = []
    ended: dict[str, int] = {}
    notes: list[str] = []

    class Refused(Exception):  # noqa: N818 - as MLflow's
        pass

    def start_run(*, run_id: str | None = None, **_: Any) -> Any:
        started.append(run_id)
        if run_id == "gone":
            raise Refused("no run is called gone")
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"run{len(started)}"))

    mlflow = SimpleNamespace(
        MlflowException=Refused,
        start_run=start_run,
        log_params=lambda _: None,
        log_metrics=lambda _: None,
        end_run=lambda *, status: ended.update({status: ended.get(status, 0) + 1}),
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    for final in ({}, {"epochs": 2.0}, {"epochs": 2.0}):  # interrupted; gone on with; trained anew
        MlflowLogger(RunFolder(tmp_path / "runs" / "k"), first_epoch=1, about={}, note=notes.append).close(final)
    assert started == [None, "run1", None]
    assert ended == {"KILLED": 1, "FINISHED": 2}
    assert not notes
    folder = RunFolder(tmp_path / "runs" / "other")
    folder.loggers.mkdir(parents=True)
    (folder.loggers / "mlflow_run_id").write_text("gone")
    MlflowLogger(folder, first_epoch=4, about={}, note=notes.append).close({})
    assert started[3:] == ["gone", None]
    assert (folder.loggers / "mlflow_run_id").read_text() == "run5"
    (folder.loggers / "mlflow_run_id").unlink()
    MlflowLogger(folder, first_epoch=4, about={}, note=notes.append).close({})
    assert notes == [
        "warning: mlflow: its run gone cannot be gone on with: no run is called gone; another run begins with epoch 4",
        "warning: mlflow: its id was lost; another run begins with epoch 4",
    ]


def test_a_logger_that_fails_ends_no_training(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it raises of its own is said, and the others are told all the same; what is our slip is raised."""
    module = importlib.import_module("wandb")

    def fail(*_: Any, **__: Any) -> None:
        raise module.Error("the server went away")

    monkeypatch.setattr(module.Run, "log", fail)
    monkeypatch.setattr(module.Run, "finish", fail)
    assert project.run().exit_code == 0
    run = RunFolder(project.file.store.run(project.planner().plan("train").key))
    assert run.is_complete
    assert len(run.metrics()) == 2
    notes: list[str] = []
    loggers = [WandbLogger(run, first_epoch=1, about={}, note=notes.append)] * 2
    notify(loggers, "the end", lambda logger: logger.close({}), note=notes.append)
    assert notes == ["warning: WandbLogger did not take the end: the server went away; metrics.jsonl has it"] * 2
    with pytest.raises(ZeroDivisionError):
        notify(loggers, "the end", lambda _: 1 / 0, note=notes.append)  # type: ignore[arg-type, return-value]
