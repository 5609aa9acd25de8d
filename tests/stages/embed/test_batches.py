"""Batches across videos, and batches that stay inside a shard."""

import numpy as np
import pytest

from reelwright.stages.embed.batches import Batcher, Owner
from reelwright.stages.embed.clips import InputRows
from reelwright.storage.arrays.spans import Spans

A, B = Owner("a", 0), Owner("b", 0)


def rows(start, count):
    numbers = np.arange(start, start + count)
    spans = Spans(numbers / 5, numbers / 5 + 0.1, numbers, numbers + 1)
    return InputRows(start, np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (count, 1, 1, 3)), spans)


def message(batches):
    """What is in each batch: (video, first row, rows)."""
    return [[(part.owner.digest, part.rows.start, len(part)) for part in batch.parts] for batch in batches]


def test_short_videos_share_a_batch():
    batcher = Batcher()
    found = [*batcher.add(A, rows(0, 3), batch_size=4), *batcher.add(B, rows(0, 6), batch_size=4), *batcher.flush()]
    assert message(found) == [[("a", 0, 3), ("b", 0, 1)], [("b", 1, 4)], [("b", 5, 1)]]
    assert found[0].frames()[:, 0, 0, 0].tolist() == [0, 1, 2, 0]
    assert found[1].parts[0].rows.spans.source_start.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("start", [0, 4], ids=["from-the-start", "resumed"])
def test_batches_inside_shards_do_not_depend_on_what_else_comes(start):
    batcher = Batcher(shard_rows=4)
    found = [
        *batcher.add(A, rows(start, 5 - start % 5 if start else 5), batch_size=3),
        *batcher.add(B, rows(0, 2), batch_size=3),
        *batcher.add(A, rows(5, 4), batch_size=3),
        *batcher.flush(A),
        *batcher.flush(B),
    ]
    of_a = [parts for parts in message(found) if parts[0][0] == "a"]
    rows_of_batches = [[row for _, first, count in parts for row in range(first, first + count)] for parts in of_a]
    assert rows_of_batches[0 if start else 2 :] == [[4, 5, 6], [7], [8]]
    assert message(found)[-1] == [("b", 0, 2)]


def test_a_batch_size_halved_meanwhile_closes_the_batch():
    batcher = Batcher()
    assert not list(batcher.add(A, rows(0, 5), batch_size=8))
    found = [*batcher.add(A, rows(5, 3), batch_size=2), *batcher.flush()]
    assert sum(batch.size for batch in found) == 8
    assert message(found)[0] == [("a", 0, 5), ("a", 5, 1)]
