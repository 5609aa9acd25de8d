"""Scene augmentations: clips a second of each alone, and what they cost beside a training step on the same clips.

Each is drawn for every clip, at the full strength that the curriculum ends with; `all` has the probabilities of
fractal_video's pre-training. The step is forward, backward and update of a TSM-MobileNetV2 (of a TSM-ResNet-50 on a
GPU) on clips in memory.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.augment.scene.augmentation import EpochSteps, SceneAugmentation
from reelwright.stages.augment.scene.config import SceneSettings
from reelwright.stages.base.devices import pick_device
from tests.benchmarks.harness import Options, Row, Turns
from tests.scene_sheets import SHEETS

SIDE, LENGTH, BATCH_SIZE, QUICK_BATCH_SIZE, NUM_CLASSES = 112, 8, 8, 2, 10
NUM_BATCHES = 8  # of an augmentation in a round
STEP = "a training step"


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    device = pick_device("auto")
    batch_size = QUICK_BATCH_SIZE if options.quick else BATCH_SIZE
    clips = torch.rand(batch_size, LENGTH, 3, SIDE, SIDE, device=device)
    cases = {STEP: _Case(_training_step(clips), clips, num_batches=1)}
    for name, settings in SHEETS.items():
        if name != "easy-key":
            batches = 1 if options.quick else NUM_BATCHES
            cases[name] = _Case(_augmentation(SceneSettings(**settings), clips), clips, num_batches=batches)
    turns = Turns(options.repeats)
    for name, case in cases.items():
        turns.add(name, case.rate)
    found, step = turns.measure(), cases[STEP].milliseconds()
    costs = {name: case.milliseconds() for name, case in cases.items()}
    notes = {name: f"{cost:.1f} ms of a core a clip, {cost / step:.1%} of a step" for name, cost in costs.items()}
    return [Row(what=name, unit="clips/s", figures=found[name], note=note) for name, note in notes.items()]


@dataclass
class _Case:
    """Batches of clips that are worked on, on the clock and in processor time."""

    work: Callable[[], object]
    clips: Tensor
    num_batches: int
    seconds: list[float] = field(default_factory=list)  # of all cores, for a clip

    def rate(self) -> float:
        """Clips a second."""
        started, busy = time.perf_counter(), time.process_time()
        for _ in range(self.num_batches):
            self.work()
        if self.clips.device.type == "cuda":
            torch.cuda.synchronize()
        count = self.num_batches * len(self.clips)
        self.seconds.append((time.process_time() - busy) / count)
        return count / (time.perf_counter() - started)

    def milliseconds(self) -> float:
        """Of one core, for a clip; the first run is a warm-up."""
        return 1000 * statistics.median(self.seconds[1:])


def _training_step(clips: Tensor) -> Callable[[], None]:
    name = "tsm/resnet50" if clips.device.type == "cuda" else "tsm/mobilenetv2_100"
    encoder = build_encoder(name, seed=0).to(clips.device).train()
    with torch.no_grad():
        head = nn.Linear(encoder(clips.transpose(1, 2))["pooled"].shape[1], NUM_CLASSES).to(clips.device)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-5, fused=True)
    targets = torch.zeros(len(clips), dtype=torch.long, device=clips.device)

    def step() -> None:
        optimizer.zero_grad()
        logits = head(encoder(clips.transpose(1, 2))["pooled"])
        nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()

    return step


def _augmentation(settings: SceneSettings, clips: Tensor) -> Callable[[], Tensor]:
    scene = SceneAugmentation(settings, seed=0, steps=EpochSteps(num_batches=1, clips_per_batch=len(clips)))
    epochs, places = itertools.count(), [*range(len(clips))]
    return lambda: scene(clips, epoch=next(epochs), places=places)
