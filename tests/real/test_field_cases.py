"""Files as people have them, whose frames or times came out wrong without a word: the right values, by every backend.

The truth is what the ffmpeg command line decodes (`-vsync passthrough`) with best-effort timestamps: counts, times and
MD5 sums of whole streams of RGB pictures below were made with ffmpeg 5.1 and ffprobe 5.1:
    ffmpeg -i FILE -map 0:v:0 -vsync passthrough -pix_fmt rgb24 -f md5 -
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.source import Ended, FrameChunk, stream_frames
from reelwright.stages.work import VideoItem

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


def read(path: Path, **settings: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, Ended]:
    """Frames, times and source frames of all rows, and how it ended."""
    item = VideoItem(digest=path.name, path=str(path), video_id=path.stem)
    events = list(stream_frames([item], decode=DecodeConfig(**settings), frames_store=None, geometry=None, workers=1))
    chunks = [event for event in events if isinstance(event, FrameChunk)]
    ended = events[-1]
    assert isinstance(ended, Ended)
    return (
        np.concatenate([chunk.frames for chunk in chunks]),
        np.concatenate([chunk.pts_seconds for chunk in chunks]),
        np.concatenate([chunk.source_frame for chunk in chunks]),
        ended,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(CASES))
def test_every_frame_and_time(real_data: Path, name: str, backend: str) -> None:
    num_frames, first, last, md5, status = CASES[name]
    frames, seconds, numbers, ended = read(real_data / "cases" / name, backend=backend)
    assert ended.status == status
    assert numbers.tolist() == list(range(num_frames))
    assert (round(float(seconds[0]), 3), round(float(seconds[-1]), 3)) == (first, last)
    assert hashlib.md5(frames.tobytes()).hexdigest() == md5  # noqa: S324 - what ffmpeg prints


@pytest.mark.parametrize("settings", [{"fps": 1}, {"fps": 7}, {"stride": 31}], ids=str)
@pytest.mark.parametrize("name", list(CASES))
def test_rows_are_those_frames(real_data: Path, name: str, settings: dict[str, Any]) -> None:
    path = real_data / "cases" / name
    every, times, _, _ = read(path)
    frames, seconds, numbers, _ = read(path, **settings)
    assert len(numbers) > 0
    np.testing.assert_array_equal(frames, every[numbers])
    np.testing.assert_array_equal(seconds, times[numbers])
    grid = times[0] + np.arange(len(numbers)) / settings["fps"] if "fps" in settings else times[:: settings["stride"]]
    assert numbers.tolist() == (np.searchsorted(times, grid + 1e-6, side="right") - 1).tolist()
