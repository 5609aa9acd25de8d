"""Which steps were completed when, as annotated: from a table of steps, or from labels that are steps or states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reelwright.models.systems.step_states import steps_of_states
from reelwright.stages.steps.procedure import Procedure, vector
from reelwright.storage.errors import InputError, nearest
from reelwright.storage.tables.annotations import UNKNOWN, Annotation
from reelwright.storage.tables.text_rows import TextRow, read_rows, rows_by_video

TrueSteps = list[tuple[float, int]]  # time_seconds, step id; in order of time


def read_truth(path: Path, procedure: Procedure) -> dict[str, TrueSteps]:
    """Steps by video_id, from a table of video_id, time_seconds (or frame) and step, a name or an id.

    Raises InputError that lists every wrong row.
    """
    rows = read_rows(path, required=["video_id", "step"])
    found = rows_by_video(path, rows, lambda row: (_seconds(row, procedure), _step(row, procedure)))
    return {video_id: sorted(steps, key=lambda step: step[0]) for video_id, steps in found.items()}


def annotated_steps(annotation: Annotation, classes: Sequence[str], procedure: Procedure) -> TrueSteps | None:
    """The steps that a video's labels tell of; None when they tell of none, so that it is not known.

    Labels that are steps are those; of labels that name states of all components, each change is. Raises InputError for
    a step label that the procedure does not know.
    """
    if annotation.steps:
        steps = ((time, _known(classes[step], procedure)) for time, step in annotation.steps)
        return sorted(steps)  # those at one time by component
    rows = _state_rows(annotation, classes, procedure)
    return None if not rows else list(steps_of_states(rows, include_errors=True).steps)


def _state_rows(
    annotation: Annotation, classes: Sequence[str], procedure: Procedure
) -> list[tuple[float, tuple[int, ...]]]:
    """Times from which on a state holds; labels that are no states are passed over, the state before them holds on."""
    starts = [(start, label) for start, _, label in sorted(annotation.segments)] or list(annotation.times)
    if annotation.frames and procedure.fps is not None:
        starts = [(frame / procedure.fps, label) for frame, label in annotation.frames]
    size = len(procedure.components)
    states = {
        label: vector(name) for label, name in enumerate(classes) if len(name) == size and not set(name) - {"0", "1"}
    }
    return [(time, states[label]) for time, label in starts if label != UNKNOWN and label in states]


def _seconds(row: TextRow, procedure: Procedure) -> float:
    column = "time_seconds" if "time_seconds" in row.cells else "frame"
    value = row.get_number(column)
    if column == "time_seconds":
        return value
    if procedure.fps is None or value != int(value) or value < procedure.first_frame:
        raise ValueError(
            f"frame {row.get(column)!r}: a whole number from {procedure.first_frame} is needed, and the procedure's fps"
        )
    return procedure.seconds(int(value))


def _step(row: TextRow, procedure: Procedure) -> int:
    step = procedure.step_of(row.get("step"))
    if step is None:
        raise ValueError(_unknown(row.get("step"), procedure))
    return step


def _known(name: str, procedure: Procedure) -> int:
    step = procedure.step_of(name)
    if step is None:
        raise InputError(f"label {_unknown(name, procedure)}")
    return step


def _unknown(name: str, procedure: Procedure) -> str:
    hint = nearest(name, procedure.step_names)
    return f"{name!r} is no step of the procedure {procedure.name}.{hint} Use an id or one of its names"
