"""What train and finetune do alike around the trainer: device, optimizer, schedule, config.yaml, the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reelwright.models.temporal import build_temporal
from reelwright.stages.train.batches import Batches
from reelwright.stages.train.checkpoints import save_weights
from reelwright.stages.train.config import LearningSettings
from reelwright.stages.train.objectives import Loss, evaluate
from reelwright.stages.train.optimizers import build_lr_schedule, build_optimizer, parameter_groups
from reelwright.stages.train.targets import LabelSpace
from reelwright.stages.train.trainer import Progress, Trainer, TrainerSettings
from reelwright.stages.work import InputRef, Reporter, Work
from reelwright.storage.errors import ConfigError
from reelwright.storage.runs import RunFolder


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What a module is to learn, and from what."""

    train: Batches
    val: Batches | None  # None: no validation
    loss: Loss
    task: str
    metric: str
    multipliers: Mapping[str, float]  # start of a parameter's name -> factor on the learning rate


def choose_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:1` means. Raises ConfigError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is not known. Allowed: auto, cpu, cuda, cuda:1, ...") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device: {name!r}, but {torch.cuda.device_count()} GPUs are here. Use auto or cpu.")
    return device


def build_run_model(values: Mapping[str, Any], *, seed: int = 0) -> nn.Module:
    """The temporal model that the `model` block of a config.yaml describes, with random weights from ``seed``.

    Raises ConfigError for an unknown name or option.
    """
    sizes = {name: values[name] for name in ("input_dim", "num_outputs", "length", "per_row")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return build_temporal(values["name"], **sizes, **values["options"])
        except (ValueError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def fit(
    module: nn.Module,
    learning: Learning,
    *,
    work: Work,
    config: LearningSettings,
    folder: RunFolder,
    reporter: Reporter,
    trainer_type: type[Trainer] = Trainer,
) -> Progress:
    """Train ``module`` as the settings of a node say, going on with the last checkpoint if there is one."""
    groups = parameter_groups(module, config.optimizer, multipliers=learning.multipliers)
    updates_per_epoch = -(-learning.train.num_batches // config.optimizer.accumulate)
    trainer = trainer_type(
        module,
        optimizer=build_optimizer(groups, config.optimizer),
        schedule=build_lr_schedule(config.schedule, epochs=config.epochs, updates_per_epoch=updates_per_epoch),
        loss=learning.loss,
        settings=_trainer_settings(work.key, config, metric=learning.metric),
        folder=folder,
        reporter=reporter,
    )
    val = learning.val
    if val is None:
        return trainer.fit(learning.train)

    def validate(forward: Any) -> dict[str, float]:
        return evaluate(forward, val, task=learning.task, loss=learning.loss, device=trainer.device)

    return trainer.fit(learning.train, validate)


def run_values(work: Work, labels: LabelSpace, values: Mapping[str, Any]) -> dict[str, Any]:
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


def finish_run(folder: RunFolder, module: nn.Module, progress: Progress, *, metric: str) -> dict[str, Any]:
    """Write summary and best weights (these last: they make the run complete); returns what the node's record keeps."""
    best = next((record for record in progress.records if record["epoch"] == progress.best_epoch), {})
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


def _trainer_settings(key: str, config: LearningSettings, *, metric: str) -> TrainerSettings:
    return TrainerSettings(
        key=key,
        epochs=config.epochs,
        seed=config.seed,
        precision=config.precision,
        accumulate=config.optimizer.accumulate,
        clip_norm=config.optimizer.clip_norm,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        metric=metric,
        patience=config.early_stop.patience if config.early_stop else None,
    )


def _input_values(ref: InputRef) -> dict[str, Any]:
    return {
        "node": ref.node,
        "stage": ref.stage,
        "key": ref.key,
        "config": dict(ref.config),
        "inputs": {name: [_input_values(entry) for entry in refs] for name, refs in ref.inputs.items()},
    }
