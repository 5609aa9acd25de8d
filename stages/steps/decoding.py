"""One video's streams through the decoders: which one, from which state, over which frames."""

from __future__ import annotations

from typing import NamedTuple

from reelwright.models.systems.step_changes import AccumulatedChanges, NaiveChanges
from reelwright.models.systems.step_decoders import AccumulatedDetections, Completion, NaiveDetections
from reelwright.models.systems.step_fusion import Observation, merge_completions, soft_vote
from reelwright.stages.steps.config import StepsConfig
from reelwright.stages.steps.procedure import Procedure
from reelwright.stages.steps.streams import VideoStreams, state_classes


class Recognised(NamedTuple):
    """A completed step and the stream that told of it."""

    completion: Completion
    source: str  # detections or changes


def decode(streams: VideoStreams, *, kind: str, procedure: Procedure, config: StepsConfig) -> list[Recognised]:
    """The completed steps of one video, in the order in which they were recognised."""
    runner = _Decoders(streams, kind=kind, procedure=procedure, config=config)
    both = bool(streams.changes) and streams.has_detections
    if both and config.decoder != "naive":
        detections, changes = runner.voted()
    else:
        detections, changes = runner.detections(), runner.changes()
    if not both:
        return [*_of(detections, "detections"), *_of(changes, "changes")]
    merged = merge_completions(detections, changes)
    # Where both streams completed steps in a frame, those of the detections count.
    own = {completion.frame for completion in detections}
    return [Recognised(entry, "detections" if entry.frame in own else "changes") for entry in merged]


def _of(completions: list[Completion], source: str) -> list[Recognised]:
    return [Recognised(completion, source) for completion in completions]


class _Decoders:
    """The decoders of one video, as they are set."""

    def __init__(self, streams: VideoStreams, *, kind: str, procedure: Procedure, config: StepsConfig) -> None:
        self._streams, self._procedure, self._config = streams, procedure, config
        self._start = procedure.initial(kind)
        self._expected = procedure.expected(kind) if config.decoder == "expected" else None
        is_given = config.initial == "procedure" or config.decoder == "expected"
        self._detected_start = self._start if is_given else None

    def detections(self) -> list[Completion]:
        """Steps out of detected states alone."""
        if not self._streams.has_detections:
            return []
        decoder = self._naive_detections() if self._config.decoder == "naive" else self._accumulated_detections()
        for frame in self._detected_frames():
            decoder.update(frame, self._streams.detections.get(frame, []))
        return decoder.completed

    def changes(self) -> list[Completion]:
        """Steps out of predicted changes alone."""
        if not self._streams.changes:
            return []
        decoder = self._naive_changes() if self._config.decoder == "naive" else self._accumulated_changes()
        for frame, (bits, sure) in sorted(self._streams.changes.items()):
            decoder.update(frame, bits, sure)
        return decoder.completed

    def voted(self) -> tuple[list[Completion], list[Completion]]:
        """Steps of both streams, which share their sums after every frame."""
        detections, changes = self._accumulated_detections(), self._accumulated_changes()
        frames = sorted({*self._detected_frames(), *self._streams.changes})
        soft_vote(
            (Observation(f, self._streams.detections.get(f, ()), self._streams.changes.get(f)) for f in frames),
            detections=detections,
            changes=changes,
            weight=self._config.weight,
            fusion=self._config.fusion,
        )
        return detections.completed, changes.completed

    def _detected_frames(self) -> list[int]:
        frames = self._streams.detections
        last = max({*frames, *self._streams.changes}, default=-1)
        return list(range(last + 1)) if self._streams.is_dense else sorted(frames)

    def _naive_detections(self) -> NaiveDetections:
        classes = state_classes(self._procedure, non_states=self._config.non_states)
        return NaiveDetections(classes, threshold=self._config.confidence, initial=self._detected_start)

    def _accumulated_detections(self) -> AccumulatedDetections:
        return AccumulatedDetections(
            state_classes(self._procedure, non_states=self._config.non_states),
            threshold=self._config.threshold,
            decay=self._config.decay,
            expected=self._expected,
            initial=self._detected_start,
        )

    def _naive_changes(self) -> NaiveChanges:
        return NaiveChanges(self._start, window=self._window, threshold=self._config.confidence)

    def _accumulated_changes(self) -> AccumulatedChanges:
        return AccumulatedChanges(
            self._start,
            window=self._window,
            threshold=self._config.threshold,
            decay=self._config.decay,
            expected=self._expected,
        )

    @property
    def _window(self) -> int:
        window = self._config.window or self._streams.window
        assert window is not None
        return window
