"""Videos and labels that a pipeline file names, and what is known of them without reading a video."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.plan.reasons import UNREAD, why_unread
from reelwright.pipeline.plan.synthetic import synthetic_set_of
from reelwright.stages.base.work import VideoItem
from reelwright.stages.index.config import LabelsConfig
from reelwright.stages.synthesize.source import STAGE, SyntheticSet
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe, stamp
from reelwright.storage.ledger.items import DONE, ItemRow
from reelwright.storage.ledger.records import older_note
from reelwright.storage.store import is_url
from reelwright.storage.tables.annotations import (
    UNKNOWN,
    Annotation,
    LabelSet,
    labels_from_column,
    labels_from_columns,
    labels_from_table,
    with_video_labels,
)
from reelwright.storage.tables.feature_files import is_feature_file
from reelwright.storage.tables.manifest import (
    ManifestVideo,
    check_videos,
    read_manifest,
    scan_folder,
    scan_glob,
)


@dataclass(frozen=True)
class Dataset:
    """Videos in manifest order and what is known of them."""

    videos: tuple[ManifestVideo, ...]
    labels: LabelSet
    background: int  # class id of rows that no label covers, UNKNOWN for none
    digests: dict[str, str | None]  # video_id -> content digest, in the same order; None: not read yet, or changed
    probes: dict[str, VideoProbe]  # by digest
    files: KnownFiles  # the store's table of file digests
    quarantine_after: int | None = None  # attempts after which a video is left alone
    synthetic: SyntheticSet | None = None  # what the pipeline makes for itself
    notes: tuple[str, ...] = ()  # files that were taken for no videos, and why; tables of the store that were damaged
    label_settings: LabelsConfig | None = None
    absent: frozenset[str] = frozenset()  # ids of the manifest whose files are not there

    @cached_property
    def num_to_make(self) -> int:
        """Synthetic videos that are not there."""
        return 0 if self.synthetic is None else self.synthetic.num_to_make

    @property
    def not_made(self) -> tuple[ItemRow, ...]:
        """Synthetic videos that were tried without success."""
        return () if self.synthetic is None else self.synthetic.given_up

    @cached_property
    def unread(self) -> tuple[ManifestVideo, ...]:
        """Videos that must be read and probed before anything else: new, changed, or not usable last time."""
        return tuple(video for video in self.videos if self.digests[video.video_id] not in self.items)

    @cached_property
    def new(self) -> tuple[ManifestVideo, ...]:
        """Videos whose content is not known yet."""
        return tuple(video for video in self.videos if self.digests[video.video_id] not in self.probes)

    def not_known(self, splits: tuple[str, ...] | None) -> tuple[str, ...]:
        """Why it is not known which contents the videos of ``splits`` (None: all) have; empty when it is.

        Videos that are still to be made are taken to be of any split.
        """
        new = [video for video in self.new if splits is None or video.split in splits]
        reasons = self.unread_counts(new)
        reasons += [f"videos: {self.num_to_make:,} still to be made"] if self.num_to_make else []
        return tuple(reasons)

    def unread_counts(self, new: Sequence[ManifestVideo]) -> list[str]:
        """How many of ``new`` are to be read, by why."""
        counts = Counter(why_unread(self.files, video.path, self.digests[video.video_id]) for video in new)
        return [f"videos: {counts[why]:,} {why}" for why in UNREAD if counts[why]]

    def reading(self, *, quick: bool) -> Dataset:
        """The same, with the digests of files that are not known by their stamp, read now and remembered.

        A touched, moved or linked file is so found by its content. Only files on this machine of a size that the store
        has seen are read: another size is another content. What is still not known then, a run must read first.
        """
        sizes = {entry_stamp[0] for entry_stamp, *_ in self.files.entries.values()}
        videos = [] if self.synthetic is not None else [video for video in self.new if not is_url(video.path)]
        found: dict[str, str | None] = {}
        for video in videos:
            with contextlib.suppress(OSError):  # gone or not readable meanwhile: not known then
                if stamp(video.path)[0] in sizes:
                    found[video.video_id] = self.files.digest(Path(video.path), quick=quick)
        if found:
            with contextlib.suppress(OSError, StoreError):  # of a store that is only read: read again next time
                self.files.save()
        return replace(self, digests={**self.digests, **found}) if found else self

    @cached_property
    def unusable(self) -> tuple[ManifestVideo, ...]:
        """Videos that were read and cannot be used."""
        return tuple(video for video in self.unread if self.digests[video.video_id] in self.probes)

    def check_video(self, video_id: str) -> None:
        """Raise ConfigError that names the nearest where the manifest has no such video."""
        if video_id not in self.digests:
            raise ConfigError(f"no video {video_id!r} in the manifest.{nearest(video_id, self.digests)}")

    def is_quarantined(self, attempts: int) -> bool:
        """Whether a video that failed so often is left alone."""
        return self.quarantine_after is not None and attempts >= self.quarantine_after

    @cached_property
    def quarantined(self) -> tuple[ManifestVideo, ...]:
        """Those that cannot be used and were tried often enough."""
        return tuple(
            video
            for video in self.unusable
            if self.is_quarantined(self.probes[self.digests[video.video_id] or ""].attempts)
        )

    def to_read(self, *, failed: bool, quarantined: bool) -> tuple[ManifestVideo, ...]:
        """New and changed videos and, if asked for, those that could not be used, or not often enough."""
        if not failed and not quarantined:
            return self.new
        left = set() if quarantined else {video.video_id for video in self.quarantined}
        return tuple(video for video in self.unread if video.video_id not in left)

    @cached_property
    def items(self) -> dict[str, VideoItem]:
        """Usable videos by digest; a video that occurs under two names is one item."""
        found: dict[str, VideoItem] = {}
        probes, entries = self.probes, self.files.entries  # looked up 100,000 times
        for video in self.videos:
            digest = self.digests[video.video_id]
            if digest is None or digest in found or (probe := probes.get(digest)) is None or probe.status not in DONE:
                continue
            path, seconds = video.path, probe.duration_seconds or None
            entry = None if "://" in path and is_url(path) else entries.get(path)
            found[digest] = VideoItem(
                digest, path, video.video_id, seconds, probe.num_frames or None, entry and entry[0]
            )
        return found

    @cached_property
    def all_items(self) -> tuple[VideoItem, ...]:
        """The usable videos."""
        return tuple(self.items.values())

    def named(self, digests: set[str]) -> list[tuple[ManifestVideo, str, Annotation]]:
        """Videos whose digest is among ``digests``, in manifest order, with their annotation."""
        rows = ((video, self.digests[video.video_id]) for video in self.videos)
        return [(video, digest, self.labels.of(video.video_id)) for video, digest in rows if digest in digests]

    def names_of(self, digest: str) -> list[str]:
        """The ids under which a content occurs."""
        return list(self._names.get(digest, ()))

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Ids by digest, for the names of many failures: looking through all videos for each is quadratic."""
        found: dict[str, list[str]] = defaultdict(list)
        for video in self.videos:
            digest = self.digests[video.video_id]
            if digest is not None:
                found[digest].append(video.video_id)
        return found


