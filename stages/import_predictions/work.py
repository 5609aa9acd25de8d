"""Take stored rows as class scores: one window a row, published like the predictions of a run of our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Reporter, Work, ledger_of
from reelwright.stages.datasets.stored_rows import failed_row
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.import_predictions.config import ImportPredictionsConfig
from reelwright.stages.predict.publishing import publish_tables
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import InputError, ItemError, StoreError
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.results.scores import VideoScores, write_scores
from reelwright.storage.store import Store

Scores = npt.NDArray[np.float32]


def run_items(work: Work, reporter: Reporter) -> None:
    """Take the rows of ``work.items``; every one ends as a row of the node's ledger, done or failed.

    Raises InputError when the rows are not as wide as there are classes.
    """
    config = parse_config(ImportPredictionsConfig, dict(work.config), where=work.node)
    store = Store.at(work.store)
    source = EmbeddingStore(store.embeddings(work.inputs["embeddings"][0].key))
    _check_width(source, config, classes=work.payload["classes"], node=work.node)
    ledger = ledger_of(work)
    reporter.total(len(work.items), "videos")
    for item in work.items:
        started = time.perf_counter()
        try:
            scores = _scores(source, item.digest, config)
        except (ItemError, StoreError) as error:
            row = failed_row(item.digest, error)
        else:
            written = write_scores(store.predictions(work.key), item.digest, scores)
            seconds = round(time.perf_counter() - started, 4)
            row = ItemRow(digest=item.digest, status="ok", rows=len(scores.scores), bytes=written, seconds=seconds)
        ledger.commit(row)
        reporter.item(row)
        reporter.advance(1)
    ledger.compact()


def publish(work: Work, folder: Path) -> None:
    """Write the published tables into ``folder`` (predictions/<node key>); the run is named by the node."""
    config = parse_config(ImportPredictionsConfig, dict(work.config), where=work.node)
    values = {
        "task": config.task,
        "classes": list(work.payload["classes"]),
        "window": {"length": 1, "hop": 1, "dilation": 1},
    }
    cache = Store.at(work.store).predictions(work.key)
    publish_tables(work, folder, cache=cache, run=f"imported-{work.key}", run_values=values)


def _check_width(source: EmbeddingStore, config: ImportPredictionsConfig, *, classes: list[str], node: str) -> None:
    shapes = source.spec["outputs"]
    if shapes.get(config.output) != [len(classes)]:
        raise InputError(
            f"{node}: rows of {config.output!r} are {shapes.get(config.output, 'not stored')}, but there are "
            f"{len(classes)} classes ({', '.join(classes[:12])}). A row is one score for each class, in the order of "
            "`labels.classes`; list them all there."
        )


def _scores(source: EmbeddingStore, digest: str, config: ImportPredictionsConfig) -> VideoScores:
    rows = source.rows(digest)
    values_TK = ACTIVATIONS[config.activation](rows.output(config.output).astype(np.float64)).astype(np.float32)
    if not ((values_TK >= 0) & (values_TK <= 1)).all():  # NaN neither
        raise ItemError(
            "not_probabilities",
            f"scores reach from {values_TK.min():.3g} to {values_TK.max():.3g}; probabilities are in [0, 1]. For "
            "logits set `activation: softmax` (or sigmoid).",
        )
    starts = np.arange(len(values_TK), dtype=np.int64)
    return VideoScores(
        start_row=starts,
        stop_row=starts + 1,
        scores=values_TK,
        spans=rows.spans,
        num_windows=np.ones_like(starts),
        row_scores=values_TK if TASKS[config.task].per_row else None,
    )


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda values: values,
    "softmax": lambda values: softmax(values, axis=1),
    "sigmoid": lambda values: 1 / (1 + np.exp(-values)),
}
