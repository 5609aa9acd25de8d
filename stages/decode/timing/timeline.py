"""Times of frames in the order in which FFmpeg decodes them: best-effort timestamps that never go back."""

from __future__ import annotations

from collections import Counter

GAP_SECONDS = 10.0  # a frame that stays longer on the screen is worth a word
_BACK_SECONDS, _BACK_FRAMES = 0.1, 4  # further back than both, a new time line has begun (two files joined)


def guess_step(fps: float, tick_seconds: float) -> int:
    """Ticks that a frame stays on the screen at ``fps`` frames per second (0: 25), at least 1."""
    return max(1, round(1 / ((fps or 25.0) * tick_seconds)))


class Timeline:
    """Gives each frame its time in ticks, one after the other.

    A frame without a time follows the one before by the usual step. A time a little before the one before counts as
    the same; one far before it begins a new part, which is joined to the part before, as the ffmpeg command does.
    """

    def __init__(self, *, tick_seconds: float, step: int) -> None:
        self.ticks: list[int] = []
        self.is_plain = True  # every frame had a time of its own, and all ascended
        self._tick_seconds = tick_seconds
        self._first_step = step
        self._spans: Counter[int] = Counter()
        self._offset = 0
        self._faulty_pts = self._faulty_dts = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._joins: list[tuple[int, int]] = []  # (frame, ticks that the time line jumped there)
        self._num_back = 0

    @property
    def step(self) -> int:
        """The commonest number of ticks between two frames."""
        return self._spans.most_common(1)[0][0] if self._spans else self._first_step

    def add(self, pts: int | None, dts: int | None) -> int:
        """The time of the next frame, by the times that FFmpeg gives it and the packet it came from."""
        raw = self._best_effort(pts, dts)
        previous = self.ticks[-1] if self.ticks else None
        if raw is None:
            self.is_plain = False
            time = 0 if previous is None else previous + self.step
        else:
            time = self._joined(raw + self._offset, previous)
        if previous is not None and time > previous:
            self._spans[time - previous] += 1
        self.ticks.append(time)
        return time

    def notes(self) -> tuple[str, ...]:
        """What people should know of these times."""
        found = []
        if self._joins:
            frame, jump = self._joins[0]
            more = f", and {len(self._joins) - 1} more" if len(self._joins) > 1 else ""
            found.append(
                f"time jumps by {jump * self._tick_seconds:+.3f} s at frame {frame}{more}: what follows is joined to "
                f"what went before"
            )
        if self._num_back:
            found.append(f"times before that of the frame before count as equal to it (frames: {self._num_back})")
        return tuple(found)

    def _joined(self, time: int, previous: int | None) -> int:
        if previous is None:
            return time
        change = time - previous
        far_back = -change > max(_BACK_SECONDS / self._tick_seconds, _BACK_FRAMES * self.step)
        if far_back:
            self.is_plain = False
            self._joins.append((len(self.ticks), change))
            self._offset += self.step - change
            return previous + self.step
        if change < 0:
            self.is_plain = False
            self._num_back += 1
            return previous
        return time

    def _best_effort(self, pts: int | None, dts: int | None) -> int | None:
        """As libavcodec's guess_correct_pts: whichever of the two kinds of times has gone back less often."""
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (self._faulty_pts <= self._faulty_dts or dts is None):
            return pts
        return dts
