"""Read the lists of a data set: every line becomes values by name, whatever the list's format is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelwright.stages.prepare.specs import LayoutSpec, ListSpec
from reelwright.storage.errors import InputError
from reelwright.storage.tables.text_rows import read_rows
from reelwright.storage.tables.text_tables import read_text

_EVENT = re.compile(r"(?P<event_id>(?P<video>.{11})_(?P<event_key>E_\d+_\d+))_(?P<segment>A_\d+_\d+)")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One video as a list names it."""

    source: str  # list and line, for messages
    values: dict[str, str]
    frame_labels: tuple[int, ...] | None = None  # of every frame, negative where there is none
    segments: tuple[tuple[float, float, str], ...] = field(default=())  # seconds, both ends' frames included
    is_labelled: bool = True  # whether its list has labels


@dataclass(frozen=True)
class Problem:
    """Something about a data set that a person should know."""

    kind: str  # missing, ambiguous, unreadable, duplicate, unlabelled, unlisted, frames, not_read, left_out, twice
    video: str
    detail: str


def read_list(path: Path, spec: ListSpec, layout: LayoutSpec, problems: list[Problem]) -> list[Line]:
    """All lines of one list; what cannot be read is added to ``problems``. Raises InputError for a broken file."""
    return list(
        _lines(path, spec, layout, problems) if spec.format == "lines" else READERS[spec.format](path, problems)
    )


def read_names(path: Path, line: str) -> dict[tuple[str, str], str]:
    """(group, its value) -> name, of a table of class names."""
    found: dict[tuple[str, str], str] = {}
    for text in read_text(path).splitlines():
        match = re.fullmatch(line, text.strip())
        if match:
            values = match.groupdict()
            name = values.pop("name")
            found.update(dict.fromkeys(values.items(), name))
    return found


def _lines(path: Path, spec: ListSpec, layout: LayoutSpec, problems: list[Problem]) -> Iterator[Line]:
    assert spec.line is not None
    pattern = re.compile(spec.line)
    for number, raw in enumerate(read_text(path).splitlines(), start=1):
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        match = pattern.fullmatch(text)
        values = {name: value for name, value in (match.groupdict() if match else {}).items() if value is not None}
        if number == 1 and layout.header and {value.lower() for value in values.values()} & set(layout.header):
            continue
        if match is None:
            problems.append(
                Problem("not_read", "", f"{path.name}:{number}: {text[:120]!r} is not as the list's lines are")
            )
            continue
        yield Line(source=f"{path.name}:{number}", values=values)


def _read_json(path: Path, kind: type, what: str) -> Any:
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: no readable JSON: {error}") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: {what} is needed, not {type(content).__name__}")
    return content


def _json(path: Path, problems: list[Problem]) -> Iterator[Line]:
    entries = _read_json(path, list, "a list of objects")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            problems.append(Problem("not_read", "", f"{path.name}: entry {number} is no object"))
            continue
        values = {str(name): str(value) for name, value in entry.items() if isinstance(value, str | int | float)}
        yield Line(source=f"{path.name}:{number}", values=values)


def _csv(path: Path, problems: list[Problem]) -> Iterator[Line]:
    del problems
    for row in read_rows(path, required=[]):
        yield Line(source=f"{path.name}:{row.number}", values=row.cells)


def _frames(path: Path, problems: list[Problem]) -> Iterator[Line]:
    """CARL's lists: dictionaries with a label for every frame (`psr_and_carl` B1)."""
    from reelwright.stages.prepare.plain_pickle import read_plain_pickle

    content = read_plain_pickle(path)
    entries = content[0] if isinstance(content, tuple) else content  # PennAction's has its table of actions behind
    if not isinstance(entries, list):
        raise InputError(f"{path}: a list of dictionaries is needed, not {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping) or "frame_label" not in entry:
            problems.append(Problem("not_read", "", f"{path.name}: entry {number} has no frame_label"))
            continue
        values = {str(name): _plain(value) for name, value in entry.items() if name != "frame_label"}
        labels = _whole_numbers(entry["frame_label"])
        if not labels:
            detail = f"{path.name}: entry {number}: frame_label is not a whole number for each frame"
            problems.append(Problem("not_read", values.get("name", ""), detail))
            continue
        yield Line(source=f"{path.name}:{number}", values=values, frame_labels=labels)


def _whole_numbers(values: Any) -> tuple[int, ...]:
    """Of a list or a tensor; none where it is neither, or one of its values is no whole number."""
    try:
        given = values.tolist() if hasattr(values, "tolist") else list(values)
        found = tuple(map(int, given))
    except (TypeError, ValueError, OverflowError):
        return ()
    return found if list(found) == given else ()


def _events(path: Path, problems: list[Problem]) -> Iterator[Line]:
    """FineGym's elements: `VIDEO_E_start_end_A_start_end LABEL`, with the times of each in the annotation file."""
    info = _event_info(path)
    events: dict[str, list[tuple[float, float, str]]] = {}
    known: dict[str, dict[str, str]] = {}
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        name, _, label = text.strip().rpartition(" ")
        match = _EVENT.fullmatch(name)
        if not match:
            problems.append(Problem("not_read", "", f"{path.name}:{number}: {text[:120]!r} is no element with a label"))
            continue
        found = match.groupdict()
        try:
            event = info[found["video"]][found["event_key"]]
            start, stop = map(
                float, event["segments"][found["segment"]]["timestamps"][-1]
            )  # the last, as CARL takes it
        except (LookupError, TypeError, ValueError):
            problems.append(Problem("not_read", name, f"{path.name}:{number}: the annotation file has no times of it"))
            continue
        events.setdefault(found["event_id"], []).append((start, stop, label))
        known[found["event_id"]] = {"event_id": found["event_id"], "event": str(event.get("event", ""))}
    for event_id, segments in events.items():
        yield Line(source=f"{path.name} {event_id}", values=known[event_id], segments=tuple(segments))


def _event_info(path: Path) -> dict[str, Any]:
    folders = [path.parent, path.parent.parent]
    found = [file for folder in folders for file in sorted(folder.glob("finegym_annotation_info_v1.*.json"))]
    if not found:
        raise InputError(
            f"{path}: finegym_annotation_info_v1.0.json is needed beside it, for the times of the elements"
        )
    info: dict[str, Any] = _read_json(found[0], dict, "an object by video")
    return info


def _plain(value: Any) -> str:
    return str(value.item() if hasattr(value, "item") and getattr(value, "numel", lambda: 2)() == 1 else value)


READERS: dict[str, Callable[[Path, list[Problem]], Iterator[Line]]] = {
    "json": _json,
    "csv": _csv,
    "frames": _frames,
    "events": _events,
}
