"""Frames of one video for people to look at, decoded in a process that can be killed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reelwright.stages.base.work import VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.processes.attempts import Attempt, attempt_all
from reelwright.stages.evaluate.pages.frame_source import frames_plan
from reelwright.storage.errors import ItemError

Frame = npt.NDArray[np.uint8]


def frames_at(item: VideoItem, times: tuple[float, ...], *, short_side: int) -> list[tuple[float, Frame]]:
    """(time, frame) of the frames on screen at ``times`` (ascending seconds), each frame once, uint8 (H, W, 3).

    Raises ItemError when no backend can decode the video.
    """
    config = DecodeConfig(times=times, short_side=short_side, materialize=False)
    found: list[tuple[float, Frame]] = []
    for event in attempt_all([item], frames_plan({item.video_id: config}, chunk_rows=4)):
        if not isinstance(event, Attempt):
            if not found:
                raise ItemError(event.cause, event.message, status=event.status)
        elif event.body["event"] == "opened":
            found = []  # another backend begins again
        elif event.body["event"] == "chunk":
            frames, start_seconds = event.arrays[:2]
            found += [(float(time), np.array(frame)) for frame, time in zip(frames, start_seconds, strict=True)]
    return list({time: (time, frame) for time, frame in found}.values())
