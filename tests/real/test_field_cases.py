"""Files as people have them, whose frames or times came out wrong without a word: the right values, by every backend.

The truth is what the ffmpeg command line decodes (`-vsync passthrough`) with best-effort timestamps: counts, times and
MD5 sums of whole streams of RGB pictures below were made with ffmpeg 5.1 and ffprobe 5.1:
    ffmpeg -i FILE -map 0:v:0 -vsync passthrough -pix_fmt rgb24 -f md5 -
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.base.work import VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.source import Ended, FrameChunk, Restarted, stream_frames

# file -> frames, time of the first and the last, MD5 of all pictures, status
CASES: dict[str, tuple[int, float, float, str, str]] = {
    "avi_h264_bframes.avi": (100, 0.08, 4.04, "c440061258f554d4f0bf382a9fdb0fed", "ok"),
    "avi_h264_gop25.avi": (100, 0.0, 3.96, "ed5b6f1ee9ecc2913f46ec6c97237ed9", "ok"),
    "interlaced_mpeg2.mp4": (50, 0.0, 1.96, "5c98a2a74376ca4b8ce3fe09aa94d8c2", "ok"),
    "odd_height_vp9.mp4": (25, 0.0, 0.96, "dab866e3bc5c66ec51cd89fcc1bece3d", "ok"),
    "truncated.webm": (3, 0.0, 0.083, "2264612e271bd6c4556a2b1194246ab6", "truncated"),
    "ts_begins_between_key_frames.ts": (75, 2.4, 5.36, "5710300d7f7fd3e0ad5536394bbe4cb4", "ok"),
    "ts_h264_gop13.ts": (100, 1.48, 5.44, "97c0c919cf2c460e915848dd0cdb5509", "ok"),
}
BACKENDS = ("auto", "pyav", "decord", "torchcodec")


Rows = tuple[np.ndarray, np.ndarray, np.ndarray, Ended]  # frames, times, source frames, how it ended


@functools.cache
def read(folder: Path, **settings: Any) -> dict[str, Rows]:
    """All rows of every case."""
    items = [VideoItem(digest=name, path=str(folder / name), video_id=name) for name in CASES]
    chunks: dict[str, list[FrameChunk]] = {name: [] for name in CASES}
    ended: dict[str, Ended] = {}
    for event in stream_frames(items, decode=DecodeConfig(**settings), frames_store=None, geometry=None, workers=2):
        if isinstance(event, Restarted):
            chunks[event.digest] = []
        elif isinstance(event, FrameChunk):
            chunks[event.digest].append(event)
        elif isinstance(event, Ended):
            ended[event.digest] = event
    return {
        name: (
            np.concatenate([chunk.frames for chunk in chunks[name]]),
            np.concatenate([chunk.times.pts_seconds for chunk in chunks[name]]),
            np.concatenate([chunk.times.source_frame for chunk in chunks[name]]),
            ended[name],
        )
        for name in CASES
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(CASES))
def test_every_frame_and_time(real_data: Path, name: str, backend: str) -> None:
    num_frames, first, last, md5, status = CASES[name]
    frames, seconds, numbers, ended = read(real_data / "cases", backend=backend)[name]
    assert ended.status == status
    assert numbers.tolist() == list(range(num_frames))
    assert (round(float(seconds[0]), 3), round(float(seconds[-1]), 3)) == (first, last)
    assert hashlib.md5(frames.tobytes()).hexdigest() == md5


@pytest.mark.parametrize("settings", [{"fps": 1}, {"fps": 7}, {"stride": 31}], ids=str)
@pytest.mark.parametrize("name", list(CASES))
def test_rows_are_those_frames(real_data: Path, name: str, settings: dict[str, Any]) -> None:
    every, times, _, _ = read(real_data / "cases", backend="auto")[name]
    frames, seconds, numbers, _ = read(real_data / "cases", **settings)[name]
    assert len(numbers) > 0
    np.testing.assert_array_equal(frames, every[numbers])
    np.testing.assert_array_equal(seconds, times[numbers])
    grid = times[0] + np.arange(len(numbers)) / settings["fps"] if "fps" in settings else times[:: settings["stride"]]
    assert numbers.tolist() == (np.searchsorted(times, grid + 1e-6, side="right") - 1).tolist()
