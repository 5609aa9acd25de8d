"""Bootstrap intervals of the headline numbers of predictions, over videos (models/metrics/bootstrap.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.models.metrics.bootstrap import (
    MIN_RESAMPLES,
    RESAMPLES,
    ClassMean,
    Counts,
    Interval,
    MeanAveragePrecision,
    Measure,
    Ratio,
    intervals,
    num_draws,
)
from reelwright.models.metrics.classification import target_ranks
from reelwright.models.metrics.multi_head import MEASURES
from reelwright.models.metrics.segmental import OVERLAPS_PERCENT, counted_segments
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.datasets.tasks.sets import ACTION
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.scoring import class_id, head_targets, known_labels, main_unit, of_splits, split_heads
from reelwright.stages.evaluate.videos import VideoLabels, target_ids, target_sets
from reelwright.storage.arrays.spans import IntArray
from reelwright.storage.results.predictions import PredictionInfo, scores_matrix
from reelwright.storage.tables.annotations import UNKNOWN

Scores = npt.NDArray[np.float32]
Sets = npt.NDArray[np.bool_]
Measures = dict[str, Measure]


def headline_intervals(
    tables: Mapping[str, pa.Table], labels: Sequence[VideoLabels], config: EvaluateConfig, *, info: PredictionInfo
) -> tuple[dict[str, list[float]], list[str]]:
    """By the names of `scoring.headline`, [low, high] in the unit of the number; and what is to be said of them.

    ``tables`` are those of `scoring.unit_tables`; all splits together, as in the headline.
    """
    found: dict[str, Interval] = {}
    missing: dict[str, list[str]] = defaultdict(list)  # names of numbers without one, by the reason
    counts = set()
    prefixes = {main_unit(info): "", "videos": "video_"}
    for unit, measures, num_videos in _units(tables, labels, config, info=info):
        named = {f"{prefixes.get(unit, '')}{name}": measure for name, measure in measures.items()}
        counts.add(num_videos)
        found |= intervals(named, num_videos=num_videos)
        for name, measure in named.items():
            if name not in found:
                missing[_why_none(measure, num_videos)].append(name)
    if counts and max(counts) < 2:
        return {}, ["one video with a target: there are no intervals over videos"]
    fewer = {name: each.num_draws for name, each in found.items() if each.num_draws < RESAMPLES}
    notes = [f"the interval of {name} is of {num:,} draws of videos, not {RESAMPLES:,}" for name, num in fewer.items()]
    notes += [f"no interval of {', '.join(names)}: {reason}" for reason, names in missing.items()]
    return {name: [each.low, each.high] for name, each in found.items()}, notes


def _why_none(measure: Measure, num_videos: int) -> str:
    if num_videos < 2:
        return "one video has a target"
    return "too many videos and windows to rank anew" if num_draws(measure) < MIN_RESAMPLES else "there is none to find"


def _units(
    tables: Mapping[str, pa.Table], labels: Sequence[VideoLabels], config: EvaluateConfig, *, info: PredictionInfo
) -> Iterator[tuple[str, Measures, int]]:
    """(unit, its measures, number of videos with a target); segmental ones of tasks that are sequences."""
    for unit, whole in tables.items():
        table = of_splits(whole, {video.split for video in labels})
        scores_NK, videos = scores_matrix(table), table["video_id"].cast(pa.string()).combine_chunks()
        if TASKS[info.task].of_sets:
            targets_MK, known_N = target_sets(table)
            video_M, num = _numbered(videos, known_N)
            if num:
                yield unit, _of_sets(scores_NK[known_N], targets_MK, video_M, num, config=config, info=info), num
            continue
        target_N = target_ids(table)
        known_N = target_N != UNKNOWN
        video_M, num = _numbered(videos, known_N)
        if num:
            yield unit, _of_classes(scores_NK[known_N], target_N[known_N], video_M, num, topk=config.topk), num
    sequences = [video for video in labels if video.has_target] if TASKS[info.task].is_sequence else []
    if sequences:
        yield "segmental", _segmental(sequences, background=class_id(info, config.background)), len(sequences)


def _numbered(videos: pa.StringArray, known_N: Sets) -> tuple[Counts, int]:
    """The video of each known entry as a number from 0 on, (M,), and how many there are."""
    codes_N = videos.dictionary_encode().indices.to_numpy()
    names, numbers = np.unique(codes_N[known_N], return_inverse=True)
    return numbers.astype(np.int64), len(names)


def _of_classes(scores_NK: Scores, target_N: IntArray, video_N: Counts, num: int, *, topk: Sequence[int]) -> Measures:
    num_classes = scores_NK.shape[1]
    predicted_N, ranks_N = scores_NK.argmax(axis=1), target_ranks(scores_NK, target_N)
    support_VK = _counted(video_N, target_N, num, num_classes)
    predicted_VK = _counted(video_N, predicted_N, num, num_classes)
    hit_N = predicted_N == target_N
    hits_VK = _counted(video_N[hit_N], target_N[hit_N], num, num_classes)
    found: Measures = {
        f"top{k}": _share(ranks_N < k, video_N, num) for k in sorted({1, *topk}) if k == 1 or k < num_classes
    }
    return found | {
        "mean_class_accuracy": ClassMean(above=hits_VK, below=support_VK),
        "macro_f1": ClassMean(above=2 * hits_VK, below=support_VK + predicted_VK),
        "mean_average_precision": MeanAveragePrecision(
            scores=scores_NK,
            is_positive=target_N[:, None] == np.arange(num_classes),
            is_known=None,
            video=video_N,
        ),
    }


def _of_sets(
    scores_NK: Scores, targets_NK: Sets, video_N: Counts, num: int, *, config: EvaluateConfig, info: PredictionInfo
) -> Measures:
    known_NK = known_labels(targets_NK, info.heads)
    positive_NK, predicted_NK = targets_NK & known_NK, (scores_NK >= config.threshold) & known_NK
    hits_VK, support_VK, predicted_VK = (
        _summed(mask, video_N, num) for mask in (positive_NK & predicted_NK, positive_NK, predicted_NK)
    )
    below_VK = support_VK + predicted_VK
    rows_N, columns_N = np.nonzero(known_NK)
    found: Measures = {
        "mean_average_precision": MeanAveragePrecision(
            scores=scores_NK, is_positive=positive_NK, is_known=known_NK, video=video_N
        ),
        "micro_average_precision": MeanAveragePrecision(
            scores=scores_NK[rows_N, columns_N][:, None],
            is_positive=positive_NK[rows_N, columns_N][:, None],
            is_known=None,
            video=video_N[rows_N],
        ),
        "macro_f1": ClassMean(above=2 * hits_VK, below=below_VK),
        "micro_f1": Ratio(above=2 * hits_VK.sum(axis=1), below=below_VK.sum(axis=1), empty=0.0),
    }
    if info.heads:
        found |= _of_heads(scores_NK, targets_NK, video_N, num, config=config, info=info)
    return found


def _of_heads(
    scores_NK: Scores, targets_NK: Sets, video_N: Counts, num: int, *, config: EvaluateConfig, info: PredictionInfo
) -> Measures:
    parts, target_NH = split_heads(scores_NK, info.heads), head_targets(targets_NK, info.heads)
    is_whole_N = (target_NH != UNKNOWN).all(axis=1)
    found: Measures = {}
    for position, (name, _) in enumerate(info.heads):
        known_N = target_NH[:, position] != UNKNOWN
        if not known_N.any():
            continue
        own = _of_classes(
            parts[position][known_N], target_NH[known_N, position], video_N[known_N], num, topk=config.topk
        )
        found |= {f"{name}_{measure}": each for measure, each in own.items()}
    wanted = sorted({1, *config.topk})
    for measure in ("pairs", *config.joint) if is_whole_N.any() else ():
        between = "" if measure == "pairs" else f"{measure}_"
        for k in wanted if measure == "pairs" else wanted[1:]:
            hit_N = MEASURES[measure](parts, target_NH, k)
            found[f"{ACTION}_{between}top{k}"] = _share(hit_N, video_N[is_whole_N], num)
    return found


def _segmental(videos: Sequence[VideoLabels], *, background: int | None) -> Measures:
    counted = counted_segments(
        [video.label_ids for video in videos], [video.target_ids for video in videos], background=background
    )
    found: Measures = {
        "frame_accuracy": Ratio(above=counted.num_right, below=counted.num_rows, best=100.0),
        "edit": Ratio(above=counted.edit / 100, below=np.ones(len(videos)), best=100.0),
    }
    for percent in OVERLAPS_PERCENT:
        matches = counted.matches[percent]
        below_V = 2 * matches[:, 0] + matches[:, 1] + matches[:, 2]
        found[f"f1@{percent}"] = Ratio(above=2 * matches[:, 0], below=below_V, best=100.0, empty=100.0)
    return found


def _share(hit_N: Sets, video_N: Counts, num: int) -> Ratio:
    return Ratio(above=np.bincount(video_N, weights=hit_N, minlength=num), below=np.bincount(video_N, minlength=num))


def _counted(video_N: Counts, class_N: Counts, num: int, num_classes: int) -> IntArray:
    """How often each class is in each video, (V, K)."""
    cells = np.bincount(video_N * num_classes + class_N, minlength=num * num_classes)
    return cells.reshape(num, num_classes)


def _summed(mask_NK: Sets, video_N: Counts, num: int) -> IntArray:
    """The entries of a mask by video, (V, K)."""
    sums = np.zeros((num, mask_NK.shape[1]), dtype=np.int64)
    np.add.at(sums, video_N, mask_NK.astype(np.int64))
    return sums
