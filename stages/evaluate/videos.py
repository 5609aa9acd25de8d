"""One video after the other: its predicted and true labels, where they lie in time, and how right they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reelwright.models.metrics.classification import multilabel_metrics
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.storage.arrays.spans import FloatArray, IntArray
from reelwright.storage.results.predictions import PredictionInfo, PredictionSet, scores_matrix
from reelwright.storage.tables.annotations import UNKNOWN

_COLUMNS = ("video_id", "video_digest", "split", "label_id", "score", "target_id")


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """What was predicted for the whole video."""

    label_id: int
    score: float
    target_id: int  # UNKNOWN where there is none


@dataclass(frozen=True, kw_only=True)
class VideoLabels:
    """Predicted and true labels of the N windows or rows of one video, in order of time."""

    video_id: str
    digest: str
    split: str
    label_ids: IntArray  # (N,)
    target_ids: IntArray  # (N,) UNKNOWN where there is none
    confidence: float  # mean score of the best class, in [0, 1]
    quality: float | None  # in [0, 1]: share of right labels (multi_label: micro F1); None without any target

    @property
    def has_target(self) -> bool:
        """Whether at least one entry has a true label."""
        return bool((self.target_ids != UNKNOWN).any())


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """N cells along the time of one video, over K classes."""

    edges_seconds: FloatArray  # (N + 1,) ascending; cell i is [edges[i], edges[i + 1])
    label_ids: IntArray  # (N,)
    target_ids: IntArray  # (N,) UNKNOWN where there is none
    scores: npt.NDArray[np.float32]  # (N, K) probabilities
    targets: npt.NDArray[np.bool_] | None  # (N, K) classes present (multi_label), all False where unknown


def video_labels(
    predictions: PredictionSet, *, unit: str, splits: AbstractSet[str], threshold: float
) -> list[VideoLabels]:
    """Labels of every video in ``splits``, in the order of the file. ``unit`` is 'rows' or 'windows'."""
    is_multi_label = TASKS[predictions.info.task].of_sets
    columns = [*_COLUMNS, *(["scores", "targets"] if is_multi_label else [])]
    tables = predictions.by_video(unit, columns=columns)
    return [
        _labels(table, threshold=threshold if is_multi_label else None)
        for table in tables
        if table["split"][0].as_py() in splits
    ]


def timelines(predictions: PredictionSet, *, unit: str, video_ids: AbstractSet[str]) -> Iterator[tuple[str, Timeline]]:
    """(video_id, Timeline) of the videos named, in the order of the file; one is in memory at a time."""
    info = predictions.info
    for table in predictions.by_video(unit):
        video_id = table["video_id"][0].as_py()
        if video_id in video_ids:
            yield video_id, timeline(table, info=info, unit=unit)


def timeline(table: pa.Table, *, info: PredictionInfo, unit: str) -> Timeline:
    """Where the cells of one video lie.

    A row holds from its start to the next one's. A window speaks for its last row in task last_row, from that row's
    time to the next one's; else for its middle, and cells meet half-way between two middles:

        windows  [0 ------- 4)      [4 ------ 8)        cells  [0 --- 4) [4 --- 8)
                     [2 ------ 6)                              [0 - 3) [3 - 5) [5 - 8)
    """
    start, stop = (table[name].to_numpy() for name in ("start_seconds", "stop_seconds"))
    if unit == "rows":
        edges = np.append(start, stop[-1])
    elif TASKS[info.task].of_last_row:
        edges = np.append(table["time_seconds"].to_numpy(), stop[-1])
    else:
        middle = (start + stop) / 2
        edges = np.concatenate([start[:1], (middle[1:] + middle[:-1]) / 2, stop[-1:]])
    return Timeline(
        edges_seconds=np.maximum.accumulate(edges),
        label_ids=table["label_id"].to_numpy().astype(np.int64),
        target_ids=target_ids(table),
        scores=scores_matrix(table),
        targets=target_matrix(table) if TASKS[info.task].of_sets else None,
    )


def worst_first(labels: Sequence[VideoLabels]) -> list[VideoLabels]:
    """The videos to look at first: most wrong, then least sure; those without a target last."""
    return sorted(
        labels, key=lambda video: (video.quality is None, video.quality or 0.0, video.confidence, video.video_id)
    )


def target_ids(table: pa.Table) -> IntArray:
    """The column ``target_id`` as int64 (N,), UNKNOWN where it is null."""
    ids: IntArray = pc.fill_null(table["target_id"], UNKNOWN).to_numpy().astype(np.int64)
    return ids


def target_sets(table: pa.Table) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The column ``targets`` of the entries that have one, bool (M, K), and which of the N those are, bool (N,)."""
    known = np.asarray(table["targets"].is_valid().to_pylist(), dtype=bool)
    width = table.schema.field("scores").type.list_size
    flat = np.asarray(pc.list_flatten(table["targets"]).to_pylist(), dtype=bool)
    return flat.reshape(-1, width), known


def _labels(table: pa.Table, *, threshold: float | None) -> VideoLabels:
    first: dict[str, Any] = {name: table[name][0].as_py() for name in ("video_id", "video_digest", "split")}
    labels, targets = table["label_id"].to_numpy().astype(np.int64), target_ids(table)
    return VideoLabels(
        video_id=first["video_id"],
        digest=first["video_digest"],
        split=first["split"],
        label_ids=labels,
        target_ids=targets,
        confidence=float(table["score"].to_numpy().mean()),
        quality=_share_right(labels, targets) if threshold is None else _micro_f1(table, threshold),
    )


def _share_right(labels: IntArray, targets: IntArray) -> float | None:
    known = targets != UNKNOWN
    return float((labels[known] == targets[known]).mean()) if known.any() else None


def _micro_f1(table: pa.Table, threshold: float) -> float | None:
    targets, known = target_sets(table)
    if not known.any():
        return None
    return float(multilabel_metrics(scores_matrix(table)[known], targets, threshold=threshold)["micro_f1"])


def target_matrix(table: pa.Table) -> npt.NDArray[np.bool_]:
    """The sets of all N entries (N, K); none where a target is unknown."""
    targets, known = target_sets(table)
    matrix = np.zeros((len(known), targets.shape[1]), dtype=bool)
    matrix[known] = targets
    return matrix
