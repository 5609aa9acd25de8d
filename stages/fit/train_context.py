"""Where a run is trained: the device, and one process or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from reelwright.stages.base.devices import deterministic_results, local_gpu, pick_device
from reelwright.stages.base.work import Reporter, SilentReporter, Work
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.loop.loggers import check_loggers
from reelwright.stages.fit.processes.launch import launch
from reelwright.stages.fit.processes.world import World, joined, wanted_size
from reelwright.storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """Where this process trains, and with whom."""

    device: torch.device
    world: World
    reporter: Reporter  # silent in all processes but the first


class Train(Protocol):
    """Does the work of a run in one process."""

    def __call__(self, work: Work, config: Any, context: TrainContext) -> dict[str, Any] | None:
        """The outputs of the run; None in processes that are not the first."""


def train_in_processes(work: Work, reporter: Reporter, *, config: LearningSettings, train: Train) -> dict[str, Any]:
    """Do ``train`` here, in as many new processes as the settings want, or in this one of those torchrun started.

    Raises ConfigError for devices or loggers that are not there.
    """
    check_loggers(config.log_to)
    pick_device(config.device, num_processes=config.processes)
    size = wanted_size()
    if size == 1 and config.processes > 1:
        return launch(work, reporter, num_processes=config.processes)
    if size > 1 and config.batch_size < size:
        raise ConfigError(f"{work.node}: batch_size is {config.batch_size}, but {size} processes share each batch.")
    use_gpu = pick_device(config.device).type == "cuda"
    with joined(use_gpu=use_gpu) as world:
        device = torch.device("cuda", local_gpu()) if use_gpu and size > 1 else pick_device(config.device)
        context = TrainContext(device=device, world=world, reporter=reporter if world.is_main else SilentReporter())
        with deterministic_results(config.deterministic):
            outputs: dict[str, Any] = world.gather(train(work, config, context))[0]
        return outputs
