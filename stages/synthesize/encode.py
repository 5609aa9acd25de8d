"""Put frames on disk: as H.264 or H.265 file, as JPEG images, or as rows of a frame store; each in one step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reelwright.storage.files import replacing
from reelwright.storage.frame_writer import FrameWriter
from reelwright.storage.frames import FrameLayout
from reelwright.storage.row_times import RowTimes

Frames = NDArray[np.uint8]

JPEG_QUALITY = 95
# One thread, since threads of x264 and x265 may change the bytes; a key frame at least every 50 frames.
_COMMON = {"preset": "veryfast", "threads": "1", "g": "50"}
# Name -> (encoder, options, tag of the stream that players know).
CODECS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264": ("libx264", {"crf": "23", **_COMMON}, "avc1"),
    "h265": (
        "libx265",
        # without cutree: x265's AVX2 code for it writes past its buffers where pictures are narrow (48 pixels)
        {"crf": "24", **_COMMON, "x265-params": "pools=none:frame-threads=1:log-level=none:no-cutree=1"},
        "hvc1",
    ),
}


def as_colour(frames: Frames) -> Frames:
    """(T, H, W, 3) of (T, H, W) grey frames; colour ones as they are."""
    return frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, axis=-1)


def write_video(path: Path, frames: Iterable[Frames], *, size: tuple[int, int], fps: float, codec: str) -> None:
    """Encode (H, W, 3) RGB frames (yuv420p, frame i at i / fps seconds) and put the file in place whole.

    ``size`` is (height, width), both even; ``codec`` one of `CODECS`.
    """
    encoder, options, tag = CODECS[codec]
    rate = Fraction(fps).limit_denominator(1001)
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=rate, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.codec_tag = tag
        stream.time_base = stream.codec_context.time_base = 1 / rate
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


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
