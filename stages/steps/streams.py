"""What is decoded, video by video: predictions and detected states on one axis of frames.

The axis is the procedure's: frame = time * fps, rounded, from 0. Without an fps, frames are rows of the store. Of
several rows in one frame the last one counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reelwright.models.systems.step_decoders import Detection, StateClasses
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.steps.procedure import Procedure, vector
from reelwright.storage.errors import InputError, nearest
from reelwright.storage.results.predictions import PredictionSet, scores_matrix
from reelwright.storage.tables.detections import DetectedState

Changes = tuple[list[int], list[float]]  # bits and probabilities of the components
Frames = npt.NDArray[np.int64]


@dataclass
class VideoStreams:
    """What both streams say of one video, by frame; only frames that say something."""

    changes: dict[int, Changes] = field(default_factory=dict)
    detections: dict[int, list[Detection]] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)  # seconds of frames that have a row
    window: int | None = None  # frames that one prediction of changes looks back
    is_dense: bool = False  # the detections speak for every frame, by silence too

    @property
    def has_detections(self) -> bool:
        """Whether there is a detector, though it may have seen nothing."""
        return self.is_dense or bool(self.detections)

    def time_of(self, frame: int, fps: float | None) -> float:
        """Seconds of a frame."""
        if frame in self.times:
            return self.times[frame]
        assert fps is not None
        return frame / fps


def is_changes(predictions: PredictionSet) -> bool:
    """Whether predictions are changes of components; else they are states."""
    return TASKS[predictions.info.task].of_sets


def read_changes(predictions: PredictionSet, procedure: Procedure) -> Iterator[tuple[str, VideoStreams]]:
    """(video_id, streams) of predictions of task multi_label. Raises InputError for a class that is no component."""
    components = [_component(name, procedure) for name in predictions.info.classes]
    length, dilation = _window_rows(predictions)
    for table in predictions.by_video("windows"):
        frames = _frames(table, procedure, row="stop_row")
        scores_NK = scores_matrix(table)
        found = VideoStreams(times=_times(table, frames))
        for frame, scores in zip(frames.tolist(), scores_NK.tolist(), strict=True):
            sure = [0.0] * len(procedure.components)
            for component, score in zip(components, scores, strict=True):
                sure[component] = max(sure[component], score)
            found.changes[frame] = ([int(score > 0.5) for score in sure], sure)
        rows = (length - 1) * dilation if dilation > 1 else length
        found.window = max(1, round(rows * _frames_per_row(table, frames)))
        yield table["video_id"][0].as_py(), found


def read_states(predictions: PredictionSet, procedure: Procedure) -> Iterator[tuple[str, VideoStreams]]:
    """(video_id, streams) of predictions of one label a window or row, by class of `state_classes`.

    Raises InputError when no class is a state of the procedure.
    """
    known = {state: position for position, state in enumerate(procedure.states, start=1)}
    classes = [known.get(name, 0) for name in predictions.info.classes]
    if not any(classes):
        raise InputError(
            f"none of the predicted classes ({', '.join(predictions.info.classes)}) is a state of the procedure "
            f"{procedure.name}. List them as states, or predict changes (task multi_label)"
        )
    unit = "rows" if TASKS[predictions.info.task].per_row else "windows"
    for table in predictions.by_video(unit):
        frames = _frames(table, procedure, row="row" if unit == "rows" else "stop_row")
        found = VideoStreams(times=_times(table, frames))
        columns = (frames.tolist(), table["label_id"].to_pylist(), table["score"].to_pylist())
        for frame, label, score in zip(*columns, strict=True):
            found.detections[frame] = [Detection(classes[label], score)]
        yield table["video_id"][0].as_py(), found


def read_objects(objects: Mapping[str, Sequence[DetectedState]], procedure: Procedure) -> dict[str, VideoStreams]:
    """Streams by video_id of a detector's table."""
    found: dict[str, VideoStreams] = {}
    for video_id, listed in objects.items():
        by_frame: defaultdict[int, list[Detection]] = defaultdict(list)
        for entry in listed:
            by_frame[_frame_of(entry, procedure, video_id)].append(Detection(entry.class_id, entry.confidence))
        found[video_id] = VideoStreams(detections=dict(by_frame), is_dense=True)
    return found


def joined(first: VideoStreams, second: VideoStreams) -> VideoStreams:
    """Both streams of one video."""
    return VideoStreams(
        changes=first.changes or second.changes,
        detections=first.detections or second.detections,
        times={**first.times, **second.times},
        window=first.window or second.window,
        is_dense=first.is_dense or second.is_dense,
    )


def state_classes(procedure: Procedure, *, non_states: str) -> StateClasses:
    """The classes of a detector: background, the states, an error."""
    if not procedure.states:
        raise InputError(f"the procedure {procedure.name} lists no states, so detected states cannot be decoded")
    return StateClasses(states=(None, *map(vector, procedure.states), None), non_states=non_states)


def _component(name: str, procedure: Procedure) -> int:
    component = procedure.component_of(name)
    if component is None:
        known = [*procedure.components, *procedure.step_names]
        raise InputError(
            f"the predicted class {name!r} is no component or step of the procedure {procedure.name}."
            f"{nearest(name, known)} Components: {', '.join(procedure.components)}"
        )
    return component


def _frame_of(entry: DetectedState, procedure: Procedure, video_id: str) -> int:
    if procedure.fps is None:
        raise InputError(f"the procedure {procedure.name} has no fps, which a table of detections needs; set it")
    if entry.frame is None:
        assert entry.time_seconds is not None
        return round(entry.time_seconds * procedure.fps)
    if entry.frame < procedure.first_frame:
        raise InputError(
            f"video {video_id!r} has a detection in frame {entry.frame}, but its first frame is "
            f"{procedure.first_frame} (first_frame of the procedure {procedure.name}); correct one of them"
        )
    return entry.frame - procedure.first_frame


def _frames(table: pa.Table, procedure: Procedure, *, row: str) -> Frames:
    if procedure.fps is not None:
        frames: Frames = np.rint(_seconds(table) * procedure.fps).astype(np.int64)
        return frames
    rows: Frames = table[row].to_numpy().astype(np.int64)
    return rows - 1 if row == "stop_row" else rows


def _seconds(table: pa.Table) -> npt.NDArray[np.float64]:
    name = "time_seconds" if "time_seconds" in table.column_names else "start_seconds"
    seconds: npt.NDArray[np.float64] = table[name].to_numpy()
    return seconds


def _times(table: pa.Table, frames: Frames) -> dict[int, float]:
    return dict(zip(frames.tolist(), _seconds(table).tolist(), strict=True))


def _window_rows(predictions: PredictionSet) -> tuple[int, int]:
    """Rows of a window, and rows from one of them to the next."""
    window = predictions.info.extra.get("window") or {}
    if not {"length", "dilation"} <= set(window):
        raise InputError(f"the predictions at {predictions.folder} do not say how long their windows are; set window")
    return int(window["length"]), int(window["dilation"])


def _frames_per_row(table: pa.Table, frames: Frames) -> float:
    """How many frames of the axis one row of the store is."""
    rows = table["stop_row"].to_numpy().astype(np.float64)
    return float((frames[-1] - frames[0]) / (rows[-1] - rows[0])) if rows[-1] > rows[0] else 1.0
