"""Videos of which only the end tells how many rows there are: stored as those of which it was known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reelwright.stages.base.work import SilentReporter
from reelwright.stages.embed.sink import OutputRows, StoreSink
from reelwright.storage.arrays.embedding_writer import EmbeddingWriter, RowLayout
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.ledger.items import ItemLedger, ItemRow

LAYOUT = RowLayout(outputs={"pooled": (3,)}, dtype="float32", shard_rows=4, chunk_bytes=12)


def sink_at(folder: Path) -> StoreSink:
    writer = EmbeddingWriter.create(folder / "rows.zarr", {"spec": {}}, layout=LAYOUT)
    return StoreSink(writer, ledger=ItemLedger(folder / "node"), reporter=SilentReporter())


def send(sink: StoreSink, start: int, stop: int) -> None:
    numbers = np.arange(start, stop)
    values = np.repeat(numbers[:, None], 3, axis=1).astype(np.float32)
    sink.rows("v", OutputRows(start, {"pooled": values}, Spans(numbers / 2, (numbers + 1) / 2, numbers, numbers + 1)))


@pytest.mark.parametrize("killed_at", [None, 3, 9], ids=str)
@pytest.mark.parametrize("num_rows", [1, 3, 4, 5, 8, 11, 12])
def test_rows_and_layout_are_those_of_a_known_video(tmp_path: Path, num_rows: int, killed_at: int | None) -> None:
    start = 0
    if killed_at is not None and killed_at < num_rows:
        killed = sink_at(tmp_path / "open")
        assert killed.begin("v", num_rows=None) == 0
        send(killed, 0, killed_at)
        start = killed_at // 4 * 4
    sink = sink_at(tmp_path / "open")
    assert sink.start_row("v") == start
    assert sink.begin("v", num_rows=None) == start
    for at in range(start, num_rows, 3):
        send(sink, at, min(at + 3, num_rows))
    sink.finish(ItemRow(digest="v", status="ok", rows=num_rows))
    known = sink_at(tmp_path / "known")
    known.begin("v", num_rows=num_rows)
    send(known, 0, num_rows)
    known.finish(ItemRow(digest="v", status="ok", rows=num_rows))
    ours, theirs = (EmbeddingStore(tmp_path / name / "rows.zarr").rows("v") for name in ("open", "known"))
    np.testing.assert_array_equal(ours.output("pooled"), theirs.output("pooled"))
    np.testing.assert_array_equal(ours.spans.stop_seconds, theirs.spans.stop_seconds)
    assert len(ours.output("pooled")) == num_rows
