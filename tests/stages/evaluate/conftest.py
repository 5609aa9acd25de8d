"""A small but complete prediction set on disk: names with markup in them, videos of several splits, a trained run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.base.work import InputRef, Work
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, Scored, open_writer
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

CLASSES = ("background", "<script>alert(1)</script>", 'take "base" & cap', "fit cap", "turn screw", "inspect")
VIDEO_IDS = (
    "plain-01",
    "<img src=x onerror=alert(2)>",
    'it\'s "quoted" & <b>bold</b>',
    "日本語-04",
    "a/long/" + "name" * 12,
)


@dataclass(frozen=True)
class FakeStore:
    """A store with one prediction, and the work unit that evaluates it."""

    store: Store
    work: Work


def probabilities(labels: np.ndarray, *, sure: float, num_classes: int, seed: int) -> np.ndarray:
    """Scores (N, K) whose best class is ``labels``."""
    noise = np.random.default_rng(seed).random((len(labels), num_classes)) * 0.3
    noise[np.arange(len(labels)), labels] = 0.35 + sure
    return (noise / noise.sum(axis=1, keepdims=True)).astype(np.float32)


def procedure(seed: int, num_rows: int, *, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted label of each row: steps in order, predicted with late borders and a wrong piece."""
    random = np.random.default_rng(seed)
    borders = np.sort(random.choice(np.arange(4, num_rows - 4), num_classes - 1, replace=False))
    target = np.searchsorted(borders, np.arange(num_rows), side="right")
    predicted = np.roll(target, random.integers(1, 4))
    predicted[: num_rows // 20] = 0
    piece = random.integers(0, num_rows - num_rows // 8)
    predicted[piece : piece + num_rows // 8] = random.integers(0, num_classes)
    return target, predicted


def window_columns(num_rows: int, *, length: int, seconds_per_row: float) -> dict[str, np.ndarray]:
    """Spans of the windows of ``length`` rows that end at each row; the first ones begin at row 0."""
    last = np.arange(num_rows)
    start = np.maximum(last - length + 1, 0)
    return {
        "window": last,
        "start_row": start,
        "stop_row": last + 1,
        "start_seconds": start * seconds_per_row,
        "stop_seconds": (last + 1) * seconds_per_row,
        "time_seconds": last * seconds_per_row,
    }


def write_predictions(store: Store, *, task: str, with_targets: bool, num_rows: int = 120) -> None:
    """Five videos, two of them in split val."""
    info = PredictionInfo(key="p" * 32, run="r" * 32, task=task, classes=CLASSES)
    with open_writer(store.predictions(info.key), info, with_rows=task == "per_row") as writer:
        for seed, video_id in enumerate(VIDEO_IDS):
            rows = num_rows + 17 * seed
            target, predicted = procedure(seed, rows, num_classes=len(CLASSES))
            scores = probabilities(predicted, sure=0.4 + 0.1 * seed, num_classes=len(CLASSES), seed=seed)
            split = "val" if seed >= 3 else "test"
            video = PredictedVideo(video_id=video_id, digest=f"{seed:032x}", split=split)
            known = target if with_targets else None
            sets = np.eye(len(CLASSES), dtype=bool)[target] | np.eye(len(CLASSES), dtype=bool)[np.roll(target, 12)]
            scored = Scored(
                scores=scores,
                target_ids=None if task == "multi_label" else known,
                targets=sets if task == "multi_label" and with_targets else None,
            )
            writer.write_windows(video, window_columns(rows, length=16, seconds_per_row=0.2), scored)
            if task == "per_row":
                seconds = np.arange(rows) * 0.2
                spans = {"row": np.arange(rows), "start_seconds": seconds, "stop_seconds": seconds + 0.04}
                writer.write_rows(video, {**spans, "source_start": np.arange(rows) * 5}, scored)
            mean = scores.mean(axis=0, keepdims=True)
            label = np.array([seed % len(CLASSES)]) if with_targets and task == "video" else None
            writer.write_video(video, num_windows=rows, scored=Scored(scores=mean, target_ids=label))


def write_run(store: Store) -> None:
    """Twelve epochs of a run that learns."""
    run = RunFolder(store.run("r" * 32))
    for epoch in range(12):
        fall = math.exp(-epoch / 4)
        run.add_metrics(
            {
                "epoch": epoch,
                "update": epoch * 10,
                "lr": 1e-3,
                "train_loss": 0.2 + 1.6 * fall,
                "val_loss": 0.35 + 1.4 * fall + 0.01 * epoch,
                "val_top1": 0.9 - 0.7 * fall,
                "val_macro_f1": 0.85 - 0.7 * fall,
            }
        )


@pytest.fixture
def fake_store(tmp_path: Path) -> Callable[..., FakeStore]:
    """Makes a store with predictions of ``task`` and the work unit; further settings go to evaluate."""

    def make(*, task: str = "last_row", with_targets: bool = True, **settings: object) -> FakeStore:
        store = Store.at(tmp_path / f"store-{task}-{with_targets}")
        write_predictions(store, task=task, with_targets=with_targets)
        write_run(store)
        embed = InputRef(node="embed", stage="embed", key="e" * 32, config={"frames": "f", "encoder": "timm/resnet18"})
        learned = {"embeddings": ["embed"], "window": {"length": 16}, "model": {"name": "gru"}, "seed": 7}
        run = InputRef(node="train", stage="train", key="r" * 32, config=learned, inputs={"embeddings": (embed,)})
        predict = InputRef(
            node="predict",
            stage="predict",
            key="p" * 32,
            config={"run": "train"},
            inputs={"run": (run,), "embeddings": (embed,)},
        )
        work = Work(
            node="<scores>",
            stage="evaluate",
            key="s" * 32,
            config={"predictions": "predict", **settings},
            spec={},
            store=str(store.root),
            inputs={"predictions": (predict,)},
            payload={
                "videos": [
                    {"video_id": "plain-01", "digest": f"{0:032x}", "path": "gone.mp4", "duration_seconds": 26.0}
                ]
            },
        )
        return FakeStore(store, work)

    return make
