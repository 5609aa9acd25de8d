"""The contract of readers: the same frames at the same times whatever decodes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3) RGB, upright


class Reader(Protocol):
    """One open video. Opened in the process that reads: a reader inherited through fork aborts or hangs."""

    backend: str
    pts_seconds: NDArray[np.float64]
    # (N,) presentation times of all frames, ascending, as the container says (not shifted to zero).
    end_seconds: float
    # When the last frame leaves the screen.
    promised_frames: int
    # As the container's header says; more than N where the file was cut off.
    notes: tuple[str, ...]
    # Short English sentences about the file that do not stop it; more may come while it is read.

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """Yield (source_frame, frame) for each of ``source_frames``, which ascend and may repeat.

        Frames are (H, W, 3) uint8 RGB at the video's own size, turned upright by its display matrix, and not written to
        again. Raises ItemError: status `truncated` where the rest of the file cannot be decoded, `backend_unsuited`
        where this backend cannot keep the contract but another may.
        """

    def close(self) -> None:
        """Give the file and the decoder back. Safe to call twice."""


def span_stops(pts_seconds: NDArray[np.float64], end_seconds: float) -> NDArray[np.float64]:
    """When each frame leaves the screen, (N,) seconds: as the next appears; the last by its duration."""
    return np.append(pts_seconds[1:], max(end_seconds, pts_seconds[-1])) if len(pts_seconds) else pts_seconds


def runs(source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(source_frame, how many times it is asked for) in order."""
    values, counts = np.unique(np.asarray(source_frames, np.int64), return_counts=True)
    yield from zip(values.tolist(), counts.tolist(), strict=True)


def orient(frame: NDArray[Any], matrix: Sequence[int] | None) -> Frame:
    """Turn a (H, W, 3) frame upright.

    matrix: the nine entries of the container's display matrix, (x', y') = (a x + c y, b x + d y) with a, b, c, d at 0,
    1, 3, 4 (ISO 14496-12, 8.5.2); None: upright already. Quarter turns and mirrors are done; a matrix between them
    counts as the nearest.
    """
    if matrix is None:
        return frame
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        frame, a, d = frame.transpose(1, 0, 2), c, b
    turned = frame[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(turned)
