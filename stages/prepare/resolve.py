"""From the lists of a data set to its videos: where each lies, its split and label, and what does not fit."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

from reelwright.stages.decode.readers.images import EXTENSIONS
from reelwright.stages.prepare.lists import Line, Problem, read_list, read_names
from reelwright.stages.prepare.patterns import PathIndex, compile_pattern, fill
from reelwright.stages.prepare.specs import DatasetSpec, LayoutSpec, ListSpec, SegmentsSpec
from reelwright.storage.errors import InputError
from reelwright.storage.tables.manifest import VIDEO_SUFFIXES
from reelwright.storage.tables.names import is_text, shown

Lists = list[tuple[ListSpec, Path, dict[str, str]]]  # how it is read, where it lies, what its name says
_TIME = re.compile(r"(\d+:){0,2}\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One video of a data set."""

    path: Path
    name: str  # its path as it was found, for messages
    split: str
    label: str
    line: Line
    values: dict[str, str]


@dataclass(frozen=True)
class Resolved:
    """What the lists say, and where it lies."""

    layout: LayoutSpec
    videos: list[Found]
    unlisted: list[str]  # videos below the root that no list names
    lists: list[str] = field(default_factory=list)  # that were read


def list_files(
    roots: Sequence[Path], *, leave_out: Path | None = None, problems: list[Problem] | None = None
) -> dict[str, Path]:
    """Every file below ``roots``, and every folder that holds images, by its path relative to its root.

    Others of the same path in another root are there too, named by their root as well; of the same size they are
    copies, of which the first counts. Hidden ones are not looked at, nor what lies in ``leave_out`` (unless a root lies
    there itself). Names that are not UTF-8 go into ``problems``.
    """
    left_out = None if leave_out is None else leave_out.resolve()
    places: dict[str, dict[Path, Path]] = defaultdict(dict)  # path -> root -> where it lies
    for root in roots:
        for name, place in _files(root, left_out, [] if problems is None else problems):
            if not any(_sizes(place) == _sizes(other) for other in places[name].values()):
                places[name][root] = place
    return {
        name if len(of_roots) == 1 else f"{root.resolve().name}/{name}": place
        for name, of_roots in places.items()
        for root, place in of_roots.items()
    }


def _sizes(place: Path) -> dict[str, int]:
    """Bytes of a file, or of each file of a folder."""
    return {path.name: path.stat().st_size for path in (place.iterdir() if place.is_dir() else (place,))}


def _files(root: Path, left_out: Path | None, problems: list[Problem]) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        for name in (name for name in (*folders, *files) if not is_text(name)):
            detail = "the name is not UTF-8, so no table can hold it; rename it"
            problems.append(Problem("left_out", shown(str(place / name)), detail))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and is_text(name))
        folders[:] = [name for name in folders if (place / name).resolve() != left_out] if left_out else folders
        relative = place.relative_to(root)
        seen = [name for name in files if not name.startswith(".") and is_text(name)]
        images = any(Path(name).suffix.lower() in EXTENSIONS for name in seen)
        if images and relative.parts:
            yield relative.as_posix(), place
        for name in seen:
            if Path(name).suffix.lower() not in EXTENSIONS:  # millions of frames are not looked at one by one
                yield (relative / name).as_posix(), place / name


def resolve(
    spec: DatasetSpec,
    files: Mapping[str, Path],
    problems: list[Problem],
    *,
    split_number: int = 1,
    given: Mapping[str, Path] | None = None,
) -> Resolved:
    """Read the lists of the first layout that is there and find its videos among ``files``.

    ``given``: split -> list to read instead. Raises InputError when no layout's lists are there.
    """
    resolved = []
    for layout, lists in _layouts(spec, files, split_number=split_number, given=given or {}):
        own: list[Problem] = []
        resolved.append((_resolve(layout, lists, files, own), own))
        if resolved[-1][0].videos:
            break
    found, own = resolved[-1] if resolved[-1][0].videos else resolved[0]
    problems += own
    return found


