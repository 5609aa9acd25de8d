"""Videos and labels of a pipeline, and what is known of them without reading a video."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from reelwright.stages.base.registry import load
from reelwright.stages.base.work import VideoItem
from reelwright.stages.index.config import LabelsConfig
from reelwright.stages.synthesize.source import SyntheticSet
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.ledger.digest_cache import KnownFiles, VideoProbe, stamp
from reelwright.storage.ledger.items import DONE, ItemRow
from reelwright.storage.store import Store, is_url
from reelwright.storage.tables.annotations import Annotation
from reelwright.storage.tables.labels import LabelSet
from reelwright.storage.tables.manifest import ManifestVideo


@dataclass(frozen=True)
class Dataset:
    """Videos in manifest order and what is known of them."""

    videos: tuple[ManifestVideo, ...]
    labels: LabelSet
    background: int  # class id of rows that no label covers, UNKNOWN for none
    digests: dict[str, str | None]  # video_id -> content digest; None: not read yet, or changed
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
        """How many of ``new`` were read before, as another file, and how many never."""
        changed = sum(video.path in self.files.entries for video in new)
        counts = {"changed on disk and not read yet": changed, "new and not read yet": len(new) - changed}
        return [f"videos: {count:,} {what}" for what, count in counts.items() if count]

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

    def probe_row(self, video_id: str) -> ItemRow | None:
        """What became of a video that was read and cannot be used; None for others."""
        digest = self.digests[video_id]
        probe = None if digest is None or digest in self.items else self.probes.get(digest)
        if probe is None:
            return None
        return ItemRow(
            digest=probe.digest,
            status=probe.status,
            cause=probe.cause,
            message=probe.message,
            attempts=probe.attempts,
        )

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
        digests, probes, entries = self.digests, self.probes, self.files.entries  # looked up 100,000 times
        for video_id, path, *_ in self.videos:
            digest = digests[video_id]
            if digest is None or digest in found or (probe := probes.get(digest)) is None or probe.status not in DONE:
                continue
            entry = None if "://" in path and is_url(path) else entries.get(path)
            found[digest] = VideoItem(
                digest, path, video_id, probe.duration_seconds or None, probe.num_frames or None, entry and entry[0]
            )
        return found

    @cached_property
    def all_items(self) -> tuple[VideoItem, ...]:
        """The usable videos."""
        return tuple(self.items.values())

    def settled_probes(self, store: Store) -> dict[str, VideoProbe]:
        """The probes; of videos that only decoding tells, what it has told since they were read."""
        about = {digest: probe for digest, probe in self.probes.items() if not probe.is_exact}
        return self.probes | (load("reelwright.stages.index.work:update_probes")(store, about) if about else {})

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
