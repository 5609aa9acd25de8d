"""The embedding store: what is written is read back, by us and by plain zarr; interrupted videos go on."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr

from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import StoreError

OUTPUTS = {"pooled": (6,), "layer9.tokens": (3, 4), "map": (2, 3, 3)}
ATTRIBUTES = {"spec": {"encoder": "timm/x", "outputs": ["pooled"]}, "weights_digest": "abc"}


def layout(**changes):
    return RowLayout(**{"outputs": OUTPUTS, "shard_rows": 8, "chunk_bytes": 48, **changes})


def values(start, stop, *, dtype="float16"):
    rng = np.random.default_rng(0)
    whole = {name: rng.standard_normal((64, *shape)).astype(dtype) for name, shape in OUTPUTS.items()}
    return {name: array[start:stop] for name, array in whole.items()}


def spans(start, stop):
    rows = np.arange(start, stop)
    return Spans(rows / 5, rows / 5 + 0.04, rows * 5, rows * 5 + 1)


def write(writer, digest, num_rows, *, shards=None, finish=True):
    start = writer.begin(digest, num_rows=num_rows)
    size = writer.shard_rows(digest)
    for index in range(start // size, shards if shards is not None else -(-num_rows // size)):
        part = (index * size, min(num_rows, (index + 1) * size))
        writer.write_shard(digest, index, arrays=values(*part), spans=spans(*part))
    return writer.finish(digest, num_rows=num_rows) if finish else None


@pytest.fixture
def writer(tmp_path):
    return EmbeddingWriter.create(
        tmp_path / "e.zarr", ATTRIBUTES, layout=layout(), item_attributes={"versions": {"torch": "1"}}
    )


@pytest.mark.parametrize("num_rows", [1, 5, 8, 9, 29], ids=lambda rows: f"{rows}-rows")
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_rows_come_back(tmp_path, num_rows, codec):
    writer = EmbeddingWriter.create(tmp_path / "e.zarr", ATTRIBUTES, layout=layout(codec=codec))
    stored = write(writer, "v", num_rows)
    rows = EmbeddingStore(tmp_path / "e.zarr").rows("v")
    assert rows.num_rows == num_rows
    assert rows.outputs == tuple(OUTPUTS)
    for name, expected in values(0, num_rows).items():
        assert np.array_equal(rows.output(name), expected)
        assert rows.output(name).dtype == np.float16
        assert rows.row_shape(name) == OUTPUTS[name]
    assert np.array_equal(rows.output("pooled", 1, 4), values(0, num_rows)["pooled"][1:4])
    assert np.array_equal(rows.spans.start_seconds, np.arange(num_rows) / 5)
    assert np.array_equal(rows.spans.source_stop, np.arange(num_rows) * 5 + 1)
    assert stored >= num_rows * (6 + 12 + 18) * 2 * 0.5


def test_store_explains_itself(writer, tmp_path):
    write(writer, "v", 3)
    store = EmbeddingStore(tmp_path / "e.zarr")
    assert store.spec["weights_digest"] == "abc"
    assert store.spec["outputs"] == {"pooled": [6], "layer9.tokens": [3, 4], "map": [2, 3, 3]}
    assert store.rows("v").attributes == {"versions": {"torch": "1"}}


def test_plain_zarr_opens_it_without_a_warning(writer, tmp_path):
    write(writer, "v", 20)
    program = (
        "import json, sys, warnings; warnings.simplefilter('error'); import zarr; "
        "g = zarr.open_group(sys.argv[1], mode='r'); v = g['v']; "
        "print(json.dumps([v['layer9.tokens'][19].tolist(), v['start_seconds'][:].tolist(), "
        "list(v['pooled'].metadata.dimension_names), dict(g.attrs)['spec']['encoder'], sorted(v.array_keys())]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "e.zarr")], capture_output=True, text=True, check=True
    )
    tokens, seconds, axes, encoder, names = json.loads(run.stdout)
    assert np.array_equal(np.array(tokens, dtype="float16"), values(0, 20)["layer9.tokens"][19])
    assert seconds == (np.arange(20) / 5).tolist()
    assert (axes, encoder) == (["time", "feature"], "timm/x")
    assert names == sorted([*OUTPUTS, "start_seconds", "stop_seconds", "source_start", "source_stop"])
    assert run.stderr == ""


def test_unfinished_video_is_not_there_and_goes_on_at_the_missing_shard(writer, tmp_path):
    write(writer, "v", 29, shards=2, finish=False)
    store = EmbeddingStore(tmp_path / "e.zarr")
    assert store.digests() == []
    assert "v" not in store
    again = EmbeddingWriter.create(tmp_path / "e.zarr", ATTRIBUTES, layout=layout())
    assert again.resume_row("v") == 16
    assert again.begin("v", num_rows=29) == 16
    write(again, "v", 29)
    for name, expected in values(0, 29).items():
        assert np.array_equal(store.rows("v").output(name), expected)
    assert again.resume_row("v") == 0


def test_shard_of_zeros_counts_as_written(writer):
    writer.begin("v", num_rows=16)
    zeros = {name: np.zeros((8, *shape), "float16") for name, shape in OUTPUTS.items()}
    writer.write_shard("v", 0, arrays=zeros, spans=Spans(*(np.zeros(8) for _ in range(4))))
    assert writer.next_missing_shard("v") == 1


def test_shard_with_one_file_missing_is_done_again(writer, tmp_path):
    write(writer, "v", 29, shards=3, finish=False)
    (tmp_path / "e.zarr" / ".partial-v" / "map" / "c" / "1" / "0" / "0" / "0").unlink()
    assert writer.next_missing_shard("v") == 1


@pytest.mark.parametrize("kept", [0, 4, -1], ids=["empty", "a few bytes", "all but one byte"])
def test_shard_with_a_file_that_is_cut_off_is_done_again(writer, tmp_path, kept):
    write(writer, "v", 29, shards=3, finish=False)
    path = tmp_path / "e.zarr" / ".partial-v" / "pooled" / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[:kept])
    again = EmbeddingWriter.create(tmp_path / "e.zarr", ATTRIBUTES, layout=layout())
    assert again.begin("v", num_rows=29) == 8
    for start in (8, 16, 24):
        stop = min(29, start + 8)
        again.write_shard("v", start // 8, arrays=values(start, stop), spans=spans(start, stop))
    again.finish("v", num_rows=29)
    assert np.array_equal(EmbeddingStore(tmp_path / "e.zarr").rows("v").output("pooled"), values(0, 29)["pooled"])


def test_half_a_chunk_that_a_killed_process_left_is_not_published(writer, tmp_path):
    write(writer, "v", 29, shards=3, finish=False)
    left = tmp_path / "e.zarr" / ".partial-v" / "pooled" / "c" / "1" / "0.0123.partial"
    left.write_bytes(b"half")
    again = EmbeddingWriter.create(tmp_path / "e.zarr", ATTRIBUTES, layout=layout())
    assert again.begin("v", num_rows=29) == 24
    again.write_shard("v", 3, arrays=values(24, 29), spans=spans(24, 29))
    again.finish("v", num_rows=29)
    assert list((tmp_path / "e.zarr").rglob("*.partial")) == []
    assert np.array_equal(EmbeddingStore(tmp_path / "e.zarr").rows("v").output("pooled"), values(0, 29)["pooled"])


def test_other_number_of_rows_begins_anew(writer):
    write(writer, "v", 29, shards=2, finish=False)
    assert writer.begin("v", num_rows=30) == 0


def test_truncated_video_is_cut(writer, tmp_path):
    writer.begin("v", num_rows=29)
    writer.write_shard("v", 0, arrays=values(0, 8), spans=spans(0, 8))
    writer.write_shard("v", 1, arrays=values(8, 11), spans=spans(8, 11))
    writer.finish("v", num_rows=11)
    rows = EmbeddingStore(tmp_path / "e.zarr").rows("v")
    assert rows.num_rows == 11
    assert np.array_equal(rows.output("map"), values(0, 11)["map"])
    assert np.array_equal(rows.spans.source_start, np.arange(11) * 5)


def test_writing_again_replaces(writer, tmp_path):
    write(writer, "v", 29)
    write(writer, "v", 5)
    assert EmbeddingStore(tmp_path / "e.zarr").rows("v").num_rows == 5
    assert sorted(path.name for path in (tmp_path / "e.zarr").iterdir()) == ["v", "zarr.json"]


def test_discard_leaves_nothing(writer, tmp_path):
    write(writer, "v", 29, shards=2, finish=False)
    writer.discard("v")
    assert [path.name for path in (tmp_path / "e.zarr").iterdir()] == ["zarr.json"]


def test_damaged_chunk_is_seen(writer, tmp_path):
    write(writer, "v", 8)
    shard = tmp_path / "e.zarr" / "v" / "pooled" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="'pooled' of video v cannot be read"):
        EmbeddingStore(tmp_path / "e.zarr").rows("v").output("pooled")


def test_what_is_not_there_is_named(writer, tmp_path):
    write(writer, "v", 3)
    store = EmbeddingStore(tmp_path / "e.zarr")
    with pytest.raises(StoreError, match="video 'w' has no embeddings in"):
        store.rows("w")
    with pytest.raises(StoreError, match=r"output 'layer8.tokens' is not stored .* Did you mean 'layer9.tokens'"):
        store.rows("v").output("layer8.tokens")
    with pytest.raises(StoreError, match="is not there, or no Zarr v3 group"):
        EmbeddingStore(tmp_path / "none.zarr")


def test_another_spec_under_the_same_key_is_refused(writer, tmp_path):
    with pytest.raises(StoreError, match="holds another spec"):
        EmbeddingWriter.create(tmp_path / "e.zarr", {**ATTRIBUTES, "weights_digest": "other"}, layout=layout())


@pytest.mark.parametrize(
    ("shape", "num_rows", "chunk", "shard"),
    [((384,), 100, 100, 1024), ((384,), 520, 260, 1024), ((384,), 5000, 256, 1024), ((197, 768), 300, 1, 64)],
    ids=["short", "balanced", "long", "big-rows"],
)
def test_layout(shape, num_rows, chunk, shard):
    chosen = RowLayout(outputs={"x": shape}, chunk_bytes=1 << 18)
    assert chosen.rows_per_chunk("x", num_rows=num_rows) == chunk
    assert chosen.rows_per_shard() == shard


def test_chunks_carry_a_checksum_and_align_with_shards(writer, tmp_path):
    write(writer, "v", 29)
    array = zarr.open_group(tmp_path / "e.zarr", mode="r")["v/map"]
    inner = json.loads((tmp_path / "e.zarr/v/map/zarr.json").read_text())["codecs"][0]["configuration"]["codecs"]
    assert inner[-1]["name"] == "crc32c"
    assert array.shards[0] == 8
    assert array.shards[0] % array.chunks[0] == 0
