"""Outputs of a detector of assembly states: the table that is read, and the public code's files made into it.

The table (CSV, TSV or Parquet) has a line an object: video_id, frame (numbered as the recording's files are) or
time_seconds, class (0 background, then the states of the procedure, then an error) and confidence in [0, 1]; x, y, w
and h in pixels may follow. Objects of one frame keep the order of their lines.

The public code of IndustReal and STORM-PSR leaves a file `<recording>_results_pred.csv` a recording: a head, then
columns by place, 1 frame, 2 class, 3 confidence, 4 to 7 the box.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from reelwright.storage.errors import InputError
from reelwright.storage.files import replacing
from reelwright.storage.tables.text_rows import TextRow, read_rows, rows_by_video
from reelwright.storage.tables.text_tables import read_lines

ENDING = "_results_pred.csv"
_COLUMNS = ("video_id", "frame", "class", "confidence", "x", "y", "w", "h")
_DIGITS = 3  # the public code rounds confidence when it reads these files


class DetectedState(NamedTuple):
    """One object."""

    frame: int | None  # as numbered in the recording; None: time_seconds counts
    time_seconds: float | None
    class_id: int
    confidence: float


def read_detections(path: Path, *, num_classes: int) -> dict[str, list[DetectedState]]:
    """Objects by video_id, in the order of the table.

    Raises InputError that lists every wrong row.
    """
    rows = read_rows(path, required=["video_id", "class", "confidence"])
    if rows and not {"frame", "time_seconds"} & rows[0].cells.keys():
        raise InputError(
            f"{path}: detections need a column frame or time_seconds; there are {', '.join(rows[0].cells)}"
        )
    return rows_by_video(path, rows, lambda row: _object(row, num_classes))


def _object(row: TextRow, num_classes: int) -> DetectedState:
    class_id = row.get_whole("class")
    if not 0 <= class_id < num_classes:
        raise ValueError(f"class {class_id} is not known; classes are 0 to {num_classes - 1}")
    confidence = row.get_number("confidence")
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence {confidence} must lie in [0, 1]")
    if "frame" in row.cells:
        return DetectedState(row.get_whole("frame"), None, class_id, confidence)
    return DetectedState(None, row.get_number("time_seconds"), class_id, confidence)


def import_detections(sources: Sequence[Path], target: Path, *, names: Mapping[str, str] | None = None) -> int:
    """Make one table at ``target`` of the public code's files; returns how many objects it has.

    ``sources`` are files or folders that are looked through. A file's video_id is its name without the ending
    `_results_pred.csv`, or what ``names`` says of that. Raises InputError when there is no such file, two are of one
    video, or a row is wrong.
    """
    files = [
        path for source in sources for path in (sorted(source.rglob(f"*{ENDING}")) if source.is_dir() else [source])
    ]
    if not files:
        raise InputError(
            f"no file *{ENDING} in {', '.join(map(str, sources))}; give the folder of a detector's outputs"
        )
    by_video: dict[str, Path] = {}
    for path in files:
        recording = path.name.removesuffix(ENDING)
        video_id = (names or {}).get(recording, recording)
        if video_id in by_video:
            raise InputError(f"{path} and {by_video[video_id]} are both of video {video_id!r}; give one of them")
        by_video[video_id] = path
    total = 0
    with replacing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for video_id, path in by_video.items():
            for cells in _public_rows(path):
                writer.writerow([video_id, *cells])
                total += 1
    return total


def _public_rows(path: Path) -> Iterator[list[str]]:
    for number, cells in read_lines(path)[1:]:
        try:
            frame, class_id, confidence = int(cells[1]), int(cells[2]), round(float(cells[3]), _DIGITS)
        except (IndexError, ValueError):
            raise InputError(
                f"{path}:{number}: {','.join(cells)!r} is no line of a detector: columns 2 to 4 must be "
                "frame, class and confidence"
            ) from None
        yield [str(frame), str(class_id), str(confidence), *cells[4:8]]
