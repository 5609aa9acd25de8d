"""The per-frame linear probe of FineGym: one linear layer, trained on rows with a cosine schedule.

Chen et al. 2022 (CARL), evaluation on FineGym99 and FineGym288: SGD with momentum .9, weight decay 1e-6, learning rate
50 (rows of unit length; .1 for rows that were learnt with labels), 100 epochs, 10 videos a batch.
Shape letters: N rows, D size, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import recall_score

from reelwright.models.metrics.probes.embedded_videos import (
    EmbeddedVideo,
    Floats,
    Integers,
    count_classes,
    labelled_only,
)
from reelwright.models.metrics.probes.phase_probe import joined
from reelwright.models.metrics.probes.probe_protocol import LabelFractions, over_fractions


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """How the layer is trained; values are checked where settings are read."""

    learning_rate: float = 50.0
    """At the start; it falls as half a cosine, epoch by epoch, and would be 0 after the last."""
    momentum: float = 0.9
    weight_decay: float = 1e-6
    """Of weights and biases."""
    epochs: int = 100
    batch_videos: int = 10
    """Videos whose rows are one batch; the loss is the mean over its rows."""
    compat: bool = False
    """Leave out the last batch of an epoch where it is smaller, as the public code of CARL does."""

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0 on."""
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


@dataclass(frozen=True)
class LinearLayer:
    """Weights (D, K) and biases (K,)."""

    weight: Floats
    bias: Floats

    @classmethod
    def drawn(cls, size: int, num_classes: int, generator: np.random.Generator) -> LinearLayer:
        """Uniform in 1 / sqrt(D) around 0."""
        bound = 1 / math.sqrt(size)
        weight_DK = generator.uniform(-bound, bound, (size, num_classes))
        return cls(weight_DK, generator.uniform(-bound, bound, num_classes))

    def predict(self, rows_ND: Floats) -> Integers:
        """Classes (N,), the first of those that are equally likely."""
        found: Integers = np.argmax(rows_ND @ self.weight + self.bias, axis=1)
        return found

    def gradients(self, rows_ND: Floats, labels_N: Integers) -> tuple[Floats, Floats]:
        """Of the mean cross entropy over rows."""
        logits_NK = rows_ND @ self.weight + self.bias
        error_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
        error_NK /= error_NK.sum(axis=1, keepdims=True)
        error_NK[np.arange(len(labels_N)), labels_N] -= 1
        error_NK /= len(labels_N)
        return rows_ND.T @ error_NK, error_NK.sum(axis=0)


def train_layer(
    layer: LinearLayer, videos: Sequence[EmbeddedVideo], *, how: LinearProbe, generator: np.random.Generator
) -> LinearLayer:
    """The layer after all epochs; the order of the videos is drawn anew in each. All rows have labels.

    Raises ValueError in compat where there are fewer videos than in a batch, which trained nothing.
    """
    if how.compat and len(videos) < how.batch_videos:
        raise ValueError(f"compat needs {how.batch_videos} videos to train a linear probe, got {len(videos)}.")
    values = [layer.weight.copy(), layer.bias.copy()]
    speeds = [np.zeros_like(value) for value in values]
    for epoch in range(how.epochs):
        order = generator.permutation(len(videos)).tolist()
        for start in range(0, len(order), how.batch_videos):
            batch = order[start : start + how.batch_videos]
            if how.compat and len(batch) < how.batch_videos:
                continue
            gradients = LinearLayer(*values).gradients(*joined([videos[index] for index in batch]))
            for number, gradient in enumerate(gradients):
                speeds[number] = how.momentum * speeds[number] + gradient + how.weight_decay * values[number]
                values[number] = values[number] - how.rate(epoch) * speeds[number]
    return LinearLayer(*values)


def linear_probe(
    train: Sequence[EmbeddedVideo],
    validation: Sequence[EmbeddedVideo],
    *,
    num_classes: int | None = None,
    how: LinearProbe | None = None,
    labels: LabelFractions | None = None,
) -> dict[str, Any]:
    """Train a linear layer on labelled rows of shares of ``train`` and measure it on those of ``validation``.

    ``num_classes`` (99 or 288 of FineGym) is one more than the largest label when None. No fewer videos than a batch
    holds are drawn, as far as there are so many, unless ``labels`` says otherwise. The seed of a draw is also that of
    the weights and of the order.

    Returns what `over_fractions` makes of `accuracy` (of all validation rows alike, after the last epoch, in [0, 1]),
    `class_recall` (mean over the labels that validation has) and `train_accuracy`; and `num_classes`.
    Raises ValueError when no training or no validation video has a label, or a label is num_classes or above.
    """
    how = how or LinearProbe()
    labels = labels or LabelFractions(fewest=how.batch_videos, compat=how.compat)
    train = labelled_only(train, what="linear probe, training")
    test_ND, test_N = joined(labelled_only(validation, what="linear probe, validation"))
    largest = count_classes(train, validation) - 1
    num_classes = largest + 1 if num_classes is None else num_classes
    if largest >= num_classes:
        raise ValueError(
            f"label {largest} is not among {num_classes} classes; give num_classes of {largest + 1} or more."
        )

    def measure(chosen: list[EmbeddedVideo], seed: int) -> dict[str, float | None]:
        generator = np.random.default_rng(seed)
        layer = LinearLayer.drawn(test_ND.shape[1], num_classes, generator)
        layer = train_layer(layer, chosen, how=how, generator=generator)
        rows_ND, labels_N = joined(chosen)
        found_N, present = layer.predict(test_ND), np.unique(test_N)
        recall = recall_score(test_N, found_N, labels=present, average="macro", zero_division=0)
        return {
            "train_accuracy": float((layer.predict(rows_ND) == labels_N).mean()),
            "accuracy": float((found_N == test_N).mean()),
            "class_recall": float(recall),
        }

    return {**over_fractions(measure, train, labels, is_random=True), "num_classes": num_classes}
