"""Seals, checksums of shards, and weights: every flipped byte is told, and by what name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import save_file

from reelwright.storage.arrays.shards import broken_shard
from reelwright.storage.arrays.zarrs import ArrayLayout, create_array, publish
from reelwright.storage.digests import SEAL, UNSEALED, broken_seal, has_seal, seal
from reelwright.storage.files import write_sealed, write_table
from reelwright.storage.integrity.check import check_item, check_weights
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store


def sealed_json(folder: Path) -> Path:
    write_sealed(folder / "a.json", {"name": "é", "values": [1, 2.5]})
    return folder / "a.json"


def sealed_table(folder: Path) -> Path:
    write_table(folder / "a.parquet", pa.table({"x": [1, 2, 3]}))
    return folder / "a.parquet"


def sealed_weights(folder: Path) -> Path:
    path = folder / "a.safetensors"
    save_file({"w": np.arange(6, dtype=np.float32)}, path, metadata={"encoder": "timm/x", SEAL: UNSEALED})
    seal(path)
    return path


@pytest.mark.parametrize("write", [sealed_json, sealed_table, sealed_weights], ids=["json", "parquet", "safetensors"])
def test_every_byte_is_under_the_seal(tmp_path: Path, write: object) -> None:
    path: Path = write(tmp_path)  # type: ignore[operator]
    content = path.read_bytes()
    assert broken_seal(path) is None
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert broken_seal(path) in {"altered", "truncated"}, place  # a wrong last byte looks as if cut
    path.write_bytes(content)
    assert broken_seal(path) is None


@pytest.mark.parametrize(
    ("write", "kind"), [(sealed_json, "truncated"), (sealed_table, "truncated")], ids=["json", "table"]
)
def test_what_is_cut_is_called_truncated(tmp_path: Path, write: object, kind: str) -> None:
    path: Path = write(tmp_path)  # type: ignore[operator]
    content = path.read_bytes()
    for size in (0, 5, len(content) - 2):
        path.write_bytes(content[:size])
        assert broken_seal(path) == kind
    path.unlink()
    assert broken_seal(path) == "missing"


def test_a_sealed_table_reads_as_before(tmp_path: Path) -> None:
    assert pq.read_table(sealed_table(tmp_path)).to_pydict() == {"x": [1, 2, 3]}
    (tmp_path / "plain").write_text("no mark")
    assert not has_seal(tmp_path / "plain")
    with pytest.raises(ValueError, match="holds no 'reelwright-seal"):
        seal(tmp_path / "plain")


def item(folder: Path, *, codec: str) -> Path:
    """Seven rows in shards of four and chunks of two: an unfilled last shard, and a chunk of nothing but zeros."""
    group = zarr.create_group(folder / ".partial-v", attributes={"size": [1]})
    values = np.arange(21, dtype=np.float32).reshape(7, 3)
    values[2:4] = 0
    layout = ArrayLayout(shape=values.shape, dtype=values.dtype, chunk_rows=2, shard_rows=4, codec=codec)
    for name in ("start_seconds", "pooled"):
        create_array(group, name, layout)[:] = values
    publish(folder / ".partial-v", folder / "v")
    return folder / "v"


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_every_byte_of_an_item_counts(tmp_path: Path, codec: str) -> None:
    folder = item(tmp_path, codec=codec)
    row = ItemRow(digest="v", status="ok", rows=7)
    assert list(check_item(folder, row)) == []
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) == 1 + 2 * (1 + 2)
    for path in files:
        content = path.read_bytes()
        for place in range(len(content)) if path.name == "0" and "pooled" in path.parts else (0, len(content) // 2, -1):
            changed = bytearray(content)
            changed[place] ^= 128
            path.write_bytes(changed)
            assert [problem.path for problem in check_item(folder, row)] == [path], place
        path.write_bytes(content)


def test_missing_cut_foreign_and_fewer_rows_than_listed(tmp_path: Path) -> None:
    folder = item(tmp_path, codec="none")
    message = [(problem.kind, problem.what) for problem in check_item(folder, ItemRow(digest="v", status="ok", rows=8))]
    assert message == [("altered", "has 7 rows, the ledger says 8")]
    shard = folder / "pooled" / "c" / "1" / "0"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert [problem.kind for problem in check_item(folder)] == ["truncated"]
    shard.unlink()
    assert [(problem.path, problem.kind) for problem in check_item(folder)] == [(shard, "missing")]
    shard.write_bytes(content)
    (folder / "pooled" / "c" / "2.abc.partial").write_bytes(b"")
    (folder / "pooled" / "notes").write_text("mine")
    assert {problem.path.name: problem.kind for problem in check_item(folder)} == {
        "2.abc.partial": "leftover",
        "notes": "foreign",
    }


def test_bytes_between_chunks_are_told(tmp_path: Path) -> None:
    shard = item(tmp_path, codec="none") / "pooled" / "c" / "0" / "0"
    metadata = {
        "chunk_grid": {"configuration": {"chunk_shape": [4, 3]}},
        "codecs": [
            {"configuration": {"chunk_shape": [2, 3], "index_location": "end", "codecs": [{}, {"name": "crc32c"}]}}
        ],
    }
    assert broken_shard(shard, metadata) is None
    content = shard.read_bytes()
    shard.write_bytes(content[:28] + b"???" + content[28:])
    assert broken_shard(shard, metadata) == "3 bytes belong to no chunk"
    shard.write_bytes(b"short")
    assert broken_shard(shard, metadata) == "has 5 bytes, fewer than its index of 36"


def test_weights_that_a_person_put_there_are_held_to_their_first_use(tmp_path: Path) -> None:
    path, store = tmp_path / "w.safetensors", Store(tmp_path)
    save_file({"w": np.zeros(3, dtype=np.float32)}, path)
    assert list(check_weights(store, path)) == []
    known = KnownFiles(store.files)
    known.digest(path)
    known.save()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [problem.kind for problem in check_weights(store, path)] == ["altered"]
    path.unlink()
    assert [problem.kind for problem in check_weights(store, path)] == ["missing"]
