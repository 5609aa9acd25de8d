"""A small real project and its fixtures: five short videos with two phases each, and the whole chain over them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from reelwright.pipeline.project import Project
from reelwright.stages.base.video_writer import VideoWriter

PIPELINE = """
videos: {manifest: videos.csv, workers: 1}
labels: {segments: segments.csv}
stages:
  frames: {uses: decode, fps: 5, short_side: 48, workers: 1}
  embed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none, batch_size: 8, channels_last: false}
  train:
    uses: train
    embeddings: [embed]
    task: per_row
    window: {length: 4, hop: 2}
    model: {name: linear}
    epochs: 2
    batch_size: 8
    val_splits: []
  predict: {uses: predict, run: train}
  scores: {uses: evaluate, predictions: predict, thumbnails: 0}
"""

SPLITS = {"a": "train", "b": "train", "c": "train", "d": "test", "e": "test"}


def write_video(path: Path, *, seed: int, num_frames: int = 20, fps: int = 10) -> None:
    """A dark square that moves over a bright, then over a blue ground."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 40, 2)
    with VideoWriter(path, size=(64, 64), fps=fps) as writer:
        for number in range(num_frames):
            image = np.full((64, 64, 3), (230, 230, 210) if number < num_frames // 2 else (40, 60, 160), dtype=np.uint8)
            image[y : y + 16, (x + number) % 48 : (x + number) % 48 + 16] = 20
            writer.add(image)


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """A CSV of equal dictionaries."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_project(folder: Path) -> Path:
    """The project, not run yet."""
    for seed, name in enumerate(SPLITS):
        write_video(folder / f"{name}.mp4", seed=seed)
    write_rows(
        folder / "videos.csv",
        [{"video_id": name, "path": f"{name}.mp4", "split": split} for name, split in SPLITS.items()],
    )
    write_rows(
        folder / "segments.csv",
        [
            {"video_id": name, "start_seconds": start, "stop_seconds": start + 1, "label": label}
            for name in SPLITS
            for start, label in ((0, "bright"), (1, "blue"))
        ],
    )
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project, not run yet."""
    return write_project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, run to its end once; read only."""
    folder = write_project(tmp_path_factory.mktemp("finished"))
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project to change; its videos are those of the original, so that none is read again."""
    shutil.copytree(finished, tmp_path, ignore=shutil.ignore_patterns("*.mp4"), dirs_exist_ok=True)
    text = PIPELINE.replace("manifest: videos.csv", f"manifest: videos.csv, root: {finished}")
    (tmp_path / "reelwright.yaml").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def restorable(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished project for `put_back`; its videos are those of the original."""
    folder = tmp_path_factory.mktemp("restorable")
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("*.mp4"), dirs_exist_ok=True)
    text = PIPELINE.replace("manifest: videos.csv", f"manifest: videos.csv, root: {finished}")
    (folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    file = Project.open(folder / "reelwright.yaml").file
    file.store.project(finished / "reelwright.yaml").rename(file.store.project(file.path))
    shutil.copytree(folder / ".reelwright", folder / "pristine")
    return folder


def put_back(folder: Path) -> Project:
    """The restorable project as it was left by its run, in its place: last records are known by path."""
    shutil.rmtree(folder / ".reelwright")
    shutil.copytree(folder / "pristine", folder / ".reelwright")
    return Project.open(folder / "reelwright.yaml")
