"""Run by test_processes.py in each of two processes: trainings of a small module, alone, together, cut and resumed.

Every scenario is one line of JSON on stdout of the first process. `python two_processes.py FOLDER`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from reelwright.models.contracts import VideoModel
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.datasets.sampling.draws import EpochSampler
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.fit.loop.batches import Batch, Split
from reelwright.stages.fit.loop.progress import TIMINGS
from reelwright.stages.fit.loop.trainer import Rates, Trainer, TrainerSettings
from reelwright.stages.fit.optim.build import build_lr_schedule, build_optimizer, parameter_groups
from reelwright.stages.fit.optim.config import OptimizerSettings, ScheduleSettings
from reelwright.stages.fit.processes.world import World, joined
from reelwright.stages.fit.validation import evaluate
from reelwright.stages.objectives.classification import Classification
from reelwright.stages.objectives.contract import LossParts, Objective
from reelwright.stages.objectives.contrastive import Contrast
from reelwright.storage.errors import Interrupted, StageError
from reelwright.storage.results.runs import RunFolder
from tests.models.calling import Net

NUM_ITEMS, DIM, EPOCHS = 22, 5, 3
CONTRASTIVE = ("supcon", "batch_all")
EQUAL = (
    *(("plain", 7, 1), ("plain", 5, 2), ("plain", 3, 1), ("norm", 4, 1)),
    *(("supcon", 7, 1), ("supcon", 7, 3), ("batch_all", 8, 1)),
)  # objective or middle layer, batch size, batches an update


class Rows:
    """Random vectors with labels, some unknown; each process takes its share of every batch."""

    num_items = NUM_ITEMS

    def __init__(self, *, batch_size, world, poisoned=None):
        self.x = torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(7))
        self.y = (self.x[:, 0] > 0).long()
        self.y[::5] = -1
        if poisoned is not None:
            self.x[poisoned, 0] = float("nan")
        self.split = Split(batch_size=batch_size, world=world)
        self.num_batches = self.split.num_parts(NUM_ITEMS)

    def epoch(self, epoch, *, first=0):
        for part, num_all, is_counted in self.split.parts(EpochSampler(seed=3).order(NUM_ITEMS, epoch), first=first):
            picked = torch.from_numpy(part)

            def about(part=part):
                return [f"row {number}" for number in part]

            yield Batch({"rows": self.x[picked]}, self.y[picked], num_all, is_counted, about)


class Embedding(nn.Sequential, VideoModel):
    """Layers one after the other, from `rows` to an `embedding` of unit length."""

    def forward(self, batch):
        return {"embedding": nn.functional.normalize(nn.Sequential.forward(self, batch["rows"]), dim=1)}


class SignalAt(SilentReporter):
    """Sends this process a SIGTERM after so many updates."""

    def __init__(self, update):
        super().__init__()
        self.left = update

    def advance(self, amount):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), 15)


def loss(logits, targets):
    total = nn.functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


class Spread(Objective):
    """How far the logits of a batch lie apart, all of them compared."""

    gathers = ("logits", "targets")

    def forward(self, outputs, batch):
        logits = outputs["logits"][batch["targets"] >= 0]
        return LossParts((logits[:, None] - logits[None]).square().mean())


def evaluated(world):
    """Batches of 3 out of 22: in the last one only the first process has an item of its own."""
    torch.manual_seed(2)
    model = Net(nn.Linear(DIM, 2)).eval()
    data, task = Rows(batch_size=3, world=world), build_task("last_row", LabelSpace(classes=("a", "b")))
    return evaluate(model, data, task=task, objective=Spread(), device=torch.device("cpu"), world=world)


def train(folder, world, *, kind, batch_size, accumulate=1, reporter=None, poisoned=None, is_late=False):
    """One training; returns the trainer. ``is_late``: what updates were like is read late, as on GPUs."""
    torch.manual_seed(1)
    middle = {"dropout": nn.Dropout(0.4), "norm": nn.BatchNorm1d(8)}.get(kind, nn.Identity())
    # a bias in front of a batch norm has no gradient but noise, which Adam would blow up
    module = Net(nn.Linear(DIM, 8, bias=kind != "norm"), middle, nn.ReLU(), nn.Linear(8, 2))
    objective = Classification(loss, per_row=True)
    if kind in CONTRASTIVE:
        module, objective = Embedding(*module), Contrast(kind, temperature=0.5, margin=0.1, exclude_background=False)
    chosen = OptimizerSettings(lr=0.05)
    trainer = Trainer(
        module,
        optimizer=build_optimizer(parameter_groups(module, chosen), chosen),
        rates=Rates(lr=build_lr_schedule(ScheduleSettings(), epochs=EPOCHS, updates_per_epoch=6)),
        objective=objective,
        settings=TrainerSettings(
            key="k", epochs=EPOCHS, seed=5, metric="loss", accumulate=accumulate, ema_decay=0.9, clip_norm=0.5
        ),
        folder=RunFolder(folder),
        reporter=reporter or SilentReporter(),
        world=world,
    )
    trainer.updater.is_late = is_late
    data = Rows(batch_size=batch_size, world=world, poisoned=poisoned)

    def judge(forward):
        with torch.inference_mode():
            outputs, batch = forward({"rows": data.x}), {"targets": data.y}
            return {"loss": float(objective(outputs, batch).total)}

    trainer.fit(data, judge)
    return trainer


def numbers(trainer):
    """All that two trainings may differ in."""
    lines = [{name: value for name, value in line.items() if name not in TIMINGS} for line in trainer.progress.records]
    return {"lines": lines, "weights": [value.tolist() for value in trainer.module.state_dict().values()]}


def main(folder):
    alone = World()
    with joined(use_gpu=False) as world:
        found = {}
        for kind, batch_size, accumulate in EQUAL:
            name = f"{kind}-{batch_size}-{accumulate}"
            together = train(folder / name, world, kind=kind, batch_size=batch_size, accumulate=accumulate)
            single = folder / f"{name} alone {world.rank}"
            by_itself = train(single, alone, kind=kind, batch_size=batch_size, accumulate=accumulate)
            found[f"equal {name}"] = [numbers(by_itself), numbers(together)]
        found["evaluated"] = world.gather([evaluated(alone), evaluated(world)])
        whole = train(folder / "whole", world, kind="dropout", batch_size=4)
        found["late"] = [
            numbers(whole),
            numbers(train(folder / "late", world, kind="dropout", batch_size=4, is_late=True)),
        ]
        for update, is_late in ((1, False), (5, False), (6, False), (11, False), (5, True), (6, True)):
            name = f"cut {update}{' late' if is_late else ''}"
            cut = folder / name
            reporter = SignalAt(update) if world.rank == 1 else None  # only one of them is asked to stop
            try:
                train(cut, world, kind="dropout", batch_size=4, reporter=reporter, is_late=is_late)
                message = "not interrupted"
            except Interrupted as stopped:
                message = str(stopped)
            resumed = train(cut, world, kind="dropout", batch_size=4, is_late=is_late)
            found[name] = [message, numbers(whole), numbers(resumed)]
        try:
            train(folder / "poisoned", world, kind="plain", batch_size=4, poisoned=13)
        except StageError as error:
            found["poisoned"] = world.gather(str(error))
        try:
            train(folder / "poisoned late", world, kind="plain", batch_size=4, poisoned=13, is_late=True)
        except StageError as error:
            found["poisoned late"] = world.gather(str(error))
        if world.is_main:
            print(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
