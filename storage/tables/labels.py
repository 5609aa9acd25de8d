"""Label tables: from names in CSV or Parquet to annotations with class ids, every problem told at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.tables.annotations import UNKNOWN, Annotation
from reelwright.storage.tables.manifest import ManifestVideo
from reelwright.storage.tables.text_tables import TextRow, read_rows, rows_by_video

LABEL_COLUMN = {"segments": "label", "steps": "step", "rows": "label"}

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
    rows = read_rows(path, required=["video_id"])
    known = {video.video_id for video in videos}
    used = [row for row in rows if row.get("video_id") in known]
    ids_named = dict.fromkeys(row.get("video_id") for row in rows)
    unmatched = tuple(name for name in ids_named if name not in known and name not in absent)
    if not used and unmatched:
        example = rows[0].get("video_id")
        raise InputError(
            f"{path}: none of its {len(rows)} rows names a video of the manifest; the first is {example!r}."
            f"{nearest(example, known)} Ids must be written as in the manifest"
        )
    if not rows:
        raise InputError(
            f"{path}: has a header and not a single row, so no video would have a label. Write rows under it, or take "
            f"labels.{kind} out"
        )
    column = _label_column(path, kind, rows)
    ids, names = _class_ids((row.get(column) for row in used), classes)

    def entry(row: TextRow) -> tuple[float, ...]:
        if row.get(column) not in ids:
            raise ValueError(_unknown_label(row.get(column), names))
        return (*_position(row, kind), ids[row.get(column)])

    found = rows_by_video(path, used, entry)
    by_frame = kind == "rows" and bool(used) and "frame" in used[0].cells
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
    empty = Annotation()
    if kind == "segments":
        return replace(empty, segments=tuple((start, stop, int(label)) for start, stop, label in _by_start(entries)))
    if kind == "steps":
        return replace(empty, steps=tuple((time, int(step)) for time, step in sorted(entries)))
    if by_frame:
        return replace(empty, frames=tuple((int(frame), int(label)) for frame, label in _by_start(entries)))
    return replace(empty, times=tuple((time, int(label)) for time, label in _by_start(entries)))


def _by_start(entries: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """In order of their starts; where these are equal the later line of the table wins, so that order stays."""
    return sorted(entries, key=lambda entry: entry[0])


def _label_column(path: Path, kind: str, rows: Sequence[TextRow]) -> str:
    wanted = LABEL_COLUMN[kind]
    columns = list(rows[0].cells)
    for name in (wanted, "label"):
        if name in columns:
            return name
    raise InputError(
        f"{path}: {kind} need a column {wanted!r}.{nearest(wanted, columns)} There are: {', '.join(columns)}"
    )


def _position(row: TextRow, kind: str) -> tuple[float, ...]:
    if kind == "segments":
        start, stop = row.get_number("start_seconds"), row.get_number("stop_seconds")
        if stop <= start:
            raise ValueError(f"stop_seconds {stop} must lie after start_seconds {start}")
        return start, stop
    if kind == "rows" and "frame" in row.cells:
        return (row.get_whole("frame"),)
    return (row.get_number("time_seconds"),)


def _class_ids(values: Iterable[str], classes: Sequence[str] | None) -> tuple[dict[str, int], tuple[str, ...]]:
    names = tuple(classes) if classes is not None else tuple(sorted({value for value in values if value}))
    if len(set(names)) != len(names):
        raise InputError(f"labels.classes names a class twice: {', '.join(names)}")
    return {name: position for position, name in enumerate(names)}, names


def _unknown_label(value: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"label {value!r} is not in the class list.{nearest(value, names)} Known: {shown}"
