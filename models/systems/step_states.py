"""Assembly states and the steps between them: A component is 1 (installed), 0 (absent) or -1 (installed wrongly).

Step ids are 3 * component + action: 0 install, 1 install wrongly, 2 remove.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

INSTALL, WRONG, REMOVE = 0, 1, 2
ACTIONS_PER_COMPONENT = 3

State = Sequence[int]
_ACTIONS = {(0, 1): INSTALL, (-1, 1): INSTALL, (0, -1): WRONG, (1, -1): WRONG, (1, 0): REMOVE}


@dataclass(frozen=True)
class StateSteps:
    """Steps between states."""

    steps: tuple[tuple[float, int], ...]  # (time of the later state, step id)
    num_errors: int  # wrong installations
    unexpected: tuple[float, ...]  # times at which a rightly installed component became wrong


def component_of(step: int) -> int:
    """The component that a step changes."""
    return step // ACTIONS_PER_COMPONENT


def action_of(step: int) -> int:
    """INSTALL, WRONG or REMOVE."""
    return step % ACTIONS_PER_COMPONENT


def step_id(component: int, action: int) -> int:
    """The id of an action on a component."""
    return ACTIONS_PER_COMPONENT * component + action


def steps_between(before: State, after: State) -> list[int]:
    """Ids of the steps from one state to the next, by component; undoing what was wrong (-1 to 0) is no step."""
    actions = ((k, _ACTIONS.get(change)) for k, change in enumerate(zip(before, after, strict=True)))
    return [step_id(component, action) for component, action in actions if action is not None]


def steps_of_states(rows: Sequence[tuple[float, State]], *, include_errors: bool) -> StateSteps:
    """Steps between consecutive rows (time, state); the first row is the initial state and gives none.

    Without errors, -1 is taken for 0 everywhere: breaking a right part becomes a removal, mending it an installation.
    Raises ValueError for a value other than -1, 0, 1 or rows of different lengths.
    """
    for time, state in rows:
        if any(value not in (-1, 0, 1) for value in state) or len(state) != len(rows[0][1]):
            raise ValueError(f"state {list(state)} at {time}: {len(rows[0][1])} values of -1, 0 or 1 are needed.")
    steps: list[tuple[float, int]] = []
    unexpected: list[float] = []
    for (_, before), (time, after) in pairwise(rows):
        old, new = (before, after) if include_errors else (without_errors(before), without_errors(after))
        steps += [(time, step) for step in steps_between(old, new)]
        if (1, -1) in zip(old, new, strict=True):
            unexpected.append(time)
    return StateSteps(tuple(steps), sum(action_of(step) == WRONG for _, step in steps), tuple(unexpected))


def without_errors(state: State) -> tuple[int, ...]:
    """The state with what is installed wrongly taken for absent."""
    return tuple(max(value, 0) for value in state)


def change_labels(rows: Sequence[tuple[float, State]], *, include_errors: bool) -> list[tuple[float, tuple[int, ...]]]:
    """Of every row but the first, (time, |state - state before| by component); -1 to 1 gives 2 with errors."""
    states = [(time, tuple(state) if include_errors else without_errors(state)) for time, state in rows]
    return [
        (time, tuple(abs(new - old) for old, new in zip(before, after, strict=True)))
        for (_, before), (time, after) in pairwise(states)
    ]


def has_errors(steps: Collection[int], *, expected: Collection[int], states: Sequence[State] = ()) -> bool:
    """Whether a recording contains errors: an expected step is missing, or a component was ever installed wrongly.

    ``steps`` are the ids of the right completions, ``states`` the raw states where they are known. A step of wrong
    installation among ``steps`` tells as much as a raw -1.
    """
    is_missing = not set(expected) <= set(steps)
    is_wrong = any(action_of(step) == WRONG for step in steps) or any(-1 in state for state in states)
    return is_missing or is_wrong
