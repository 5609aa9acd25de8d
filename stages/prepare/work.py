"""Prepare a data set that somebody has: manifest and label tables of it, every file checked, nothing moved.

root (folder, archives) -> files -> lists of the data set -> videos -> checks -> manifest.csv, label table, problems.csv
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from reelwright.stages.base.work import Reporter
from reelwright.stages.index.probe import probe_videos
from reelwright.stages.prepare.lists import Problem
from reelwright.stages.prepare.patterns import fill
from reelwright.stages.prepare.resolve import Found, Resolved, list_files, resolve
from reelwright.stages.prepare.specs import DatasetSpec, LayoutSpec, dataset
from reelwright.stages.prepare.tables import (
    Prepared,
    video_ids,
    write_manifest,
    write_problems,
    write_rows,
    write_segments,
)
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.files import write_json
from reelwright.storage.ledger.digest_cache import VideoProbe, stamp
from reelwright.storage.tables.archives import FOREIGN_SUFFIXES, ArchiveLimits, extract, is_archive

UNPACKED = "files"  # below the output folder


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """What is prepared, and how."""

    dataset: str
    root: Path
    out: Path
    split_number: int = 1  # of data sets with several official splits
    splits: tuple[str, ...] = ()  # only these; empty: all
    rename: Mapping[str, str] = field(default_factory=dict)  # split -> what it is called
    lists: Mapping[str, Path] = field(default_factory=dict)  # split -> list, instead of the data set's own
    check: Literal["full", "names"] = "full"  # names: files are not opened
    workers: int | None = None
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What was written, and what was found wrong."""

    manifest: Path
    videos: tuple[Prepared, ...]
    num_frame_labels: int
    num_segments: int
    problems: tuple[Problem, ...]
    full: Mapping[str, int]  # videos of the whole set, by split, where that is known
    fps: float | None  # of folders of images
    has_labels: bool

    def counts(self) -> dict[str, int]:
        """Videos by split."""
        return dict(Counter(video.found.split for video in self.videos))

    def classes(self, split: str) -> int:
        """Number of labels that occur in a split."""
        return len({video.found.label for video in self.videos if video.found.split == split} - {""})


def prepare(request: PrepareRequest, reporter: Reporter) -> PrepareResult:
    """Write manifest.csv, problems.csv and, where frames are labelled, rows.csv into ``request.out``.

    Raises InputError, which says where to get the data set, when the root or its lists are not there; ConfigError for a
    name or a split that is not known.
    """
    spec = dataset(request.dataset)
    is_numbered = any("{split_number}" in entry.files for layout in spec.layouts for entry in layout.lists)
    if request.split_number != 1 and (request.lists or not is_numbered):
        raise ConfigError(
            f"--split-number {request.split_number}: {'the lists are given' if request.lists else request.dataset}"
            f"{'' if request.lists else ' has one official split only'}; leave it out"
        )
    if not request.root.exists():
        raise InputError(_where(request, spec, f"{request.root}: no such folder or archive"))
    problems: list[Problem] = []
    roots = _roots(request, problems, reporter)
    files = list_files(roots, leave_out=request.out, problems=problems)
    try:
        resolved = resolve(spec, files, problems, split_number=request.split_number, given=request.lists)
    except InputError as error:
        if error.problems and not request.lists:
            raise InputError(_where(request, spec, str(error))) from None
        raise
    videos = _in_splits(_once(resolved.videos, problems), request)
    problems += [Problem("unlisted", name, "no list names it") for name in resolved.unlisted]
    prepared = _checked(videos, resolved.layout, request, problems, reporter)
    for video in prepared:
        line = video.found.line
        if line.is_labelled and not (video.found.label or line.frame_labels or line.segments):
            problems.append(Problem("unlabelled", video.video_id, f"{line.source}: no label"))
    return _write(request, spec, resolved, prepared, problems)


def _write(
    request: PrepareRequest,
    spec: DatasetSpec,
    resolved: Resolved,
    prepared: Sequence[Prepared],
    problems: Sequence[Problem],
) -> PrepareResult:
    if not prepared:
        first = "; ".join(f"{entry.kind}: {entry.video} {entry.detail}" for entry in problems[:3])
        raise InputError(_where(request, spec, f"not one video of {', '.join(resolved.lists)} is there ({first})"))
    request.out.mkdir(parents=True, exist_ok=True)
    manifest = request.out / "manifest.csv"
    write_manifest(manifest, prepared, resolved.layout.columns)
    is_timed = resolved.layout.segments is not None
    num_segments = write_segments(request.out / "segments.csv", prepared) if is_timed else 0
    num_frame_labels = 0 if is_timed else write_rows(request.out / "rows.csv", prepared, resolved.layout)
    write_problems(request.out / "problems.csv", problems)
    return PrepareResult(
        manifest=manifest,
        videos=tuple(prepared),
        num_frame_labels=num_frame_labels,
        num_segments=num_segments,
        problems=tuple(problems),
        full={request.rename.get(name, name): count for name, count in spec.full.items()},
        fps=resolved.layout.fps,
        has_labels=any(video.found.label for video in prepared),
    )


def _where(request: PrepareRequest, spec: DatasetSpec, message: str) -> str:
    return (
        f"{message}\n{spec.title}. Nothing is downloaded; people get it from {spec.where}. "
        f"Then: reelwright prepare {request.dataset} --root FOLDER"
    )


