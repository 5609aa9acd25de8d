"""What a task is trained for and judged by: loss, probabilities and metrics, for train, finetune and predict alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from reelwright.models.contracts import Forward
from reelwright.models.heads import Head
from reelwright.models.losses import IGNORED, balanced_class_weights, classification_loss, multilabel_loss
from reelwright.models.metrics import classification_metrics, multilabel_metrics
from reelwright.models.soft_targets import soft_target_loss
from reelwright.stages.learning.batches import Batches
from reelwright.stages.learning.config import LossSettings
from reelwright.stages.learning.head_objectives import ACTION, HeadLoss, head_metrics, head_probabilities
from reelwright.stages.learning.world import World
from reelwright.stages.objectives.classification import Classification, Loss, Weigh
from reelwright.stages.objectives.contract import Objective
from reelwright.storage.errors import ConfigError, StageError, nearest

Heads = Sequence[Head]  # of task heads


def build_objective(
    task: str,
    settings: LossSettings,
    *,
    counts: npt.NDArray[np.int64],
    device: torch.device,
    heads: Heads = (),
) -> Classification:
    """What a task minimises. ``counts`` (K,) are the training targets by class.

    Raises ConfigError for settings of cross entropy where there is none.
    """
    return Classification(
        _build_loss(task, settings, counts=counts, device=device, heads=heads),
        weigh=_build_weigh(task, settings, counts=counts, device=device),
        per_row=task == "per_row",
    )


def _build_loss(
    task: str,
    settings: LossSettings,
    *,
    counts: npt.NDArray[np.int64],
    device: torch.device,
    heads: Heads,
) -> Loss:
    """Cross entropy, or binary cross entropy for multi_label.

    Targets are classes, or shares of classes (..., K) float where they were mixed; these are smoothed already.
    """
    is_balanced = settings.class_weights == "balanced"
    if task == "heads":
        return HeadLoss(heads, counts=counts if is_balanced else None, device=device)
    if task == "multi_label":
        if is_balanced or settings.label_smoothing:
            raise ConfigError(
                "loss.class_weights and loss.label_smoothing are of cross entropy; remove them for multi_label"
            )
        return multilabel_loss
    if task != "per_row" and not is_balanced:
        return partial(_plain_cross_entropy, label_smoothing=settings.label_smoothing)
    weights = balanced_class_weights(torch.from_numpy(counts)).to(device) if is_balanced else None

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return soft_target_loss(logits, targets, class_weights=weights)
        return classification_loss(logits, targets, class_weights=weights, label_smoothing=settings.label_smoothing)

    return loss


def _plain_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
    """For targets that are all known: torch's own mean is all there is to do."""
    if targets.is_floating_point():
        return functional.cross_entropy(logits.float(), targets)
    return functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)


def _build_weigh(
    task: str, settings: LossSettings, *, counts: npt.NDArray[np.int64], device: torch.device
) -> Weigh | None:
    """What the mean loss of a batch counts for beside others: the weights of its known targets.

    None where that is the number of items. With it, parts of a batch add up to the loss of the whole.
    """
    if settings.class_weights == "balanced" and task not in {"multi_label", "heads"}:
        weights = balanced_class_weights(torch.from_numpy(counts)).to(device)
        return partial(_sum_of_weights, weights)
    return _num_known if task == "per_row" else None


def _sum_of_weights(weights: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return (targets * weights).sum()
    return (weights[targets.clamp(min=0)] * (targets != IGNORED)).sum()


def _num_known(targets: Tensor) -> Tensor:
    is_known = targets.ne(0).any(-1) if targets.is_floating_point() else targets != IGNORED
    return is_known.sum().float()


def probabilities(task: str, logits: Tensor, *, heads: Heads = ()) -> Tensor:
    """Softmax over classes (of each head), or sigmoid for multi_label; float32, shape as ``logits`` (..., K)."""
    if task == "heads":
        return head_probabilities(logits, heads)
    return logits.float().sigmoid() if task == "multi_label" else logits.float().softmax(dim=-1)


def scalar_metrics(
    task: str, scores: npt.NDArray[np.float32], targets: npt.NDArray[Any], *, heads: Heads = ()
) -> dict[str, float]:
    """All metrics that are one number; scores (N, K) or (N, T, K), targets (N,), (N, T) or (N, K) multi_label."""
    if task == "heads":
        return head_metrics(scores, targets, heads)
    if task == "multi_label":
        found = multilabel_metrics(scores, targets)
    else:
        found = classification_metrics(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1))
    return {name: float(value) for name, value in found.items() if isinstance(value, float)}


def choose_metric(task: str, name: str | None, *, num_classes: int, heads: Heads = ()) -> str:
    """The metric that chooses the best weights. Raises ConfigError for an unknown one, with those that are known."""
    if name is None:
        return {"multi_label": "mean_average_precision", "heads": f"{ACTION}_top1"}.get(task, "macro_f1")
    perfect = np.eye(num_classes, dtype=np.float32)
    targets = np.eye(num_classes, dtype=np.int64) if task == "multi_label" else np.arange(num_classes)
    if task == "heads":
        targets = np.zeros((num_classes, len(heads)), dtype=np.int64)
    known = ["loss", *scalar_metrics(task, perfect, targets, heads=heads)]
    if name not in known:
        raise ConfigError(f"metric: {name!r} is not known.{nearest(name, known)} Known: {', '.join(known)}.")
    return name


def evaluate(
    forward: Forward,
    batches: Batches,
    *,
    task: str,
    objective: Objective,
    device: torch.device,
    world: World | None = None,
    heads: Heads = (),
) -> dict[str, float]:
    """Loss and metrics over all batches, in inference mode; the caller puts the module in eval mode.

    Each process answers for its share, none twice; all return the same. Raises StageError when an answer is not finite.
    """
    answers: list[tuple[dict[str, float], float, Any, Any]] = []  # losses x weight, weight, scores, targets
    with torch.inference_mode():
        for batch in batches.epoch(0):
            if not batch.is_counted:
                answers.append(({}, 0.0, None, None))  # keeps its place among the batches
                continue
            moved = batch.to(device)
            outputs = forward(*moved.inputs)
            known = objective.weight(moved.targets)
            weight = float(len(batch) if known is None else known)
            scores = probabilities(task, outputs["logits"], heads=heads).cpu().numpy()
            loss = objective(outputs, moved.targets)
            losses = {"loss": loss.total, **{f"loss_{name}": part for name, part in loss.parts.items()}}
            weighted = {name: float(value) * weight for name, value in losses.items()}
            answers.append((weighted, weight, scores, batch.targets.cpu().numpy()))
    gathered = (world or World()).gather(answers)
    found = [part for parts in zip(*gathered, strict=True) for part in parts if part[2] is not None]
    whole = max(sum(part[1] for part in found), 1e-12)
    mean_losses = {name: sum(part[0][name] for part in found) / whole for name in found[0][0]}
    all_scores = np.concatenate([part[2] for part in found])
    if not (math.isfinite(mean_losses["loss"]) and np.isfinite(all_scores).all()):
        raise StageError(
            "the model's answers on val are not finite. Lower optimizer.lr, or use precision: fp32; "
            "the last checkpoint is intact."
        )
    targets = np.concatenate([part[3] for part in found])
    return {**mean_losses, **scalar_metrics(task, all_scores, targets, heads=heads)}
