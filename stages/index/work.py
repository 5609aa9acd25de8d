"""Index: read and probe videos that the store does not know, and note what they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from reelwright.stages.base.work import Reporter
from reelwright.stages.index.probe import probe_of, probe_videos
from reelwright.storage.bucket.download_cache import stamps as object_stamps
from reelwright.storage.digests import digest
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe, stamp
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store, is_url

SAVE_SECONDS = 10.0  # between two writings of what was found: no more than this is lost when the process is killed
_SAVE_SHARE = 0.05  # of the time goes into writing, at most: with 100,000 videos the tables take a second


def index_videos(
    paths: Sequence[Path | str],
    store: Store,
    *,
    quick: bool,
    workers: int | None,
    timeout_seconds: float,
    reporter: Reporter,
    digests: Mapping[str, str] | None = None,
    files: KnownFiles | None = None,
) -> None:
    """Note content digest and probe of each file, folder of frames or object (a URL) in the store.

    ``digests``, by path, are noted in place of those of the contents: of videos whose digest is known otherwise. A
    video that cannot be used is noted too, with cause and message, and tried again by the next run. ``files`` is the
    store's table of files, where the caller has it.
    """
    objects = object_stamps([str(path) for path in dict.fromkeys(paths) if is_url(path)])
    stamps = {path: objects.get(str(path)) or stamp(path) for path in dict.fromkeys(paths)}
    found = _Found(store, files or KnownFiles(store.files))
    try:
        for path, answer in probe_videos(
            list(stamps),
            workers=workers,
            reporter=reporter,
            quick=quick,
            timeout_seconds=timeout_seconds,
            index=store.frame_index,
        ):
            # what stands for the digest of a file that could not be read, so that its failure is known
            probe = answer if answer.digest else answer._replace(digest=digest({"unreadable": str(path)}))
            probe = probe if digests is None else probe._replace(digest=digests[str(path)])
            if probe.status != "ok":
                row = ItemRow(digest=probe.digest, status=probe.status, cause=probe.cause, message=probe.message)
                reporter.item(row)
            found.files.add(path, probe.digest, stamps[path], quick=quick)
            found.add(probe)
    finally:
        found.save()


def update_probes(store: Store, probes: Mapping[str, VideoProbe]) -> dict[str, VideoProbe]:
    """Those of ``probes`` that were about right, as decoding has told since; kept in the store."""
    from reelwright.stages.decode.timing.index import load_index

    found: dict[str, VideoProbe] = {}
    for content, probe in probes.items():
        index = None if probe.is_exact else load_index(content, folder=store.frame_index)
        if index is not None and index.is_known:
            found[content] = probe_of(index, content, content)
    KnownProbes(store.videos).add(found)
    return found


class _Found:
    """Digests and probes on their way into the store's tables, which are written now and then."""

    def __init__(self, store: Store, files: KnownFiles) -> None:
        self.files = files
        self._table = KnownProbes(store.videos)
        self._before = {digest: probe for digest, probe in self._table.load().items() if probe.status != "ok"}
        self._probes: dict[str, VideoProbe] = {}
        self._due = time.monotonic() + SAVE_SECONDS

    def add(self, probe: VideoProbe) -> None:
        """Keep a probe, and write all that has gathered when it is time."""
        if probe.status != "ok" and (before := self._before.get(probe.digest)) is not None:
            probe = probe._replace(attempts=before.attempts + 1)
        self._probes[probe.digest] = probe
        if time.monotonic() >= self._due:
            self.save()

    def save(self) -> None:
        """Write probes, then the files that have them: a file whose probe is missing is read again."""
        started = time.monotonic()
        self._table.add(self._probes)
        self.files.save()
        self._probes.clear()
        ended = time.monotonic()
        self._due = ended + max(SAVE_SECONDS, (ended - started) / _SAVE_SHARE)
