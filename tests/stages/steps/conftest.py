"""A procedure of two components, a store, and predictions of two short recordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.base.work import InputRef, Work
from reelwright.storage.results.predictions import PredictedVideo, PredictionInfo, Scored, open_writer
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import Annotation

PROCEDURE = """
name: shelf
fps: {fps}
components: [board, screw]
steps: {{0: put the board, 3: drive the screw}}
states: ["10", "11"]
"""
STEPS = ("drive the screw", "put the board")  # classes of step labels, as sorted
ROW_SECONDS = 0.5


def written(folder: Path, fps: float | None = 2) -> Path:
    """The procedure, as a file."""
    path = folder / f"shelf-{fps}.yaml"
    path.write_text(PROCEDURE.format(fps="null" if fps is None else fps), encoding="utf-8")
    return path


def predict(store: Store, key: str, *, task: str, classes: Sequence[str], scores: Mapping[str, Any]) -> InputRef:
    """Windows of length 3 that end at row 0, 1, ..., two rows a second; ``scores`` by video_id, (N, K)."""
    info = PredictionInfo(
        key=key,
        run="r" * 32,
        task=task,
        classes=tuple(classes),
        extra={"window": {"length": 3, "hop": 1, "dilation": 1}},
    )
    with open_writer(store.predictions(key), info) as writer:
        for video_id, values in scores.items():
            video = PredictedVideo(video_id=video_id, digest=f"digest of {video_id}", split="test")
            rows = np.arange(len(values))
            columns = {
                "window": rows,
                "start_row": np.maximum(rows - 2, 0),
                "stop_row": rows + 1,
                "start_seconds": np.maximum(rows - 2, 0) * ROW_SECONDS,
                "stop_seconds": (rows + 1) * ROW_SECONDS,
                "time_seconds": rows * ROW_SECONDS,
            }
            scored = Scored(scores=np.asarray(values, np.float32))
            writer.write_windows(video, columns, scored)
            writer.write_video(video, num_windows=len(rows), scored=Scored(scores=scored.scores[:1]))
    return InputRef(node=key[0], stage="predict", key=key)


@pytest.fixture
def work_of(tmp_path: Path) -> Callable[..., Work]:
    """Makes the work unit of a steps node on ``Store.at(tmp_path / 'store')``."""

    def make(
        *inputs: InputRef,
        annotations: Mapping[str, Annotation],
        classes: Sequence[str] = STEPS,
        fps: float | None = 2,
        **settings: Any,
    ) -> Work:
        return Work(
            node="steps",
            stage="steps",
            key="s" * 32,
            config={
                "procedure": str(written(tmp_path, fps)),
                "predictions": [ref.node for ref in inputs],
                "threshold": 1.0,
                **settings,
            },
            spec={},
            store=str(tmp_path / "store"),
            inputs={"predictions": inputs} if inputs else {},
            payload={
                "classes": list(classes),
                "background": -1,
                "videos": [
                    {
                        "video_id": video_id,
                        "digest": f"digest of {video_id}",
                        "split": "test",
                        "annotation": annotation.plain(),
                        "path": "gone.mp4",
                        "duration_seconds": 6.0,
                    }
                    for video_id, annotation in annotations.items()
                ],
            },
        )

    return make
