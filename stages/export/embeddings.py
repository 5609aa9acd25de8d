"""Embeddings for other programs: .npy files with a manifest and times, or WebDataset shards (plain tar files).

    npy         NAME.npy (T, ...)   manifest.csv (path, video_id, split, label, rows)   times.csv (a line a row)
    webdataset  shard-000000.tar ...  of each video: NAME.npy, NAME.spans.npy (T, 2) seconds, NAME.json

The same rows give the same bytes, whenever and by whomever they are written. `import-features --times times.csv
manifest.csv` reads the first form back.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.tables.texts import file_names

SHARD_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class ExportedVideo:
    """One video whose rows are written."""

    video_id: str
    digest: str
    split: str
    label: str  # its own class, or empty


def export_npy(store: EmbeddingStore, videos: Sequence[ExportedVideo], folder: Path, *, output: str) -> int:
    """Write a .npy a video, a manifest and a table of times; returns the number of videos."""
    names = file_names(video.video_id for video in videos)
    with (
        (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as manifest_file,
        (folder / "times.csv").open("w", newline="", encoding="utf-8") as times_file,
    ):
        manifest, times = (csv.writer(file, lineterminator="\n") for file in (manifest_file, times_file))
        manifest.writerow(["video_id", "path", "split", "label", "rows"])
        times.writerow(["video_id", "row", "start_seconds", "stop_seconds", "source_start", "source_stop"])
        for video in videos:
            rows = store.rows(video.digest)
            values, spans, name = rows.output(output), rows.spans, f"{names[video.video_id]}.npy"
            (folder / name).write_bytes(npy_bytes(values))
            manifest.writerow([video.video_id, name, video.split, video.label, len(values)])
            columns = (spans.start_seconds, spans.stop_seconds, spans.source_start, spans.source_stop)
            lines = zip(range(len(values)), *(column.tolist() for column in columns), strict=True)
            times.writerows([video.video_id, *line] for line in lines)
    return len(videos)


def export_webdataset(
    store: EmbeddingStore,
    videos: Sequence[ExportedVideo],
    folder: Path,
    *,
    output: str,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write tar shards of at most ``shard_bytes``, unless one video alone is larger; returns the number of videos.

    Names hold no dot, since WebDataset takes what follows the first dot for the kind of entry.
    """
    names = file_names((video.video_id for video in videos), dots=False)
    shard: tarfile.TarFile | None = None
    number = filled = 0
    try:
        for video in videos:
            entries = list(_sample(video, store.rows(video.digest), output))
            size = sum(len(content) for _, content in entries)
            if shard is None or (filled and filled + size > shard_bytes):
                if shard is not None:
                    shard.close()
                shard = tarfile.open(folder / f"shard-{number:06d}.tar", "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - several
                number, filled = number + 1, 0
            for kind, content in entries:
                _add(shard, f"{names[video.video_id]}.{kind}", content)
            filled += size
    finally:
        if shard is not None:
            shard.close()
    return len(videos)


def npy_bytes(values: npt.NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
    return content.getvalue()


def _sample(video: ExportedVideo, rows: EmbeddingRows, output: str) -> Iterator[tuple[str, bytes]]:
    known = {"video_id": video.video_id, "digest": video.digest, "split": video.split, "label": video.label}
    yield "json", json.dumps(known, ensure_ascii=False, sort_keys=True).encode()
    yield "npy", npy_bytes(rows.output(output))
    yield "spans.npy", npy_bytes(np.stack([rows.spans.start_seconds, rows.spans.stop_seconds], axis=1))


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without owner and date, so that the shard depends on its content alone."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    shard.addfile(entry, io.BytesIO(content))
