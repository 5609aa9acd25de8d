"""The checksums in a shard file of Zarr v3, checked without decoding: those of its index and of every chunk.

chunk 0 | chunk 1 | ... | index: (offset, bytes) of every chunk, little-endian uint64, then a crc32c
each chunk ends with its own crc32c, four bytes, little-endian
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import google_crc32c  # comes with zarr
import numpy as np

_EMPTY = np.iinfo(np.uint64).max  # offset and bytes of a chunk that holds nothing but the fill value
_CRC_BYTES = 4


def is_cut(path: Path, metadata: dict[str, Any]) -> bool:
    """Whether a shard file is missing or not as long as its index says; cheap, since no chunk is read.

    zarr before 3.1.4 gives a shard its name before it is written, and a disk may lose power.
    """
    num_chunks = _num_chunks(metadata)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - num_chunks * 16 - _CRC_BYTES))
            index = memoryview(file.read())
    except FileNotFoundError:
        return True
    return len(index) < num_chunks * 16 + _CRC_BYTES or not _is_whole(index) or _covered(index) != size


def broken_shard(path: Path, metadata: dict[str, Any]) -> str | None:
    """What is wrong with a shard file of the array that ``metadata`` (its zarr.json) describes; None: nothing."""
    sharding = metadata["codecs"][0]["configuration"]
    if sharding["index_location"] != "end" or sharding["codecs"][-1]["name"] != "crc32c":
        return "is coded in a way that has no checksums"
    num_chunks = _num_chunks(metadata)
    content = memoryview(path.read_bytes())
    index_bytes = num_chunks * 16 + _CRC_BYTES
    if len(content) < index_bytes:
        return f"has {len(content):,} bytes, fewer than its index of {index_bytes:,}"
    index = content[-index_bytes:]
    if not _is_whole(index):
        return "the checksum of its index is wrong"
    entries = np.frombuffer(index[:-_CRC_BYTES], "<u8").reshape(-1, 2)
    for number, (start, size) in enumerate(entries.tolist()):
        if start != _EMPTY and not _is_whole(content[start : start + size]):
            return f"the checksum of chunk {number} (of {num_chunks}) is wrong"
    covered = _covered(index)
    return None if covered == len(content) else f"{len(content) - covered:,} bytes belong to no chunk"


def _num_chunks(metadata: dict[str, Any]) -> int:
    """Of one shard."""
    outer = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    inner = metadata["codecs"][0]["configuration"]["chunk_shape"]
    return math.prod(extent // part for extent, part in zip(outer, inner, strict=True))


def _covered(index: memoryview) -> int:
    """Bytes of all chunks and of the index."""
    entries = np.frombuffer(index[:-_CRC_BYTES], "<u8").reshape(-1, 2)
    return int(entries[entries[:, 0] != _EMPTY, 1].sum()) + len(index)


def _is_whole(content: memoryview) -> bool:
    if len(content) < _CRC_BYTES:
        return False
    stored = int.from_bytes(content[-_CRC_BYTES:], "little")
    return int(google_crc32c.value(bytes(content[:-_CRC_BYTES]))) == stored
