"""Scores of small predictions that can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.scoring import (
    classification_scores,
    headline,
    multilabel_scores,
    score_predictions,
    segmental_scores,
)
from reelwright.stages.evaluate.videos import VideoLabels, timeline, video_labels, worst_first
from reelwright.stages.finetune.config import FinetuneConfig
from reelwright.stages.predict.config import PredictConfig
from reelwright.stages.train.config import TrainConfig
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, PredictionSet, Scored, open_writer


def one_hot(labels: list[int], num_classes: int = 3) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[labels] * 0.7 + 0.1


def columns(num: int, *, length: int = 4) -> dict[str, np.ndarray]:
    first = np.arange(num) * 2
    return {
        "window": np.arange(num),
        "start_row": first,
        "stop_row": first + length,
        "start_seconds": first.astype(float),
        "stop_seconds": first + float(length),
        "time_seconds": first + length - 1.0,
    }


def write(path: Path, *, task: str, videos: dict[str, tuple[list[int], list[int] | None]]) -> PredictionSet:
    """Videos named ``split/name`` with predicted and true labels of their windows."""
    info = PredictionInfo(key="k", run="r", task=task, classes=("a", "b", "c"))
    with open_writer(path, info) as writer:
        for name, (predicted, target) in videos.items():
            video = PredictedVideo(video_id=name, digest=name, split=name.split("/")[0])
            targets = None if target is None else np.array(target)
            writer.write_windows(video, columns(len(predicted)), Scored(scores=one_hot(predicted), target_ids=targets))
            first = targets[:1] if targets is not None and task == "video" else None
            writer.write_video(
                video, num_windows=len(predicted), scored=Scored(scores=one_hot(predicted[:1]), target_ids=first)
            )
    return PredictionSet(path)


def labels_of(predictions: PredictionSet, *splits: str) -> list[VideoLabels]:
    return video_labels(predictions, unit="windows", splits=set(splits), threshold=0.5)


VIDEOS: dict[str, tuple[list[int], list[int] | None]] = {
    "test/1": ([0, 0, 1, 1], [0, 0, 0, 1]),  # 3 of 4
    "test/2": ([2, 2], [2, -1]),  # 1 of 1, one unknown
    "val/1": ([1, 0], [0, 0]),  # 1 of 2
    "train/1": ([0], [1]),  # in no split that is asked for
}


def test_each_split_and_all_of_them(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p", task="last_row", videos=VIDEOS)
    config = EvaluateConfig(predictions="predict", splits=("test", "val"))
    scores = score_predictions(predictions, labels_of(predictions, "test", "val"), config)
    assert list(scores) == ["test", "val", "all"]
    assert scores["test"]["windows"]["top1"] == pytest.approx(4 / 5)
    assert scores["val"]["windows"]["top1"] == pytest.approx(1 / 2)
    assert scores["all"]["windows"]["top1"] == pytest.approx(5 / 7)
    assert scores["test"]["windows"]["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert scores["test"]["segmental"]["frame_accuracy"] == pytest.approx(80.0)
    assert scores["test"]["segmental"]["edit"] == pytest.approx(100.0)
    assert "videos" not in scores["test"]  # last_row has no target of a video


def test_chance_is_an_answer_that_never_looks() -> None:
    targets = np.array([0, 0, 0, 1, -1])  # shares 3/4 and 1/4
    chance = classification_scores(one_hot([0, 1, 0, 1, 2]), targets, topk=(2,))["chance"]
    assert chance["uniform"] == pytest.approx(1 / 3)
    assert chance["majority"] == chance["top1"] == pytest.approx(3 / 4)
    assert chance["top2"] == pytest.approx(1.0)
    assert chance["mean_class_accuracy"] == pytest.approx(1 / 2)
    assert chance["macro_f1"] == pytest.approx((6 / 7) / 2)  # class 0: 2*3/(3+4), class 1: 0
    assert chance["mean_average_precision"] == pytest.approx(1 / 2)  # mean of the shares


def test_chance_of_segments_is_the_commonest_class() -> None:
    video = VideoLabels(
        video_id="v",
        digest="d",
        split="test",
        label_ids=np.array([0, 0, 1, 1]),
        target_ids=np.array([0, 0, 0, 1]),
        confidence=1.0,
        quality=0.75,
    )
    scores = segmental_scores([video], background=None)
    assert scores["f1@50"] == pytest.approx(100.0)  # overlaps 2/3 and 1/2
    assert scores["chance"]["frame_accuracy"] == pytest.approx(75.0)
    assert scores["chance"]["edit"] == pytest.approx(50.0)  # one of two segments
    assert scores["chance"]["f1@50"] == pytest.approx(100 * 2 / 3)  # a hit (overlap 3/4) and a miss


def test_multi_label_beside_claiming_every_class() -> None:
    targets = np.array([[True, False], [True, False], [False, True], [True, False]])
    scores = multilabel_scores(np.where(targets, 0.9, 0.1), targets, threshold=0.5)
    assert scores["mean_average_precision"] == scores["micro_f1"] == pytest.approx(1.0)
    assert scores["chance"]["micro_f1"] == pytest.approx(2 * 4 / (4 + 8))
    assert scores["chance"]["mean_average_precision"] == pytest.approx((3 / 4 + 1 / 4) / 2)


SCORES_OF_HEADS = {
    "verb": [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]],
    "noun": [[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]],
}
TRUE_OF_HEADS = {"verb": [0, 2, 2], "noun": [0, 1, 1]}


@pytest.mark.parametrize("names", [("verb", "noun"), ("noun", "verb")], ids="-".join)
def test_scores_of_heads_are_the_same_in_any_order(tmp_path: Path, names: tuple[str, str]) -> None:
    heads = tuple((name, len(SCORES_OF_HEADS[name][0])) for name in names)
    classes = tuple(f"{name}: {number}" for name, size in heads for number in range(size))
    info = PredictionInfo(key="k", run="r", task="multi_label", classes=classes, heads=heads)
    scores = np.concatenate([SCORES_OF_HEADS[name] for name in names], axis=1).astype(np.float32)
    sets = np.concatenate([np.eye(size, dtype=bool)[TRUE_OF_HEADS[name]] for name, size in heads], axis=1)
    with open_writer(tmp_path / "p", info) as writer:
        video = PredictedVideo(video_id="v", digest="d", split="test")
        writer.write_windows(video, columns(3), Scored(scores=scores, targets=sets))
        writer.write_video(video, num_windows=3, scored=Scored(scores=scores[:1], targets=sets[:1]))
    predictions = PredictionSet(tmp_path / "p")
    config = EvaluateConfig(predictions="predict", topk=(2,), joint=("rank_paired", "independent"))
    found = score_predictions(predictions, labels_of(predictions, "test"), config)
    windows = found["test"]["windows"]
    # of the second entry 2 is the second verb and 1 the first noun; of the third 2 is the first and 1 the second
    assert windows["action_rank_paired_top2"] == pytest.approx(1 / 3)
    assert windows["action_independent_top2"] == pytest.approx(1)
    assert windows["action_top2"] == pytest.approx(1 / 3)  # products: 0.18 behind 0.3 and 0.2; 0.07 behind three
    assert windows["chance"]["action_rank_paired_top2"] == pytest.approx(1)  # verbs 2, 0; nouns 1, 0
    assert headline(found, info)["action_independent_top2"] == pytest.approx(1)
    assert windows["verb_top1"] == pytest.approx(2 / 3)
    assert windows["noun_top1"] == pytest.approx(2 / 3)
    assert windows["action_top1"] == pytest.approx(1 / 3)
    assert windows["chance"]["action_top1"] == pytest.approx(2 / 3)  # verb 2 and noun 1 are the commonest


def test_joint_measures_are_of_heads(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p", task="video", videos={"test/1": ([0], [0])})
    config = EvaluateConfig(predictions="predict", joint=("independent",))
    with pytest.raises(
        StageError, match="joint: independent is of task heads, but these predictions are of task video"
    ):
        score_predictions(predictions, labels_of(predictions, "test"), config)
    nodes = {"predict": PredictConfig(run="train"), "train": TrainConfig(embeddings=("rows",), task="video")}
    with pytest.raises(ConfigError, match="scores: joint: independent is of task heads, but the run's is video"):
        config.complete(nodes, where="scores")
    nodes["train"] = TrainConfig(embeddings=("rows",), task="heads")
    assert config.complete(nodes, where="") is config
    tuned = {**nodes, "tune": FinetuneConfig(spatial="rows", temporal="train"), "predict": PredictConfig(run="tune")}
    assert config.complete(tuned, where="") is config
    assert "joint" not in EvaluateConfig(predictions="predict").spec()
    with pytest.raises(ValueError, match="joint measures ranks above the first"):
        EvaluateConfig(predictions="predict", topk=(1,), joint=("independent",))


def test_an_entry_says_nothing_of_a_head_it_has_no_class_of() -> None:
    targets = np.array([[True, False, False, False], [False, True, True, False], [True, False, False, True]])
    scores = np.array([[0.9, 0.1, 0.9, 0.1], [0.2, 0.8, 0.6, 0.4], [0.7, 0.3, 0.4, 0.6]])
    found = multilabel_scores(scores, targets, threshold=0.5, heads=(("verb", 2), ("noun", 2)))
    assert (found["mean_average_precision"], found["micro_f1"]) == (1, 1)  # the 0.9 of a noun that nobody looked for
    assert found["chance"]["mean_average_precision"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    whole = multilabel_scores(scores, targets, threshold=0.5)
    assert whole["micro_f1"] == pytest.approx(2 * 5 / (5 + 6))


def test_headline_has_chance_beside_each_number(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p", task="video", videos={"test/1": ([0, 0], [0, 0]), "test/2": ([0, 1], [1, 1])})
    config = EvaluateConfig(predictions="predict", topk=(1,))
    scores = score_predictions(predictions, labels_of(predictions, "test"), config)
    numbers = headline(scores, predictions.info)
    assert numbers["top1"] == pytest.approx(3 / 4)
    assert numbers["chance_top1"] == pytest.approx(1 / 2)
    assert numbers["video_top1"] == pytest.approx(1 / 2)  # the video's own scores are those of its first window
    assert numbers["chance_video_top1"] == pytest.approx(1 / 2)
    assert "segmental" not in scores["test"]


def test_without_targets_there_are_no_scores(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p", task="last_row", videos={"test/1": ([0, 1], None)})
    scores = score_predictions(predictions, labels_of(predictions, "test"), EvaluateConfig(predictions="predict"))
    assert scores == {"test": {}}
    assert headline(scores, predictions.info) == {}


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    info = PredictionInfo(key="k", run="r", task="video", classes=("a", "b", "c"))
    with open_writer(tmp_path / "p", info) as writer:
        broken = Scored(scores=np.full((1, 3), np.nan, np.float32), target_ids=np.array([0]))
        video = PredictedVideo(video_id="v", digest="d", split="test")
        writer.write_windows(video, columns(1), broken)
        writer.write_video(video, num_windows=1, scored=broken)
    predictions = PredictionSet(tmp_path / "p")
    with pytest.raises(StageError, match="windows of split test hold numbers that are not finite; the run diverged"):
        score_predictions(predictions, labels_of(predictions, "test"), EvaluateConfig(predictions="predict"))


def test_quality_and_order_of_videos(tmp_path: Path) -> None:
    videos = {**VIDEOS, "test/3": ([0], None)}
    predictions = write(tmp_path / "p", task="last_row", videos=videos)
    labels = labels_of(predictions, "test", "val")
    assert {video.video_id: video.quality for video in labels} == {
        "test/1": 0.75,
        "test/2": 1.0,
        "val/1": 0.5,
        "test/3": None,
    }
    assert [video.video_id for video in worst_first(labels)] == ["val/1", "test/1", "test/2", "test/3"]


@pytest.mark.parametrize(
    ("task", "edges"),
    [("last_row", [3.0, 5.0, 7.0, 8.0]), ("video", [0.0, 3.0, 5.0, 8.0]), ("majority", [0.0, 3.0, 5.0, 8.0])],
)
def test_where_cells_lie(tmp_path: Path, task: str, edges: list[float]) -> None:
    """Windows of 4 seconds, 2 apart: [0, 4) [2, 6) [4, 8)."""
    predictions = write(tmp_path / "p", task=task, videos={"test/1": ([0, 1, 1], [0, 1, 2])})
    cells = timeline(predictions.windows(), info=predictions.info, unit="windows")
    assert cells.edges_seconds.tolist() == edges
    assert cells.target_ids.tolist() == [0, 1, 2]
