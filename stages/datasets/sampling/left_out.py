"""What clips and windows leave out, counted and said: rows that are in none, and videos that are too short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reelwright.stages.datasets.sampling.windows import WindowShape

NAMED = 3  # videos that a warning names


@dataclass(kw_only=True)
class LeftOut:
    """Counts over the videos of one unit of work; each video once, however often it is added."""

    shape: WindowShape
    block: str  # name of the settings that say `shape`: clip or window
    rows: str  # what they take: frames or rows
    fate: str  # of rows that are left out: are in no clip
    is_strict: bool = False  # rows between two of a clip (`dilation`) are left out too
    _rows: dict[str, tuple[int, int]] = field(default_factory=dict)  # by video: left out, in all
    _short: dict[str, int] = field(default_factory=dict)  # by video: rows

    def add(self, video: str, *, num_left: int, num_rows: int) -> str:
        """Note what is left out of one video; a message for its item, "" where that is nothing."""
        if num_left < 1:
            return ""
        self._rows[video] = num_left, num_rows
        return f"{num_left:,} of {num_rows:,} {self.rows} {self.fate}; {self._advice()}"

    def add_short(self, video: str, *, num_rows: int) -> str:
        """Note a video that is left out because it is shorter than a clip; a message for its item."""
        self._short[video] = num_rows
        return (
            f"{num_rows:,} {self.rows} are fewer than the {self.shape.span_rows:,} of a {self.block}; "
            f"set {self.block}.short: pad or repeat"
        )

    def warnings(self) -> Iterator[str]:
        """A line for rows and one for videos, where some are left out."""
        if self._rows:
            left, num_rows = (sum(counts) for counts in zip(*self._rows.values(), strict=True))
            named = [f"{video} ({counts[0]:,} of {counts[1]:,})" for video, counts in self._rows.items()]
            yield (
                f"warning: {left:,} of {num_rows:,} {self.rows} of {len(self._rows):,} video(s) {self.fate}: "
                f"{_some(named)}; {self._advice()}"
            )
        if self._short:
            named = [f"{video} ({num_rows:,})" for video, num_rows in self._short.items()]
            yield (
                f"warning: {len(self._short):,} video(s) have fewer {self.rows} than the {self.shape.span_rows:,} of "
                f"a {self.block} and are left out: {_some(named)}; {self.block}.short: pad or repeat takes them in"
            )

    def _advice(self) -> str:
        shape, wishes = self.shape, []
        if not shape.to_end:
            wishes.append("to_end: true")
        if self.is_strict and shape.dilation > 1:
            wishes.append("hop: 1" if shape.hop > 1 else "dilation: 1")
        elif shape.hop > shape.span_rows:
            wishes.append(f"hop: {shape.span_rows} or less")
        return f"{' and '.join(f'{self.block}.{wish}' for wish in wishes)} takes them in"


def _some(named: list[str]) -> str:
    rest = len(named) - NAMED
    return ", ".join(named[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
