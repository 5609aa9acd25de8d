"""What differs between two files or runs, and all runs of a store side by side."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.pipeline.inspect.comparison import (
    Change,
    diff_files,
    diff_records,
    differing_settings,
    harmonic_mean,
    run_rows,
    sort_rows,
)
from reelwright.pipeline.plan.history import History
from reelwright.pipeline.plan.reasons import MISSING
from reelwright.pipeline.project import Project
from reelwright.storage.errors import ConfigError


@pytest.fixture(scope="module")
def grown(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project with three runs: the first, one with validation and more epochs, one at another rate."""
    folder = tmp_path_factory.mktemp("grown") / "project"
    shutil.copytree(finished, folder)
    for overrides in (["train.epochs=4", "train.val_splits=[test]"], ["frames.fps=2.5"]):
        assert Project.open(folder / "reelwright.yaml", overrides=overrides).run().exit_code == 0
    return folder


def test_two_files(copied: Path) -> None:
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    other = (
        text.replace("epochs: 2", "epochs: 3")
        .replace("48, workers: 1", "48, workers: 2")
        .replace("name: linear", "name: gru, width: 4")
    )
    (copied / "other.yaml").write_text(other + "  more: {uses: evaluate, predictions: predict}\n", encoding="utf-8")
    found = diff_files(*(Project.open(copied / name).file for name in ("reelwright.yaml", "other.yaml")))
    assert found.settings == (
        Change(name="frames.workers", old=1, new=2, counts=False),
        Change(name="train.epochs", old=2, new=3),
        Change(name="train.model.name", old="linear", new="gru"),
        Change(name="train.model.width", old=MISSING, new=4),
        Change(name="more.uses", old=MISSING, new="evaluate"),
    )
    keys = {change.node: (bool(change.old), change.new) for change in found.nodes}
    assert list(keys) == ["train", "predict", "scores", "more"]
    assert keys["predict"] == (True, "")  # not known before train has run
    assert keys["more"] == (False, "")
    assert {change.node for change in found.scores} == {"scores"}
    assert all(change.new is None for change in found.scores)


def test_harmonic_mean_of_cast() -> None:
    """The balance of CAST over EK verb, EK noun, SSV2 and K400, and of its CLIP, as the paper's table has them."""
    cast = {"a.verb": 0.725, "a.noun": 0.609, "b.top1": 0.716, "c.top1": 0.853}
    clip = {"a.verb": 0.549, "a.noun": 0.527, "b.top1": 0.478, "c.top1": 0.789}
    assert [round(100 * harmonic_mean(scores), 1) for scores in (cast, clip)] == [71.6, 56.5]
    assert harmonic_mean({"a.top1": 0.0, "b.top1": 1.0}) == 0
    for wrong in ({"a.top1": 0.5, "b.edit": 50.0}, {"a.val_loss": 0.5, "b.top1": 0.5}):
        with pytest.raises(ConfigError, match="only shares from 0 to 1 of which more is better"):
            harmonic_mean(wrong)


def test_a_file_and_itself_do_not_differ(copied: Path) -> None:
    file = Project.open(copied / "reelwright.yaml").file
    found = diff_files(file, file)
    assert (found.settings, found.nodes, found.scores) == ((), (), ())


@pytest.mark.slow
def test_all_runs_with_the_settings_in_which_they_differ(grown: Path) -> None:
    rows = run_rows(History.of(Project.open(grown / "reelwright.yaml").file.store))
    assert [{name: value for name, value in row.settings.items() if name != "videos"} for row in rows] == [
        {"epochs": 2, "val_splits": [], "embeddings.frames.fps": 5.0},
        {"epochs": 4, "val_splits": ["test"], "embeddings.frames.fps": 5.0},
        {"epochs": 2, "val_splits": [], "embeddings.frames.fps": 2.5},
    ]
    assert rows[0].settings["videos"] == rows[2].settings["videos"] != rows[1].settings["videos"]
    assert ["val_macro_f1" in row.scores for row in rows] == [False, True, False]
    assert all("scores.top1" in row.scores for row in rows)
    assert sort_rows(rows, "val_macro_f1")[0] is rows[1]
    assert sort_rows(rows, "scores.top1") == sorted(rows, key=lambda row: -row.scores["scores.top1"])


@pytest.mark.parametrize(
    ("metric", "message"),
    [("macro_f1", "more than one: scores.macro_f1, val_macro_f1"), ("scores.top2", "Did you mean 'scores.top1'")],
)
def test_an_unclear_metric_is_refused(grown: Path, metric: str, message: str) -> None:
    rows = run_rows(History.of(Project.open(grown / "reelwright.yaml").file.store))
    with pytest.raises(ConfigError, match=message):
        sort_rows(rows, metric)


@pytest.mark.parametrize(("metric", "best"), [("val_loss", 0), ("scores.step_delay_seconds", 0), ("scores.top1", 2)])
def test_the_best_come_first_whichever_way_is_better(grown: Path, metric: str, best: int) -> None:
    rows = run_rows(History.of(Project.open(grown / "reelwright.yaml").file.store))
    scored = [replace(row, scores={metric: value}) for row, value in zip(rows, (1.0, 2.0, 3.0), strict=True)]
    assert sort_rows([*scored[1:], scored[0]], metric)[0] is scored[best]


def test_two_runs_with_all_that_is_behind_them(grown: Path) -> None:
    history = History.of(Project.open(grown / "reelwright.yaml").file.store)
    first, _, other_rate = history.runs
    found = diff_records((history, history), first, other_rate)
    assert found.settings == (Change(name="embeddings.frames.fps", old=5.0, new=2.5),)
    assert [change.node for change in found.nodes] == ["train", "embeddings", "embeddings.frames"]
    assert history.find(first.key[:10]) is first
    with pytest.raises(ConfigError, match=r"key '' fits \d+ records of the store: .* Give more digits"):
        history.find("")
    with pytest.raises(ConfigError, match="key 'zz' fits 0 records"):
        history.find("zz")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["b"]),
        ([{"a": 1}, {"a": 1.0}], ["a"]),
        ([{"a": 1, "only": 0}, {"a": 2}], ["a", "only"]),
        ([{"a": [1, 2]}, {"a": [1, 2]}], []),
        ([{"a": 1}], []),
        ([], []),
    ],
    ids=["one differs", "type differs", "only one has it", "lists", "one run", "none"],
)
def test_settings_that_differ(settings: list[dict[str, object]], names: list[str]) -> None:
    assert differing_settings(settings) == names
