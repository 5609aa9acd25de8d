"""The manifest: which videos there are, from a table, a folder or a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.patterns import folders_of, in_folders, matching, split_pattern
from reelwright.storage.tables import read_columns
from reelwright.storage.urls import is_url, join_url

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
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NORMAL = re.compile(r"[^/.][^/]*(/[^/.][^/]*)*")  # relative paths that normpath leaves as they are


class ManifestVideo(NamedTuple):
    """One row of the manifest. Paths are text: 100,000 `Path` objects cost a second."""

    video_id: str
    path: str  # absolute
    split: str
    label: str = ""  # empty: not labelled
    row: int = 0  # where it stands, for messages
    extra: Mapping[str, str] = _NOTHING  # further columns, kept as text


def read_manifest(path: Path, *, root: Path | str, default_split: str) -> list[ManifestVideo]:
    """Videos of a table with the columns ``path`` and, if wanted, ``video_id``, ``split``, ``label`` and more.

    Relative paths start at ``root``, a folder or a URL; paths may be URLs too. Without a ``video_id`` the path without
    its ending is the id.
    """
    numbers, cells = read_columns(path, required=["path"])
    blank = [""] * len(numbers)
    written, ids, splits, labels = (cells.get(name, blank) for name in ("path", "video_id", "split", "label"))
    names = [name for name in cells if name not in _KNOWN_COLUMNS]
    extras: list[Mapping[str, str]] = [
        dict(zip(names, values, strict=True)) for values in zip(*(cells[name] for name in names), strict=True)
    ]
    rows = zip(
        (video_id or _named(name) for video_id, name in zip(ids, written, strict=True)),
        _absolute(written, str(root)),
        (split or default_split for split in splits),
        labels,
        numbers,
        extras or [_NOTHING] * len(numbers),
        strict=True,
    )
    return list(map(ManifestVideo._make, rows))


def scan_folder(folder: Path, *, default_split: str) -> list[ManifestVideo]:
    """Every video file below ``folder``. With ``train/``, ``val/``, ``test/`` on top, these are the splits."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of videos")
    paths = sorted(path for path in folder.rglob("*") if is_video_name(path.name) and path.is_file())
    return _from_paths(paths, base=folder, default_split=default_split)


def scan_glob(pattern: str, *, root: Path | str, default_split: str) -> list[ManifestVideo]:
    """Every file or folder of frames that matches ``pattern`` (``**`` goes down), relative to ``root``.

    Where pattern or root is a URL, every object. Raises InputError when none does, ConfigError for a wrong bucket.
    """
    if is_url(pattern) or (is_url(str(root)) and not os.path.isabs(pattern)):  # noqa: PTH117
        return _scan_objects(pattern if is_url(pattern) else join_url(str(root), pattern), default_split)
    paths = sorted(Path(match) for match in glob.glob(str(Path(root) / pattern), recursive=True))  # noqa: PTH207 - absolute patterns too
    base = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path(root)
    return _from_paths(paths, base=base, default_split=default_split)


def check_videos(
    videos: Sequence[ManifestVideo], *, source: str, splits: Sequence[str], missing: Sequence[ManifestVideo] = ()
) -> None:
    """Raise InputError that lists, with row numbers, all duplicate ids, missing files and unknown splits at once.

    ``missing`` are the videos whose file is not there, and must be.
    """
    ids = {video.video_id for video in videos}
    is_clean = len(ids) == len(videos) > 0 and "" not in ids and {video.split for video in videos} <= set(splits)
    if is_clean and not missing:
        return
    problems = [*_row_problems(videos, splits), *(_missing(video) for video in missing)]
    raise InputError(f"{source}: {len(problems)} problem(s)", problems)


