"""The lock file: what it says, when it is written, and what `--frozen` refuses and lets pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reelwright.pipeline.plan.lockfile import Frozen
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.run.reading import read_videos
from reelwright.pipeline.run.runner import RunResult, open_planner
from reelwright.storage.errors import ConfigError
from tests.small_project import read_rows, write_rows


def run(folder: Path, *overrides: str, **options: object) -> RunResult:
    return Project.open(folder / "reelwright.yaml", overrides=overrides).run(**options)


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert text.count(old) == 1, text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def edit_lock(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = yaml.safe_load((folder / "reelwright.lock").read_text(encoding="utf-8"))
    change(content["nodes"])
    (folder / "reelwright.lock").write_text(yaml.safe_dump(content), encoding="utf-8")


def other_weights(nodes: dict[str, Any]) -> None:
    """The lock as another machine would have written it, where training gave other last bits."""
    nodes["train"]["outputs"]["weights"] = "0" * 32
    nodes["predict"].update(key="1" * 32)
    nodes["predict"]["inputs"]["run"] = ["2" * 32]
    nodes["scores"].update(key="3" * 32, inputs={"predictions": ["1" * 32]})


def test_it_is_sorted_and_says_what_the_store_says(finished: Path) -> None:
    text = (finished / "reelwright.lock").read_text(encoding="utf-8")
    nodes = yaml.safe_load(text)["nodes"]
    assert text.split("\n", 1)[1] == yaml.safe_dump({"format": 1, "nodes": nodes}, sort_keys=True, width=120)
    plans = {plan.node.name: plan for plan in Project.open(finished / "reelwright.yaml").status()}
    assert {name: node["key"] for name, node in nodes.items()} == {name: plan.key for name, plan in plans.items()}
    assert nodes["embed"]["videos"] == {"total": 5, "done": 5, "failed": 0, "truncated": 0}
    assert nodes["train"]["outputs"]["weights"] == plans["train"].record.outputs["weights"]
    assert nodes["frames"]["settings"]["fps"] == 5.0
    assert "/" not in text.replace("timm/test_resnet", "")
    assert "20" + plans["train"].record.finished[2:10] not in text


def test_it_is_written_only_when_it_differs_and_never_by_an_experiment(copied: Path) -> None:
    lock = copied / "reelwright.lock"
    before = lock.stat()
    assert run(copied).nothing_to_do
    assert (lock.stat().st_mtime_ns, lock.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    text = lock.read_text(encoding="utf-8")
    edit(copied, "reelwright.yaml", "thumbnails: 0", "thumbnails: 0, topk: [1]")
    run(copied, "scores.topk=[1,2]")
    assert lock.read_text(encoding="utf-8") == text
    run(copied, only=["frames"])
    assert lock.read_text(encoding="utf-8") == text
    run(copied)
    assert yaml.safe_load(lock.read_text(encoding="utf-8"))["nodes"]["scores"]["settings"]["topk"] == [1]
    edit(copied, "reelwright.yaml", "thumbnails: 0, topk: [1]", "thumbnails: 0")
    assert run(copied).nothing_to_do
    assert lock.read_text(encoding="utf-8") == text
    lock.write_text("<<<<<<< mine\n", encoding="utf-8")
    run(copied)
    assert lock.read_text(encoding="utf-8") == text


def drop_video(folder: Path) -> None:
    write_rows(folder / "videos.csv", read_rows(folder / "videos.csv")[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: edit(at, "reelwright.yaml", "fps: 5", "fps: 10"), r"frames\.settings\.fps: locked 5, now 10\n"),
        (
            lambda at: edit(at, "reelwright.yaml", "name: linear", "name: gru, width: 4"),
            r'model\.name: locked "linear", now "gru"\n  train\.settings\.model\.width: locked \(not set\), now 4',
        ),
        (
            lambda at: edit(
                at, "reelwright.yaml", "scores: {", "more: {uses: evaluate, predictions: predict}\n  scores: {"
            ),
            r'more: locked "no such node"',
        ),
        (
            lambda at: edit_lock(at, lambda nodes: nodes["embed"].update(stage_version=0)),
            r"embed\.stage_version: locked 0, now \d",
        ),
        (
            drop_video,
            r"frames\.inputs\.videos: locked .* now .*\n  embed\.inputs\.videos(.|\n)*predict\.inputs\.videos",
        ),
        (
            lambda at: edit(at, "segments.csv", "a,0,1,bright", "a,0,0.5,bright"),
            r"lock:\n  train\.inputs\.videos: locked .*\n  predict\.inputs\.videos",
        ),
        (
            lambda at: edit(at, "segments.csv", "e,0,1,bright", "e,0,0.5,bright"),
            r"lock:\n  predict\.inputs\.videos: locked .*\n  scores\.inputs\.predictions",
        ),
        (lambda at: (at / "reelwright.lock").unlink(), "no lock file, which --frozen needs. Run once without"),
        (lambda at: (at / "reelwright.lock").write_text("<<<<<<< a: b: c"), "(?s)not readable .* Mend it"),
        (lambda at: (at / "reelwright.lock").write_text("format: 99\nnodes: {}"), "not a lock file of format 1"),
    ],
    ids=[
        "setting",
        "two settings",
        "a node more",
        "stage version",
        "a video less",
        "label of a train video",
        "label of a test video",
        "no lock",
        "merge conflict",
        "format",
    ],
)
def test_frozen_refuses_before_any_work(copied: Path, change: Callable[[Path], object], message: str) -> None:
    change(copied)
    nodes = sorted((copied / ".reelwright" / "store" / "nodes").iterdir())
    lock = copied / "reelwright.lock"
    text = lock.read_text(encoding="utf-8") if lock.exists() else None
    with pytest.raises(ConfigError, match=message):
        run(copied, frozen=True)
    assert sorted((copied / ".reelwright" / "store" / "nodes").iterdir()) == nodes
    assert (lock.read_text(encoding="utf-8") if lock.exists() else None) == text


@pytest.mark.parametrize(
    "change",
    [
        Path.exists,
        lambda at: edit(at, "reelwright.yaml", "48, workers: 1", "48, workers: 2"),
        lambda at: edit(at, "reelwright.yaml", "stages:", "# a comment\nstages:"),
        lambda at: write_rows(at / "videos.csv", read_rows(at / "videos.csv")),
    ],
    ids=["nothing", "workers", "comment", "manifest written again"],
)
def test_frozen_lets_pass_what_changes_no_result(copied: Path, change: Callable[[Path], object]) -> None:
    change(copied)
    result = run(copied, frozen=True)
    assert result.nothing_to_do
    assert result.notes == ()


@pytest.mark.slow
def test_a_fresh_clone_may_train_and_other_weights_are_a_note(copied: Path) -> None:
    """An empty store and a lock of another machine: everything runs, the keys behind the weights may differ."""
    shutil.rmtree(copied / ".reelwright")
    edit_lock(copied, other_weights)
    lock = (copied / "reelwright.lock").read_text(encoding="utf-8")
    result = run(copied, frozen=True)
    assert result.exit_code == 0, result
    assert [node.state for node in result.nodes] == ["ran"] * 5
    assert len(result.notes) == 1
    assert result.notes[0].startswith("train: its weights are ")
    assert f"not {'0' * 32} as locked" in result.notes[0]
    assert result.notes[0].endswith("predict, scores")
    assert (copied / "reelwright.lock").read_text(encoding="utf-8") == lock


def test_behind_other_weights_all_but_the_key_is_still_held_to(copied: Path) -> None:
    edit_lock(copied, other_weights)
    assert run(copied, frozen=True).nothing_to_do
    edit(copied, "segments.csv", "e,0,1,bright", "e,0,0.5,bright")
    with pytest.raises(ConfigError, match=r"lock:\n  predict\.inputs\.videos: locked [^\n]*\nUndo"):
        run(copied, frozen=True)


@pytest.mark.parametrize("num_failed", [0, 1])
def test_videos_that_failed_before_are_compared_when_it_is_known_which_fail(copied: Path, num_failed: int) -> None:
    """The lock is of a machine where one of the five videos failed; here, none was tried yet."""

    def one_failed(nodes: dict[str, Any]) -> None:
        nodes["frames"]["videos"] = {"total": 5, "done": 5 - num_failed, "failed": num_failed}
        for name in ("embed", "train", "predict", "scores"):
            nodes[name].update(key="1" * 32)
        for name in ("embed", "train", "predict"):
            nodes[name]["inputs"]["videos"] = "2" * 32

    edit_lock(copied, one_failed)
    shutil.rmtree(copied / ".reelwright")
    file = Project.open(copied / "reelwright.yaml").file
    read_videos(file, SilentObserver())
    if num_failed:
        Frozen(file).check_plans(open_planner(file))
    else:
        with pytest.raises(ConfigError, match=r"lock:\n  embed\.inputs\.videos"):
            Frozen(file).check_plans(open_planner(file))
