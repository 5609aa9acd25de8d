"""What is known about a video: its label, segments, steps and labels of single frames, as class ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

UNKNOWN = -1  # no label; losses and metrics leave such rows out
_TIMED = ("segments", "steps", "times", "frames")  # a class is the last of each entry


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Labels of one video as class ids; every part may be empty."""

    label: int = UNKNOWN  # of the whole video
    segments: tuple[tuple[float, float, int], ...] = ()  # start_seconds, stop_seconds, class; half-open
    steps: tuple[tuple[float, int], ...] = ()  # time_seconds of completion, step
    times: tuple[tuple[float, int], ...] = ()  # time_seconds from which on the label holds, class
    frames: tuple[tuple[int, int], ...] = ()  # source frame number, class
    labels: tuple[int, ...] = ()  # of the whole video, one of each head (verb, noun), UNKNOWN where it has none
    video_label: str = ""  # of the whole video beside labels of its rows: the action whose phases these are

    def plain(self, *, has_video_label: bool = True) -> dict[str, Any]:
        """Plain data for work units and keys; without what stands beside labels of rows where that is not read."""
        heads = {"labels": list(self.labels)} if self.labels else {}  # only then: other keys stay what they were
        beside = {"video_label": self.video_label} if self.video_label and has_video_label else {}
        return {
            **heads,
            **beside,
            "label": self.label,
            **{name: [list(entry) for entry in getattr(self, name)] for name in _TIMED},
        }

    @property
    def is_known(self) -> bool:
        """Whether any label is known."""
        if self.label != UNKNOWN or any(label != UNKNOWN for label in self.labels):
            return True
        return any(entry[-1] != UNKNOWN for name in _TIMED for entry in getattr(self, name))

    def with_ids(self, ids: Mapping[int, int]) -> Annotation:
        """The same with other class ids; a label that ``ids`` does not have is there, but UNKNOWN (a step is not)."""
        return Annotation(
            label=ids.get(self.label, UNKNOWN),
            segments=tuple((start, stop, ids.get(label, UNKNOWN)) for start, stop, label in self.segments),
            steps=tuple((time, ids[step]) for time, step in self.steps if step in ids),
            times=tuple((time, ids.get(label, UNKNOWN)) for time, label in self.times),
            frames=tuple((frame, ids.get(label, UNKNOWN)) for frame, label in self.frames),
            labels=tuple(ids.get(label, UNKNOWN) for label in self.labels),
            video_label=self.video_label,
        )

    def later(self, seconds: float) -> Annotation:
        """The same with all times so many seconds later; numbers of frames stay."""
        return replace(
            self,
            segments=tuple((start + seconds, stop + seconds, label) for start, stop, label in self.segments),
            steps=tuple((time + seconds, step) for time, step in self.steps),
            times=tuple((time + seconds, label) for time, label in self.times),
        )

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
            video_label=values.get("video_label", ""),
        )
