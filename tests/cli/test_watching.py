"""`watch`: what a run at work looks like from another process, and that it ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.cli.run import watching
from reelwright.pipeline.executors import progress_file
from reelwright.pipeline.executors.progress_file import reporting
from reelwright.pipeline.project import Project
from reelwright.stages.base.work import SilentReporter
from reelwright.storage.locks.locks import exclusive, using
from reelwright.storage.results.runs import RunFolder


@pytest.fixture
def project(copied: Path) -> Project:
    return Project.open(copied / "reelwright.yaml", overrides=["train.seed=9"])


def test_all_nodes_until_the_run_ends(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_file, "_SECONDS_BETWEEN", 0.0)
    store, key = project.file.store, project.planner().plan("train").key
    run = RunFolder(store.run(key))
    run.add_metrics({"epoch": 3, "train_loss": 0.25, "val_loss": 1.0, "val_macro_f1": 0.5})
    seen: list[list[watching.Row]] = []
    with ExitStack() as stack:
        stack.enter_context(using(store.locks, what="run of reelwright.yaml"))({key, project.planner().project.name})
        stack.enter_context(exclusive(store.lock(key), report=print, what="train"))
        reporter = stack.enter_context(reporting(SilentReporter(), store, key=key, node="train"))
        reporter.total(100, "windows")
        reporter.advance(40)

        def opened() -> Iterator[object]:
            yield project.planner()
            stack.close()  # the run ends between two looks
            yield project.planner()

        planners = opened()
        seen = list(watching.watched(lambda: next(planners), wait=False, every=0.0))
    assert len(seen) == 2
    first = {row[0]: row[1:] for row in seen[0]}
    assert first["frames"] == ("decode", "done", "", "", "", "", "")
    assert first["predict"][1] == "waiting"
    stage, state, done, rate, loss, val, left = first["train"]
    assert (stage, state, done, loss, val) == (
        *("train", "running", "40 of 100 windows", "0.2500 (epoch 3)", "macro F1 50.0 %"),
    )
    assert rate.endswith(" windows/s")
    assert left
    assert {row[0]: row[2] for row in seen[1]}["train"] == "stale"


def test_without_a_run_it_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(app, ["watch", "-c", str(project.file.path)])
    assert shown.exit_code == 0
    assert "no run of reelwright.yaml is at work" in shown.stdout
    waits = iter([None, KeyboardInterrupt()])

    def sleep(_: float) -> None:
        found = next(waits)
        if found is not None:
            raise found

    monkeypatch.setattr(watching.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        list(watching.watched(project.planner, wait=True, every=1.0))


def test_a_run_of_a_file_of_the_same_name_in_another_folder_is_another_run(project: Project) -> None:
    planner, locks = project.planner(), project.file.store.locks
    keys = {plan.spec_key for plan in planner.plans()}
    with using(locks, what="run of reelwright.yaml") as note:
        note({*keys, "reelwright-01234567"})
        assert not watching.is_running(planner)
        note({planner.project.name})
        assert watching.is_running(planner)
