"""What train, finetune and pretrain do alike around the trainer: where a run is trained, its start, its end.

That is the device and one process or several; optimizer and schedules; config.yaml and summary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch

from reelwright.models.blocks.activation_checkpointing import recompute_blocks
from reelwright.models.contracts import VideoModel
from reelwright.stages.base.devices import deterministic_results, local_gpu, pick_device
from reelwright.stages.base.work import InputRef, Reporter, SilentReporter, Work
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.init_from import init_weights
from reelwright.stages.fit.loop.batches import Batches, Prepare
from reelwright.stages.fit.loop.checkpoints import save_weights
from reelwright.stages.fit.loop.loggers import check_loggers
from reelwright.stages.fit.loop.trainer import Evaluate, Progress, Rates, Trainer, TrainerSettings
from reelwright.stages.fit.optim.build import (
    build_decay_schedule,
    build_lr_schedule,
    build_optimizer,
    freeze_groups,
    parameter_groups,
    scaled_lr,
)
from reelwright.stages.fit.processes.launch import launch
from reelwright.stages.fit.processes.world import World, joined, wanted_size
from reelwright.stages.fit.validation import evaluate
from reelwright.stages.objectives.contract import Objective
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.files import write_json
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store


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


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What a module is to learn, and from what."""

    train: Batches
    val: Batches | None  # None: no validation
    objective: Objective
    metric: str
    multipliers: Mapping[str, float] = field(default_factory=dict)  # start of a parameter's name -> factor on its rate
    task: Task | None = None  # what is classified; None: on val there is the loss alone
    prepare: Prepare | None = None  # what is done to training batches on the device
    evaluate: Evaluate | None = None  # what is measured besides `val`, or without it
    evaluate_start: bool = False  # the weights it starts from are a candidate for the best
    unit: str = "windows"  # what progress counts
    batch_items: int | None = None  # of a batch, where that is not what batch_size says

    @property
    def batch_unit(self) -> str:
        """What the batch size counts: of views and of pretrain's clips, the videos that they are of."""
        return "videos" if self.unit in {"views", "clips"} else self.unit