def _row_problems(videos: Sequence[ManifestVideo], splits: Sequence[str]) -> Iterable[str]:
    first_rows: dict[str, int] = {}
    if not videos:
        yield "not a single video"
    for video in videos:
        if not video.video_id:
            yield f"row {video.row}: no video_id"
        elif video.video_id in first_rows:
            yield f"row {video.row}: video_id {video.video_id!r} stands in row {first_rows[video.video_id]} already"
        first_rows.setdefault(video.video_id, video.row)
        if video.split not in splits:
            yield (
                f"row {video.row}: split {video.split!r} is unknown.{nearest(video.split, splits)} "
                f"Known: {', '.join(splits)} (videos.splits)"
            )


def _missing(video: ManifestVideo) -> str:
    return f"row {video.row}: no such file: {video.path} (videos.missing: skip leaves such rows out)"


def _absolute(written: Iterable[str], root: str) -> list[str]:
    """Paths below ``root``, links not followed; normpath costs ten times the check whether it is needed."""
    if is_url(root):
        return [path if is_url(path) or os.path.isabs(path) else join_url(root, path) for path in written]  # noqa: PTH117
    return [
        f"{root}/{path}" if _NORMAL.fullmatch(path) else _normal(root, path)  # the pattern takes no URL
        for path in written
    ]


def _normal(root: str, path: str) -> str:
    return path if is_url(path) else os.path.normpath(os.path.join(root, path))  # noqa: PTH118


def _named(written: str) -> str:
    """The id of a video that has none of its own."""
    path = written.partition("://")[2] if is_url(written) else written
    return str(Path(path).with_suffix(""))


def is_table_name(name: str) -> bool:
    """Whether something is named as a manifest."""
    return Path(name).suffix.lower() in {".csv", ".tsv", ".parquet"}


def is_video_name(name: str) -> bool:
    """Whether something is named as a video file."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def scan_url(
    url: str, *, default_split: str, is_wanted: Callable[[str], bool] = is_video_name, what: str = "videos"
) -> list[ManifestVideo]:
    """`scan_folder` for what lies below a URL and has a name that is wanted."""
    from reelwright.storage.remote import list_objects

    names = sorted(filter(is_wanted, list_objects(url)), key=in_folders)
    if not names:
        raise InputError(f"{url}: no {what} there")
    return _from_names(names, url=url, base="", default_split=default_split)


def _scan_objects(url: str, default_split: str) -> list[ManifestVideo]:
    from reelwright.storage.remote import list_objects

    folder, pattern = split_pattern(url)
    found = list_objects(folder)
    folders, names = matching(folders_of(found), pattern), matching(found, pattern)
    if folders:
        raise InputError(
            f"{url} fits folders too, such as {folders[0]}/, and those are no videos in a bucket. Name files, as "
            f"*.mp4 does"
        )
    if not names:
        raise InputError(f"{url}: no object fits. Below {folder} there are {len(found):,}")
    base = os.path.commonpath([name.rpartition("/")[0] for name in names])
    return _from_names(names, url=folder, base=f"{base}/" if base else "", default_split=default_split)


def _from_names(names: Sequence[str], *, url: str, base: str, default_split: str) -> list[ManifestVideo]:
    """Objects below ``url``; their ids and splits start at the folder ``base`` there, which ends with a slash."""
    return [
        ManifestVideo(
            video_id=_named(name.removeprefix(base)),
            path=join_url(url, name),
            split=_top_split(Path(name.removeprefix(base)), default_split),
            row=number,
        )
        for number, name in enumerate(names, start=1)
    ]


def _top_split(relative: Path, default_split: str) -> str:
    top = relative.parts[0] if len(relative.parts) > 1 else ""
    return top if top in {"train", "val", "test"} else default_split


def _from_paths(paths: Sequence[Path], *, base: Path, default_split: str) -> list[ManifestVideo]:
    videos = []
    for number, path in enumerate(paths, start=1):
        relative = path.relative_to(base)
        split = _top_split(relative, default_split)
        name = str(relative.with_suffix("") if path.is_file() else relative)
        videos.append(ManifestVideo(video_id=name, path=str(path.absolute()), split=split, row=number))
    return videos