def _roots(request: PrepareRequest, problems: list[Problem], reporter: Reporter) -> list[Path]:
    """The root, and its archives, unpacked below the output folder; one with its folder beside it is left alone."""
    if request.root.is_file():
        return [_unpacked(request.root, request, reporter)]
    roots: dict[Path, Path] = {request.root: request.root}  # what is named so -> its folder
    for path in sorted(request.root.iterdir()):
        if path.is_file() and path.suffix.lower() in FOREIGN_SUFFIXES:
            problems.append(Problem("not_read", path.name, "unpack it yourself; only .zip and .tar are unpacked here"))
        elif path.is_file() and is_archive(path) and _stem(path) in roots:
            problems.append(Problem("not_read", path.name, f"another archive is called {_stem(path).name}; rename it"))
        elif path.is_file() and is_archive(path) and not _stem(path).is_dir():
            roots[_stem(path)] = _unpacked(path, request, reporter)
    return list(roots.values())


def _unpacked(path: Path, request: PrepareRequest, reporter: Reporter) -> Path:
    """The folder of an archive, unpacked once; a changed archive is unpacked anew."""
    if not is_archive(path):
        raise ConfigError(f"{path}: is no folder and no archive that can be unpacked here (.zip, .tar, .tar.gz, ...)")
    folder = request.out / UNPACKED / _stem(path).name
    note = folder.with_name(f"{folder.name}.unpacked.json")
    known = {"archive": path.name, "stamp": list(stamp(path)[:2])}
    if folder.is_dir() and note.is_file() and json.loads(note.read_text(encoding="utf-8")) == known:
        return folder
    reporter.note(f"unpacking {path.name}")
    count = extract(path, folder, request.limits)
    write_json(note, known)
    reporter.note(f"{path.name}: {count:,} files in {folder}")
    return folder


def _stem(path: Path) -> Path:
    stem = path.with_suffix("")
    return stem.with_suffix("") if stem.suffix == ".tar" else stem


def _once(videos: Sequence[Found], problems: list[Problem]) -> list[Found]:
    """Every file once; a second line that names it is told of."""
    first: dict[Path, Found] = {}
    for video in videos:
        other = first.setdefault(video.path, video)
        if other is not video:
            same = "the same" if (other.split, other.label) == (video.split, video.label) else "another"
            detail = f"{video.line.source}: stands in {other.line.source} already, with {same} split and label"
            problems.append(Problem("twice", video.name, detail))
    return list(first.values())


def _in_splits(videos: Sequence[Found], request: PrepareRequest) -> list[Found]:
    renamed = [replace(video, split=request.rename.get(video.split, video.split)) for video in videos]
    there = {video.split for video in renamed}
    unknown = [name for name in request.splits if name not in there]
    if unknown:
        raise ConfigError(f"no video is in the split {unknown[0]!r}; there are {', '.join(sorted(there)) or 'none'}")
    return [video for video in renamed if not request.splits or video.split in request.splits]


def _checked(
    videos: Sequence[Found],
    layout: LayoutSpec,
    request: PrepareRequest,
    problems: list[Problem],
    reporter: Reporter,
) -> list[Prepared]:
    """The videos that can be used, with their ids; what is wrong with the others goes into ``problems``."""
    ids = video_ids(videos, layout.video_id)
    if request.check == "names":
        return [Prepared(name, video, 0) for name, video in zip(ids, videos, strict=True)]
    probes = dict(probe_videos([video.path for video in videos], workers=request.workers, reporter=reporter))
    usable = []
    by_content: dict[str, list[Prepared]] = defaultdict(list)
    for name, video in zip(ids, videos, strict=True):
        probe = probes[video.path]
        if probe.status != "ok":
            problems.append(Problem("unreadable", name, f"{video.name}: {probe.cause}: {probe.message}"))
            continue
        problems += _frame_problems(name, video, probe, layout)
        usable.append(Prepared(name, video, probe.num_frames))
        by_content[probe.digest].append(usable[-1])
    for copies in by_content.values():
        problems += [_duplicate(copies[0], other) for other in copies[1:]]
    return usable


def _duplicate(first: Prepared, other: Prepared) -> Problem:
    same, crossed = first.found, other.found
    leak = f"; a leak from {same.split} to {crossed.split}" if same.split != crossed.split else ""
    odd = f"; labels differ: {same.label!r} and {crossed.label!r}" if same.label != crossed.label else ""
    return Problem("duplicate", other.video_id, f"{crossed.name}: same content as {same.name}{leak}{odd}")


def _frame_problems(name: str, video: Found, probe: VideoProbe, layout: LayoutSpec) -> list[Problem]:
    found = []
    if layout.frames is not None:
        promised = int(fill(layout.frames, video.values))
        if promised != probe.num_frames:
            found.append(Problem("frames", name, f"{promised} frames are promised, {probe.num_frames} are there"))
    labels = video.line.frame_labels
    if labels is not None and len(labels) != probe.num_frames:
        detail = f"{len(labels)} labels for {probe.num_frames} frames; the longer is resampled by floor(j n / m)"
        found.append(Problem("frames", name, detail))
    if layout.first_number is not None and video.path.is_dir():
        missing = missing_numbers(video.path, first=layout.first_number)
        found += [Problem("frames", name, missing)] if missing else []
    return found


def missing_numbers(folder: Path, *, first: int) -> str:
    """What is wrong with the numbers of a folder's images; an empty text when they run from ``first`` without a gap."""
    numbers = sorted(int(digits) for path in folder.iterdir() if (digits := "".join(filter(str.isdigit, path.stem))))
    if not numbers:
        return "images have no numbers"
    if numbers[0] != first:
        return f"images are numbered from {numbers[0]}, not from {first}"
    gap = next((before + 1 for before, after in itertools.pairwise(numbers) if after != before + 1), None)
    return "" if gap is None else f"image {gap} is missing"