def load_dataset(file: PipelineFile, known: KnownFiles | None = None) -> Dataset:
    """Read manifest and labels and look up what the store knows of the files: ``known``, where it was just read.

    Raises InputError that lists all problems with row numbers.
    """
    file.store.backend.check_readable()
    older = older_note(file.store)
    known = known or KnownFiles(file.store.files)
    synthetic = None if file.videos.synthesize is None else synthetic_set_of(file, known)
    left_out: list[str] = []
    videos, source = (synthetic.videos, synthetic.place) if synthetic is not None else _read_videos(file, left_out)
    quick = file.videos.digest == "quick"
    paths = [video.path for video in videos]
    known.look([path for path in paths if "://" in path and is_url(path)])
    digests = known.get_all(paths, quick=quick)  # a file that is not there has none
    missing = [
        video for video, digest in zip(videos, digests, strict=True) if digest is None and known.is_missing(video.path)
    ]
    is_skipped = file.videos.missing == "skip" or synthetic is not None  # `run` makes them
    if videos or synthetic is None:
        gone = () if is_skipped else missing
        check_videos(videos, source=source, splits=file.videos.splits, missing=gone, left_out=left_out)
    digest_of = {video.video_id: digest for video, digest in zip(videos, digests, strict=True)}
    for video in missing:
        del digest_of[video.video_id]
    present = [video for video in videos if video.video_id in digest_of] if missing else videos
    probes = KnownProbes(file.store.videos)
    dataset = Dataset(
        videos=tuple(present),
        labels=LabelSet((), {}),
        background=UNKNOWN,
        digests=digest_of,
        probes=probes.load(),
        files=known,
        quarantine_after=file.videos.quarantine_after,
        synthetic=synthetic,
        notes=(*([older] if older else ()), *left_out, *known.notes, *probes.notes),
        absent=frozenset(video.video_id for video in missing),
    )
    return with_labels(dataset, file, file.labels)


