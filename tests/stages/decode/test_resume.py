"""Decoding into the frame store goes on at the next shard after a kill, with the very bytes it would have had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.readers.pyav import PyavReader
from reelwright.stages.decode.store_tasks import store_video
from reelwright.stages.decode.tasks import stream_video
from reelwright.storage.arrays import frame_coders
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ItemError
from tests.small_project import write_video

CONFIG = DecodeConfig(fps=10, short_side=32).model_dump(mode="json")
ROW_BYTES = 32 * 32 * 3


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of 60 frames; a shard has 16 rows."""
    monkeypatch.setattr(frame_coders, "CHUNK_BYTES", 4 * ROW_BYTES)
    monkeypatch.setattr(frame_coders, "SHARD_BYTES", 16 * ROW_BYTES)
    write_video(tmp_path / "v.mp4", seed=3, num_frames=60)
    return tmp_path / "v.mp4"


def decode(video: Path, store: Path, backend: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    FrameStore.create(store, {"fps": 10.0})
    return store_video(
        path=str(video), config=CONFIG, backend=backend, num_threads=1, store=str(store), digest="d" * 32
    )


def files(store: Path) -> dict[str, str]:
    return {path.relative_to(store).as_posix(): file_digest(path) for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize(("rows_before", "kept"), [(8, 0), (40, 32), (56, 48)], ids=str)
def test_a_long_video_goes_on_in_its_middle(
    video: Path, tmp_path: Path, backend: str, rows_before: int, kept: int
) -> None:
    list(decode(video, tmp_path / "undisturbed.zarr", backend))
    killed = decode(video, tmp_path / "a.zarr", backend)
    done = 0
    while done < rows_before:
        done += next(killed)[0].get("rows", 0)
    # It is kept and not closed, as a process that is killed cleans nothing away.
    bodies = [body for body, _ in decode(video, tmp_path / "a.zarr", backend)]
    rows = [body["rows"] for body in bodies if body["event"] == "rows"]
    assert rows[0] == (kept or 8)
    assert sum(rows) == bodies[-1]["rows"] == 60
    assert files(tmp_path / "a.zarr") == files(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_another_backend_begins_anew(video: Path, tmp_path: Path, backend: str) -> None:
    killed = decode(video, tmp_path / "a.zarr", backend)
    for _ in range(5):
        next(killed)
    other = {"decord": "pyav", "pyav": "decord"}[backend]
    bodies = [body for body, _ in decode(video, tmp_path / "a.zarr", other)]
    assert next(body["rows"] for body in bodies if body["event"] == "rows") == 8
    assert [path.name for path in (tmp_path / "a.zarr").iterdir() if path.is_dir()] == ["d" * 32]


def test_damage_after_the_rows_that_are_there_is_no_failure(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video that is cut off right where work goes on: truncated, as it would be without the interruption."""

    def broken(reader: object, wanted: np.ndarray) -> Iterator[Any]:
        raise ItemError("damaged", "no more", status="truncated")
        yield

    monkeypatch.setattr(PyavReader, "read", broken)
    arguments = {"path": str(video), "config": CONFIG, "backend": "pyav", "num_threads": 1}
    with pytest.raises(ItemError, match=r"32 of 60 rows are there, then no more") as message:
        list(stream_video(**arguments, chunk_rows=8, start_row=32))
    assert message.value.status == "truncated"
    with pytest.raises(ItemError, match="no row could be decoded") as message:
        list(stream_video(**arguments, chunk_rows=8, start_row=0))
    assert message.value.status == "failed"
