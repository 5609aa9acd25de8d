"""Which conversion to RGB gives the pixels of ffmpeg's command line: python -m tests.decode_matrix.pixels [FILE ...].

Each row is a way of PyAV, each column a setting of the command line's `-sws_flags`; a number is the largest difference
of any level in the first pictures. 0 says that both are the same conversion.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from tests.decode_matrix.cases import all_cases
from tests.decode_matrix.lab import Lab
from tests.decode_matrix.truth import decode_rgb

NUM_PICTURES = 6
FILES = (  # one of each kind
    "h264-b2-g13.mp4", "h264-mbaff.ts", "h264-paff-frames.ts", "mpeg2-interlaced.ts", "vp9-127x96.webm",
    "vp9-128x95.webm", "vp9-127x95.webm", "mjpeg-127x95.avi", "h264-bt709.mp4", "h264-bt601.mp4", "h264-bt2020.mp4",
    "h264-full.mp4", "h264-full-bt709.mkv", "h264-yuv422p.mp4", "h264-yuv444p.mp4", "h264-127x95-444.mp4",
    "h264-yuv420p10le.mp4", "h264-yuv422p10le.mp4", "h264-gray.mp4", "h264-rgb.mp4", "hevc-gbrp.mp4", "gif-intra.gif",
    "ffv1-gray16le.mkv", "ffv1-yuv444p16le.mkv", "prores-4444.mov", "png-rgba64.mov", "rawvideo-uyvy.mov",
    "dv-interlaced.avi", "prores-interlaced.mov",
)  # fmt: skip
_EXACT = "accurate_rnd+full_chroma_int"
COLUMNS = {
    "default": "",
    "bilinear": "-sws_flags bilinear",
    "bicubic+acc": "-sws_flags bicubic+accurate_rnd",
    "bicubic+acc+full": f"-sws_flags bicubic+{_EXACT}",
    "bilinear+acc+full": f"-sws_flags bilinear+{_EXACT}",
}


def _converted(flags: Sequence[str]) -> Callable[[Sequence[av.VideoFrame]], NDArray[np.uint8]]:
    from av.video.reformatter import Interpolation

    value = sum(int(Interpolation[flag]) for flag in flags)

    def convert(frames: Sequence[av.VideoFrame]) -> NDArray[np.uint8]:
        return np.stack([frame.to_ndarray(format="rgb24", interpolation=value or None) for frame in frames])

    return convert


def _filtered(flags: str) -> Callable[[Sequence[av.VideoFrame]], NDArray[np.uint8]]:
    def convert(frames: Sequence[av.VideoFrame]) -> NDArray[np.uint8]:
        graph, first = av.filter.Graph(), frames[0]
        source = graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base
        )
        graph.link_nodes(
            source, graph.add("scale", f"flags={flags}"), graph.add("format", "rgb24"), graph.add("buffersink")
        )
        graph.configure()
        return np.stack([_pushed(graph, frame) for frame in frames])

    return convert


def _pushed(graph: av.filter.Graph, frame: av.VideoFrame) -> NDArray[np.uint8]:
    graph.push(frame)
    return graph.pull().to_ndarray()


ROWS = {
    "to_ndarray": _converted([]),
    "to_ndarray bicubic": _converted(["BICUBIC"]),
    "to_ndarray bicubic+acc+full": _converted(["BICUBIC", "ACCURATE_RND", "FULL_CHR_H_INT"]),
    "graph bicubic": _filtered("bicubic"),
    "graph bicubic+acc+full": _filtered(f"bicubic+{_EXACT}"),
    "graph bilinear+acc+full": _filtered(f"bilinear+{_EXACT}"),
}


def differences(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Of each row: the largest difference to each column."""
    frames = _frames(path)
    limit = f"-frames:v {len(frames)}"
    columns = [np.stack(decode_rgb(path, f"{limit} {options}")[0]) for options in COLUMNS.values()]
    for name, convert in ROWS.items():
        try:
            rows = convert(frames)
        except (av.FFmpegError, ValueError) as error:
            yield name, [type(error).__name__]
            continue
        yield name, [_largest(rows, column) for column in columns]


def _largest(rows: NDArray[np.uint8], others: NDArray[np.uint8]) -> str:
    return str(np.abs(rows.astype(np.int16) - others).max()) if rows.shape == others.shape else "size"


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        decoding = container.decode(container.streams.best("video"))
        return [frame for frame, _ in zip(decoding, range(NUM_PICTURES), strict=False)]


def main() -> None:
    """Print the table for the files named, else for one of each kind."""
    cases = all_cases()
    with tempfile.TemporaryDirectory(prefix="decode-matrix-") as folder:
        lab = Lab(Path(folder), cases)
        for name in sys.argv[1:] or FILES:
            path = Path(name) if name not in cases else lab.path(name)
            print(f"{name:32}{_frames(path)[0].format.name:14}" + "".join(f"{column:>19}" for column in COLUMNS))
            for row, cells in differences(path):
                print(f"  {row:44}" + "".join(f"{cell:>19}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
