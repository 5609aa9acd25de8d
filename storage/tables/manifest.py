"""The manifest: which videos there are, from a table, a folder or a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from reelwright.storage.errors import InputError, nearest
from reelwright.storage.store import is_url, join_url
from reelwright.storage.tables.names import (
    folders_of,
    in_folders,
    inputs_among,
    is_text,
    matching,
    shown,
    split_pattern,
)
from reelwright.storage.tables.text_tables import read_columns

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


def read_manifest(
    path: Path, *, root: Path | str, default_split: str, split_column: str = "split"
) -> list[ManifestVideo]:
    """Videos of a table with the columns ``path`` and, if wanted, ``video_id``, ``split``, ``label`` and more.

    Relative paths start at ``root``, a folder or a URL; paths may be URLs too. Without a ``video_id`` the path without
    its ending is the id. Another ``split_column`` must be there.
    """
    numbers, cells = read_columns(path, required=["path", *([split_column] if split_column != "split" else [])])
    blank = [""] * len(numbers)
    written, ids, splits, labels = (cells.get(name, blank) for name in ("path", "video_id", split_column, "label"))
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


def is_table_name(name: str) -> bool:
    """Whether something is named as a manifest."""
    return Path(name).suffix.lower() in {".csv", ".tsv", ".parquet"}


def is_video_name(name: str) -> bool:
    """Whether something is named as a video file."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def scan_folder(
    folder: Path | str,
    *,
    default_split: str,
    is_wanted: Callable[[str], bool] = is_video_name,
    left_out: list[str] | None = None,
    what: str = "videos",
) -> list[ManifestVideo]:
    """Every video file below a folder, through links too, or below a URL.

    With ``train/``, ``val/``, ``test/`` on top, these are the splits.
    Hidden files, unfinished downloads and names that are not UTF-8 are no videos; what is to be said of them is added
    to ``left_out``. ``is_wanted`` takes other files by their names. The video_id is the path below the folder without
    its ending. Raises InputError where there is no such folder, and for a URL with nothing below it.
    """
    left_out = [] if left_out is None else left_out
    if is_url(folder):
        from reelwright.storage.bucket.remote import list_objects

        names = inputs_among(
            sorted(list_objects(str(folder)), key=in_folders),
            folder=str(folder),
            is_wanted=is_wanted,
            left_out=left_out,
        )
        if not names:
            raise InputError(f"{folder}: no {what} there", left_out)
        return _from_names(names, url=str(folder), base="", default_split=default_split)
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder of {what}")
    base = str(Path(folder).absolute()).rstrip("/")
    names = inputs_among(
        sorted(_names_below(base), key=in_folders), folder=base, is_wanted=is_wanted, left_out=left_out
    )
    return _from_files([name for name in names if os.path.isfile(f"{base}/{name}")], base, default_split)  # noqa: PTH113 - see below


def _names_below(base: str) -> Iterator[str]:
    """Files below a folder, in linked folders too, as a pattern finds them; a link to a folder above leads nowhere."""
    for place, folders, files in os.walk(f"{base}/", followlinks=True):
        here = place.rstrip("/")
        folders[:] = [name for name in folders if not _leads_up(f"{here}/{name}", base)]
        yield from (f"{here}/{name}"[len(base) + 1 :] for name in files)


def _leads_up(folder: str, base: str) -> bool:
    """Whether a folder is a link to one that it was reached through, or to one above that."""
    if not Path(folder).is_symlink():
        return False
    places = [Path(base), *(place for place in Path(folder).parents if place.is_relative_to(base))]
    return any(place.resolve().is_relative_to(Path(folder).resolve()) for place in places)


def scan_glob(
    pattern: str, *, root: Path | str, default_split: str, left_out: list[str] | None = None
) -> list[ManifestVideo]:
    """Every file or folder of frames that matches ``pattern`` (``**`` goes down), relative to ``root``.

    Where pattern or root is a URL, every object. Raises InputError when none does, ConfigError for a wrong bucket.
    """
    left_out = [] if left_out is None else left_out
    if is_url(pattern) or (is_url(str(root)) and not os.path.isabs(pattern)):  # noqa: PTH117
        return _scan_objects(pattern if is_url(pattern) else join_url(str(root), pattern), default_split, left_out)
    found = sorted(Path(match) for match in glob.glob(str(Path(root) / pattern), recursive=True))  # noqa: PTH207 - absolute patterns too
    base = Path(os.path.commonpath([path.parent for path in found])) if found else Path(root)
    names = inputs_among(
        (path.relative_to(base).as_posix() for path in found),
        folder=str(base.absolute()),
        is_wanted=lambda _: True,
        left_out=left_out,
    )
    return _from_files(names, str(base.absolute()), default_split)


