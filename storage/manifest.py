"""The manifest: which videos there are, from a table, a folder or a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.tables import TextRow, read_rows

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".m2ts",
        ".mts",
        ".wmv",
        ".flv",
        ".ogv",
        ".3gp",
        ".gif",
        ".vob",
        ".asf",
    ]
)
_KNOWN_COLUMNS = ("video_id", "path", "split", "label")


@dataclass(frozen=True, kw_only=True)
class ManifestVideo:
    """One row of the manifest."""

    video_id: str
    path: Path  # absolute
    split: str
    label: str = ""  # empty: not labelled
    row: int = 0  # where it stands, for messages
    extra: dict[str, str] = field(default_factory=dict)  # further columns, kept as text


def read_manifest(path: Path, *, root: Path, default_split: str) -> list[ManifestVideo]:
    """Videos of a table with the columns ``path`` and, if wanted, ``video_id``, ``split``, ``label`` and more.

    Relative paths start at ``root``. Without a ``video_id`` the path without its ending is the id.
    """
    return [_from_row(row, root, default_split) for row in read_rows(path, required=["path"])]


def scan_folder(folder: Path, *, default_split: str) -> list[ManifestVideo]:
    """Every video file below ``folder``. With ``train/``, ``val/``, ``test/`` on top, these are the splits."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of videos")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    return _from_paths(paths, base=folder, default_split=default_split)


def scan_glob(pattern: str, *, root: Path, default_split: str) -> list[ManifestVideo]:
    """Every file or folder of frames that matches ``pattern`` (``**`` goes down), relative to ``root``."""
    paths = sorted(Path(match) for match in glob.glob(str(root / pattern), recursive=True))  # noqa: PTH207 - absolute patterns too
    base = Path(os.path.commonpath([path.parent for path in paths])) if paths else root
    return _from_paths(paths, base=base, default_split=default_split)


def check_videos(videos: Sequence[ManifestVideo], *, source: str, splits: Sequence[str], allow_missing: bool) -> None:
    """Raise InputError that lists, with row numbers, all duplicate ids, missing files and unknown splits at once."""
    problems: list[str] = []
    first_rows: dict[str, int] = {}
    for video in videos:
        if not video.video_id:
            problems.append(f"row {video.row}: no video_id")
        elif video.video_id in first_rows:
            problems.append(
                f"row {video.row}: video_id {video.video_id!r} stands in row {first_rows[video.video_id]} already"
            )
        first_rows.setdefault(video.video_id, video.row)
        if video.split not in splits:
            problems.append(
                f"row {video.row}: split {video.split!r} is unknown.{nearest(video.split, splits)} "
                f"Known: {', '.join(splits)} (videos.splits)"
            )
        if not allow_missing and not video.path.exists():
            problems.append(f"row {video.row}: no such file: {video.path} (videos.missing: skip leaves such rows out)")
    if not videos:
        problems.append("not a single video")
    if problems:
        raise InputError(f"{source}: {len(problems)} problem(s)", problems)


def _from_row(row: TextRow, root: Path, default_split: str) -> ManifestVideo:
    written = row.get("path")
    return ManifestVideo(
        video_id=row.get("video_id") or str(Path(written).with_suffix("")),
        path=Path(os.path.normpath(os.path.join(root, written))),  # noqa: PTH118 - resolve() would follow users' links, and Path costs five times as much a row
        split=row.get("split") or default_split,
        label=row.get("label"),
        row=row.number,
        extra={name: value for name, value in row.cells.items() if name not in _KNOWN_COLUMNS},
    )


def _from_paths(paths: Sequence[Path], *, base: Path, default_split: str) -> list[ManifestVideo]:
    videos = []
    for number, path in enumerate(paths, start=1):
        relative = path.relative_to(base)
        top = relative.parts[0] if len(relative.parts) > 1 else ""
        split = top if top in {"train", "val", "test"} else default_split
        name = str(relative.with_suffix("") if path.is_file() else relative)
        videos.append(ManifestVideo(video_id=name, path=path.absolute(), split=split, row=number))
    return videos
