"""Fine-tuning end to end: steps/s of the stage, against its bound measured in the same rounds.

The bound is what no loop can do without: reading the stored frames of every window (decode the JPEGs, resize), and
forward, backward and step on windows that are in memory. On a GPU both can go on at once, so the slower one counts; on
a CPU they share the cores, so their times add up. Ours reads from the store too (memory_bytes: 1), nothing is augmented
in either, and the time of the validation and of the checkpoint at the end of the epoch is not counted.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from reelwright.models.temporal.build import build_temporal
from reelwright.pipeline.project import Project
from reelwright.stages.base.devices import pick_device
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows, window_rows
from reelwright.stages.decode.geometry import apply
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.finetune.clips import open_videos
from reelwright.stages.finetune.module import FinetuneModule
from reelwright.stages.finetune.work import run as finetune
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from tests.benchmarks.chain import fresh_work, make_project
from tests.benchmarks.harness import Options, Row, Turns
from tests.benchmarks.videos import bench_videos

LENGTH, BATCH_SIZE, STEPS, NUM_VIDEOS, AIM = 8, 4, 6, 2, 0.9
NUM_FEATURES = 512  # of resnet18
STAGES = f"""
  frames: {{uses: decode, stop: LAST, fps: 5, short_side: 256}}
  embed: {{uses: embed, frames: frames, encoder: timm/resnet18, weights: none, preprocess: {{size: [112, 112]}}}}
  train:
    uses: train
    embeddings: [embed]
    window: {{length: {LENGTH}, hop: 2}}
    model: {{name: gru, width: 128}}
    epochs: 1
    val_splits: []
  tune:
    uses: finetune
    frames: frames
    spatial: embed
    temporal: train
    epochs: 1
    batch_size: {BATCH_SIZE}
    windows_per_epoch: {STEPS * BATCH_SIZE}
    val_splits: []
    memory_bytes: 1
    augment: {{flip: 0, crop_scale: null, color_jitter: 0}}
"""


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    paths = bench_videos()[: min(NUM_VIDEOS, options.num_videos)]
    project = make_project(options.folder / "finetune", paths, STAGES.replace("LAST", "3" if options.quick else "null"))
    result = project.run(until=["train"])
    assert result.exit_code == 0, result
    bare, turns = _Bare(project), Turns(options.repeats)
    turns.add("bound", bare.bound)
    turns.add("ours", lambda: _our_rate(project))
    found = turns.measure()
    bound, ours = found["bound"], found["ours"]
    return [
        Row(what="bound: bare reading and bare steps", unit="steps/s", figures=bound, note=bare.note()),
        Row(what="finetune", unit="steps/s", figures=ours, reference="bound", against=bound, aim=AIM),
    ]


def _our_rate(project: Project) -> float:
    """Steps a second of the stage's epoch, reading included."""
    work = fresh_work(project, "tune")
    finetune(work, SilentReporter())
    record = RunFolder(Store.at(work.store).run(work.key)).metrics()[-1]
    return float(record["update"] / record["seconds"])


class _Bare:
    """The same windows, read and learned from without a trainer, one after the other."""

    def __init__(self, project: Project) -> None:
        work = fresh_work(project, "tune")
        self.device = pick_device("auto")
        store, (frames,) = Store.at(work.store), work.inputs["frames"]
        loaded = encoder_of(fresh_work(project, "embed"))
        self.geometry = geometry_of(loaded.data_config)
        frame_store = FrameStore(store.frames(frames.key))
        self.videos = open_videos(frame_store, list(frame_store.digests()))
        self.shape = WindowShape(length=LENGTH, hop=2)
        windows = grid_windows([rows.num_rows for rows in self.videos.rows], self.shape)
        picked = np.random.default_rng(0).integers(0, len(windows), STEPS * BATCH_SIZE)
        self.windows = windows.take(picked)
        size = {"input_dim": NUM_FEATURES, "num_outputs": 2, "length": LENGTH, "per_row": False}
        temporal = build_temporal("gru", **size, width=128)
        self.module = FinetuneModule(loaded.encoder, temporal, data_config=loaded.data_config, frozen_norm=True)
        self.module.to(self.device).train()
        self.seconds: list[tuple[float, float]] = []

    def bound(self) -> float:
        """Steps a second that reading and learning allow."""
        started = time.perf_counter()
        clips = self._read()
        read = time.perf_counter() - started
        learned = self._learn(clips)
        self.seconds.append((read, learned))
        return STEPS / (max(read, learned) if self.device.type == "cuda" else read + learned)

    def note(self) -> str:
        """How the bound comes about."""
        read, learned = np.median(np.array(self.seconds), axis=0) / STEPS
        return f"{1000 * read:.0f} ms reading, {1000 * learned:.0f} ms learning a step"

    def _read(self) -> torch.Tensor:
        rows, _ = window_rows(self.windows, self.shape)
        videos = self.windows.video.tolist()
        clips = [
            apply(self.videos.rows[video].take(row), self.geometry) for video, row in zip(videos, rows, strict=True)
        ]
        return torch.from_numpy(np.stack(clips))

    def _learn(self, clips: torch.Tensor) -> float:
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=True)
        targets = torch.zeros(BATCH_SIZE, dtype=torch.long, device=self.device)
        mask = torch.ones(BATCH_SIZE, LENGTH, dtype=torch.bool, device=self.device)
        started = time.perf_counter()
        for batch in clips.split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = self.module({"frames": batch.to(self.device), "mask": mask})["logits"]
            torch.nn.functional.cross_entropy(logits, targets).backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started
