"""Prepare recordings of a procedure, as IndustReal and MECCANO lay them out: manifest, states, changes and steps.

root/[recordings/]SPLIT/RECORDING/[rgb/]000000.jpg ...     frames
root/SPLIT/RECORDING/PSR_labels*.csv                       labels, there or below a root of their own

manifest.csv            video_id, path, split, label: the kind of procedure
states.csv              video_id, time_seconds, label: the state from then on, `other` or `error`  (labels: rows)
changes.csv             video_id, time_seconds, step: a component that changed                     (labels: steps)
steps.csv               video_id, time_seconds, step: right completions                            (truth of steps)
steps_with_errors.csv   the same with wrong ones
procedure.yaml          the data set as a specification
problems.csv            what is inconsistent
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from reelwright.models.systems.step_states import REMOVE, State, action_of
from reelwright.stages.prepare.lists import Problem
from reelwright.stages.prepare.psr_labels import RecordingLabels, Steps, num_wrong, read_labels
from reelwright.stages.prepare.tables import write_csv, write_problems
from reelwright.stages.steps.procedure import Procedure, read_procedure
from reelwright.storage.errors import InputError
from reelwright.storage.files import write_text

SPLITS = ("train", "val", "test")
OTHER, ERROR = "other", "error"
IMAGES = frozenset({".jpg", ".jpeg", ".png"})
LABELS = "PSR_labels"


@dataclass(frozen=True, kw_only=True)
class RecordingsRequest:
    """What is prepared, and how."""

    procedure: Path  # a procedure file
    root: Path  # where the recordings lie
    labels: Path | None = None  # where the label files lie; None: beside the frames
    out: Path
    include_errors: bool = False  # changes count -1 as a state of its own; else it is taken for absent


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording: its frames, where they are there, and its labels."""

    name: str
    split: str
    kind: str
    frames: Path | None
    numbers: tuple[int, int] | None  # of the first and the last frame
    labels: RecordingLabels


