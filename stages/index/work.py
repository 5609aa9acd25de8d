"""Index: read and probe videos that the store does not know, and note what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reelwright.stages.index.probe import probe_videos
from reelwright.stages.work import Reporter
from reelwright.storage.digests import digest
from reelwright.storage.items import ItemRow
from reelwright.storage.known import KnownFiles, KnownProbes, VideoProbe, stamp
from reelwright.storage.store import Store


def index_videos(
    paths: Sequence[Path],
    store: Store,
    *,
    quick: bool,
    workers: int | None,
    timeout_seconds: float,
    reporter: Reporter,
) -> None:
    """Note content digest and probe of each file or folder of frames in the store.

    A video that cannot be used is noted too, with cause and message, and tried again by the next run.
    """
    known, probes = KnownFiles(store.files), KnownProbes(store.videos)
    stamps = {path: stamp(path) for path in dict.fromkeys(paths)}
    found: dict[str, VideoProbe] = {}
    for path, answer in probe_videos(
        list(stamps), workers=workers, reporter=reporter, quick=quick, timeout_seconds=timeout_seconds
    ):
        probe = answer if answer.digest else answer._replace(digest=_stand_in(path))
        known.add(path, probe.digest, stamps[path], quick=quick)
        found[probe.digest] = probe
        if probe.status != "ok":
            row = ItemRow(digest=probe.digest, status=probe.status, cause=probe.cause, message=probe.message)
            reporter.item(row)
    probes.add(found)
    known.save()


def _stand_in(path: Path) -> str:
    """What stands for the digest of a file that could not be read, so that its failure can be told."""
    return digest({"unreadable": str(path)})
