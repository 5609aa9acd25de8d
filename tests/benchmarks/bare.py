"""What a library does by itself: the loops that ours are measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt


def decord_frames(path: Path, *, threads: int) -> int:
    """Decode all frames to arrays; returns how many."""
    import decord

    video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=threads)
    return sum(len(video.next().asnumpy()) > 0 for _ in range(len(video)))


def pyav_frames(path: Path, *, threads: int) -> int:
    """Decode all frames to arrays; returns how many."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        return sum(len(frame.to_ndarray(format="rgb24")) > 0 for frame in container.decode(stream))


def torchcodec_frames(path: Path, *, threads: int) -> int:
    """Decode all frames to arrays; returns how many."""
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact")
    return sum(len(video[number].numpy()) > 0 for number in range(len(video)))


LOOPS: dict[str, Callable[..., int]] = {
    "decord": decord_frames,
    "pyav": pyav_frames,
    "torchcodec": torchcodec_frames,
}
PACKAGES = {"pyav": "av"}


def backends() -> list[str]:
    """Those that are installed and can be loaded on this machine."""
    return [name for name in LOOPS if find_spec(PACKAGES.get(name, name)) is not None and _loads(name)]


def decode_rate(paths: Sequence[Path], *, backend: str, threads: int) -> float:
    """Frames a second of the bare loop over all files."""
    started = time.perf_counter()
    frames = sum(LOOPS[backend](path, threads=threads) for path in paths)
    return frames / (time.perf_counter() - started)


def decord_images(path: Path) -> npt.NDArray[np.uint8]:
    """All frames of a video, (T, H, W, 3)."""
    import decord

    video = decord.VideoReader(str(path), ctx=decord.cpu(0))
    return np.stack([video.next().asnumpy() for _ in range(len(video))])


def _loads(name: str) -> bool:
    if name != "torchcodec":
        return True
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):  # FFmpeg's shared libraries are missing
        return False
    return True