def learn(
    module: VideoModel,
    load: Callable[[], Learning],
    *,
    work: Work,
    config: LearningSettings,
    context: TrainContext,
    labels: LabelSpace,
    values: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Train ``module`` on what ``load`` gives: from `init_from`, or from the last checkpoint, to the end of the run.

    ``values`` are what config.yaml says of the model. Returns what the node's record keeps; None in processes that are
    not the first, which write nothing. Raises ConfigError or InputError before anything is loaded: for groups that fit
    nothing, an optimizer that cannot be made, weights of another model.
    """
    freeze_groups(module, config.optimizer.groups, where=work.node)
    build_optimizer(parameter_groups(module, config.optimizer), config.optimizer)
    init = init_weights(module, work, config, classes=labels.classes)
    folder = RunFolder(Store.at(work.store).run(work.key))
    learning = load()
    learning.objective.start(module)
    if context.world.is_main:
        folder.write_config(_run_values(work, labels, values))
    progress = _fit(module, learning, work=work, config=config, folder=folder, context=context, init=init)
    return _finish(folder, module, progress, metric=learning.metric) if context.world.is_main else None


def _fit(
    module: VideoModel,
    learning: Learning,
    *,
    work: Work,
    config: LearningSettings,
    folder: RunFolder,
    context: TrainContext,
    init: dict[str, Any] | None,
) -> Progress:
    batch_size = learning.batch_items or config.batch_size
    lr, line = scaled_lr(config.optimizer, batch_size=batch_size, unit=learning.batch_unit)
    context.reporter.note(line)
    if init is not None:
        context.reporter.note(init["line"])
        if context.world.is_main:
            write_json(folder.init_report, init)
    if learning.train.num_batches == 0:
        raise StageError(
            f"{work.node}: drop_last leaves no batch: {config.batch_size} {learning.batch_unit} make one. "
            "Lower batch_size."
        )
    if config.gradient_checkpointing and not recompute_blocks(module):
        context.reporter.note(
            "warning: gradient_checkpointing saves nothing: no block of the model can be computed again"
        )
    groups = parameter_groups(module, config.optimizer, lr=lr, multipliers=learning.multipliers)
    counts = {
        "epochs": config.epochs,
        "updates_per_epoch": -(-learning.train.num_batches // config.optimizer.accumulate),
    }
    trainer = Trainer(
        module,
        optimizer=build_optimizer(groups, config.optimizer, note=context.reporter.note),
        rates=Rates(
            lr=build_lr_schedule(config.schedule, **counts),
            decay=build_decay_schedule(config.optimizer, config.schedule, **counts),
        ),
        objective=learning.objective,
        settings=_trainer_settings(work, config, learning),
        folder=folder,
        reporter=context.reporter,
        world=context.world,
        prepare=learning.prepare,
    )
    if config.compile:
        module.compile()
    val, task = learning.val, learning.task
    if val is None:
        waiting = [name for name in ("metric", "early_stop", "evaluate_updates") if getattr(config, name) is not None]
        if learning.evaluate is None and waiting:
            context.reporter.note(
                f"warning: {' and '.join(waiting)} of no effect: there is nothing to validate on, so the last weights, "
                "behind all epochs, count"
            )
        return trainer.fit(learning.train, learning.evaluate, unit=learning.unit)

    def validate(forward: Any) -> dict[str, float]:
        how: dict[str, Any] = {"objective": learning.objective, "device": trainer.device, "world": context.world}
        found = evaluate(forward, val, task=task, **how)
        return found if learning.evaluate is None else found | learning.evaluate(forward)

    return trainer.fit(learning.train, validate, unit=learning.unit)


def _run_values(work: Work, labels: LabelSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """What config.yaml says: enough to build the model again, and where everything came from."""
    return {
        "stage": work.stage,
        "node": work.node,
        "key": work.key,
        "classes": list(labels.classes),
        "background": labels.background,
        **values,
        "inputs": {name: [_input_values(ref) for ref in refs] for name, refs in work.inputs.items()},
        "config": dict(work.config),
        "spec": dict(work.spec),
    }


def _finish(folder: RunFolder, module: VideoModel, progress: Progress, *, metric: str) -> dict[str, Any]:
    """Write summary and best weights (these last: they make the run complete)."""
    best = next((record for record in progress.records if record["update"] == progress.best_update), {})
    folder.write_summary(
        {
            "metric": metric,
            "best": progress.best,
            "best_epoch": progress.best_epoch,
            "epochs": progress.epoch,
            "updates": progress.update,
            "seconds": round(progress.seconds, 3),
        }
    )
    save_weights(folder.weights, module)
    return {"weights": folder.weights_digest(), "metrics": best}


def _trainer_settings(work: Work, config: LearningSettings, learning: Learning) -> TrainerSettings:
    same = {each.name for each in fields(TrainerSettings)} & LearningSettings.model_fields.keys() - {"metric"}
    return TrainerSettings(
        key=work.key,
        accumulate=config.optimizer.accumulate,
        clip_norm=config.optimizer.clip_norm,
        ema_decay=config.ema.decay if config.ema else None,
        ema_warmup=config.ema.warmup if config.ema else True,
        metric=learning.metric,
        evaluate_start=learning.evaluate_start,
        patience=config.early_stop.patience if config.early_stop else None,
        about={"node": work.node, "stage": work.stage, "key": work.key, **work.config},
        **{name: getattr(config, name) for name in same},
    )


def _input_values(ref: InputRef) -> dict[str, Any]:
    return {
        "node": ref.node,
        "stage": ref.stage,
        "key": ref.key,
        "config": dict(ref.config),
        "inputs": {name: [_input_values(entry) for entry in refs] for name, refs in ref.inputs.items()},
    }
