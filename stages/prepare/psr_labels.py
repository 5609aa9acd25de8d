"""The label files of one recording of a procedure: raw states, steps, and steps with errors; no header, one row a time.

    PSR_labels_raw.csv          000312.jpg,1,1,0,-1          the state from that frame on; the first row is the start
    PSR_labels.csv              000312.jpg,3,Install wheel   a right completion
    PSR_labels_with_errors.csv  000455.jpg,10,Incorrectly installed wheel

IndustReal (Schoonbeek et al. 2024), STORM-PSR (Hung et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from reelwright.models.systems.step_states import State, action_of, change_labels, has_errors, steps_of_states
from reelwright.stages.prepare.lists import Problem
from reelwright.stages.steps.procedure import Procedure
from reelwright.storage.errors import InputError
from reelwright.storage.tables.text_tables import read_lines

RAW, STEPS, WITH_ERRORS = "PSR_labels_raw.csv", "PSR_labels.csv", "PSR_labels_with_errors.csv"
WRONG_ACTION = 1  # of a step id, the remainder by 3
_SHOWN = 4

Steps = list[tuple[int, int]]  # frame, step id


@dataclass(frozen=True, kw_only=True)
class RecordingLabels:
    """What the three files of a recording say; frames are numbered as in the files."""

    states: list[tuple[int, State]]
    steps: Steps | None  # None: the file is not there
    with_errors: Steps | None

    def right_steps(self) -> Steps:
        """Right completions: as published, else as they follow from the raw states."""
        return self.derived(include_errors=False) if self.steps is None else self.steps

    def all_steps(self) -> Steps:
        """Completions, wrong ones too: as published, else as they follow from the raw states."""
        return self.derived(include_errors=True) if self.with_errors is None else self.with_errors

    def changes(self, *, include_errors: bool) -> Steps:
        """(frame, component) of every change; -1 to 1 is none with errors, and without them -1 is taken for 0."""
        rows = change_labels(self.states, include_errors=include_errors)
        return [(int(frame), part) for frame, moved in rows for part, amount in enumerate(moved) if amount == 1]

    def has_errors(self, expected: tuple[int, ...]) -> bool:
        """Whether an expected step is missing, or a component was ever installed wrongly."""
        steps = [step for _, step in self.right_steps()]
        return has_errors(steps, expected=expected, states=[state for _, state in self.states])

    def derived(self, *, include_errors: bool) -> Steps:
        """Completions as they follow from the raw states."""
        found = steps_of_states(self.states, include_errors=include_errors)
        return [(int(frame), step) for frame, step in found.steps]


def read_labels(folder: Path, procedure: Procedure, name: str, problems: list[Problem]) -> RecordingLabels | None:
    """The label files in ``folder``; None where there are no raw states.

    What is inconsistent goes into ``problems``: steps that do not follow from the raw states, rows out of order, ids
    that the procedure does not have. Raises InputError for a row that cannot be read.
    """
    if not (folder / RAW).is_file():
        return None
    states = _states(folder / RAW, procedure)
    found = RecordingLabels(
        states=states,
        steps=_steps(folder / STEPS, procedure, name, problems),
        with_errors=_steps(folder / WITH_ERRORS, procedure, name, problems),
    )
    if not states:
        problems.append(Problem("labels", name, f"{RAW} is empty"))
    frames = [frame for frame, _ in states]
    for before, after in pairwise(frames):
        if after <= before:
            problems.append(Problem("labels", name, f"{RAW}: frame {after} comes after frame {before}"))
    for file, given, include_errors in ((STEPS, found.steps, False), (WITH_ERRORS, found.with_errors, True)):
        if given is None:
            problems.append(Problem("labels", name, f"{file} is not there; its steps are taken from {RAW}"))
        else:
            detail = _difference(given, found.derived(include_errors=include_errors), procedure)
            problems += [Problem("steps", name, f"{file} and {RAW} differ: {detail}")] if detail else []
    return found


def _difference(given: Steps, derived: Steps, procedure: Procedure) -> str:
    """What one has that the other has not; an empty text where both are the same."""
    more = [step for step in given if step not in derived]
    less = [step for step in derived if step not in given]
    parts = [
        f"{len(steps)} {what}: {', '.join(f'{frame} {procedure.step_names[step]}' for frame, step in steps[:_SHOWN])}"
        for steps, what in ((more, "not in the raw states"), (less, "only there"))
        if steps
    ]
    return "; ".join(parts)


def _states(path: Path, procedure: Procedure) -> list[tuple[int, State]]:
    states: list[tuple[int, State]] = []
    for number, cells in read_lines(path):
        values = [cell.strip() for cell in cells[1:]]
        if len(values) != len(procedure.components) or not set(values) <= {"0", "1", "-1"}:
            raise InputError(
                f"{path}:{number}: {len(procedure.components)} values of 1, 0 or -1 are needed, one for each component "
                f"of {procedure.name}, not {','.join(values)[:80]!r}. Another procedure file?"
            )
        states.append((_frame(path, number, cells[0]), tuple(map(int, values))))
    return states


def _steps(path: Path, procedure: Procedure, name: str, problems: list[Problem]) -> Steps | None:
    if not path.is_file():
        return None
    steps: Steps = []
    for number, cells in read_lines(path):
        step = procedure.step_of(cells[1].strip()) if len(cells) > 1 else None
        if step is None:
            problems.append(Problem("labels", name, f"{path.name}:{number}: {','.join(cells)[:80]!r} is no step"))
            continue
        steps.append((_frame(path, number, cells[0]), step))
    return steps


def _frame(path: Path, number: int, cell: str) -> int:
    """The number of a frame, of its file's name or bare, as the public code writes it."""
    digits = cell.strip().partition(".")[0]
    if not digits.isdecimal():
        raise InputError(f"{path}:{number}: {cell!r} is no frame; write its file, such as 000312.jpg, or its number")
    return int(digits)


def num_wrong(steps: Steps) -> int:
    """How many of the steps are wrong installations."""
    return sum(action_of(step) == WRONG_ACTION for _, step in steps)
