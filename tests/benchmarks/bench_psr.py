"""Prediction on video as STORM-PSR does it: ViT-S, windows of 65 frames, one at every frame.

The public code encodes all 65 frames of every window; ours encodes each frame once. In a recording of 320 frames each
is in 52 windows on average, which bounds what that can save.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from reelwright.pipeline.project import Project
from reelwright.stages.synthesize.encode import write_video
from tests.benchmarks.bench_predict import EveryWindow, overlap_factor
from tests.benchmarks.chain import fresh_work, make_project, timed_items
from tests.benchmarks.harness import Options, Row, Turns

LENGTH, NUM_FRAMES, SIZE, FPS = 65, 320, (240, 320), 10
SAMPLED_WINDOWS = 3
STAGES = f"""
  frames: {{uses: decode, materialize: false}}
  embed: {{uses: embed, frames: frames, encoder: timm/ENCODER, weights: none, embed_dim: 128}}
  train:
    uses: train
    embeddings: [embed]
    task: multi_label
    window: {{length: {LENGTH}, hop: 1, per_epoch: 8}}
    model: {{name: storm_transformer}}
    epochs: 1
    batch_size: 4
    val_splits: []
  hop1: {{uses: predict, run: train, frames: frames}}
"""


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    num_frames = 70 if options.quick else NUM_FRAMES
    folder = options.folder / "psr"
    folder.mkdir(parents=True, exist_ok=True)
    path = _video(folder / "recording.mp4", num_frames)
    encoder = "test_vit" if options.quick else "vit_small_patch16_224"
    project = make_project(folder, [path], STAGES.replace("ENCODER", encoder))
    result = project.run(until=["train"])
    assert result.exit_code == 0, result
    every_window = EveryWindow(project, path, length=LENGTH, num_windows=1 if options.quick else SAMPLED_WINDOWS)
    turns = Turns(options.repeats)
    turns.add("per window", every_window.rate)
    turns.add("ours", lambda: _rate(project))
    found = turns.measure(warm_up=False)
    reference = found["per window"]
    ours = Row(
        what="predict over frames, hop 1",
        unit="windows/s",
        figures=found["ours"],
        reference="every window",
        against=reference,
        aim=40.0,
    )
    factor = overlap_factor(num_frames, 1, length=LENGTH)
    share = statistics.median(ours.ratios) / factor
    return [
        Row(what="encoder on all frames of every window", unit="windows/s", figures=reference),
        replace(ours, note=f"overlap factor {factor:.1f}, {share:.2f} of it"),
    ]


def _rate(project: Project) -> float:
    windows, seconds = timed_items(fresh_work(project, "hop1"))
    return windows / seconds


def _video(path: Path, num_frames: int) -> Path:
    """Coarse noise that moves, so that no two frames are alike."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (SIZE[0] // 16, SIZE[1] // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    frames = (np.roll(noise, 3 * number, axis=1) for number in range(num_frames))
    write_video(path, frames, size=SIZE, fps=float(FPS), codec="h264")
    return path
