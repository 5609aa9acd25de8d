"""Pictures from stored frames and from real files, and what is said when there are none."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import InputRef, VideoItem
from reelwright.stages.evaluate.pages.frame_source import Pictures, find_stage, pictures
from reelwright.stages.evaluate.pages.thumbnails import HEIGHT_PIXELS, Thumbnail
from reelwright.storage.arrays.frame_writer import FrameWriter
from reelwright.storage.arrays.frames import FrameLayout, FrameStore
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.store import Store

LEVELS = (40, 90, 140, 190)  # brightness of each frame, one a second
DECODE = InputRef(node="frames", stage="decode", key="f" * 32, config={"backend": "pyav", "fps": 1.0})
EMBED = InputRef(node="embed", stage="embed", key="e" * 32, inputs={"frames": (DECODE,)})
PREDICT = InputRef(node="predict", stage="predict", key="p" * 32, inputs={"embeddings": (EMBED,)})


def brightness(picture: Thumbnail) -> float:
    with Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1]))) as image:
        assert image.height == HEIGHT_PIXELS
        return float(np.asarray(image, dtype=np.float64).mean())


def write_video(path: Path) -> None:
    with VideoWriter(path, size=(144, 192), fps=1) as writer:
        for level in LEVELS:
            writer.add(np.full((144, 192, 3), level, np.uint8))


def wanted(path: Path, *times: float, name: str = "v") -> dict[VideoItem, tuple[float, ...]]:
    return {VideoItem(digest=f"digest-{name}", path=str(path), video_id=name, duration_seconds=4.0): times}


def found_in(folder: Path, asked: dict[VideoItem, tuple[float, ...]]) -> dict[str, Pictures]:
    return pictures(asked, predictions=PREDICT, store=Store.at(folder))


def test_frames_are_decoded_from_the_file(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    found = found_in(tmp_path, wanted(tmp_path / "v.mp4", 0.5, 2.5))["v"]
    assert [picture.time_seconds for picture in found.thumbnails] == [0.0, 2.0]
    assert [brightness(picture) for picture in found.thumbnails] == pytest.approx([40, 140], abs=4)
    assert found.note == ""


def test_a_decode_node_that_stored_nothing_leaves_the_file(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    never_made, empty = Store.at(tmp_path / "never made"), Store.at(tmp_path / "empty")
    FrameStore.create(empty.frames(DECODE.key), {})
    for store in (never_made, empty):
        found = pictures(wanted(tmp_path / "v.mp4", 0.5), predictions=PREDICT, store=store)["v"]
        assert (len(found.thumbnails), found.note) == (1, "")


def test_one_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_text("no video", encoding="utf-8")
    asked = {}
    for name in ("bad", "good", "gone"):
        asked |= wanted(tmp_path / f"{name}.mp4", 0.5, name=name)
    found = found_in(tmp_path, asked)
    assert {name: len(entry.thumbnails) for name, entry in found.items()} == {"bad": 0, "good": 1, "gone": 0}
    assert found["bad"].note.startswith("No pictures: ")
    assert "no video file any more" in found["gone"].note


def test_stored_frames_are_used_without_the_file(tmp_path: Path) -> None:
    path = Store.at(tmp_path).frames(DECODE.key)
    FrameStore.create(path, {})
    seconds = np.arange(4, dtype=np.float64)
    times = RowTimes(source_frame=np.arange(4), pts_seconds=seconds, stop_seconds=seconds + 1)
    frames = np.stack([np.full((96, 128, 3), level, np.uint8) for level in LEVELS])
    with FrameWriter(path, "digest-v", times, FrameLayout()) as writer:
        writer.append(frames)
        writer.commit()
    found = found_in(tmp_path, wanted(tmp_path / "gone.mp4", 0.5, 0.75, 3.9))["v"]
    assert [picture.time_seconds for picture in found.thumbnails] == [0.0, 3.0]
    assert [brightness(picture) for picture in found.thumbnails] == pytest.approx([40, 190], abs=4)


def test_nothing_is_asked_when_no_time_is(tmp_path: Path) -> None:
    assert found_in(tmp_path, wanted(tmp_path / "gone.mp4")) == {"v": Pictures()}


def test_find_stage_takes_the_nearest() -> None:
    assert find_stage(PREDICT, "decode") is DECODE
    assert find_stage(PREDICT, "train") is None
