"""One video's streams through the decoders: which one, from which state, over which frames."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    detections, changes = _decoders(streams, kind=kind, procedure=procedure, config=config)
    last = max({*streams.detections, *streams.changes}, default=-1)
    detected = list(range(last + 1)) if streams.is_dense else sorted(streams.detections)
    if isinstance(detections, AccumulatedDetections) and isinstance(changes, AccumulatedChanges):
        frames = sorted({*detected, *streams.changes})
        soft_vote(
            (Observation(f, streams.detections.get(f, ()), streams.changes.get(f)) for f in frames),
            detections=detections,
            changes=changes,
            weight=config.weight,
            fusion=config.fusion,
        )
    else:
        for frame in detected:
            if detections is not None:
                detections.update(frame, streams.detections.get(frame, []))
        for frame, (bits, sure) in sorted(streams.changes.items()):
            if changes is not None:
                changes.update(frame, bits, sure)
    if changes is None:
        return [Recognised(entry, "detections") for entry in detections.completed] if detections is not None else []
    if detections is None:
        return [Recognised(entry, "changes") for entry in changes.completed]
    # Where both streams completed steps in a frame, those of the detections count.
    own = {completion.frame for completion in detections.completed}
    merged = merge_completions(detections.completed, changes.completed)
    return [Recognised(entry, "detections" if entry.frame in own else "changes") for entry in merged]


def _decoders(
    streams: VideoStreams, *, kind: str, procedure: Procedure, config: StepsConfig
) -> tuple[NaiveDetections | AccumulatedDetections | None, NaiveChanges | AccumulatedChanges | None]:
    """Those of detected states and of predicted changes, as they are set; None for a stream that is not there."""
    start, is_naive, is_expected = procedure.initial(kind), config.decoder == "naive", config.decoder == "expected"
    sums: dict[str, Any] = {"threshold": config.threshold, "decay": config.decay}
    sums["expected"] = procedure.expected(kind) if is_expected else None
    detections: NaiveDetections | AccumulatedDetections | None = None
    changes: NaiveChanges | AccumulatedChanges | None = None
    if streams.has_detections:
        classes = state_classes(procedure, non_states=config.non_states)
        initial = start if config.initial == "procedure" or is_expected else None
        if is_naive:
            detections = NaiveDetections(classes, threshold=config.confidence, initial=initial)
        else:
            detections = AccumulatedDetections(classes, initial=initial, **sums)
    if streams.changes:
        window = config.window or streams.window
        assert window is not None
        if is_naive:
            changes = NaiveChanges(start, window=window, threshold=config.confidence)
        else:
            changes = AccumulatedChanges(start, window=window, **sums)
    return detections, changes
