"""Files of loggers lie outside of runs: `verify` does not mind them, `gc` takes them with their run."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.gc import Limits, collect
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.fit.loop import servers
from reelwright.stages.fit.loop.loggers import notify, open_loggers
from reelwright.stages.fit.loop.servers import MlflowLogger, WandbLogger
from reelwright.storage.errors import ConfigError
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


class Refused(Exception):  # noqa: N818 - as MLflow's
    def __init__(self, text: str, error_code: str) -> None:
        super().__init__(text)
        self.error_code = error_code


class Mlflow:
    """As MLflow on a server: runs by their ids, in the order they began; one at a time is active."""

    MlflowException = Refused

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.active = ""
        self.problem: Refused | None = None  # of every request

    def _answer(self) -> None:
        if self.problem is not None:
            raise self.problem

    def get_run(self, run_id: str) -> Any:
        self._answer()
        if run_id not in self.runs:
            raise Refused(f"no run is called {run_id}", "RESOURCE_DOES_NOT_EXIST")
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id, lifecycle_stage=self.runs[run_id]["stage"]))

    def start_run(self, *, run_id: str | None = None, **_: Any) -> Any:
        self._answer()
        assert not self.active
        self.active = run_id or f"run{len(self.runs)}"
        self.runs.setdefault(self.active, {"stage": "active", "params": 0, "steps": [], "ended": []})
        return SimpleNamespace(info=SimpleNamespace(run_id=self.active))

    def log_params(self, _: Any) -> None:
        self._answer()
        self.runs[self.active]["params"] += 1

    def log_metrics(self, values: Mapping[str, float], step: int = -1) -> None:
        self._answer()
        self.runs[self.active]["steps"].append((step, dict(values)))

    def end_run(self, *, status: str) -> None:
        self._answer()
        self.runs[self.active]["ended"].append(status)
        self.active = ""


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    found = Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", found)
    return found


def test_a_run_of_mlflow_goes_on_until_it_is_finished(tmp_path: Path, mlflow: Mlflow) -> None:
    notes: list[str] = []

    def train(run: str, final: dict[str, float], *, first_epoch: int = 1) -> RunFolder:
        logger = MlflowLogger(RunFolder(tmp_path / "runs" / run), first_epoch=first_epoch, about={}, note=notes.append)
        logger.open()
        logger.close(final)
        return RunFolder(tmp_path / "runs" / run)

    for final in ({}, {"epochs": 2.0}, {"epochs": 2.0}):  # interrupted; gone on with; trained anew
        train("k", final)
    assert {name: run["ended"] for name, run in mlflow.runs.items()} == {
        "run0": ["KILLED", "FINISHED"],
        "run1": ["FINISHED"],
    }
    assert all(run["params"] == 1 for run in mlflow.runs.values())
    assert not notes
    folder = RunFolder(tmp_path / "runs" / "other")
    folder.loggers.mkdir(parents=True)
    (folder.loggers / "mlflow_run_id").write_text("gone")
    train("other", {}, first_epoch=4)
    assert (folder.loggers / "mlflow_run_id").read_text() == "run2"
    mlflow.runs["run2"]["stage"] = "deleted"
    train("other", {}, first_epoch=5)
    (folder.loggers / "mlflow_run_id").unlink()
    train("other", {}, first_epoch=6)
    assert list(mlflow.runs) == ["run0", "run1", "run2", "run3", "run4"]
    assert notes == [
        "warning: mlflow: its run gone cannot be gone on with: no run is called gone; another run begins with epoch 4",
        "warning: mlflow: its run run2 cannot be gone on with: it was deleted; another run begins with epoch 5",
        "warning: mlflow: its id was lost; another run begins with epoch 6",
    ]


@pytest.mark.parametrize("is_first", [True, False], ids=["a new run", "a run that goes on"])
def test_a_server_that_is_not_reached_for_a_while_gets_all_in_one_run(
    tmp_path: Path, mlflow: Mlflow, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "PAUSE", 0)
    notes: list[str] = []
    folder = RunFolder(tmp_path / "runs" / "k")
    if not is_first:
        before = MlflowLogger(folder, first_epoch=1, about={}, note=notes.append)
        before.open()
        before.close({})
    mlflow.problem = Refused("Max retries exceeded", "INTERNAL_ERROR")
    told: dict[str, Any] = {"about": {}, "note": notes.append}
    board, logger = open_loggers(folder, ["mlflow"], first_epoch=4, **told)
    for epoch in (4, 5, 6, 7):
        if epoch == 6:
            mlflow.problem = None
        notify([board, logger], f"epoch {epoch}", methodcaller("log", {"val_loss": 1.0}, epoch), note=notes.append)
    logger.close({"epochs": 7.0})
    board.close({})
    (run,) = mlflow.runs.values()
    assert [step for step, _ in run["steps"]] == [4, 5, 6, 7, -1]
    assert run["ended"] == (["FINISHED"] if is_first else ["KILLED", "FINISHED"])
    assert run["params"] == 1
    lost = ["warning: mlflow: its id was lost; another run begins with epoch 4"] if is_first else []
    refused = [f"warning: MlflowLogger did not take {what}" for what in ("the beginning", "epoch 4", "epoch 5")]
    assert notes == [*(f"{what}: Max retries exceeded; metrics.jsonl has it" for what in refused), *lost]


def test_a_server_that_keeps_failing_slowly_is_not_asked_each_time(tmp_path: Path, mlflow: Mlflow) -> None:
    """Nor where the training is interrupted, which is to end soon."""
    asked: list[float] = []

    def slowly() -> None:
        asked.append(time.monotonic())
        time.sleep(0.05)
        raise Refused("Max retries exceeded", "INTERNAL_ERROR")

    mlflow._answer = slowly  # type: ignore[method-assign]
    folder = RunFolder(tmp_path / "runs" / "k")
    _, logger = open_loggers(folder, ["mlflow"], first_epoch=1, about={}, note=lambda _: None)
    for epoch in range(1, 6):
        logger.log({}, epoch)
    logger.close({})
    assert len(asked) == 1
    with pytest.raises(Refused):
        logger.close({"epochs": 5.0})
    assert len(asked) == 2


def test_a_server_that_lets_nobody_in_is_told_before_training(tmp_path: Path, mlflow: Mlflow) -> None:
    mlflow.problem = Refused("You are not authenticated", "UNAUTHENTICATED")
    folder = RunFolder(tmp_path / "runs" / "k")
    with pytest.raises(ConfigError, match=r"MlflowLogger cannot be used: You are not authenticated\. Or leave it out"):
        open_loggers(folder, ["mlflow"], first_epoch=1, about={}, note=lambda _: None)


def test_what_is_trained_anew_is_another_run_of_wandb(project: Project) -> None:
    """It would take no epoch of the first one a second time."""
    assert project.run().exit_code == 0
    key = project.planner().plan("train").key
    assert project.run(until=["train"], force=["train"]).exit_code == 0
    folder = project.file.store.root / "loggers" / key / "wandb"
    assert {path.name for path in folder.iterdir()} == {f"offline-run-{key}", f"offline-run-{key[:28]}-1"}
    for path in folder.iterdir():
        assert [line.split()[0] for line in (path / "run.wandb").read_text().splitlines()] == ["1", "2"]


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
    loggers = [WandbLogger(run, first_epoch=1, about={}, note=notes.append) for _ in range(2)]
    for logger in loggers:
        logger.open()
    notify(loggers, "the end", lambda logger: logger.close({}), note=notes.append)
    assert notes == ["warning: WandbLogger did not take the end: the server went away; metrics.jsonl has it"] * 2
    with pytest.raises(ZeroDivisionError):
        notify(loggers, "the end", lambda _: 1 / 0, note=notes.append)  # type: ignore[arg-type, return-value]
