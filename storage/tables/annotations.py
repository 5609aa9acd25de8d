"""What is known about videos: label, segments, steps, labels of single frames, as class ids; and tables of them.

Tables, CSV or Parquet, have names: every problem of one is told at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.tables.manifest import ManifestVideo
from reelwright.storage.tables.text_tables import entries_by_video, number_in, read_columns, whole_in

LABEL_COLUMN = {"segments": "label", "steps": "step", "rows": "label"}
UNKNOWN = -1  # no label; losses and metrics leave such rows out
_TIMED = ("segments", "steps", "times", "frames")  # a class is the last of each entry


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Labels of one video as class ids; every part may be empty."""

    label: int = UNKNOWN  # of the whole video
    segments: tuple[tuple[float, float, int], ...] = ()  # start_seconds, stop_seconds, class; half-open
    steps: tuple[tuple[float, int], ...] = ()  # time_seconds of completion, step
    times: tuple[tuple[float, int], ...] = ()  # time_seconds from which on the label holds, class
    frames: tuple[tuple[int, int], ...] = ()  # source frame number, class
    labels: tuple[int, ...] = ()  # of the whole video, one of each head (verb, noun), UNKNOWN where it has none
    video_label: str = ""  # of the whole video beside labels of its rows: the action whose phases these are

    def plain(self, *, has_video_label: bool = True) -> dict[str, Any]:
        """Plain data for work units and keys; without what stands beside labels of rows where that is not read."""
        heads = {"labels": list(self.labels)} if self.labels else {}  # only then: other keys stay what they were
        beside = {"video_label": self.video_label} if self.video_label and has_video_label else {}
        return {
            **heads,
            **beside,
            "label": self.label,
            **{name: [list(entry) for entry in getattr(self, name)] for name in _TIMED},
        }

    @property
    def is_known(self) -> bool:
        """Whether any label is known."""
        if self.label != UNKNOWN or any(label != UNKNOWN for label in self.labels):
            return True
        return any(entry[-1] != UNKNOWN for name in _TIMED for entry in getattr(self, name))

    def with_ids(self, ids: Mapping[int, int]) -> Annotation:
        """The same with other class ids; a label that ``ids`` does not have is there, but UNKNOWN (a step is not)."""
        return Annotation(
            label=ids.get(self.label, UNKNOWN),
            segments=tuple((start, stop, ids.get(label, UNKNOWN)) for start, stop, label in self.segments),
            steps=tuple((time, ids[step]) for time, step in self.steps if step in ids),
            times=tuple((time, ids.get(label, UNKNOWN)) for time, label in self.times),
            frames=tuple((frame, ids.get(label, UNKNOWN)) for frame, label in self.frames),
            labels=tuple(ids.get(label, UNKNOWN) for label in self.labels),
            video_label=self.video_label,
        )

    def later(self, seconds: float) -> Annotation:
        """The same with all times so many seconds later; numbers of frames stay."""
        return replace(
            self,
            segments=tuple((start + seconds, stop + seconds, label) for start, stop, label in self.segments),
            steps=tuple((time + seconds, step) for time, step in self.steps),
            times=tuple((time + seconds, label) for time, label in self.times),
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Annotation:
        """The inverse of `plain`."""
        return cls(
            label=values["label"],
            segments=tuple((float(start), float(stop), int(label)) for start, stop, label in values["segments"]),
            steps=tuple((float(time), int(step)) for time, step in values["steps"]),
            times=tuple((float(time), int(label)) for time, label in values["times"]),
            frames=tuple((int(frame), int(label)) for frame, label in values["frames"]),
            labels=tuple(int(label) for label in values.get("labels", ())),
            video_label=values.get("video_label", ""),
        )


_NOTHING = Annotation()


@dataclass(frozen=True)
class LabelSet:
    """Class names in the order of their ids, and what is known of each video."""

    classes: tuple[str, ...]
    by_video: dict[str, Annotation]
    unmatched: tuple[str, ...] = ()  # ids in the table that no video of the manifest has
    num_named: int = 0  # ids in the table
    heads: tuple[tuple[str, int], ...] = ()  # name and number of classes, where each head has its own, side by side

    def of(self, video_id: str) -> Annotation:
        """The annotation of a video; an empty one when nothing is known."""
        return self.by_video.get(video_id, _NOTHING)


def labels_from_column(videos: Sequence[ManifestVideo], *, column: str, classes: Sequence[str] | None) -> LabelSet:
    """The video's own label, from a column of the manifest; an empty cell means not labelled."""
    values = {video.video_id: (video.label if column == "label" else video.extra.get(column, "")) for video in videos}
    if videos and column != "label" and not any(column in video.extra for video in videos):
        known = sorted({name for video in videos for name in video.extra} | {"label"})
        raise InputError(
            f"labels.column: the manifest has no column {column!r}.{nearest(column, known)} It has: {', '.join(known)}"
        )
    rows = {video.video_id: video.row for video in videos}
    ids, names = _class_ids(values.values(), classes)
    problems = [
        f"row {rows[video_id]}: {_unknown_label(value, names)}"
        for video_id, value in values.items()
        if value and value not in ids
    ]
    if problems:
        raise InputError(f"manifest, column {column!r}: {len(problems)} problem(s)", problems)
    return LabelSet(names, {video_id: Annotation(label=ids[value]) for video_id, value in values.items() if value})


def labels_from_columns(
    videos: Sequence[ManifestVideo],
    *,
    columns: Mapping[str, str],
    classes: Mapping[str, Sequence[str] | None] = MappingProxyType({}),
) -> LabelSet:
    """Labels of several heads, each from its own column of the manifest (``columns``: head -> column).

    Classes of a head are those of ``classes``, else the names that occur in its column, sorted; here they are called
    `verb: open`, and those of all heads lie side by side. An empty cell means that this head is not labelled.
    """
    names: list[str] = []
    heads: list[tuple[str, int]] = []
    found: dict[str, list[int]] = {video.video_id: [] for video in videos}
    for head, column in columns.items():
        own = labels_from_column(videos, column=column, classes=classes.get(head))
        for video_id, ids in found.items():
            label = own.of(video_id).label
            ids.append(UNKNOWN if label == UNKNOWN else len(names) + label)
        names += [f"{head}: {name}" for name in own.classes]
        heads.append((head, len(own.classes)))
        if not own.by_video:
            raise InputError(f"labels.columns: column {column!r} of head {head!r} is empty; fill it, or leave it out.")
    known = {video_id: ids for video_id, ids in found.items() if any(label != UNKNOWN for label in ids)}
    annotations = {video_id: Annotation(labels=tuple(ids)) for video_id, ids in known.items()}
    return LabelSet(tuple(names), annotations, heads=tuple(heads))


def labels_from_table(
    path: Path,
    *,
    kind: str,
    videos: Sequence[ManifestVideo],
    classes: Sequence[str] | None,
    absent: Collection[str] = (),
) -> LabelSet:
    """Labels from a table of ``segments``, ``steps`` or ``rows``.

    segments: video_id, start_seconds, stop_seconds, label. steps: video_id, time_seconds, step (or label). rows:
    video_id, frame or time_seconds, label. Raises InputError that lists every wrong row. Rows of other videos than
    ``videos`` are left out; their ids are ``unmatched``, but for those of ``absent``, whose files are not there. If no
    row names a known video, or there is no row, that is an error.
    """
    numbers, cells = read_columns(path, required=["video_id"])
    video_ids, known = cells["video_id"], {video.video_id for video in videos}
    ids_named = dict.fromkeys(video_ids)
    unmatched = tuple(name for name in ids_named if name not in known and name not in absent)
    if unmatched and known.isdisjoint(ids_named):
        raise InputError(
            f"{path}: none of its {len(video_ids)} rows names a video of the manifest; the first is {video_ids[0]!r}."
            f"{nearest(video_ids[0], known)} Ids must be written as in the manifest"
        )
    if not video_ids:
        raise InputError(
            f"{path}: has a header and not a single row, so no video would have a label. Write rows under it, or take "
            f"labels.{kind} out"
        )
    by_frame = kind == "rows" and "frame" in cells
    times = ("start_seconds", "stop_seconds") if kind == "segments" else ("frame",) if by_frame else ("time_seconds",)
    parse = whole_in if by_frame else number_in
    blank = [""] * len(video_ids)
    columns = (cells[_label_column(path, kind, list(cells))], *(cells.get(name, blank) for name in times))
    rows = [row for row in zip(numbers, video_ids, *columns, strict=True) if row[1] in known]
    ids, names = _class_ids((label for _, _, label, *_ in rows), classes)

    def entry(label: str, *written: str) -> tuple[float, ...]:
        if label not in ids:
            raise ValueError(_unknown_label(label, names))
        values = tuple(map(parse, written, times))
        if kind == "segments" and values[1] <= values[0]:
            raise ValueError(f"stop_seconds {values[1]} must lie after start_seconds {values[0]}")
        return (*values, ids[label])

    found = entries_by_video(path, rows, entry)
    by_video = {video_id: _annotation(kind, by_frame, entries) for video_id, entries in found.items()}
    return LabelSet(names, by_video, unmatched=unmatched, num_named=len(ids_named))


def with_video_labels(labels: LabelSet, videos: Sequence[ManifestVideo], *, column: str) -> LabelSet:
    """The same labels of rows, and beside them each video's own, from a column of the manifest; an empty cell: none.

    Its names are no classes: they say of which action the rows are. Raises InputError for a column that is not there
    or empty.
    """
    own = labels_from_column(videos, column=column, classes=None)
    if not own.by_video:
        raise InputError(f"labels.column: column {column!r} of the manifest is empty; fill it, or leave it out.")
    named = {
        video_id: replace(labels.of(video_id), video_label=own.classes[annotation.label])
        for video_id, annotation in own.by_video.items()
    }
    return replace(labels, by_video=labels.by_video | named)


def _annotation(kind: str, by_frame: bool, entries: list[tuple[float, ...]]) -> Annotation:
    if kind == "segments":
        return Annotation(segments=tuple((start, stop, int(label)) for start, stop, label in _by_start(entries)))
    if kind == "steps":
        return Annotation(steps=tuple((time, int(step)) for time, step in sorted(entries)))
    if by_frame:
        return Annotation(frames=tuple((int(frame), int(label)) for frame, label in _by_start(entries)))
    return Annotation(times=tuple((time, int(label)) for time, label in _by_start(entries)))


def _by_start(entries: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """In order of their starts; where these are equal the later line of the table wins, so that order stays."""
    return sorted(entries, key=lambda entry: entry[0])


def _label_column(path: Path, kind: str, columns: Sequence[str]) -> str:
    wanted = LABEL_COLUMN[kind]
    for name in (wanted, "label"):
        if name in columns:
            return name
    raise InputError(
        f"{path}: {kind} need a column {wanted!r}.{nearest(wanted, columns)} There are: {', '.join(columns)}"
    )


def _class_ids(values: Iterable[str], classes: Sequence[str] | None) -> tuple[dict[str, int], tuple[str, ...]]:
    names = tuple(classes) if classes is not None else tuple(sorted({value for value in values if value}))
    if len(set(names)) != len(names):
        raise InputError(f"labels.classes names a class twice: {', '.join(names)}")
    return {name: position for position, name in enumerate(names)}, names


def _unknown_label(value: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"label {value!r} is not in the class list.{nearest(value, names)} Known: {shown}"
