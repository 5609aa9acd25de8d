"""The description of a procedure, a YAML file: components, steps, what is expected, states, how frames are numbered.

    name: toy car
    fps: 10                                  # of labels and detector outputs; null: rows of a store are counted
    components: [base, front wheel, rear wheel]
    steps: {3: mount the front wheel}        # names; the others are "Install base", "Remove base", ...
    states: ["100", "110", "111"]            # detector classes 1, 2, 3; 0 is background, 4 an error
    procedures:
      assembly: {match: "*_assy_*", initial: "000", expected: [0, 3, 6]}

Step ids are 3 * component + 0 (install), 1 (install wrongly) or 2 (remove).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reelwright.stages.base.config import Settings, parse_config
from reelwright.storage.errors import InputError, nearest

ACTIONS = ("install", "wrong", "remove")
_NAMES = ("Install {}", "Incorrectly installed {}", "Remove {}")
_EXAMPLE = "state {!r} must be {} digits of 0 and 1, in quotes, one for each component"


class ProcedureKind(Settings):
    """One procedure that is done with the components, such as assembly."""

    match: str = "*"
    """Pattern of the video_ids it is done in; the first kind that matches counts."""
    initial: str | None = None
    """State at the start, a digit for each component; null: nothing is installed."""
    expected: tuple[int | str, ...] | None = None
    """Ids or names of the steps that belong to it; null: every installation."""


class Procedure(Settings):
    """A data set of recordings of a procedure."""

    name: str = Field(min_length=1)
    components: tuple[str, ...] = Field(min_length=1)
    """Names of the parts whose installation is followed, in the order of their ids."""
    fps: PositiveFloat | None = None
    """Frames per second of labels and detector outputs; null: none are numbered by frame."""
    first_frame: NonNegativeInt = 0
    """Number of a recording's first frame in file names and tables."""
    frame_digits: PositiveInt = 6
    """Digits of a frame number in file names."""
    steps: dict[int, str] = Field(default_factory=dict)
    """Names of steps by id, where they are not the usual ones."""
    states: tuple[str, ...] = ()
    """What classes 1, 2, ... of a detector of whole states mean, a digit for each component."""
    procedures: dict[str, ProcedureKind] = Field(default_factory=lambda: {"procedure": ProcedureKind()})
    """Kinds by name."""
    splits: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Recordings of each official split; `prepare` tells of those that lie elsewhere."""
    mean: tuple[float, float, float] | None = None
    """Of red, green and blue over the recordings, in [0, 1], for encoders trained on them."""
    std: tuple[float, float, float] | None = None
    """The same for the standard deviation."""

    @model_validator(mode="after")
    def _consistent(self) -> Procedure:
        """Raise ValueError naming the first value that does not fit the components."""
        size, used = len(self.components), [kind.initial for kind in self.procedures.values()]
        for state in (*self.states, *(state for state in used if state is not None)):
            if len(state) != size or set(state) - {"0", "1"}:
                raise ValueError(_EXAMPLE.format(state, size))
        for name, values in (("components", self.components), ("states", self.states), ("steps", self.step_names)):
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"{name}: {twice[0]!r} occurs twice")
        for step in self.steps:
            if not 0 <= step < 3 * size:
                raise ValueError(f"steps: {step} is no step id; allowed: 0 to {3 * size - 1}")
        for name, kind in self.procedures.items():
            for value in kind.expected or ():
                if self.step_of(value) is None:
                    hint = nearest(str(value), self.step_names)
                    raise ValueError(f"procedures.{name}.expected: {value!r} is no step.{hint} Use an id or a name")
        return self

    @cached_property
    def step_names(self) -> tuple[str, ...]:
        """Names by step id."""
        usual = [form.format(component) for component in self.components for form in _NAMES]
        return tuple(self.steps.get(step, name) for step, name in enumerate(usual))

    @cached_property
    def state_vectors(self) -> tuple[tuple[int, ...], ...]:
        """The states as digits."""
        return tuple(vector(state) for state in self.states)

    def step_of(self, value: int | str) -> int | None:
        """The id of a step given by id or name; None when there is no such step."""
        if isinstance(value, str) and value in self._ids:
            return self._ids[value]
        text = str(value)
        return int(text) if text.isdecimal() and int(text) < len(self.step_names) else None

    def component_of(self, name: str) -> int | None:
        """The component that is named, or that the named step changes; None when there is neither."""
        if name in self.components:
            return self.components.index(name)
        step = self.step_of(name)
        return None if step is None else step // len(ACTIONS)

    def action_of(self, step: int) -> str:
        """install, wrong or remove."""
        return ACTIONS[step % len(ACTIONS)]

    def kind_of(self, video_id: str) -> str:
        """The name of the kind that a recording is of. Raises InputError when none matches."""
        for name, kind in self.procedures.items():
            if fnmatchcase(video_id, kind.match):
                return name
        patterns = ", ".join(f"{name} ({kind.match})" for name, kind in self.procedures.items())
        raise InputError(
            f"procedure {self.name}: video {video_id!r} matches none of its procedures: {patterns}. "
            "Give one of them a pattern that matches"
        )

    def initial(self, kind: str) -> tuple[int, ...]:
        """The state in which a kind of procedure starts."""
        return vector(self.procedures[kind].initial or "0" * len(self.components))

    def expected(self, kind: str) -> tuple[int, ...]:
        """The ids of the steps that belong to a kind of procedure."""
        given = self.procedures[kind].expected
        if given is None:
            return tuple(range(0, len(self.step_names), len(ACTIONS)))
        return tuple(step for step in map(self.step_of, given) if step is not None)

    def seconds(self, frame: int) -> float:
        """When a frame, numbered as in tables, is shown. Only where fps is given."""
        assert self.fps is not None
        return (frame - self.first_frame) / self.fps

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: step for step, name in enumerate(self.step_names)}


def vector(state: str) -> tuple[int, ...]:
    """A state written as digits."""
    return tuple(map(int, state))


def read_procedure(path: Path) -> Procedure:
    """A procedure file. Raises InputError when it cannot be read, ConfigError when a value is wrong."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: the procedure cannot be read ({error}). Give a YAML file") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a procedure is a YAML mapping with name, components, ...; this is {values!r:.80}")
    return parse_config(Procedure, values, where=str(path))
