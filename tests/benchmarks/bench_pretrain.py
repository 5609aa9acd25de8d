"""Pre-training on clips: clips/s of the stage, against its bound measured in the same rounds.

The bound is what no loop can do without: reading the stored frames of every clip, and then forward, backward and update
on clips that are in memory. On a GPU both can go on at once, so the slower one counts; on a CPU they share the cores,
so their times add up. Ours is measured as it is by default (flips, crops, RandAugment, blur), and with scene
augmentations as well, at full strength; what these cost the bound leaves out. Ours reads from the store too
(memory_bytes: 1); start and end of the run are not counted.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch

from reelwright.pipeline.project import Project
from reelwright.stages.base.devices import pick_device
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.datasets.sampling.windows import WindowShape, window_rows, windows_at
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.finetune.clips import open_videos
from reelwright.stages.objectives.config import SelfSupervisedSettings
from reelwright.stages.objectives.self_supervised import comparison_heads, self_supervised_objective
from reelwright.stages.pretrain.module import ClipEncoderNetwork
from reelwright.stages.pretrain.work import run as pretrain
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from tests.benchmarks.chain import fresh_work
from tests.benchmarks.harness import Options, Row, Turns

SIDE, STORED, LENGTH, BATCH_SIZE, AIM = 112, 128, 8, 4, 0.9
NUM_VIDEOS, QUICK_VIDEOS = 16, 4  # an epoch has two clips of each
FILE = """
videos: {synthesize: {family: dead_leaves, size: STORED, samples: NUM}}
stages:
  frames: {uses: decode}
  tsm:
    uses: embed
    frames: frames
    encoder: ENCODER
    weights: none
    preprocess: {size: [SIDE, SIDE], resize: STORED}
    clip: {length: LENGTH, dilation: 2}
  plain: &plain
    uses: pretrain
    frames: frames
    encoder: ENCODER
    weights: none
    preprocess: {size: [SIDE, SIDE], resize: STORED}
    objective: {name: simclr}
    clips: &clips {length: LENGTH, dilation: 2, batch_size: BATCH_SIZE, augment: {crop_scale: [0.9, 1.0]}}
    epochs: 1
    val_splits: []
    memory_bytes: 1
  scene:
    <<: *plain
    clips: {<<: *clips, augment: {crop_scale: [0.9, 1.0], scene: {curriculum_epochs: 0}}}
"""


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    project = _project(options)
    bare, turns = _Bare(project), Turns(options.repeats)
    turns.add("bound", bare.rate)
    for node in ("plain", "scene"):
        turns.add(node, partial(_our_rate, project, node))
    found = turns.measure(warm_up=not options.quick)
    bound = found["bound"]
    names = {"plain": "pretrain", "scene": "pretrain with scene augmentations"}
    return [
        Row(what="bound: bare reading, then bare steps", unit="clips/s", figures=bound, note=bare.note()),
        *(
            Row(what=name, unit="clips/s", figures=found[node], reference="bound", against=bound, aim=AIM)
            for node, name in names.items()
        ),
    ]


def _project(options: Options) -> Project:
    device = pick_device("auto")
    encoder = "tsm/resnet50" if device.type == "cuda" else "tsm/mobilenetv2_100"
    given = {"ENCODER": encoder, "NUM": QUICK_VIDEOS if options.quick else NUM_VIDEOS, "BATCH_SIZE": BATCH_SIZE}
    text = FILE
    for name, value in {**given, "SIDE": SIDE, "STORED": STORED, "LENGTH": LENGTH}.items():
        text = text.replace(name, str(value))
    folder = options.folder / "pretrain"
    folder.mkdir(parents=True)
    (folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    project = Project.open(folder / "reelwright.yaml")
    result = project.run(only=["frames"])
    assert result.exit_code == 0, result
    return project


def _our_rate(project: Project, node: str) -> float:
    """Clips a second of the stage's epoch, reading and augmentation included."""
    work = fresh_work(project, node)
    pretrain(work, SilentReporter())
    return float(RunFolder(Store.at(work.store).run(work.key)).metrics()[-1]["items_per_second"])


class _Bare:
    """As many clips, read and learned from without a trainer, one after the other."""

    def __init__(self, project: Project) -> None:
        work = fresh_work(project, "plain")
        self.device = pick_device("auto")
        store, (frames,) = Store.at(work.store), work.inputs["frames"]
        loaded = encoder_of(fresh_work(project, "tsm"))
        frame_store = FrameStore(store.frames(frames.key))
        self.videos = open_videos(frame_store, list(frame_store.digests()))
        settings = SelfSupervisedSettings(name="simclr")
        size = loaded.encoder.model.num_features
        heads = comparison_heads(settings, size, seed=0)
        self.module = ClipEncoderNetwork(loaded.encoder, data_config=loaded.data_config, heads=heads)
        self.module.to(self.device).train()
        self.objective = self_supervised_objective(settings, seed=0)
        self.seconds: list[tuple[float, float]] = []
        self.num_clips = 2 * len(self.videos.rows)

    def rate(self) -> float:
        """Clips a second that reading and learning allow."""
        started = time.perf_counter()
        clips = self._read()
        read = time.perf_counter() - started
        learned = self._learn(clips)
        self.seconds.append((read, learned))
        return self.num_clips / (max(read, learned) if self.device.type == "cuda" else read + learned)

    def note(self) -> str:
        """How the bound comes about."""
        read, learned = np.median(np.array(self.seconds), axis=0) / self.num_clips
        return f"{1000 * read:.1f} ms reading, {1000 * learned:.1f} ms learning a clip"

    def _read(self) -> torch.Tensor:
        """The middle clip of every video, twice, cut to what the network sees."""
        shape = WindowShape(length=LENGTH, dilation=2, short="repeat")
        num_rows = np.repeat([rows.num_rows for rows in self.videos.rows], 2)
        which = np.repeat(np.arange(len(self.videos.rows)), 2)
        starts = np.maximum(num_rows - shape.span_rows, 0) // 2
        rows, _ = window_rows(windows_at(which, starts, num_rows, shape), shape)
        clips = [self.videos.rows[video].take(row) for video, row in zip(which.tolist(), rows, strict=True)]
        edge = (STORED - SIDE) // 2
        return torch.from_numpy(np.stack(clips)[:, :, edge : edge + SIDE, edge : edge + SIDE].copy())

    def _learn(self, clips: torch.Tensor) -> float:
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=True)
        started = time.perf_counter()
        for batch in clips.split(2 * BATCH_SIZE):
            optimizer.zero_grad()
            outputs = self.module({"frames": batch.to(self.device)})
            self.objective(outputs, {}).total.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started
