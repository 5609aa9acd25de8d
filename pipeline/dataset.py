"""The videos and labels of a pipeline file, with the content digests that are known without reading a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reelwright.pipeline.file import PipelineFile
from reelwright.stages.work import VideoItem
from reelwright.storage.annotations import UNKNOWN, Annotation
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.items import DONE
from reelwright.storage.known import KnownFiles, KnownProbes
from reelwright.storage.labels import LabelSet, labels_from_column, labels_from_table
from reelwright.storage.manifest import ManifestVideo, check_videos, read_manifest, scan_folder, scan_glob


@dataclass(frozen=True)
class Dataset:
    """Videos in manifest order and what is known of them."""

    videos: tuple[ManifestVideo, ...]
    labels: LabelSet
    background: int  # class id of rows that no label covers, UNKNOWN for none
    digests: dict[str, str | None]  # video_id -> content digest; None: not read yet, or changed
    probes: dict[str, dict[str, Any]]  # digest -> status, cause, message, duration_seconds

    @cached_property
    def unread(self) -> tuple[ManifestVideo, ...]:
        """Videos that must be read and probed before anything else: new, changed, or not usable last time."""
        return tuple(video for video in self.videos if not self._usable(video))

    @cached_property
    def new(self) -> tuple[ManifestVideo, ...]:
        """Videos whose content is not known yet."""
        return tuple(video for video in self.videos if self.digests[video.video_id] not in self.probes)

    @cached_property
    def unusable(self) -> tuple[ManifestVideo, ...]:
        """Videos that were read and cannot be used."""
        return tuple(video for video in self.unread if self.digests[video.video_id] in self.probes)

    @cached_property
    def items(self) -> dict[str, VideoItem]:
        """Usable videos by digest; a video that occurs under two names is one item."""
        found: dict[str, VideoItem] = {}
        for video in self.videos:
            digest = self.digests[video.video_id]
            if digest is not None and digest not in found and self._usable(video):
                duration = self.probes[digest]["duration_seconds"]
                found[digest] = VideoItem(
                    digest=digest, path=str(video.path), video_id=video.video_id, duration_seconds=duration
                )
        return found

    def named(self, digests: set[str]) -> list[tuple[ManifestVideo, str, Annotation]]:
        """Videos whose digest is among ``digests``, in manifest order, with their annotation."""
        rows = ((video, self.digests[video.video_id]) for video in self.videos)
        return [(video, digest, self.labels.of(video.video_id)) for video, digest in rows if digest in digests]

    def names_of(self, digest: str) -> list[str]:
        """The ids under which a content occurs."""
        return [video.video_id for video in self.videos if self.digests[video.video_id] == digest]

    def _usable(self, video: ManifestVideo) -> bool:
        digest = self.digests[video.video_id]
        return digest is not None and digest in self.probes and self.probes[digest]["status"] in DONE


def load_dataset(file: PipelineFile) -> Dataset:
    """Read manifest and labels and look up what the store knows of the files.

    Raises InputError that lists all problems with row numbers.
    """
    videos = _read_videos(file)
    labels = _read_labels(file, videos)
    known = KnownFiles(file.store.files)
    quick = file.videos.digest == "quick"
    return Dataset(
        videos=tuple(videos),
        labels=labels,
        background=_background(file, labels),
        digests={video.video_id: known.get(video.path, quick=quick) for video in videos},
        probes=KnownProbes(file.store.videos).load(),
    )


def _read_videos(file: PipelineFile) -> list[ManifestVideo]:
    settings = file.videos
    root = file.resolve(settings.root or ".")
    if settings.manifest is not None:
        source = file.resolve(settings.manifest)
        root = root if settings.root else source.parent
        videos = read_manifest(source, root=root, default_split=settings.split)
    elif settings.folder is not None:
        source = file.resolve(settings.folder)
        videos = scan_folder(source, default_split=settings.split)
    else:
        source = Path(str(settings.glob))
        videos = scan_glob(str(settings.glob), root=root, default_split=settings.split)
    skip = settings.missing == "skip"
    check_videos(videos, source=str(source), splits=settings.splits, allow_missing=skip)
    return [video for video in videos if video.path.exists()] if skip else videos


def _read_labels(file: PipelineFile, videos: list[ManifestVideo]) -> LabelSet:
    settings = file.labels
    if settings is None:
        return LabelSet((), {})
    classes = list(settings.classes) if settings.classes is not None else None
    if settings.column is not None:
        return labels_from_column(videos, column=settings.column, classes=classes)
    kind = next(kind for kind in ("segments", "steps", "rows") if getattr(settings, kind) is not None)
    return labels_from_table(file.resolve(getattr(settings, kind)), kind=kind, videos=videos, classes=classes)


def _background(file: PipelineFile, labels: LabelSet) -> int:
    name = file.labels.background if file.labels else None
    if name is None:
        return UNKNOWN
    if name not in labels.classes:
        hint = nearest(name, labels.classes)
        raise ConfigError(
            f"{file.path}: labels.background: {name!r} is no class.{hint} Known: {', '.join(labels.classes)}"
        )
    return labels.classes.index(name)
