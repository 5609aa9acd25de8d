"""From predicted changes of components, window by window, to completed steps: the decoders of the temporal stream.

A prediction belongs to the last frame of its window and says which components changed inside it. So a change goes on
being predicted for a window's length after it happened, and must not be undone by that. STORM-PSR, section 3.4;
details, which the paper leaves open, as its public code has them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reelwright.models.systems.step_decoders import Accumulator, Completion
from reelwright.models.systems.step_states import REMOVE, State, steps_between


class NaiveChanges:
    """B1: a predicted change of at least ``threshold`` confidence is a step.

    A component stays as it is when it was part of the last recorded change, up to ``window`` frames ago; the very same
    prediction is passed over for less than a window. A step that was completed before needs its opposite to have been
    completed too, else the state changes without a step.
    """

    def __init__(self, initial: State, *, window: int, threshold: float = 0.5) -> None:
        self.completed: list[Completion] = []
        self.state = list(initial)
        self._window, self._threshold = window, threshold
        self._last: tuple[int, tuple[int, ...]] | None = None  # frame and prediction of the last change

    def update(self, frame: int, changes: Sequence[int], confidences: Sequence[float]) -> None:
        """Take note of one prediction: 0 or 1, and the probability, of each component."""
        predicted = tuple(int(change) for change in changes)
        if self._last is not None and predicted == self._last[1] and frame - self._last[0] < self._window:
            return
        if not any(predicted):
            return
        pairs = enumerate(zip(predicted, confidences, strict=True))
        turned = {k for k, (change, sure) in pairs if change and sure >= self._threshold and not self._held(k, frame)}
        state = [1 - value if k in turned else value for k, value in enumerate(self.state)]
        if state == self.state:
            return
        for step in steps_between(self.state, state):
            if self._is_new(step):
                self.completed.append(Completion(frame, step, float(confidences[step // 3])))
        self.state, self._last = state, (frame, predicted)

    def _held(self, component: int, frame: int) -> bool:
        if self._last is None:
            return False
        return bool(self._last[1][component]) and frame - self._last[0] <= self._window

    def _is_new(self, step: int) -> bool:
        # The public code looks for `step + 2` also where the step is a removal, which never is among the completed.
        done = {completion.step for completion in self.completed}
        return step not in done or step + REMOVE in done


class AccumulatedChanges(Accumulator):
    """B2, and with ``expected`` B3: each predicted change adds its probability to the sum of the step it means.

    A component that changed less than ``window`` frames ago (of the changes within a window of the last one, those
    that happened an odd number of times) is left alone. Sums fade by ``decay`` at predictions of no change only,
    neither at other predictions nor in frames without one; those added to since the last fading are spared.
    """

    def __init__(
        self,
        initial: State,
        *,
        window: int,
        threshold: float = 6.0,
        decay: float = 0.75,
        expected: Collection[int] | None = None,
    ) -> None:
        super().__init__(len(initial), threshold=threshold, decay=decay, expected=expected, initial=initial)
        self._window = window
        self._history: list[tuple[int, frozenset[int]]] = []  # frames of changes, and the components that changed

    def update(self, frame: int, changes: Sequence[int], confidences: Sequence[float]) -> None:
        """Take note of one prediction: 0 or 1, and the probability, of each component; none for frames without."""
        if not any(changes):
            self._tick()
            return
        assert self.state is not None
        held = self._held(frame)
        proposed = [
            1 - value if change and k not in held else value
            for k, (value, change) in enumerate(zip(self.state, changes, strict=True))
        ]
        steps = steps_between(self.state, proposed)
        if not steps:
            return
        num_before = len(self.completed)
        above = self._add(frame, steps, [confidences[step // 3] for step in steps])
        if len(self.completed) > num_before:
            self._history.append((frame, frozenset(step // 3 for step in above)))

    def _held(self, frame: int) -> frozenset[int]:
        if not self._history or frame - self._history[-1][0] >= self._window:
            return frozenset()
        last_frame, held = self._history[-1]
        for earlier, components in self._history[:-1]:
            if last_frame - earlier <= self._window:
                held = held ^ components
        return held
