"""Embeddings and kept outputs of windows for other programs: a file a video, or WebDataset shards (plain tar files).

    npy         NAME.npy (T, ...)   manifest.csv (path, video_id, split, label, rows)   times.csv (a line a row)
    parquet     NAME.parquet        manifest.csv    a line a row with its times
    zarr        NAME.zarr           manifest.csv    an array, and one for each column of times
    webdataset  shard-000000.tar ...  of each video: NAME.npy, NAME.spans.npy (T, 2) seconds, NAME.json

    npz         NAME.npz            manifest.csv    of windows (attention and others): each output by the model's name
                of it (W, ...); row, row_seconds, row_source (W, T); start_seconds, stop_seconds (W,)

The same rows give the same bytes, whenever and by whomever they are written. `import-features --times times.csv
manifest.csv` reads the first form back.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.arrays.window_outputs import WindowOutputStore
from reelwright.storage.results.predictions import METADATA_KEY
from reelwright.storage.tables.names import file_names

SHARD_BYTES = 256 << 20
_SPANS = ("start_seconds", "stop_seconds", "source_start", "source_stop")


@dataclass(frozen=True, kw_only=True)
class ExportedVideo:
    """One video whose rows are written."""

    video_id: str
    digest: str
    split: str
    label: str  # its own class, or empty


def export_npy(store: EmbeddingStore, videos: Sequence[ExportedVideo], folder: Path, *, output: str) -> int:
    """Write a .npy a video, a manifest and a table of times; returns the number of videos."""
    with (folder / "times.csv").open("w", newline="", encoding="utf-8") as file:
        times = csv.writer(file, lineterminator="\n")
        times.writerow(["video_id", "row", *_SPANS])

        def write(path: Path, video: ExportedVideo) -> int:
            rows = store.rows(video.digest)
            path.write_bytes(npy_bytes(rows.output(output)))
            columns = [getattr(rows.spans, name).tolist() for name in _SPANS]
            times.writerows([video.video_id, *line] for line in zip(range(rows.num_rows), *columns, strict=True))
            return rows.num_rows

        return write_each(videos, folder, ending=".npy", unit="rows", write=write)


def export_parquet(store: EmbeddingStore, videos: Sequence[ExportedVideo], folder: Path, *, output: str) -> int:
    """Write a .parquet a video and a manifest; returns the number of videos.

    A line a row: row, start_seconds, stop_seconds, source_start, source_stop, and the column ``output``, a list of as
    many float16 or float32 as a row has; of tokens and maps row by row, their shape is in the file's metadata.
    """

    def write(path: Path, video: ExportedVideo) -> int:
        rows = store.rows(video.digest)
        values, spans = rows.output(output), rows.spans
        flat = pa.array(np.ascontiguousarray(values).ravel())
        columns = {
            "row": np.arange(len(values), dtype=np.int32),
            **{name: getattr(spans, name) for name in _SPANS},
            output: pa.FixedSizeListArray.from_arrays(flat, values[0].size),
        }
        about = json.dumps(asdict(video) | {"shape": values.shape[1:]}, ensure_ascii=False)
        pq.write_table(pa.table(columns).replace_schema_metadata({METADATA_KEY: about}), path, compression="zstd")
        return rows.num_rows

    return write_each(videos, folder, ending=".parquet", unit="rows", write=write)


def export_zarr(store: EmbeddingStore, videos: Sequence[ExportedVideo], folder: Path, *, output: str) -> int:
    """Write a Zarr v3 group a video (NAME.zarr) and a manifest; returns the number of videos.

    In it the array ``output`` (T, ...), and start_seconds, stop_seconds, source_start, source_stop (T,); its axes have
    names, so that xarray opens it.
    """

    def write(path: Path, video: ExportedVideo) -> int:
        rows = store.rows(video.digest)
        group = zarr.create_group(path, zarr_format=3, attributes=asdict(video))
        inner = axis_names(rows.row_shape(output), of_views="views" in store.spec)
        arrays = {output: rows.output(output), **{name: getattr(rows.spans, name) for name in _SPANS}}
        for name, values in arrays.items():
            axes = ("row", *(inner if name == output else ()))
            array = group.create_array(
                name, shape=values.shape, dtype=values.dtype, chunks=values.shape, dimension_names=axes
            )
            array[...] = values
        return rows.num_rows

    return write_each(videos, folder, ending=".zarr", unit="rows", write=write)


def axis_names(row_shape: Sequence[int], *, of_views: bool) -> tuple[str, ...]:
    """What the axes of a row are called; those of one of several views stand behind the axis view."""
    known = {1: ("feature",), 2: ("token", "feature"), 3: ("channel", "height", "width")}
    rank = len(row_shape) - of_views
    return (*(("view",) if of_views else ()), *known.get(rank, tuple(f"axis_{place + 1}" for place in range(rank))))


def write_each(
    videos: Sequence[ExportedVideo],
    folder: Path,
    *,
    ending: str,
    unit: str,
    write: Callable[[Path, ExportedVideo], int],
) -> int:
    """One file a video, whose `unit` (rows) `write` counts, and the manifest of them; returns the number of videos."""
    names = file_names(video.video_id for video in videos)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        manifest = csv.writer(file, lineterminator="\n")
        manifest.writerow(["video_id", "path", "split", "label", unit])
        for video in videos:
            name = f"{names[video.video_id]}{ending}"
            manifest.writerow([video.video_id, name, video.split, video.label, write(folder / name, video)])
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


def export_npz(store: WindowOutputStore, videos: Sequence[ExportedVideo], folder: Path) -> int:
    """Write a .npz a video and a manifest; returns the number of videos. The same content gives the same bytes."""

    def write(path: Path, video: ExportedVideo) -> int:
        found = store.rows(video.digest)
        np.savez(
            path,
            allow_pickle=False,
            **{output: found.output(output) for output in store.kept},
            **vars(found.places),
            start_seconds=found.spans.start_seconds,
            stop_seconds=found.spans.stop_seconds,
        )
        return found.num_windows

    return write_each(videos, folder, ending=".npz", unit="windows", write=write)


def npy_bytes(values: npt.NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
    return content.getvalue()


def _sample(video: ExportedVideo, rows: EmbeddingRows, output: str) -> Iterator[tuple[str, bytes]]:
    yield "json", json.dumps(asdict(video), ensure_ascii=False, sort_keys=True).encode()
    yield "npy", npy_bytes(rows.output(output))
    yield "spans.npy", npy_bytes(np.stack([rows.spans.start_seconds, rows.spans.stop_seconds], axis=1))


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without owner and date, so that the shard depends on its content alone."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    shard.addfile(entry, io.BytesIO(content))
