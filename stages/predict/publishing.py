"""The published tables of a predict node: cached scores with names, splits and targets, video by video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import payload_videos
from reelwright.stages.datasets.sampling.windows import Windows, WindowShape
from reelwright.stages.datasets.tasks.task import Task
from reelwright.stages.fit.run_models import task_of_run
from reelwright.stages.predict.config import PredictWindowSettings
from reelwright.stages.predict.loaded_run import predicted_shape
from reelwright.stages.predict.merging import merge_windows
from reelwright.storage.errors import StoreError
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, PredictionWriter, Scored, open_writer
from reelwright.storage.results.scores import VideoScores, read_scores
from reelwright.storage.store import Store, backend_of
from reelwright.storage.tables.annotations import UNKNOWN, Annotation


def publish_tables(work: Work, folder: Path, *, cache: Path, run: str, run_values: Mapping[str, Any]) -> None:
    """Write windows, rows and videos.parquet of the payload's videos that have scores, in the order of their ids.

    One video is in memory at a time. Class names are those of the run; a label that the run does not know is an unknown
    target. Raises StoreError when no video has scores.
    """
    store, payload = Store.at(work.store), work.payload
    of_run = {name: position for position, name in enumerate(run_values["classes"])}
    ids = {position: of_run[name] for position, name in enumerate(payload["classes"]) if name in of_run}
    task = task_of_run(run_values, background=ids.get(payload["background"], UNKNOWN))
    window = parse_config(PredictWindowSettings, dict(work.config.get("window") or {}), where=f"{work.node}.window")
    shape = predicted_shape(window, run_values["window"])
    done = ItemLedger(store.node(work.key)).done()
    videos = [video for video in payload_videos(payload) if video.digest in done]
    if not videos:
        raise StoreError(
            f"{work.node}: no video has scores, so there is nothing to publish; `reelwright status` says why."
        )
    kept = {"kept": store.attention(work.key).relative_to(store.root).as_posix()} if work.config.get("keep") else {}
    info = PredictionInfo(
        key=folder.name,
        run=run,
        task=task.published_as,
        classes=task.labels.classes,
        heads=task.labels.heads,
        extra={"window": {"length": shape.length, "hop": shape.hop, "dilation": shape.dilation}, **kept},
    )
    is_known = list(payload["classes"]) == list(run_values["classes"])
    backend_of(cache).pull(cache)  # all at once, where the store is in a bucket
    with open_writer(folder, info, with_rows=True) as writer:
        for video in videos:
            annotation = video.annotation if is_known else video.annotation.with_ids(ids)
            named = PredictedVideo(video_id=video.video_id, digest=video.digest, split=video.split)
            _write(writer, named, read_scores(cache, video.digest), annotation, task=task, shape=shape)


def _write(
    writer: PredictionWriter,
    video: PredictedVideo,
    scores: VideoScores,
    annotation: Annotation,
    *,
    task: Task,
    shape: WindowShape,
) -> None:
    """The windows and rows of one video, and the mean of the windows' probabilities as its own."""
    start, last = scores.start_row, scores.stop_row - 1
    windows = Windows(np.zeros_like(start), start, -(-(last - start) // shape.dilation) + 1, last=last)
    targets = task.published_targets(windows, shape=shape, annotation=annotation, spans=scores.spans)
    writer.write_windows(video, scores.window_columns(), task.scored(scores.scores, targets, annotation))
    rows, row_scores = scores.of_rows()
    spans = scores.spans.take(rows)
    columns = {
        "row": rows.astype(np.int32),
        "start_seconds": spans.start_seconds,
        "stop_seconds": spans.stop_seconds,
        "source_start": spans.source_start,
    }
    of_rows = task.row_targets(annotation, scores.spans)
    scored = Scored(scores=row_scores, target_ids=None if of_rows is None else of_rows[rows])
    writer.write_rows(video, columns, scored)
    merged = task.scored(merge_windows(scores.scores), task.video_targets(annotation), annotation)
    writer.write_video(video, num_windows=len(start), scored=merged)
