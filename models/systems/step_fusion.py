"""Two streams into one: soft voting over accumulated confidence, and the merge of what both streams completed.

STORM-PSR (Hung et al. 2025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reelwright.models.systems.step_changes import AccumulatedChanges
from reelwright.models.systems.step_decoders import AccumulatedDetections, Completion, Detection
from reelwright.models.systems.step_states import INSTALL, REMOVE, WRONG, action_of, component_of, step_id

FUSIONS = ("average", "shared")


class Observation(NamedTuple):
    """What both streams say of one frame."""

    frame: int
    detections: Sequence[Detection] = ()
    changes: tuple[Sequence[int], Sequence[float]] | None = None  # bits and probabilities; None: no prediction


def soft_vote(
    observations: Iterable[Observation],
    *,
    detections: AccumulatedDetections,
    changes: AccumulatedChanges,
    weight: float = 0.5,
    fusion: str = "average",
) -> None:
    """Run both decoders over all frames, in order, and let them share their sums after each frame.

    `average`: both go on with (1 - weight) * detections + weight * changes. `shared`: as the public code, where from
    the second frame on both write into one and the same array, so that increments add up, both fadings apply, and the
    weight counts for the first frame only. Raises ValueError for an unknown fusion or a weight outside [0, 1].
    """
    if fusion not in FUSIONS or not 0 <= weight <= 1:
        raise ValueError(
            f"fusion {fusion!r} with weight {weight}: choose {' or '.join(FUSIONS)} and a weight in [0, 1]."
        )
    for observation in observations:
        detections.update(observation.frame, observation.detections)
        if observation.changes is not None:
            changes.update(observation.frame, *observation.changes)
        voted = (1 - weight) * detections.sums + weight * changes.sums
        detections.sums = voted
        changes.sums = voted if fusion == "shared" else voted.copy()


def merge_completions(detections: Sequence[Completion], changes: Sequence[Completion]) -> list[Completion]:
    """The completions of both streams as one list, by frame.

    Where the detections completed steps in a frame, those of the changes in that frame are dropped. A step is accepted
    when it was not accepted in an earlier frame; a repeated one only when both installation and removal of its
    component were, the first installation before the first removal. So install, remove, install is accepted, and any
    number of installations after that; remove, install, remove is not.
    """
    by_frame: tuple[defaultdict[int, list[Completion]], ...] = (defaultdict(list), defaultdict(list))
    for found, stream in zip(by_frame, (detections, changes), strict=True):
        for completion in stream:
            found[completion.frame].append(completion)
    accepted: list[Completion] = []
    first: dict[int, int] = {}  # step -> frame in which it was accepted first
    for frame in sorted(by_frame[0].keys() | by_frame[1].keys()):
        offered = by_frame[0].get(frame) or by_frame[1][frame]
        taken = [completion for completion in offered if _is_acceptable(completion.step, first)]
        accepted += taken
        for completion in taken:
            first.setdefault(completion.step, frame)
    return accepted


def _is_acceptable(step: int, first: dict[int, int]) -> bool:
    if step not in first:
        return True
    installed, removed = (first.get(step_id(component_of(step), action)) for action in (INSTALL, REMOVE))
    return action_of(step) != WRONG and installed is not None and removed is not None and installed < removed