def check_videos(
    videos: Sequence[ManifestVideo],
    *,
    source: str,
    splits: Sequence[str],
    missing: Sequence[ManifestVideo] = (),
    left_out: Sequence[str] = (),
) -> None:
    """Raise InputError that lists, with row numbers, all duplicate ids, missing files and unknown splits at once.

    ``missing`` are the videos whose file is not there, and must be; ``left_out`` says what was taken for no video.
    """
    ids = {video.video_id for video in videos}
    is_clean = len(ids) == len(videos) > 0 and "" not in ids and {video.split for video in videos} <= set(splits)
    paths = "".join([video.path for video in videos])
    if is_clean and not missing and (paths.isascii() or is_text(paths)):
        return
    problems = [*_row_problems(videos, splits), *(_missing(video) for video in missing)]
    problems += left_out if not videos else []
    hint = "; videos.root says where relative paths start, videos.missing: skip leaves rows without a file out"
    raise InputError(f"{source}: {len(problems)} problem(s){hint if missing else ''}", problems)


def _row_problems(videos: Sequence[ManifestVideo], splits: Sequence[str]) -> Iterable[str]:
    first: dict[str, ManifestVideo] = {}
    if not videos:
        yield "not a single video"
    for video in videos:
        if not video.video_id:
            yield f"row {video.row}: no video_id"
        elif video.video_id in first:
            yield _same_id(first[video.video_id], video)
        first.setdefault(video.video_id, video)
        if not is_text(video.path):
            yield f"row {video.row}: {shown(video.path)}: not UTF-8, so no table can hold the path. Rename it"
        if video.split not in splits:
            yield (
                f"row {video.row}: split {video.split!r} is unknown.{nearest(video.split, splits)} "
                f"Known: {', '.join(splits)} (videos.splits)"
            )


def _same_id(first: ManifestVideo, video: ManifestVideo) -> str:
    if first.path != video.path and all(_named(entry.path).endswith(entry.video_id) for entry in (first, video)):
        return (
            f"{first.path} and {video.path} would both have the id {video.video_id!r}, which is the path without its "
            "ending. Rename or take away one, name those you mean (videos.glob: **/*.mp4), or give a manifest with "
            "the columns video_id and path"
        )
    return f"row {video.row}: video_id {video.video_id!r} stands in row {first.row} already"


def _missing(video: ManifestVideo) -> str:
    return f"row {video.row}: no such file: {video.path}"


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
    """The id of a video that has none of its own; a number at the end, as in P01.1, is no ending of a file."""
    path = Path(written.partition("://")[2] if is_url(written) else written)
    return str(path if path.suffix[1:].isdigit() else path.with_suffix(""))


def _scan_objects(url: str, default_split: str, left_out: list[str]) -> list[ManifestVideo]:
    from reelwright.storage.bucket.remote import list_objects

    folder, pattern = split_pattern(url)
    found = list_objects(folder)
    folders, fitting = matching(folders_of(found), pattern), matching(found, pattern)
    names = inputs_among(fitting, folder=folder, is_wanted=lambda _: True, left_out=left_out)
    if folders:
        raise InputError(
            f"{url} fits folders too, such as {folders[0]}/, and those are no videos in a bucket. Name files, as "
            f"*.mp4 does"
        )
    if not names:
        raise InputError(f"{url}: no object fits. Below {folder} there are {len(found):,}", left_out)
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


def _from_files(names: Sequence[str], base: str, default_split: str) -> list[ManifestVideo]:
    """Files and folders of frames by their names below ``base``, an absolute path; folders keep all of their name."""
    videos = []
    for number, name in enumerate(names, start=1):
        path = f"{base.rstrip('/')}/{name}"
        video_id = _named(name) if os.path.isfile(path) else name  # noqa: PTH113 - 100,000 calls, as in `stamp`
        videos.append(
            ManifestVideo(video_id=video_id, path=path, split=_top_split(Path(name), default_split), row=number)
        )
    return videos
