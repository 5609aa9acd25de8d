"""What is written below a recording's pictures, and when."""

from __future__ import annotations

import numpy as np

from reelwright.models.metrics.steps import StepEvent, step_performance
from reelwright.stages.base.work import VideoItem
from reelwright.stages.evaluate.step_overlay import NUM_LINES, drawn, overlay_lines, write_overlays
from reelwright.stages.evaluate.step_scores import StepVideo

NAMES = ("board", "board wrongly", "board off", "screw", "screw wrongly", "screw off")


def video(truth, predicted, *, known=True):
    true, found = ([StepEvent(*event) for event in events] for events in (truth, predicted))
    performance = step_performance(true, found, steps=range(6))
    return StepVideo(
        video_id="a",
        digest="d",
        split="test",
        procedure="p",
        duration_seconds=9.0,
        has_errors=False,
        truth=tuple(true),
        predicted=tuple(found),
        truth_seconds=tuple(event.time / 10 for event in true),
        predicted_seconds=tuple(event.time / 10 for event in found),
        performance=performance if known else None,
        pairs=performance.pairs,
    )


def test_lines():
    assert overlay_lines(video([(10, 0), (40, 3)], [(25, 0), (30, 3), (60, 5)]), NAMES) == [
        (1.0, "done: board", "truth"),
        (2.5, "recognised: board (+1.5 s)", "right"),
        (3.0, "recognised: screw (1.0 s too early)", "early"),
        (4.0, "done: screw", "truth"),
        (6.0, "recognised: screw off, but not done", "extra"),
    ]
    assert overlay_lines(video([], [(25, 0)], known=False), NAMES) == [(2.5, "recognised: board", "unknown")]


def test_drawn():
    frame = np.full((61, 101, 3), 200, np.uint8)
    lines = [(1.0, "done: board", "truth")]
    pictures = {time: drawn(frame, time, lines) for time in (0.9, 1.0, 5.9, 6.0)}
    assert {picture.shape for picture in pictures.values()} == {(60 + 24 * (NUM_LINES + 1), 480, 3)}
    assert (pictures[1.0][:60, 189:290] == 200).all()  # the picture itself stays as it is
    second = slice(60 + 24, 60 + 48)
    is_written = {time: bool((picture[second] > 100).any()) for time, picture in pictures.items()}
    assert is_written == {0.9: False, 1.0: True, 5.9: True, 6.0: False}


def test_a_file_that_is_gone(tmp_path):
    item = VideoItem(digest="d", path=str(tmp_path / "gone.mp4"), video_id="a", duration_seconds=9.0)
    message = write_overlays([(video([], []), item, tmp_path / "a.mp4")], step_names=NAMES, source={})
    assert message == {"a": "there is no video file, or it is not there any more"}
    assert not (tmp_path / "a.mp4").exists()
