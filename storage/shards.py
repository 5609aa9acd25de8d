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


def broken_shard(path: Path, metadata: dict[str, Any]) -> str | None:
    """What is wrong with a shard file of the array that ``metadata`` (its zarr.json) describes; None: nothing."""
    sharding = metadata["codecs"][0]["configuration"]
    if sharding["index_location"] != "end" or sharding["codecs"][-1]["name"] != "crc32c":
        return "is coded in a way that has no checksums"
    outer, inner = metadata["chunk_grid"]["configuration"]["chunk_shape"], sharding["chunk_shape"]
    num_chunks = math.prod(extent // part for extent, part in zip(outer, inner, strict=True))
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
    covered = int(entries[entries[:, 0] != _EMPTY, 1].sum()) + index_bytes
    return None if covered == len(content) else f"{len(content) - covered:,} bytes belong to no chunk"


def _is_whole(content: memoryview) -> bool:
    if len(content) < _CRC_BYTES:
        return False
    stored = int.from_bytes(content[-_CRC_BYTES:], "little")
    return int(google_crc32c.value(bytes(content[:-_CRC_BYTES]))) == stored