def _read_videos(file: PipelineFile, left_out: list[str]) -> tuple[list[ManifestVideo], str]:
    """The rows of the manifest, and what it is called in messages; why files are no videos goes to ``left_out``."""
    settings = file.videos
    root = file.place(settings.root or ".")
    if settings.manifest is not None:
        written = file.place(settings.manifest)
        root = root if settings.root else written.rpartition("/")[0]
        videos = read_manifest(
            file.local(settings.manifest), root=root, default_split=settings.split, split_column=settings.split_column
        )
        return videos, written
    if settings.folder is not None:
        place = file.place(settings.folder)
        return scan_folder(place, default_split=settings.split, left_out=left_out), place
    if settings.features is not None:
        place = file.place(settings.features)
        videos = scan_folder(
            place, default_split=settings.split, is_wanted=is_feature_file, left_out=left_out, what="features"
        )
        return videos, place
    pattern = str(settings.glob)
    return scan_glob(pattern, root=root, default_split=settings.split, left_out=left_out), pattern


def with_labels(dataset: Dataset, file: PipelineFile, settings: LabelsConfig | None) -> Dataset:
    """The same videos with other labels, as a node may have its own. Raises as `load_dataset` does."""
    if settings is None or not dataset.videos:  # none: synthetic ones that are still to be made
        return replace(dataset, labels=LabelSet((), {}), background=UNKNOWN, label_settings=settings)
    beside = settings.column_beside  # read by itself
    labels = _read_labels(file, settings.model_copy(update={"column": None}) if beside else settings, dataset)
    labels = with_video_labels(labels, dataset.videos, column=beside) if beside else labels
    background = _background(file, settings, labels)
    if settings.time_origin == "first_frame":
        labels = replace(labels, by_video=dict(_counted_from_first_frame(labels, dataset)))
    return replace(dataset, labels=labels, background=background, label_settings=settings)


def _counted_from_first_frame(labels: LabelSet, dataset: Dataset) -> Iterator[tuple[str, Annotation]]:
    """Annotations in presentation time, of times that count from the first frame, as far as its time is known."""
    for video_id, annotation in labels.by_video.items():
        probe = dataset.probes.get(dataset.digests[video_id] or "")
        yield video_id, annotation.later(probe.start_seconds) if probe is not None else annotation


def _read_labels(file: PipelineFile, settings: LabelsConfig, dataset: Dataset) -> LabelSet:
    videos, synthetic = dataset.videos, dataset.synthetic
    if settings.columns is not None:
        named = {head: settings.class_names(head) for head in settings.columns}
        return labels_from_columns(videos, columns=settings.columns, classes=named)
    classes = settings.class_names()
    if settings.column is not None:
        return labels_from_column(videos, column=settings.column, classes=classes)
    kind = next(kind for kind in ("segments", "steps", "rows") if getattr(settings, kind) is not None)
    written = getattr(settings, kind)
    path = file.local(written)
    if synthetic is not None and written == STAGE:
        path = synthetic.folder / f"{kind}.csv"
        file.store.backend.pull_file(path)
        if not path.exists():
            raise ConfigError(
                f"{file.path}: labels.{kind}: {synthetic.config.family} videos have no {kind}. Use column: label"
            )
    return labels_from_table(path, kind=kind, videos=videos, classes=classes, absent=dataset.absent)


def _background(file: PipelineFile, settings: LabelsConfig, labels: LabelSet) -> int:
    name = settings.background
    if name is None:
        return UNKNOWN
    if name not in labels.classes:
        hint = nearest(name, labels.classes)
        raise ConfigError(
            f"{file.path}: labels.background: {name!r} is no class.{hint} Known: {', '.join(labels.classes)}"
        )
    return labels.classes.index(name)
