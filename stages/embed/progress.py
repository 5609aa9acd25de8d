"""Progress in frames: how many are done, and a total that gets better as videos are opened."""

from __future__ import annotations

from collections.abc import Sequence

from reelwright.stages.base.work import Reporter, VideoItem


class FrameProgress:
    """Tells a reporter about frames. Videos not opened yet count with the frames a second of those that were."""

    def __init__(self, items: Sequence[VideoItem], reporter: Reporter) -> None:
        self._reporter = reporter
        self._waiting = {item.digest: item.duration_seconds or 0.0 for item in items}
        self._opened_seconds = 0.0
        self._opened_frames = 0

    def opened(self, digest: str, num_frames: int) -> None:
        """A video has ``num_frames`` to do."""
        self._opened_seconds += self._waiting.pop(digest, 0.0)
        self._opened_frames += num_frames
        rate = self._opened_frames / self._opened_seconds if self._opened_seconds else 0.0
        self._reporter.total(self._opened_frames + round(rate * sum(self._waiting.values())), "frames")

    def advance(self, num_frames: int) -> None:
        """``num_frames`` more are done."""
        self._reporter.advance(num_frames)
