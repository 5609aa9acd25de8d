"""The published tables of a predict node: cached scores with names, splits and targets, video by video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reelwright.stages.base.config import parse_config
from reelwright.stages.base.work import Work
from reelwright.stages.datasets.labelled import LabelledVideo, payload_videos
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
    task = task_of_run(run_values, background=_class_id(work.payload, run_values["classes"]))
    published = _Published(task, predicted_shape(_window(work), run_values["window"]))
    done = ItemLedger(Store.at(work.store).node(work.key)).done()
    videos = [_known_to(video, work.payload, run_values) for video in payload_videos(work.payload)]
    videos = [video for video in videos if video.digest in done]
    if not videos:
        raise StoreError(
            f"{work.node}: no video has scores, so there is nothing to publish; `reelwright status` says why."
        )
    info = PredictionInfo(
        key=folder.name,
        run=run,
        task=task.published_as,
        classes=task.labels.classes,
        heads=task.labels.heads,
        extra={
            "window": {
                "length": published.shape.length,
                "hop": published.shape.hop,
                "dilation": published.shape.dilation,
            },
            **_kept(work),
        },
    )
    backend_of(cache).pull(cache)  # all at once, where the store is in a bucket
    with open_writer(folder, info, with_rows=True) as writer:
        for video in videos:
            published.write(writer, video, read_scores(cache, video.digest))


class _Published:
    """What is written of one video after the other."""

    def __init__(self, task: Task, shape: WindowShape) -> None:
        self.task = task
        self.shape = shape

    def write(self, writer: PredictionWriter, video: LabelledVideo, scores: VideoScores) -> None:
        """The windows, rows and the whole of one video."""
        named = PredictedVideo(video_id=video.video_id, digest=video.digest, split=video.split)
        writer.write_windows(named, scores.window_columns(), self._windows(video.annotation, scores))
        rows, row_scores = scores.of_rows()
        columns = {
            "row": rows.astype(np.int32),
            "start_seconds": scores.spans.start_seconds[rows],
            "stop_seconds": scores.spans.stop_seconds[rows],
            "source_start": scores.spans.source_start[rows],
        }
        of_rows = self.task.row_targets(video.annotation, scores.spans)
        writer.write_rows(
            named, columns, Scored(scores=row_scores, target_ids=None if of_rows is None else of_rows[rows])
        )
        writer.write_video(named, num_windows=len(scores.start_row), scored=self._video(video.annotation, scores))

    def _windows(self, annotation: Annotation, scores: VideoScores) -> Scored:
        start, last = scores.start_row, scores.stop_row - 1
        windows = Windows(np.zeros_like(start), start, -(-(last - start) // self.shape.dilation) + 1, last=last)
        targets = self.task.published_targets(windows, shape=self.shape, annotation=annotation, spans=scores.spans)
        return self.task.scored(scores.scores, targets, annotation)

    def _video(self, annotation: Annotation, scores: VideoScores) -> Scored:
        """The mean of the windows' probabilities, beside what is known of the whole video."""
        return self.task.scored(merge_windows(scores.scores), self.task.video_targets(annotation), annotation)


def _kept(work: Work) -> dict[str, Any]:
    """Where in the store the outputs lie that were kept of every window; empty where none were."""
    store = Store.at(work.store)
    return {"kept": store.attention(work.key).relative_to(store.root).as_posix()} if work.config.get("keep") else {}


def _window(work: Work) -> PredictWindowSettings:
    return parse_config(PredictWindowSettings, dict(work.config.get("window") or {}), where=f"{work.node}.window")


def _class_id(payload: Mapping[str, Any], classes: list[str]) -> int:
    """The run's id of the payload's background class; UNKNOWN when there is none, or the run does not know it."""
    return _ids(payload, classes).get(payload["background"], UNKNOWN)


def _ids(payload: Mapping[str, Any], classes: list[str]) -> dict[int, int]:
    """Class ids of the pipeline's labels -> those of the run, by name."""
    of_run = {name: position for position, name in enumerate(classes)}
    return {position: of_run[name] for position, name in enumerate(payload["classes"]) if name in of_run}


def _known_to(video: LabelledVideo, payload: Mapping[str, Any], run_values: Mapping[str, Any]) -> LabelledVideo:
    """``video`` with the run's class ids; what has a label that the run does not know is unknown."""
    if list(payload["classes"]) == list(run_values["classes"]):
        return video
    return replace(video, annotation=video.annotation.with_ids(_ids(payload, run_values["classes"])))
