"""Intervals of every headline number: what they are put together from gives that very number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.intervals import _units, headline_intervals
from reelwright.stages.evaluate.scoring import headline, main_unit, score_predictions, unit_tables
from reelwright.stages.evaluate.videos import video_labels
from reelwright.stages.evaluate.work import run
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, PredictionSet, Scored, open_writer

CLASSES = ("a", "b", "c", "d", "e", "f", "g")


def write(path: Path, *, task: str, num_videos: int = 9, has_nouns: bool = True) -> PredictionSet:
    """Random scores of windows, rows and videos; some entries and one video have no target."""
    random = np.random.default_rng(5)
    heads = (("verb", 4), ("noun", 3)) if task == "heads" else ()
    published = "multi_label" if heads else task
    info = PredictionInfo(key="k", run="r", task=published, classes=CLASSES, heads=heads)
    of_sets = task in {"heads", "multi_label"}
    with open_writer(path, info, with_rows=task == "per_row") as writer:
        for number in range(num_videos):
            count = int(random.integers(3, 12))
            video = PredictedVideo(video_id=f"v{number}", digest=f"{number}", split="val" if number % 3 else "test")

            def scored(rows: int, *, is_known: bool) -> Scored:
                scores = random.random((rows, 7)).astype(np.float32).round(1) + 0.01
                if heads:
                    parts = [part / part.sum(axis=1, keepdims=True) for part in np.split(scores, [4], axis=1)]
                    scores = np.concatenate(parts, axis=1)
                ids = random.integers(-1 if rows > 1 else 0, 7, rows)
                if not is_known:
                    return Scored(scores=scores)
                if not of_sets:
                    return Scored(scores=scores, target_ids=ids)
                sets = random.random((rows, 7)) < 0.3
                if heads:
                    sets = np.concatenate(
                        [np.eye(5, dtype=bool)[random.integers(0, 5, rows)][:, :4], has_nouns * np.eye(3)[ids % 3]], 1
                    )
                return Scored(scores=scores, targets=sets.astype(bool))

            first = np.arange(count)
            spans = {"start_seconds": first * 1.0, "stop_seconds": first + 1.0}
            window = {"window": first, "start_row": first, "stop_row": first + 1, "time_seconds": first * 1.0, **spans}
            writer.write_windows(video, window, scored(count, is_known=number > 0))
            if task == "per_row":
                writer.write_rows(
                    video, {"row": first, "source_start": first, **spans}, scored(count, is_known=number > 0)
                )
            writer.write_video(video, num_windows=count, scored=scored(1, is_known=number > 0))
    return PredictionSet(path)


@pytest.mark.parametrize("task", ["video", "per_row", "last_row", "multi_label", "heads", "heads without nouns"])
def test_with_every_video_once_the_measures_are_the_headline(tmp_path: Path, task: str) -> None:
    task, _, without = task.partition(" ")
    predictions = write(tmp_path, task=task, has_nouns=not without)
    joint = ("rank_paired", "independent") if task == "heads" else ()
    config = EvaluateConfig(predictions="p", splits=("test", "val"), topk=(1, 3), joint=joint)
    info, tables = predictions.info, unit_tables(predictions)
    labels = video_labels(predictions, unit=main_unit(info), splits={"test", "val"}, threshold=0.5)
    numbers = headline(score_predictions(predictions, labels, config, tables=tables), info)
    if task == "heads":
        names = {name.partition("_")[0] for name in numbers}
        assert (names & {"verb", "noun", "action"}) == ({"verb"} if without else {"verb", "noun", "action"})
    found = {}
    for unit, measures, num_videos in _units(tables, labels, config, info=info):
        assert num_videos == 8 or without  # the first has no target
        prefix = "video_" if unit == "videos" else ""
        found |= {f"{prefix}{name}": measure.values(np.ones((1, num_videos)))[0] for name, measure in measures.items()}
    expected = {name: value for name, value in numbers.items() if not name.startswith("chance_")}
    assert found == pytest.approx(expected)
    between, notes = headline_intervals(tables, labels, config, info=info)
    assert set(between) == set(expected)
    assert notes == []
    assert all(low <= expected[name] <= high for name, (low, high) in between.items() if "f1" not in name)


def test_in_scores_and_report_and_of_one_video_there_is_none(fake_store) -> None:
    fake = fake_store(task="per_row")
    summary = run(fake.work, SilentReporter())
    low, high = summary["intervals"]["top1"]
    assert low < summary["top1"] < high
    folder = fake.store.report(fake.work.key)
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["headline"]["intervals"]["top1"] == [
        low,
        high,
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{low:.1%} to {high:.1%}, chance" in page
    assert "95 % confidence intervals over videos" in page


def test_one_video_has_no_interval_and_is_told_of(tmp_path: Path) -> None:
    predictions = write(tmp_path, task="video", num_videos=2)
    config = EvaluateConfig(predictions="p", splits=("val",))
    labels = video_labels(predictions, unit="windows", splits={"val"}, threshold=0.5)
    found, notes = headline_intervals(unit_tables(predictions), labels, config, info=predictions.info)
    assert (found, notes) == ({}, ["one video with a target: there are no intervals over videos"])


def test_why_a_number_has_no_interval_is_said_of_each(tmp_path: Path) -> None:
    """Of windows three videos are known, of whole videos one; that is no matter of how long ranking takes."""
    info = PredictionInfo(key="k", run="r", task="video", classes=CLASSES[:2])
    scores = np.array([[0.4, 0.6], [0.7, 0.3]], np.float32)
    first = np.arange(2)
    spans = {"start_seconds": first * 1.0, "stop_seconds": first + 1.0, "time_seconds": first * 1.0}
    with open_writer(tmp_path, info) as writer:
        for number, of_video in enumerate((0, -1, -1)):
            video = PredictedVideo(video_id=f"v{number}", digest=f"{number}", split="test")
            windows = {"window": first, "start_row": first, "stop_row": first + 1, **spans}
            writer.write_windows(video, windows, Scored(scores=scores, target_ids=np.array([1, number % 2])))
            writer.write_video(video, num_windows=2, scored=Scored(scores=scores[:1], target_ids=np.array([of_video])))
    predictions, config = PredictionSet(tmp_path), EvaluateConfig(predictions="p", topk=(1,))
    labels = video_labels(predictions, unit="windows", splits={"test"}, threshold=0.5)
    found, notes = headline_intervals(unit_tables(predictions), labels, config, info=info)
    names = ("top1", "mean_class_accuracy", "macro_f1", "mean_average_precision")
    assert set(found) == set(names)
    assert notes == [f"no interval of {', '.join(f'video_{name}' for name in names)}: one video has a target"]