def _resolve(layout: LayoutSpec, lists: Lists, files: Mapping[str, Path], problems: list[Problem]) -> Resolved:
    names = _names(layout, files)
    index = PathIndex(
        path for path, place in files.items() if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES or place.is_dir()
    )
    videos: list[Found] = []
    for list_spec, path, known in lists:
        lines = [
            (replace(line, is_labelled=list_spec.labelled), _values(layout, {**known, **line.values}, names))
            for line in read_list(path, list_spec, layout, problems)
        ]
        for line, values in lines if layout.segments is None else _joined(lines, layout.segments, problems):
            raw = fill(list_spec.split, values) if _can_fill(list_spec.split, values) else ""
            split = layout.split_of(raw)
            if split:
                video = _locate(
                    list_spec, layout, line, values, split=split, index=index, files=files, problems=problems
                )
                videos += [video] if video is not None else []
    used = {video.path for video in videos}
    inside = {parent for path in used for parent in path.parents}
    unlisted = [path for path in index.paths if files[path] not in used and files[path] not in inside]
    return Resolved(layout, videos, unlisted, [str(path) for _, path, _ in lists])


def _joined(
    lines: Sequence[tuple[Line, dict[str, str]]], spec: SegmentsSpec, problems: list[Problem]
) -> Iterator[tuple[Line, dict[str, str]]]:
    """A line for each video, with the segments that its lines are; where they have no labels, with none."""
    first: dict[str, tuple[Line, dict[str, str]]] = {}
    segments: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for line, values in lines:
        try:
            name = fill(spec.of, values)
            start, stop = seconds_of(values[spec.start]), seconds_of(values[spec.stop])
            label = fill(spec.label, values) if line.is_labelled else ""
        except (KeyError, ValueError) as error:
            reason = f"no column {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            problems.append(Problem("not_read", "", f"{line.source}: {reason}"))
            continue
        if stop <= start:
            problems.append(Problem("not_read", name, f"{line.source}: stop {stop:g} s is not after {start:g} s"))
            continue
        first.setdefault(name, (line, values))
        segments[name] += [(start, stop, label)] if label else []
    for name, (line, values) in first.items():
        yield replace(line, segments=tuple(segments[name])), values


def seconds_of(text: str) -> float:
    """Seconds of ``SS.ms``, ``MM:SS.ms`` or ``HH:MM:SS.ms``. Raises ValueError."""
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is no time; write seconds or HH:MM:SS.ms")
    seconds = Fraction(0)  # decimals as they are written: 60 * 0.1 is not 6
    for part in text.split(":"):
        seconds = seconds * 60 + Fraction(part)
    return float(seconds)


def _layouts(
    spec: DatasetSpec, files: Mapping[str, Path], *, split_number: int, given: Mapping[str, Path]
) -> list[tuple[LayoutSpec, Lists]]:
    """Those whose lists are there and can be read; several where only the videos tell which form this is."""
    fitting: list[tuple[LayoutSpec, Lists]] = []
    wanted: list[str] = []
    for layout in spec.layouts:
        lists = _given(layout, given) if given else _lists(layout, files, split_number)
        reason = _misfit(layout, lists if given else lists[:1])
        if lists and reason is None:
            fitting.append((layout, lists))
        elif given and reason is not None:
            wanted.append(reason)
        else:
            names = " and ".join(entry.files.replace("{split_number}", str(split_number)) for entry in layout.lists)
            wanted.append(names if reason is None else f"{names} ({reason})")
    if not fitting and given:
        raise InputError(f"--list: not as the lists of {spec.title!r} are", dict.fromkeys(wanted))
    if not fitting:
        raise InputError(f"no list of videos of {spec.title!r} was found; looked for", dict.fromkeys(wanted))
    return fitting


