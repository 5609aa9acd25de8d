"""The block: joined by time, averaged over positions, memory-mapped, checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.stages.datasets.feature_bank import load_block
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows
from reelwright.stages.datasets.stored_rows import read_video, split_missing
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans, join_by_time
from reelwright.storage.errors import InputError, StoreError


def _spans(*pairs):
    starts, stops = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    frames = np.arange(len(starts), dtype=np.int64)
    return Spans(starts, stops, frames, frames + 1)


FRAMES = _spans(*((row, row + 1) for row in range(6)))
JOINED = {
    "clips of three frames": (_spans((0, 3), (3, 6)), [0, 0, 0, 1, 1, 1]),
    "same rate": (FRAMES, [0, 1, 2, 3, 4, 5]),
    "one row": (_spans((2, 3)), [0, 0, 0, 0, 0, 0]),
    # middles 0.5 ... 5.5; [0, 4) has centre 2, [2, 6) has centre 4
    "overlapping clips": (_spans((0, 4), (2, 6)), [0, 0, 0, 1, 1, 1]),
    "gap": (_spans((0, 1), (5, 6)), [0, 0, 0, 1, 1, 1]),
    "late start": (_spans((3, 4), (4, 5)), [0, 0, 0, 0, 1, 1]),
    "unequal rows": (_spans((0, 0.4), (0.4, 5), (5, 6)), [1, 1, 1, 1, 1, 2]),
}


@pytest.mark.parametrize(("other", "expected"), JOINED.values(), ids=JOINED)
def test_rows_join_by_the_middle_of_time(other, expected):
    assert join_by_time(FRAMES, other).tolist() == expected


def _rows(num_rows, dim, *, first=0.0, dtype=np.float32):
    return (first + np.arange(num_rows * dim).reshape(num_rows, dim)).astype(dtype)


def _load(toy, names, keys=("emb",), *, output="pooled", memory_bytes=1 << 20):
    stores = [EmbeddingStore(toy.store.embeddings(key)) for key in keys]
    scratch = toy.root / "scratch"
    return load_block(stores, names, output=output, memory_bytes=memory_bytes, scratch=scratch)


@pytest.mark.parametrize("memory_bytes", [1 << 20, 1], ids=["memory", "mapped"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_windows_of_two_videos(toy, memory_bytes, dtype):
    toy.write("emb", "one", _rows(4, 2, dtype=dtype))
    toy.write("emb", "two", _rows(2, 2, first=100, dtype=dtype))
    block = _load(toy, {"one": "1", "two": "2"}, memory_bytes=memory_bytes)
    assert (toy.root / "scratch").exists() == (memory_bytes == 1)
    assert block.rows.dtype == (torch.float16 if dtype == np.float16 else torch.float32)
    shape = WindowShape(length=3)
    values, mask = block.gather(grid_windows(block.num_rows, shape), shape)
    assert values.dtype == torch.float32
    assert values[:, :, 0].tolist() == [[0, 2, 4], [2, 4, 6], [100, 102, 102]]
    assert mask.tolist() == [[True, True, True], [True, True, True], [True, True, False]]


def test_stores_of_other_rates_are_concatenated(toy, spans_of):
    toy.write("emb", "one", _rows(6, 2))
    toy.write("clips", "one", _rows(2, 3, first=50), spans=spans_of(2, seconds=1.5))
    block = _load(toy, {"one": "1"}, ("emb", "clips"))
    assert block.input_dim == 5
    assert block.rows[:, 2].tolist() == [50, 50, 50, 53, 53, 53]
    assert block.spans[0].stop_seconds.tolist() == spans_of(6).stop_seconds.tolist()


def test_rows_of_a_part_of_the_video_are_not_joined_with_the_rest(toy, spans_of):
    """As of a decode node with start or stop: its first or last row would stand for all that it has not seen."""
    toy.write("emb", "one", _rows(60, 2))
    whole = spans_of(60)
    toy.write("head", "one", _rows(20, 2), spans=whole.take(slice(0, 20)))
    toy.write("tail", "one", _rows(20, 2), spans=whole.take(slice(40, 60)))
    toy.write("but two", "one", _rows(56, 2), spans=whole.take(slice(2, 58)))
    for key in ("head", "tail"):
        with pytest.raises(
            InputError, match=r"embedding 1 lie in .* those of embedding 2 in .* the same start and stop"
        ):
            _load(toy, {"one": "1"}, ("emb", key))
        assert len(_load(toy, {"one": "1"}, (key, "emb")).rows) == 20
    assert _load(toy, {"one": "1"}, ("emb", "but two")).rows[:4, 2].tolist() == [0, 0, 0, 2]


def test_tokens_and_maps_are_averaged_over_positions(toy):
    generator = np.random.default_rng(0)
    tokens, maps = generator.random((3, 5, 4), np.float32), generator.random((3, 4, 2, 2), np.float32)
    toy.write("tok", "one", tokens, name="tokens")
    toy.write("map", "one", maps, name="map")
    np.testing.assert_allclose(_load(toy, {"one": "1"}, ("tok",), output="tokens").rows, tokens.mean(1), rtol=1e-6)
    np.testing.assert_allclose(_load(toy, {"one": "1"}, ("map",), output="map").rows, maps.mean((2, 3)), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(toy, value):
    rows = _rows(4, 2)
    rows[2:, 1] = value
    toy.write("emb", "one", rows)
    with pytest.raises(InputError, match=r"video 'kitchen': row 2 of its embeddings \(and 1 more\) holds NaN"):
        _load(toy, {"one": "kitchen"})


def test_an_output_that_is_not_stored_is_named(toy):
    toy.write("emb", "one", _rows(4, 2))
    with pytest.raises(StoreError, match="output 'tokens' is not stored"):
        _load(toy, {"one": "1"}, output="tokens")


def test_missing_videos_are_told_apart(toy):
    for key, digest in [("emb", "one"), ("emb", "two"), ("clips", "one")]:
        toy.write(key, digest, _rows(2, 2))
    stores = [EmbeddingStore(toy.store.embeddings(key)) for key in ("emb", "clips")]
    assert split_missing(stores, ["one", "two", "gone"]) == (["one"], ["gone", "two"])


def test_one_video_is_read_as_in_the_block(toy, spans_of):
    toy.write("emb", "one", _rows(6, 2, dtype=np.float16))
    toy.write("clips", "one", _rows(2, 3, first=50, dtype=np.float16), spans=spans_of(2, seconds=1.5))
    block = _load(toy, {"one": "1"}, ("emb", "clips"))
    stores = [EmbeddingStore(toy.store.embeddings(key)) for key in ("emb", "clips")]
    rows, spans = read_video(stores, "one", output="pooled")
    assert rows.dtype == np.float16
    assert rows.tolist() == block.rows.tolist()
    assert spans.source_stop.tolist() == [1, 2, 3, 4, 5, 6]
