"""What is known about a video: its label, segments, steps and labels of single frames, as class ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = -1  # no label; losses and metrics leave such rows out


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Labels of one video as class ids; every part may be empty."""

    label: int = UNKNOWN  # of the whole video
    segments: tuple[tuple[float, float, int], ...] = ()  # start_seconds, stop_seconds, class; half-open
    steps: tuple[tuple[float, int], ...] = ()  # time_seconds of completion, step
    times: tuple[tuple[float, int], ...] = ()  # time_seconds from which on the label holds, class
    frames: tuple[tuple[int, int], ...] = ()  # source frame number, class
    labels: tuple[int, ...] = ()  # of the whole video, one of each head (verb, noun), UNKNOWN where it has none

    def plain(self) -> dict[str, Any]:
        """Plain data for work units and keys."""
        heads = {"labels": list(self.labels)} if self.labels else {}  # only then: other keys stay what they were
        return {
            **heads,
            "label": self.label,
            "segments": [list(entry) for entry in self.segments],
            "steps": [list(entry) for entry in self.steps],
            "times": [list(entry) for entry in self.times],
            "frames": [list(entry) for entry in self.frames],
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Annotation:
        """The inverse of `plain`."""
        return cls(
            label=values["label"],
            segments=tuple((float(start), float(stop), int(label)) for start, stop, label in values["segments"]),
            steps=tuple((float(time), int(step)) for time, step in values["steps"]),
            times=tuple((float(time), int(label)) for time, label in values["times"]),
            frames=tuple((int(frame), int(label)) for frame, label in values["frames"]),
            labels=tuple(int(label) for label in values.get("labels", ())),
        )
