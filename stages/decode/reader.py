"""The contract of readers: the same frames at the same times whatever decodes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3) RGB, upright


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a video are shown.

    pts_seconds: (N,) presentation times of all frames, never descending, as the container says (not shifted to zero).
    end_seconds: when the last frame leaves the screen.
    """

    pts_seconds: NDArray[np.float64]
    end_seconds: float

    @property
    def stop_seconds(self) -> NDArray[np.float64]:
        """(N,) when each frame leaves the screen: as the next appears; the last by its duration."""
        pts = self.pts_seconds
        return np.append(pts[1:], max(self.end_seconds, pts[-1])) if len(pts) else pts


@dataclass(frozen=True)
class Shown:
    """A frame on its way: decoded, and turned into pixels only where these are asked for."""

    number: int
    pts_seconds: float
    stop_seconds: float
    pixels: Callable[[], Frame]


class Reader(Protocol):
    """One open video. Opened in the process that reads: a reader inherited through fork aborts or hangs."""

    backend: str

    @property
    def times(self) -> FrameTimes | None:
        """None: only decoding tells; `frames` gives them all in order, after which this is known."""

    @property
    def estimated_seconds(self) -> tuple[float, float]:
        """When the first frame appears and the last one leaves the screen; about, while times are not known."""

    @property
    def estimated_frames(self) -> int:
        """How many frames there are; about, while times are not known."""

    @property
    def damage(self) -> str:
        """What of the file is missing or cannot be decoded; "" where nothing is known to be."""

    @property
    def damage_met(self) -> str:
        """What of it was met so far where frames were asked for: between the same key frames as one of them."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Short sentences about the file for people, that do not stop it; more may come while it is read."""

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """Yield (source_frame, frame) for each of ``source_frames``, which ascend and may repeat; `times` is known.

        Frames are (H, W, 3) uint8 RGB at the video's own size, turned upright by its display matrix, and not written to
        again. Raises ItemError: status `truncated` where the rest of the file cannot be decoded, `backend_unsuited`
        where this backend cannot keep the contract but another may, `index_corrected` where the file has other frames
        than its packets promised and opening it again helps.
        """

    def frames(self) -> Iterator[Shown]:
        """Yield all frames in order, where `times` is not known. Raises ItemError as `read`."""

    def close(self) -> None:
        """Give the file and the decoder back. Safe to call twice."""


class ReadByNumber:
    """What a `Reader` has that reads by number alone: never asked for all frames in order, nothing to close."""

    @property
    def damage_met(self) -> str:
        """See `Reader.damage_met`; none is seen by those that only take what is given."""
        return ""

    def frames(self) -> Iterator[Shown]:
        """Never asked for: the times are known."""
        raise AssertionError(self)

    def close(self) -> None:
        """See `Reader.close`."""


def runs(source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(source_frame, how many times it is asked for) in order."""
    values, counts = np.unique(np.asarray(source_frames, np.int64), return_counts=True)
    yield from zip(values.tolist(), counts.tolist(), strict=True)
