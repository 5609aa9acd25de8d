"""From the lists of a data set to its videos: where each lies, its split and label, and what does not fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from reelwright.stages.decode.readers.images import EXTENSIONS
from reelwright.stages.prepare.lists import Line, Problem, read_list, read_names
from reelwright.stages.prepare.patterns import PathIndex, compile_pattern, fill
from reelwright.stages.prepare.specs import DatasetSpec, LayoutSpec, ListSpec
from reelwright.storage.errors import InputError
from reelwright.storage.manifest import VIDEO_SUFFIXES


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


def list_files(roots: Sequence[Path], *, leave_out: Path | None = None) -> dict[str, Path]:
    """Every file below ``roots``, and every folder that holds images, by its path relative to its root.

    Hidden ones are not looked at, nor what lies in ``leave_out`` (unless a root lies there itself).
    """
    left_out = None if leave_out is None else leave_out.resolve()
    found: dict[str, Path] = {}
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = Path(folder)
            folders[:] = [name for name in folders if (place / name).resolve() != left_out] if left_out else folders
            relative = place.relative_to(root)
            shown = [name for name in files if not name.startswith(".")]
            images = any(Path(name).suffix.lower() in EXTENSIONS for name in shown)
            if images and relative.parts:
                found.setdefault(relative.as_posix(), place)
            for name in shown:
                if Path(name).suffix.lower() not in EXTENSIONS:  # millions of frames are not looked at one by one
                    found.setdefault((relative / name).as_posix(), place / name)
    return found


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
    layout, lists = _choose_layout(spec, files, split_number=split_number, given=given or {})
    names = _names(layout, files)
    index = PathIndex(path for path in files if _is_video(path, files[path]))
    videos: list[Found] = []
    for list_spec, path, known in lists:
        for line in read_list(path, list_spec, layout, problems):
            values = _values(layout, {**known, **line.values}, names)
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


def _choose_layout(
    spec: DatasetSpec, files: Mapping[str, Path], *, split_number: int, given: Mapping[str, Path]
) -> tuple[LayoutSpec, list[tuple[ListSpec, Path, dict[str, str]]]]:
    wanted = []
    for layout in spec.layouts:
        lists = _given(layout, given) if given else _lists(layout, files, split_number)
        if lists and _fits(layout, lists):
            return layout, lists
        wanted.append(" and ".join(entry.files.replace("{split_number}", str(split_number)) for entry in layout.lists))
    raise InputError(f"no list of videos of {spec.title!r} was found; looked for", wanted)


def _lists(layout: LayoutSpec, files: Mapping[str, Path], number: int) -> list[tuple[ListSpec, Path, dict[str, str]]]:
    found = []
    for entry in layout.lists:
        pattern = compile_pattern(entry.files, {"split_number": str(number)})
        matches = [
            (path, match) for path in sorted(files) if (match := pattern.fullmatch(path)) and files[path].is_file()
        ]
        found += [(entry, files[path], {k: v for k, v in match.groupdict().items() if v}) for path, match in matches]
    return found


def _given(layout: LayoutSpec, given: Mapping[str, Path]) -> list[tuple[ListSpec, Path, dict[str, str]]]:
    """Lists that the user names, read as the first list of the layout is."""
    for path in given.values():
        if not path.is_file():
            raise InputError(f"{path}: no such list")
    by_split = {entry.split: entry for entry in layout.lists}
    first = layout.lists[0]
    return [(by_split.get(split, first.model_copy(update={"split": split})), path, {}) for split, path in given.items()]


def _fits(layout: LayoutSpec, lists: Sequence[tuple[ListSpec, Path, dict[str, str]]]) -> bool:
    """Whether the first list's first line can be read; other layouts may use the same file names."""
    entry, path, _ = lists[0]
    problems: list[Problem] = []
    if entry.format == "lines":
        return bool(read_list(path, entry, layout, problems))
    if entry.format == "csv":
        lines = read_list(path, entry, layout, problems)
        return bool(lines) and _can_fill(str(layout.video), lines[0].values)
    return True


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


def _is_video(path: str, place: Path) -> bool:
    return PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES or place.is_dir()
