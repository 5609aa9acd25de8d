"""From detected assembly states, frame by frame, to completed steps: naive (B1), by accumulated confidence (B2, B3).

Schoonbeek et al. 2024, "IndustReal", the baselines. B3 is B2 that starts from the initial state of the procedure and
lets only the steps fire that the procedure expects. Ids are 3 * component + action (step_states.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reelwright.models.systems.step_states import (
    ACTIONS_PER_COMPONENT,
    REMOVE,
    State,
    action_of,
    component_of,
    steps_between,
)

Floats = npt.NDArray[np.float64]
NON_STATES = ("ignore", "reference")


class Detection(NamedTuple):
    """One detected object of a frame."""

    class_id: int
    confidence: float


class Completion(NamedTuple):
    """A step that was recognised as complete."""

    frame: int
    step: int
    score: float  # confidence or, where it is accumulated, the sum that fired


@dataclass(frozen=True, kw_only=True)
class StateClasses:
    """What the classes of a detector mean."""

    states: tuple[tuple[int, ...] | None, ...]  # by class id; None: background or error, no state
    non_states: str = "ignore"  # or reference: as in the public code, background is a state without components

    def __post_init__(self) -> None:
        """Raise ValueError when states are of different lengths or ``non_states`` is not known."""
        if self.non_states not in NON_STATES:
            raise ValueError(f"non_states {self.non_states!r} is not known; choose one of {', '.join(NON_STATES)}.")
        if len({len(state) for state in self.states if state is not None}) != 1:
            raise ValueError(f"states must all have the same number of components, got {self.states}.")

    @property
    def num_components(self) -> int:
        """Components of a state."""
        return next(len(state) for state in self.states if state is not None)

    @property
    def error_class(self) -> int:
        """The last class, when it is no state; -1 when it is one."""
        return len(self.states) - 1 if self.states[-1] is None else -1

    def of(self, class_id: int) -> tuple[int, ...] | None:
        """The state of a class; None when it is to be ignored. Raises ValueError for an unknown class."""
        if not 0 <= class_id < len(self.states):
            raise ValueError(f"class {class_id} is not known; detector classes are 0 to {len(self.states) - 1}.")
        state = self.states[class_id]
        return () if state is None and self.non_states == "reference" else state


class NaiveDetections:
    """B1: the most confident object of a frame; every component that differs from the last state is a step.

    An object is passed over when it is of the class seen last, of the error class or no state, or its confidence is not
    above ``threshold``. Without ``initial`` the first detection, however confident, is the initial state.
    """

    def __init__(self, classes: StateClasses, *, threshold: float = 0.5, initial: State | None = None) -> None:
        self.completed: list[Completion] = []
        self.state = None if initial is None else tuple(initial)
        self._classes, self._threshold = classes, threshold
        self._last = classes.states.index(self.state) if initial is not None and self.state in classes.states else None

    def update(self, frame: int, detections: Sequence[Detection]) -> None:
        """Take note of what was detected in one frame; frames come in order."""
        if not detections:
            return
        best = max(detections, key=lambda detection: detection.confidence)  # the first of equals
        state = self._classes.of(best.class_id)
        if state is None:
            return
        if self.state is None:
            self.state, self._last = state, best.class_id
            return
        if best.class_id in (self._last, self._classes.error_class) or best.confidence <= self._threshold:
            return
        # In the public code a background leaves a state without components, so that nothing ever differs again.
        steps = steps_between(self.state, state) if len(self.state) == len(state) else []
        self.completed += [Completion(frame, step, best.confidence) for step in steps]
        self.state, self._last = state, best.class_id


class Accumulator:
    """Confidence summed for every step of a procedure, and the state as it is believed to be.

    Base of the accumulating decoders of both streams; `sums` (3 * components,) is what soft voting exchanges.
    """

    def __init__(
        self,
        num_components: int,
        *,
        threshold: float,
        decay: float,
        expected: Collection[int] | None,
        initial: State | None,
    ) -> None:
        self.completed: list[Completion] = []
        self.state = None if initial is None else list(initial)
        self.sums: Floats = np.zeros(ACTIONS_PER_COMPONENT * num_components)
        self._threshold, self._decay = threshold, decay
        self._expected = None if expected is None else frozenset(expected)
        self._updated: set[int] = set()

    def _add(self, frame: int, steps: Sequence[int], confidences: Sequence[float]) -> list[int]:
        """Add to the sums of the suggested steps. Returns the ids of all sums above the threshold, in order.

        Those expected are complete, the state changes and the sum starts anew; the others start anew silently.
        """
        assert self.state is not None
        for step, confidence in zip(steps, confidences, strict=True):
            self.sums[step] += confidence
            self._updated.add(step)
        above = [int(step) for step in np.flatnonzero(self.sums > self._threshold)]
        for step in above:
            if self._expected is None or step in self._expected:
                self.completed.append(Completion(frame, step, float(self.sums[step])))
                self.state[component_of(step)] = 0 if action_of(step) == REMOVE else 1
            self.sums[step] = 0.0
        return above

    def _tick(self) -> None:
        """Let the sums fade that were not added to since the last tick."""
        kept = [self.sums[step] for step in self._updated]
        self.sums *= self._decay
        self.sums[list(self._updated)] = kept
        self._updated.clear()


class AccumulatedDetections(Accumulator):
    """B2, and with ``expected`` and ``initial`` B3: the first object listed in a frame suggests the steps to its state.

    Their sums grow by its confidence; a sum above ``threshold`` completes the step. Each frame lets all other sums fade
    by ``decay``. Without ``initial`` the first detected state is the initial one.
    """

    def __init__(
        self,
        classes: StateClasses,
        *,
        threshold: float = 8.0,
        decay: float = 0.75,
        expected: Collection[int] | None = None,
        initial: State | None = None,
    ) -> None:
        super().__init__(classes.num_components, threshold=threshold, decay=decay, expected=expected, initial=initial)
        self._classes = classes

    def update(self, frame: int, detections: Sequence[Detection]) -> None:
        """Take note of what was detected in one frame, or of nothing; every frame, in order."""
        state = self._classes.of(detections[0].class_id) if detections else None
        if state is not None and self.state is None:
            self.state = list(state)
            return
        if state is not None and self.state is not None and len(state) == len(self.state):
            steps = steps_between(self.state, state)
            if steps:
                self._add(frame, steps, [detections[0].confidence] * len(steps))
        self._tick()
