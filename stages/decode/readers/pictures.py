"""From a decoded picture to pixels: one definition for every video.

RGB is what the ffmpeg command line gives for `-pix_fmt rgb24` (FFmpeg's swscale, flags bicubic, the stream's own colour
matrix and range, pictures of two fields as one), turned upright by the display matrix. tests/decode_matrix compares.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import Frame
from reelwright.stages.decode.timing.index import is_turned

_SCALE = "flags=bicubic"


class Pictures:
    """Turns the PyAV frames of one video into upright (H, W, 3) uint8 RGB, all of one size.

    matrix: the display matrix, None where frames are upright as stored. stretch: width of a pixel over its height, by
    which pictures are made wider; 1: as stored. size: (height, width) of the video's first frame, upright; frames of
    another are scaled to it, as ffmpeg does.
    """

    def __init__(self, matrix: tuple[int, ...] | None, *, size: tuple[int, int], stretch: float = 1.0) -> None:
        self.notes: tuple[str, ...] = ()  # what people should know of the sizes
        self._matrix, self._stretch = matrix, stretch
        self._graph: Any = None
        self._source: Any = None  # what the graph was made for
        self._is_turned = is_turned(matrix)
        self._size = size[::-1] if self._is_turned else size  # as stored

    def pixels(self, picture: Any) -> Frame:
        """The pixels of a frame."""
        size = (picture.height, picture.width)
        if size != self._size and not self.notes:
            change = f"from {self._size[1]} x {self._size[0]} to {size[1]} x {size[0]}"
            self.notes = (f"frames change their size, {change} (width x height); all are scaled to that of the first",)
        source = (picture.format.name, picture.colorspace, picture.color_range, size)
        if source != self._source:
            self._graph, self._source = self._new_graph(picture), source
        self._graph.vpush(picture)
        frame: NDArray[np.uint8] = self._graph.vpull().to_ndarray()
        return orient(frame, self._matrix)

    def _new_graph(self, picture: Any) -> Any:
        scale = _SCALE
        height, width = self._size
        if self._stretch != 1.0:
            if self._is_turned:
                height = max(1, round(height * self._stretch))
            else:
                width = max(1, round(width * self._stretch))
        if (height, width) != (picture.height, picture.width):
            scale = f"w={width}:h={height}:{_SCALE}"
        graph = av.filter.Graph()
        if hasattr(graph, "threads"):  # of PyAV from 18 on; before, FFmpeg decides
            graph.threads = 1
        nodes = [
            graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base or 1
            ),
            graph.add("scale", scale),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        for node, following in itertools.pairwise(nodes):
            node.link_to(following)
        graph.configure()
        return graph


def orient(frame: NDArray[Any], matrix: Sequence[int] | None) -> Frame:
    """Turn a (H, W, 3) frame upright.

    matrix: the nine entries of the container's display matrix, (x', y') = (a x + c y, b x + d y) with a, b, c, d at 0,
    1, 3, 4 (ISO 14496-12, 8.5.2); None: upright already. Quarter turns and mirrors are done; a matrix between them
    counts as the nearest.
    """
    if matrix is None:
        return frame
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if is_turned(matrix):
        frame, a, d = frame.transpose(1, 0, 2), c, b
    turned = frame[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(turned)