def _lists(layout: LayoutSpec, files: Mapping[str, Path], number: int) -> Lists:
    found: Lists = []
    for entry in layout.lists:
        pattern = compile_pattern(entry.files, {"split_number": str(number)})
        matches = [
            (path, match) for path in sorted(files) if (match := pattern.fullmatch(path)) and files[path].is_file()
        ]
        found += [(entry, files[path], {k: v for k, v in match.groupdict().items() if v}) for path, match in matches]
    return found


def _given(layout: LayoutSpec, given: Mapping[str, Path]) -> Lists:
    """Lists that the user names, read as the first list of the layout is."""
    for path in given.values():
        if not path.is_file():
            raise InputError(f"{path}: no such list")
    by_split = {entry.split: entry for entry in layout.lists}
    first = layout.lists[0]
    return [(by_split.get(split, first.model_copy(update={"split": split})), path, {}) for split, path in given.items()]


def _misfit(layout: LayoutSpec, lists: Lists) -> str | None:
    """Why a list cannot be read as this layout's lists are; None when all can. Layouts may use the same file names."""
    for entry, path, _ in lists:
        problems: list[Problem] = []
        if entry.format not in {"lines", "csv"}:
            continue
        try:
            lines = read_list(path, entry, layout, problems)
        except InputError as error:
            return str(error)
        if entry.format == "lines" and not lines:
            first = f"; first {problems[0].detail}" if problems else ""
            return f"{path}: none of its lines fits the pattern {entry.line}{first}"
        pattern = layout.segments.of if layout.segments else layout.video
        if entry.format == "csv" and not (lines and _can_fill(str(pattern), lines[0].values)):
            has = f"its columns are {', '.join(lines[0].values)}" if lines else "there is no row under its header"
            return f"{path}: the videos are {pattern}, but {has}"
    return None


def _names(layout: LayoutSpec, files: Mapping[str, Path]) -> dict[tuple[str, str], str]:
    if layout.names is None:
        return {}
    pattern = compile_pattern(layout.names.files, {})
    table = next((files[path] for path in sorted(files) if pattern.fullmatch(path)), None)
    if table is None:
        raise InputError(f"no {layout.names.files} was found; it holds the names of the classes")
    return read_names(table, layout.names.line)


def _values(layout: LayoutSpec, values: dict[str, str], names: Mapping[tuple[str, str], str]) -> dict[str, str]:
    if layout.names is not None:
        name = next((names[entry] for entry in values.items() if entry in names), None)
        values = values | ({layout.names.becomes: name} if name is not None else {})
    for target, how in layout.rewrite.items():
        if how.source in values:
            values = values | {target: re.sub(how.find, how.replace, values[how.source])}
    return values


def _locate(
    entry: ListSpec,
    layout: LayoutSpec,
    line: Line,
    values: dict[str, str],
    *,
    split: str,
    index: PathIndex,
    files: Mapping[str, Path],
    problems: list[Problem],
) -> Found | None:
    patterns = entry.video or layout.video
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        matches = index.matches(pattern, values)
        if len(matches) > 1:
            shown = ", ".join(path for path, _ in matches[:3])
            problems.append(
                Problem("ambiguous", _shown(pattern, values), f"{line.source}: {len(matches)} files fit: {shown}")
            )
            return None
        if matches:
            path, taken = matches[0]
            known = {**{name: value for name, value in taken.items() if value is not None}, **values}
            label = fill(layout.label, known) if _can_fill(layout.label, known) else ""
            return Found(path=files[path], name=path, split=split, label=label, line=line, values=known)
    problems.append(Problem("missing", _shown(patterns[0], values), f"{line.source}: no such video below the root"))
    return None


def _shown(pattern: str, values: Mapping[str, str]) -> str:
    return fill(pattern, values) if _can_fill(pattern, values) else pattern


def _can_fill(template: str, values: Mapping[str, str]) -> bool:
    try:
        fill(template, values)
    except (KeyError, ValueError):
        return False
    return True
