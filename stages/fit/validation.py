"""The objective, and loss and metrics on val, for train and finetune alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reelwright.models.contracts import ATTENTION_LOGITS, Forward
from reelwright.models.metrics.metric import metric_named
from reelwright.stages.base.devices import Download, Pending, Upload
from reelwright.stages.base.plugins import checked_options, load_plugin
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.fit.loop.batches import Batches
from reelwright.stages.fit.network_config import NetworkSettings
from reelwright.stages.fit.processes.world import ALONE, World
from reelwright.stages.objectives.contract import Objective, TargetSizes, batch_loss
from reelwright.stages.objectives.self_supervised import self_supervised_objective
from reelwright.stages.objectives.sequence import sequence_objective
from reelwright.storage.errors import ConfigError, StageError

_NUMBERS, _TARGETS = "numbers of a batch", "targets of a batch"  # beside its scores
_Answer = tuple[dict[str, float], float, dict[str, npt.NDArray[Any]], npt.NDArray[Any]]
SCORED = {"": "logits", "attention_": ATTENTION_LOGITS}  # what begins the names of metrics -> of which output


def chosen_metric(config: LearningSettings, task: Task | None, *, plugins: Mapping[str, Any]) -> str:
    """The metric that chooses the best weights; of a plug-in, the task measures it from now on.

    Without a task nothing is classified, and it is the loss unless the settings say otherwise. Raises ConfigError for
    an unknown one.
    """
    if task is None:
        return config.metric or "loss"
    own = config.plugins().get("metric")
    if own is None:
        return task.choose_metric(config.metric)
    name = own.name.rpartition(":")[2]
    if metric_named(name).is_lower_better:
        raise ConfigError(f"metric: {own.name}: what is called a loss is better when lower; a metric is when higher")
    task.own_metrics[name] = load_plugin(own.group, own.name, plugins)
    return name


def build_objective(
    config: NetworkSettings,
    task: Task | None,
    *,
    counts: npt.NDArray[np.int64],
    device: torch.device,
    plugins: Mapping[str, Any],
) -> Objective:
    """What the settings name, ours or a plug-in, or else the task's own loss. ``counts`` (K,) are of classes.

    Without a ``task`` (of views) targets are of rows, as of task per_row. ``plugins`` are those of the unit of work.
    Raises ConfigError for what cannot be imported or is no objective.
    """
    own = config.objective
    if own is not None and own.compares_views:
        return self_supervised_objective(own.of_views(), seed=config.seed)
    if own is not None and own.is_ours():
        return sequence_objective(own.of_frames())
    if own is None:
        assert task is not None
        of_task = task.objective(config.loss, counts=counts, device=device)
        of_task.attention_weight = config.loss.attention_weight
        return of_task
    thing = load_plugin(own.group, own.name, plugins)
    options = checked_options(thing, own.options(), name=own.name, num_given=own.num_given)
    try:
        objective = thing(TargetSizes("per_row" if task is None else task.name, counts), **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"objective: {own.name}: {error}") from error
    if not isinstance(objective, Objective):
        raise ConfigError(
            f"objective: {own.name} gives {type(objective).__name__}, which is no subclass of "
            "reelwright.stages.objectives.contract.Objective"
        )
    return objective


def evaluate(
    forward: Forward,
    batches: Batches,
    *,
    task: Task | None,
    objective: Objective,
    device: torch.device,
    world: World = ALONE,
) -> dict[str, float]:
    """Loss and metrics over all batches, in inference mode; the caller puts the module in eval mode.

    Without a ``task`` there is the loss alone. Each process answers for its share, none twice; all return the same.
    Raises StageError when an answer is not finite.
    """
    waiting: list[Callable[[], _Answer] | None] = []  # None keeps its place among the batches
    upload, download = Upload(device), Download(device)
    is_gathered = world.size > 1 and bool(objective.gathers)
    with torch.inference_mode():
        for batch in batches.epoch(0):
            if not batch.is_counted and not is_gathered:
                waiting.append(None)
                continue
            moved = batch.to(upload)
            outputs = {**forward(objective.model_inputs(moved.inputs)), **objective.target_outputs(moved.entries)}
            loss = batch_loss(objective, outputs, moved.entries, is_shared=world.size > 1, is_counted=batch.is_counted)
            if not batch.is_counted:
                waiting.append(None)
                continue
            known = objective.weight(moved.entries)
            losses = {
                "loss": loss.total,
                **{f"loss_{name}": part for name, part in loss.parts.items()},
                **loss.measures,
            }
            numbers = [*losses.values(), *([] if known is None else [known])]
            # Probabilities by what begins the names of their metrics.
            scores = {}
            if task is not None:
                given = {prefix: name for prefix, name in SCORED.items() if name in outputs}
                scores = {prefix: task.probabilities(outputs[name]) for prefix, name in given.items()}
            coming = {_NUMBERS: torch.stack([value.double() for value in numbers]), _TARGETS: moved.targets, **scores}
            waiting.append(partial(_answer, download(coming), tuple(losses), None if known is not None else len(batch)))
    answers = [None if part is None else part() for part in waiting]
    found = [part for parts in zip(*world.gather(answers), strict=True) for part in parts if part is not None]
    whole = max(sum(part[1] for part in found), 1e-12)
    metrics = {name: sum(part[0][name] for part in found) / whole for name in found[0][0]}
    all_scores = {prefix: np.concatenate([part[2][prefix] for part in found]) for prefix in found[0][2]}
    if not (math.isfinite(metrics["loss"]) and all(np.isfinite(scores).all() for scores in all_scores.values())):
        raise StageError(
            "the model's answers on val are not finite. Lower optimizer.lr, or use precision: fp32; "
            "the last checkpoint is intact."
        )
    if task is None:
        return metrics
    targets = np.concatenate([part[3] for part in found])
    measured = {prefix: task.all_metrics(scores, targets) for prefix, scores in all_scores.items()}
    return metrics | {f"{prefix}{name}": value for prefix, of in measured.items() for name, value in of.items()}


def _answer(pending: Pending, names: Sequence[str], num_items: int | None) -> _Answer:
    """What came of a batch: losses x weight, weight, scores, targets. ``num_items``: its weight, where known."""
    found = dict(pending.result())
    numbers, targets = found.pop(_NUMBERS).tolist(), found.pop(_TARGETS)
    weight = float(numbers[-1] if num_items is None else num_items)
    return {name: value * weight for name, value in zip(names, numbers, strict=False)}, weight, found, targets
