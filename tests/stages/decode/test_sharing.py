"""Shards of a long video's frames, written by several processes in any order: the bytes that one process writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.decode.store_tasks import share_video
from reelwright.storage.arrays.frame_writer import SharedFrames
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import ItemError
from tests.stages.decode.test_resume import CONFIG, decode, files, video

__all__ = ["video"]
DIGEST = "d" * 32


def share(video: Path, store: Path, start: int, stop: int, *, backend: str = "decord") -> None:
    FrameStore.create(store, {"fps": 10.0})
    fixed: dict[str, Any] = {"config": CONFIG, "num_threads": 1, "store": str(store), "digest": DIGEST}
    list(share_video(path=str(video), backend=backend, start=start, stop=stop, **fixed))


def shared(store: Path) -> SharedFrames:
    found = SharedFrames.find(store, DIGEST)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_shards_in_any_order_are_those_of_one_process(video: Path, tmp_path: Path, backend: str) -> None:
    list(decode(video, tmp_path / "one.zarr", backend))
    store = tmp_path / "many.zarr"
    share(video, store, 0, 0, backend=backend)
    assert (shared(store).num_rows, shared(store).shard_rows, shared(store).num_shards) == (60, 16, 4)
    for start, stop, missing in ((3, 4, [0, 1, 2]), (1, 3, [0]), (0, 1, [])):
        share(video, store, start, stop, backend=backend)
        assert shared(store).missing_shards() == missing
    assert SharedFrames.find(store, DIGEST)[1] == backend
    assert shared(store).commit() > 0
    assert files(store) == files(tmp_path / "one.zarr")
    assert SharedFrames.find(store, DIGEST) is None


def test_one_process_goes_on_where_several_were_and_the_other_way_round(video: Path, tmp_path: Path) -> None:
    list(decode(video, tmp_path / "one.zarr", "decord"))
    share(video, tmp_path / "a.zarr", 0, 0)
    share(video, tmp_path / "a.zarr", 0, 2)
    share(video, tmp_path / "a.zarr", 3, 4)
    bodies = [body for body, _ in decode(video, tmp_path / "a.zarr", "decord")]
    assert [body["rows"] for body in bodies if body["event"] == "rows"] == [32, 8, 8, 8, 4]
    killed = decode(video, tmp_path / "b.zarr", "decord")
    done = 0
    while done < 40:
        done += next(killed)[0].get("rows", 0)
    share(video, tmp_path / "b.zarr", 0, 0)
    missing = shared(tmp_path / "b.zarr").missing_shards()
    assert missing == [2, 3]
    share(video, tmp_path / "b.zarr", 2, 4)
    shared(tmp_path / "b.zarr").commit()
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr") == files(tmp_path / "one.zarr")


def test_a_cut_shard_is_missing_and_is_written_again(video: Path, tmp_path: Path) -> None:
    list(decode(video, tmp_path / "one.zarr", "decord"))
    store = tmp_path / "many.zarr"
    share(video, store, 0, 0)
    share(video, store, 0, 4)
    shard = store / f".partial-{DIGEST}-decord/frame/c/2/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-7])
    assert shared(store).missing_shards() == [2]
    share(video, store, 2, 3)
    shared(store).commit()
    assert files(store) == files(tmp_path / "one.zarr")


def test_other_rows_than_it_was_begun_for_are_refused(video: Path, tmp_path: Path) -> None:
    store = tmp_path / "many.zarr"
    share(video, store, 0, 0)
    fixed: dict[str, Any] = {"num_threads": 1, "store": str(store), "digest": DIGEST, "backend": "decord"}
    with pytest.raises(ItemError, match="12 rows, but its arrays were made for 60"):
        list(share_video(path=str(video), config={**CONFIG, "fps": 2.0}, start=0, stop=1, **fixed))
    assert shared(store).missing_shards() == [0, 1, 2, 3]


def test_a_shard_that_is_not_whole_is_not_written(video: Path, tmp_path: Path) -> None:
    share(video, tmp_path / "many.zarr", 0, 0)
    shared(tmp_path / "many.zarr").write_shard(1, np.zeros((15, 32, 32, 3), np.uint8))
    assert shared(tmp_path / "many.zarr").missing_shards() == [0, 1, 2, 3]
