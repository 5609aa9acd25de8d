"""Video files whose bytes follow from the pictures and the build of FFmpeg: not from the CPU, the run or the machine.

What would make them differ, and what is done about it:

- x264's macroblock tree and x265's cutree read and write past their buffers where pictures are narrow: both are off.
- x265 reads margins that nobody wrote where a picture is one coding tree unit wide, so that motion is sought in what
  memory held before: units are 16 pixels, and pictures wider than that.
- x264 takes floating-point short cuts where the CPU has vector instructions: `cpu-independent` forbids them.
- x265 writes which instructions the CPU has into the stream: `no-info`.
- Threads of either may change what is coded: there is one.
- FFmpeg's vector code for RGB -> 4:2:0 rounds otherwise than its C code: `accurate_rnd` and `bitexact`.

MP4 headers hold no time of writing. Another build of FFmpeg, x264 or x265 may give other bytes: files of one build are
equal on CPUs with AVX-512, with AVX2, and without vector instructions.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

H264, H265 = "h264", "h265"
MIN_H265_PIXELS = 18  # the next even width above one coding tree unit
_COMMON = {"preset": "veryfast", "threads": "1", "g": "50"}  # a key frame at least every 50 frames
# Name -> (encoder, options, tag of the stream that players know).
CODECS: dict[str, tuple[str, dict[str, str], str]] = {
    H264: ("libx264", {"crf": "23", **_COMMON, "x264-params": "no-mbtree=1:cpu-independent=1"}, "avc1"),
    H265: (
        "libx265",
        {
            "crf": "24",
            **_COMMON,
            "x265-params": "pools=none:frame-threads=1:log-level=none:no-cutree=1:ctu=16:no-info=1",
        },
        "hvc1",
    ),
}


class VideoWriter:
    """An MP4 file that is being written: yuv420p, frame i at i / fps seconds. Closed by hand or as a context.

    ``size`` is (height, width) in pixels, both even; ``codec`` one of `CODECS`. Raises ValueError for an odd size, and
    for h265 of less than `MIN_H265_PIXELS`.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], fps: float, codec: str = H264) -> None:
        smallest = MIN_H265_PIXELS if codec == H265 else 2
        if any(side % 2 or side < smallest for side in size):
            raise ValueError(f"{codec} of {size[0]} x {size[1]} pixels: both sides have to be even, from {smallest} up")
        encoder, options, tag = CODECS[codec]
        rate = Fraction(fps).limit_denominator(1001)
        self._step, self._num_frames = 1 / rate, 0
        self._to_yuv = _to_yuv(size, self._step)
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(encoder, rate=rate, options=dict(options))
        self._stream.height, self._stream.width, self._stream.pix_fmt = *size, "yuv420p"
        self._stream.codec_context.codec_tag = tag
        self._stream.time_base = self._stream.codec_context.time_base = self._step

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """The next frame, (H, W, 3) uint8 RGB."""
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = self._num_frames, self._step
        self._num_frames += 1
        self._to_yuv.push(frame)
        self._container.mux(self._stream.encode(self._to_yuv.pull()))

    def close(self) -> None:
        """Write what the encoder holds, and the end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._container.close()


def _to_yuv(size: tuple[int, int], step: Fraction) -> av.filter.Graph:
    """RGB -> 4:2:0 (BT.601, limited range); a filter, since `VideoFrame.reformat` of PyAV 12 takes no flags."""
    graph = av.filter.Graph()
    rgb = av.VideoFormat("rgb24")
    graph.link_nodes(
        graph.add_buffer(width=size[1], height=size[0], format=rgb, time_base=step),
        graph.add("scale", "flags=bilinear+accurate_rnd+bitexact"),
        graph.add("format", "pix_fmts=yuv420p"),
        graph.add("buffersink"),
    ).configure()
    return graph