@dataclass(frozen=True, kw_only=True)
class RecordingsResult:
    """What was written, and what was found wrong."""

    out: Path
    procedure: Procedure
    recordings: tuple[Recording, ...]
    problems: tuple[Problem, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # split -> what -> number


def builtin_procedure(name: str) -> Path | None:
    """The procedure file of a known data set; None where there is none of that name."""
    path = Path(str(files("reelwright.stages.steps") / f"{name}.yaml"))
    return path if path.is_file() else None


def prepare_recordings(request: RecordingsRequest) -> RecordingsResult:
    """Write the tables above into ``request.out``. Nothing is moved, no frame is opened.

    Raises InputError when there is no recording with labels, or a label file cannot be read.
    """
    procedure = read_procedure(request.procedure)
    if procedure.fps is None:
        raise InputError(f"{request.procedure}: fps is missing, without which frames of label files have no time")
    problems: list[Problem] = []
    recordings = tuple(_recordings(request, procedure, problems))
    if not recordings:
        raise InputError(
            f"{request.labels or request.root}: no recording with {LABELS}_raw.csv; they are looked for in "
            f"[recordings/]{{{','.join(SPLITS)}}}/RECORDING/"
        )
    problems += _published_steps(request.root, procedure)
    request.out.mkdir(parents=True, exist_ok=True)
    _write(request, procedure, recordings, problems)
    return RecordingsResult(
        out=request.out,
        procedure=procedure,
        recordings=recordings,
        problems=tuple(problems),
        counts={
            split: _counts(mine, procedure)
            for split in SPLITS
            if (mine := [one for one in recordings if one.split == split])
        },
    )


def _recordings(request: RecordingsRequest, procedure: Procedure, problems: list[Problem]) -> Iterator[Recording]:
    frames_of, labels_of = _folders(request.root), _folders(request.labels or request.root)
    official = {name: split for split, names in procedure.splits.items() for name in names}
    for split, name in sorted({**frames_of, **labels_of}, key=lambda key: (SPLITS.index(key[0]), key[1])):
        folder = labels_of.get((split, name))
        labels = None if folder is None else read_labels(folder, procedure, name, problems)
        if labels is None:
            problems.append(Problem("unlabelled", name, f"{split}: no {LABELS}_raw.csv"))
            continue
        if official and official.get(name) != split:
            problems.append(Problem("split", name, f"lies in {split}, officially in {official.get(name, 'none')}"))
        frames = _frame_folder(frames_of.get((split, name)))
        numbers = None if frames is None else _numbers(frames, name, procedure, problems)
        if numbers is None:
            problems.append(Problem("missing", name, f"{split}: there are no frames of it"))
        else:
            problems += _late_labels(name, labels, numbers)
        kind = procedure.kind_of(name)
        yield Recording(name=name, split=split, kind=kind, frames=frames, numbers=numbers, labels=labels)


def _folders(root: Path) -> dict[tuple[str, str], Path]:
    """(split, recording) -> its folder."""
    base = root / "recordings" if (root / "recordings").is_dir() else root
    return {
        (split, path.name): path
        for split in SPLITS
        if (base / split).is_dir()
        for path in sorted((base / split).iterdir())
        if path.is_dir()
    }


def _frame_folder(recording: Path | None) -> Path | None:
    if recording is None:
        return None
    folder = recording / "rgb" if (recording / "rgb").is_dir() else recording
    return folder if any(path.suffix.lower() in IMAGES for path in folder.iterdir()) else None


def _numbers(folder: Path, name: str, procedure: Procedure, problems: list[Problem]) -> tuple[int, int] | None:
    """Numbers of the first and the last frame; gaps and other beginnings are told of."""
    stems = [path.stem for path in folder.iterdir() if path.suffix.lower() in IMAGES]
    numbers = sorted(int(stem) for stem in stems if stem.isdecimal())
    if not numbers:
        problems.append(Problem("frames", name, "images have no numbers"))
        return None
    if numbers[0] != procedure.first_frame:
        late = procedure.seconds(numbers[0])
        detail = f"images are numbered from {numbers[0]}, not from {procedure.first_frame}, but are shown from 0 s on: "
        detail += f"its labels are {late:+.1f} s off. Number them from {procedure.first_frame}, or set first_frame"
        problems.append(Problem("frames", name, detail))
    if len(numbers) != numbers[-1] - numbers[0] + 1:
        problems.append(Problem("frames", name, f"{numbers[-1] - numbers[0] + 1 - len(numbers)} images are missing"))
    return numbers[0], numbers[-1]


def _late_labels(name: str, labels: RecordingLabels, numbers: tuple[int, int]) -> list[Problem]:
    late = [frame for frame, _ in (*labels.states, *labels.right_steps()) if not numbers[0] <= frame <= numbers[1]]
    message = f"there are frames {numbers[0]} to {numbers[1]}"
    return [Problem("frames", name, f"label at frame {late[0]}, but {message}")] if late else []


def _published_steps(root: Path, procedure: Procedure) -> list[Problem]:
    """What procedure_info*.json beside the recordings says otherwise than the procedure."""
    found = sorted(root.glob("procedure_info*.json"))
    if not found:
        return []
    try:
        entries = json.loads(found[0].read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{found[0]}: no readable JSON: {error}") from None
    problems = []
    if len(entries) != len(procedure.step_names):
        message = f"{len(entries)} steps, the procedure {procedure.name} has {len(procedure.step_names)}"
        problems.append(Problem("procedure", "", f"{found[0].name}: {message}"))
    for position, (entry, name) in enumerate(zip(entries, procedure.step_names, strict=False)):
        if entry.get("id") != position or entry.get("state_idx") != position // 3:
            problems.append(Problem("procedure", "", f"{found[0].name}: entry {position} is of id {entry.get('id')}"))
        elif str(entry.get("description")) != name:
            message = f"step {position} is {entry.get('description')!r}, in {procedure.name} {name!r}"
            problems.append(Problem("names", "", f"{found[0].name}: {message}"))
    return problems


def _write(
    request: RecordingsRequest, procedure: Procedure, recordings: Sequence[Recording], problems: Sequence[Problem]
) -> None:
    out, base = request.out, request.out.absolute()
    with_frames = [(one, one.frames) for one in recordings if one.frames is not None]
    manifest = [
        [one.name, os.path.relpath(frames.absolute(), base), one.split, one.kind] for one, frames in with_frames
    ]
    write_csv(out / "manifest.csv", ["video_id", "path", "split", "label"], manifest)

    def write(name: str, column: str, of: Callable[[RecordingLabels], Iterable[tuple[int, str]]]) -> None:
        listed = ((one.name, frame, text) for one in recordings for frame, text in of(one.labels))
        rows = ([video_id, repr(procedure.seconds(frame)), text] for video_id, frame, text in listed)
        write_csv(out / name, ["video_id", "time_seconds", column], rows)

    def named(steps: Steps, names: Sequence[str] = procedure.step_names) -> Iterable[tuple[int, str]]:
        return ((frame, names[number]) for frame, number in steps)

    is_with_errors = request.include_errors
    write("states.csv", "label", lambda labels: ((frame, _state(state, procedure)) for frame, state in labels.states))
    write(
        "changes.csv",
        "step",
        lambda labels: named(labels.changes(include_errors=is_with_errors), procedure.components),
    )
    write("steps.csv", "step", lambda labels: named(labels.right_steps()))
    write("steps_with_errors.csv", "step", lambda labels: named(labels.all_steps()))
    plain: dict[str, Any] = procedure.model_dump(mode="json", exclude_defaults=True)
    write_text(out / "procedure.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    write_problems(out / "problems.csv", problems)


def _state(state: State, procedure: Procedure) -> str:
    if -1 in state:
        return ERROR
    return "".join(map(str, state)) if tuple(state) in procedure.state_vectors else OTHER


def _counts(mine: Sequence[Recording], procedure: Procedure) -> dict[str, int]:
    right = [step for one in mine for _, step in one.labels.right_steps()]
    return {
        "recordings": len(mine),
        "with frames": sum(one.frames is not None for one in mine),
        "with errors": sum(one.labels.has_errors(procedure.expected(one.kind)) for one in mine),
        "state rows": sum(len(one.labels.states) for one in mine),
        "right steps": len(right),
        "of these removals": sum(action_of(step) == REMOVE for step in right),
        "wrong steps": sum(num_wrong(one.labels.all_steps()) for one in mine),
    }
