"""Rows of videos that probes are tried on, and values of the public code of CARL (`_origin`: how they were made)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo

DATA = Path(__file__).resolve().parents[1] / "data"
VALUES: dict[str, Any] = json.loads((DATA / "carl_evaluation.json").read_text(encoding="utf-8"))
PUBLIC = VALUES["evaluation"]


def given(split: str) -> list[EmbeddedVideo]:
    """The public videos of a split."""
    return [
        EmbeddedVideo(name=f"{split}{number}", rows=np.array(video["emb"]), labels=np.array(video["label"]))
        for number, video in enumerate(PUBLIC[split])
    ]


def line(
    values: Any, labels: Any = None, *, name: str = "line", fps: float | None = None, action: str = ""
) -> EmbeddedVideo:
    """Rows of one number each."""
    rows = np.asarray(values, np.float64)[:, None]
    seconds = None if fps is None else np.arange(len(rows)) / fps
    return EmbeddedVideo(name=name, rows=rows, labels=labels, seconds=seconds, action=action)


def drawn(seed: int, *, num_videos: int = 6, phases: int = 3, noise: float = 0.3, size: int = 5) -> list[EmbeddedVideo]:
    """Videos of 10 frames a second whose rows go from phase to phase, with noise."""
    generator = np.random.default_rng(seed)
    corners = np.random.default_rng(99).normal(size=(phases, size))
    videos = []
    for number in range(num_videos):
        labels = np.repeat(np.arange(phases), generator.integers(4, 9, phases))
        rows = corners[labels] + noise * generator.normal(size=(len(labels), size))
        seconds = np.arange(len(labels)) / 10
        videos.append(EmbeddedVideo(name=f"video{number}", rows=rows, labels=labels, seconds=seconds))
    return videos
