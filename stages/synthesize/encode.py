"""Put frames on disk: as H.264 or H.265 file, as JPEG images, or as rows of a frame store; each in one step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reelwright.stages.base.video_writer import VideoWriter
from reelwright.storage.arrays.frame_writer import FrameWriter
from reelwright.storage.arrays.frames import FrameLayout
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.files import replacing

Frames = NDArray[np.uint8]

JPEG_QUALITY = 95


def as_colour(frames: Frames) -> Frames:
    """(T, H, W, 3) of (T, H, W) grey frames; colour ones as they are."""
    return frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, axis=-1)


def write_video(path: Path, frames: Iterable[Frames], *, size: tuple[int, int], fps: float, codec: str) -> None:
    """Encode (H, W, 3) RGB frames (yuv420p, frame i at i / fps seconds) and put the file in place whole.

    ``size`` is (height, width), both even; ``codec`` one of `video_writer.CODECS`.
    """
    with replacing(path) as temporary, VideoWriter(temporary, size=size, fps=fps, codec=codec) as writer:
        for pixels in frames:
            writer.add(pixels)


def write_images(paths: Sequence[Path], frames: Frames) -> None:
    """Write each frame as a JPEG file."""
    for path, frame in zip(paths, frames, strict=True):
        with replacing(path) as temporary:
            Image.fromarray(frame).save(temporary, format="jpeg", quality=JPEG_QUALITY)


def write_rows(store: Path, name: str, frames: Frames, *, fps: float) -> int:
    """Write frames as rows ``name`` of the frame store at ``store``, which is there; returns the bytes on disk."""
    numbers = np.arange(len(frames), dtype=np.int64)
    times = RowTimes(source_frame=numbers, pts_seconds=numbers / fps, stop_seconds=(numbers + 1) / fps)
    with FrameWriter(store, name, times, FrameLayout()) as writer:
        writer.append(as_colour(frames))
        return writer.commit()
