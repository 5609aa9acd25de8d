"""Size and speed of embedding codecs, dtypes and chunk sizes, on embeddings that exist.

    python -m tests.benchmarks.bench_embedding_codecs STORE/embeddings/KEY.zarr [--repeats 5]

Embed with dtype: float32 first, so that both dtypes can be compared. Prints a table per output: stored bytes over
float32 bytes, write and read MB/s of float32 (median of the repeats), and milliseconds for 64 rows at random places.
"""

import argparse
import datetime as dt
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from reelwright.models.encoders.build import build_encoder
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError
from tests.benchmarks.bare import decord_images
from tests.benchmarks.harness import Figures, Row
from tests.benchmarks.videos import bench_videos

CODECS = ("none", "lz4", "zstd", "pcodec")
DTYPES = ("float32", "float16")
CHUNKS = {"64 KiB": 1 << 16, "256 KiB": 1 << 18, "1 MiB": 1 << 20}
RANDOM_ROWS = 64


def spans(num_rows):
    rows = np.arange(num_rows)
    return Spans(rows / 5, rows / 5 + 0.04, rows, rows + 1)


def write(path, name, rows, layout):
    writer = EmbeddingWriter.create(path, {"spec": {}}, layout=layout)
    writer.begin("v", num_rows=len(rows))
    size = writer.shard_rows("v")
    for index, start in enumerate(range(0, len(rows), size)):
        part = rows[start : start + size]
        writer.write_shard("v", index, arrays={name: part}, spans=spans(len(part)))
    writer.finish("v", num_rows=len(rows))
    return sum(entry.stat().st_size for entry in (path / "v" / name).rglob("*") if entry.is_file())


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(name, rows, *, dtype, codec, chunk_bytes, repeats):
    layout = RowLayout(outputs={name: rows.shape[1:]}, dtype=dtype, codec=codec, chunk_bytes=chunk_bytes)
    cast = rows.astype(dtype)
    generator = np.random.default_rng(0)
    found = {"write": [], "read": [], "random": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "e.zarr"
            seconds, stored = timed(lambda path=path: write(path, name, cast, layout))
            found["write"].append(seconds)
            video = EmbeddingStore(path).rows("v")
            seconds, back = timed(lambda video=video: video.output(name))
            assert np.array_equal(back, cast)
            found["read"].append(seconds)
            starts = generator.integers(0, max(1, len(rows) - RANDOM_ROWS), 20)
            seconds, _ = timed(
                lambda video=video, starts=starts: [video.output(name, s, s + RANDOM_ROWS) for s in starts]
            )
            found["random"].append(seconds / len(starts))
    return stored, {key: statistics.median(values) for key, values in found.items()}


def run(options):
    """Rows for `python -m tests.benchmarks codecs`: megabytes a second of reading, with the size in the note."""
    rows = []
    for name, values in _real_rows(options).items():
        figures = {}
        for codec in CODECS:
            try:
                stored, seconds = measure(
                    name, values, dtype="float16", codec=codec, chunk_bytes=1 << 18, repeats=options.repeats
                )
            except ConfigError:
                continue  # pcodec is an extra
            figures[codec] = Figures((values.nbytes / 1e6 / seconds["read"],))
            written = values.nbytes / 1e6 / seconds["write"]
            rows.append(
                Row(
                    what=f"{name} float16 {codec}: read",
                    unit="MB/s",
                    figures=figures[codec],
                    reference="none",
                    against=None if codec == "none" else figures["none"],
                    note=f"size {stored / values.nbytes:.2f} of float32, written at {written:.0f} MB/s",
                )
            )
    return rows


def _real_rows(options):
    """Rows of an untrained mobilenetv2_100 on a bench video, float32; run this file on a store of yours for others."""
    num_rows = 16 if options.quick else 128
    encoder = build_encoder("timm/mobilenetv2_100", outputs=("pooled", "layer-1.map"), seed=0).eval()
    images = torch.from_numpy(decord_images(bench_videos()[0])[:num_rows, 128:352, 208:432].copy())
    with torch.inference_mode():
        parts = [encoder(part.permute(0, 3, 1, 2).float() / 127.5 - 1) for part in images.split(8)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    store = EmbeddingStore(arguments.store)
    print(
        f"{store.spec['encoder']}, {platform.machine()}, {os.cpu_count()} cores, {dt.datetime.now(tz=dt.UTC):%Y-%m-%d}"
    )
    for name in store.spec["outputs"]:
        rows = np.concatenate([store.rows(digest).output(name) for digest in store.digests()]).astype("float32")
        print(f"\n{name} {rows.shape}, {(rows == 0).mean():.0%} zeros")
        print(
            f"{'dtype':8} {'codec':7} {'chunk':8} {'size':>6} {'write MB/s':>11} {'read MB/s':>10} {'64 rows ms':>11}"
        )
        for dtype in DTYPES:
            for codec in CODECS:
                for label, chunk_bytes in CHUNKS.items():
                    try:
                        stored, seconds = measure(
                            name, rows, dtype=dtype, codec=codec, chunk_bytes=chunk_bytes, repeats=arguments.repeats
                        )
                    except ConfigError as error:
                        print(f"{dtype:8} {codec:7} left out: {error}")
                        break
                    speed = {key: rows.nbytes / 1e6 / seconds[key] for key in ("write", "read")}
                    print(
                        f"{dtype:8} {codec:7} {label:8} {stored / rows.nbytes:6.3f} {speed['write']:11.0f} "
                        f"{speed['read']:10.0f} {1e3 * seconds['random']:11.2f}"
                    )


if __name__ == "__main__":
    main()
