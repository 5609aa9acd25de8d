"""Grids: how values are written, and that combinations share what they can."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from reelwright.pipeline.inspect.grid import combinations, run_grid, split_values, worst_exit_code
from reelwright.pipeline.project import SilentObserver
from reelwright.pipeline.run.results import RunOptions
from reelwright.storage.errors import ConfigError, StageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3,1e-4", ["1e-3", "1e-4"]),
        ("5", ["5"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{name: gru, size: 8},{name: linear}", ["{name: gru, size: 8}", "{name: linear}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"it\'s, so", x', ['"it\'s, so"', "x"]),
        ("[[1,2],[3,4]],null", ["[[1,2],[3,4]]", "null"]),
    ],
    ids=str,
)
def test_values(text: str, values: list[str]) -> None:
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([], "-m: no setting is given"),
        (["train.epochs"], "-m 'train.epochs': write name=value,value"),
        (["train.epochs=1,,2"], "-m 'train.epochs=1,,2': a value is empty"),
        (["train.epochs=[1,2"], "a bracket is not closed"),
        (["train.epochs='1,2"], "' is not closed"),
        (["train.seed=1", "train.seed=2"], "train.seed is given twice"),
        (["train.epoch=1,2"], "epoch: unknown key. Did you mean 'epochs'"),
        (["train.epochs=1,-2"], "epochs: -2 is not allowed"),
    ],
    ids=["none", "no value", "empty value", "bracket", "quote", "twice", "unknown", "second value wrong"],
)
def test_wrong_grids_are_refused_before_anything_runs(copied: Path, axes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        combinations(copied / "reelwright.yaml", axes)


@pytest.mark.slow
def test_combinations_share_what_they_can_and_one_that_fails_stops_none(copied: Path) -> None:
    lock = (copied / "reelwright.lock").read_text(encoding="utf-8")
    axes = ["train.optimizer.lr=0.001,1e30", "train.epochs=2,3", "predict.window.hop=1,2"]
    grid = combinations(copied / "reelwright.yaml", axes)
    message: list[int] = []
    outcomes = run_grid(grid, SilentObserver(), RunOptions(), report=lambda number, _: message.append(number))
    assert message == list(range(8))
    assert dict(outcomes[3].combination.settings) == {
        "train.optimizer.lr": "0.001",
        "train.epochs": "3",
        "predict.window.hop": "2",
    }
    ran = [[node.node for node in outcome.result.nodes if node.state == "ran"] for outcome in outcomes]
    assert ran[:4] == [[], ["predict", "scores"], ["train", "predict", "scores"], ["predict", "scores"]]
    assert [outcome.result.exit_code for outcome in outcomes] == [0] * 4 + [1] * 4
    assert worst_exit_code(outcomes) == 1
    assert worst_exit_code(outcomes[:4]) == 0
    assert (copied / "reelwright.lock").read_text(encoding="utf-8") == lock


@pytest.mark.slow
def test_a_combination_that_cannot_run_and_a_process_that_dies_end_a_parallel_grid(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")  # the children believe that torchrun started them, and refuse
    monkeypatch.setenv("WORLD_SIZE", "2")
    grid = combinations(copied / "reelwright.yaml", ["train.epochs=2,3"])
    with pytest.raises(ConfigError, match="one of 2 processes that torchrun"):
        run_grid(grid, SilentObserver(), RunOptions(), report=lambda *_: None, processes=2)
    assert multiprocessing.active_children() == []

    def kill(*_: object) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    monkeypatch.delenv("RANK")
    with pytest.raises(StageError, match="process ended with exit code -9"):
        run_grid(grid, SilentObserver(), RunOptions(), report=kill, processes=2)
    assert multiprocessing.active_children() == []
