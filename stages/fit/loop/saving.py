"""What a run writes of its weights: the best ones, those that stay, and the checkpoint from which it goes on."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from reelwright.models.blocks.ema import ModelEma
from reelwright.models.metrics.metric import metric_named
from reelwright.stages.base.work import Reporter
from reelwright.stages.fit.loop.checkpoints import Checkpoint, load_last, save_last, save_state
from reelwright.stages.fit.loop.progress import Progress, TrainerSettings
from reelwright.stages.fit.loop.updates import Updater
from reelwright.stages.fit.processes.world import World
from reelwright.storage.errors import StoreError
from reelwright.storage.files import remove
from reelwright.storage.results.runs import RunFolder

CHECKPOINT_SECONDS = 2.0  # epochs shorter than that share a checkpoint: writing it would take longer than training


class Saver:
    """Writes and reads the weights of one training; of several processes the first one writes."""

    def __init__(
        self, updater: Updater, mean: ModelEma | None, *, settings: TrainerSettings, folder: RunFolder
    ) -> None:
        self.updater, self.mean, self.settings, self.folder = updater, mean, settings, folder
        self.world = updater.world
        self.module: nn.Module = updater.module
        self._saved = -math.inf  # when the last checkpoint was written

    def best(self, progress: Progress) -> Path:
        """The file of the best weights so far."""
        assert progress.best_update is not None
        return self.folder.best(progress.best_update)

    def keep_best(self, progress: Progress, value: float, *, epoch: float) -> None:
        """Of the weights that were evaluated, which the module has now."""
        if metric_named(self.settings.metric).is_better(value, than=progress.best):
            progress.best, progress.best_epoch, progress.num_stale = value, epoch, 0
            progress.best_update = progress.update
            if self.world.is_main:
                save_state(self.best(progress), self.module.state_dict())
        else:
            progress.num_stale += 1

    def save(self, path: Path) -> None:
        """Write the weights that would be evaluated: the mean's where there is one."""
        if self.world.is_main:
            save_state(path, self.module.state_dict() if self.mean is None else self.mean.state)

    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough; the first process decides for all."""
        is_due = time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        found: bool = self.world.gather(is_due)[0]
        return found

    def checkpoint(self, progress: Progress) -> None:
        """Everything a resume needs; each process adds its random state, the first one writes."""
        streams = self.world.gather(own_stream(self.updater.device))
        self._saved = time.monotonic()
        if not self.world.is_main:
            return
        state = {
            "key": self.settings.key,
            "progress": asdict(progress),
            "optimizer": self.updater.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "mean_updates": None if self.mean is None else self.mean.num_updates,
            "random": streams,
        }
        weights = {"weights": self.module.state_dict()}
        if self.mean is not None:
            weights["mean"] = self.mean.state
        objective = self.updater.objective.state_dict()
        if objective:
            weights["objective"] = objective
        save_last(self.folder.last, Checkpoint(update=progress.update, weights=weights, state=state))
        self.folder.keep_best(progress.best_update)  # those of the checkpoint before, now that none names them

    def resume(self, reporter: Reporter) -> Progress:
        """Take up the last checkpoint, if there is one; returns where the training stands.

        Raises StoreError for a checkpoint of another run, or whose best weights are gone.
        """
        if self.world.is_main and not self.settings.resume:
            remove(self.folder.last)
        self.world.wait()
        found = load_last(self.folder.last)
        progress = Progress() if found is None else self._take_up(found)
        if self.world.is_main:  # of lines and best weights, what the checkpoint knows of: the rest was written after it
            self.folder.keep_metrics(progress.records)
            self.folder.keep_best(progress.best_update)
        if found is None:
            return progress
        streams, seed = found.state["random"], self.settings.seed + progress.update
        if not take_stream(streams, self.updater.device, self.world, seed=seed):
            reporter.note(
                f"the checkpoint is of {len(streams)} processes, now there are {self.world.size}: random "
                "numbers (dropout, augmentation) are drawn anew"
            )
        reporter.note(f"goes on after update {progress.update} (epoch {progress.epoch + 1})")
        return progress

    def _take_up(self, found: Checkpoint) -> Progress:
        """Fill everything that learns."""
        state, last = found.state, self.folder.last
        if state["key"] != self.settings.key:
            raise StoreError(
                f"{last} is of run {state['key']}, not of {self.settings.key}. Remove it to train from the beginning."
            )
        found.fill(self.module, last)
        if self.mean is not None:
            self.mean.load(found.weights["mean"], num_updates=state["mean_updates"])
        found.fill(self.updater.objective, last, kind="objective")
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.updater.scaler.load_state_dict(state["scaler"])
        progress = Progress(**state["progress"])
        if progress.best is not None and (progress.best_update is None or not self.best(progress).is_file()):
            file = "any" if progress.best_update is None else self.best(progress)
            raise StoreError(
                f"{last} goes on from a best {self.settings.metric} of epoch {progress.best_epoch}, whose weights are "
                f"gone ({file}), or it is of an older release. Remove it to train from the beginning."
            )
        return progress


Stream = tuple[Tensor, Tensor | None]  # torch's state on the CPU and on the GPU

_DISTANCE = 1_000_003  # between the seeds of two processes


@contextlib.contextmanager
def seeded(seed: int, device: torch.device, world: World) -> Iterator[None]:
    """Torch's global random state from the seed while the block runs; as it was afterwards.

    A single process, and the first of several, start at the seed itself.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed + _DISTANCE * world.rank)
        yield


def own_stream(device: torch.device) -> Stream:
    """Where the random numbers of this process stand."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def take_stream(streams: Sequence[Stream], device: torch.device, world: World, *, seed: int) -> bool:
    """Go on where this process stood; with another number of processes, a new stream from ``seed``, and False."""
    if len(streams) != world.size:
        torch.manual_seed(seed + _DISTANCE * (world.rank + world.size))
        return False
    set_stream(streams[world.rank], device)
    return True


def set_stream(stream: Stream, device: torch.device) -> None:
    """Go on where `own_stream` was."""
    on_cpu, on_gpu = stream
    torch.set_rng_state(on_cpu)
    if on_gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(on_gpu, device)
