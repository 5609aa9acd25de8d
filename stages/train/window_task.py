"""The task of a node that learns from windows with labels: classes, heads, and what config.yaml says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from reelwright.models.blocks.heads import Head
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import label_space
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.train.config import SHAPE_FIELDS, WindowedSettings
from reelwright.storage.errors import ConfigError, InputError, nearest


def window_labels(work: Work, config: WindowedSettings) -> LabelSpace:
    """The classes that windows are labelled with."""
    return replace(label_space(work.payload, node=work.node), of_window=config.labels_of_window)


def window_heads(config: WindowedSettings, labels: LabelSpace, *, where: str) -> list[Head]:
    """Those of task heads. Raises InputError where the labels have none, ConfigError for weights of others."""
    if not TASKS[config.task].has_heads:
        return []
    if not labels.heads:
        raise InputError(
            f"{where}: task is heads, but the labels are of one kind. Give labels.columns, a column of the manifest "
            "for each head, or choose another task."
        )
    names = [name for name, _ in labels.heads]
    for name in config.head_weights:
        if name not in names:
            raise ConfigError(
                f"{where}: head_weights: no head {name!r}.{nearest(name, names)} Heads: {', '.join(names)}."
            )
    weights = {name: config.head_weights.get(name, 1.0) for name in names}
    smoothing = config.loss.label_smoothing
    return [Head(name=n, num_classes=k, weight=weights[n], label_smoothing=smoothing) for n, k in labels.heads]


def window_facts(config: WindowedSettings, heads: Sequence[Head]) -> dict[str, Any]:
    """What config.yaml says of task, its heads and windows, beside the model."""
    return {
        "task": config.task,
        "labels_of_window": config.labels_of_window,
        "window": config.window.model_dump(include=set(SHAPE_FIELDS)),
        "clips": config.window.model_dump(include={"sampling", "segments", "segment_rule"}),
        **({"heads": [asdict(head) for head in heads]} if heads else {}),
    }
