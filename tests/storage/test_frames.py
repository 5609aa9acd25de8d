"""The frame store: what is written comes back, plain zarr-python opens it, and half-written videos are not there."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from reelwright.storage.arrays import frame_coders as module
from reelwright.storage.arrays.frame_writer import FrameWriter, SharedFrames
from reelwright.storage.arrays.frames import FrameLayout, FrameStore
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.errors import ItemError, StoreError, UnusableStoreError

DIGEST = "d" * 32
SPEC = {"fps": 10.0, "size": None}


def times(rows: int) -> RowTimes:
    start = np.arange(rows) / 10
    return RowTimes(source_frame=np.arange(rows) * 3, pts_seconds=start, stop_seconds=start + 0.1)


def pictures(rows: int, height: int = 20, width: int = 32) -> np.ndarray:
    ramp = np.arange(height)[:, None, None] + np.arange(width)[None, :, None] + np.array([0, 40, 80])
    return np.stack([ramp + 2 * row for row in range(rows)]).clip(0, 255).astype(np.uint8)


def write(path: Path, data: np.ndarray, *, planned: int | None = None, layout: FrameLayout | None = None) -> int:
    FrameStore.create(path, SPEC)
    with FrameWriter(path, DIGEST, times(planned or len(data)), layout or FrameLayout()) as writer:
        for start in range(0, len(data), 7):
            writer.append(data[start : start + 7])
        return writer.commit()


@pytest.fixture(params=["one-shard", "many-shards"])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many-shards":
        monkeypatch.setattr(module, "CHUNK_BYTES", 2 * 20 * 32 * 3)
        monkeypatch.setattr(module, "SHARD_BYTES", 1 << 14)
        monkeypatch.setattr(module, "JPEG_CHUNK_BYTES", 1 << 10)


@pytest.mark.usefixtures("_sizes")
@pytest.mark.parametrize("layout", [FrameLayout(), FrameLayout("jpeg", 95)], ids=["lossless", "jpeg"])
@pytest.mark.parametrize(("rows", "planned"), [(50, 50), (1, 1), (23, 50)], ids=["full", "one", "truncated"])
def test_what_is_written_comes_back(tmp_path: Path, layout: FrameLayout, rows: int, planned: int) -> None:
    data = pictures(rows)
    assert write(tmp_path / "a.zarr", data, planned=planned, layout=layout) > 0
    store = FrameStore(tmp_path / "a.zarr")
    assert (store.digests(), store.spec) == ([DIGEST], SPEC)
    found = store.rows(DIGEST)
    assert (found.num_rows, found.frame_size) == (rows, (20, 32))
    np.testing.assert_array_equal(found.source_frame, np.arange(rows) * 3)
    np.testing.assert_array_equal(found.pts_seconds, np.arange(rows) / 10)
    np.testing.assert_array_equal(found.stop_seconds, np.arange(rows) / 10 + 0.1)
    allowed = 0 if layout.codec == "lossless" else 12
    assert np.abs(found.read(0, rows).astype(int) - data).max() <= allowed
    wanted = [rows - 1, 0, 0, rows // 2]
    np.testing.assert_array_equal(found.take(wanted), found.read(0, rows)[wanted])
    assert found.read(rows // 2, rows // 2).shape == (0, 20, 32, 3)
    with pytest.raises(IndexError, match=rf"rows \[0, {rows + 1}\) are not within the {rows} rows"):
        found.read(0, rows + 1)


def test_plain_zarr_opens_it(tmp_path: Path) -> None:
    data = pictures(9)
    write(tmp_path / "a.zarr", data)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert root.attrs["spec"] == SPEC
    np.testing.assert_array_equal(root[DIGEST]["frame"][3:5], data[3:5])
    np.testing.assert_array_equal(root[DIGEST]["pts_seconds"][:], np.arange(9) / 10)


def test_plain_zarr_and_pillow_open_jpeg(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", pictures(9), layout=FrameLayout("jpeg", 95))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")[DIGEST]
    begin, end = group["jpeg_start"][4:6]
    picture = np.asarray(Image.open(io.BytesIO(group["frame_jpeg"][begin:end].tobytes())))
    np.testing.assert_array_equal(picture, FrameStore(tmp_path / "a.zarr").rows(DIGEST).read(4, 5)[0])


def test_an_unfinished_video_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    FrameStore.create(path, SPEC)
    writer = FrameWriter(path, DIGEST, times(9), FrameLayout())
    writer.append(pictures(4))  # and then the process is killed
    assert FrameStore(path).digests() == []
    with pytest.raises(StoreError, match=r"are not in .* Run decode"):
        FrameStore(path).rows(DIGEST)
    write(path, pictures(9))
    assert [entry.name for entry in path.iterdir() if entry.is_dir()] == [DIGEST]


def test_leaving_without_commit_removes_what_was_written(tmp_path: Path) -> None:
    FrameStore.create(tmp_path / "a.zarr", SPEC)
    with FrameWriter(tmp_path / "a.zarr", DIGEST, times(9), FrameLayout()) as writer:
        writer.append(pictures(4))
    assert [entry for entry in (tmp_path / "a.zarr").iterdir() if entry.is_dir()] == []


def test_writing_again_replaces(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", pictures(9))
    write(tmp_path / "a.zarr", pictures(5))
    assert FrameStore(tmp_path / "a.zarr").rows(DIGEST).num_rows == 5


def test_a_damaged_chunk_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", pictures(9))
    shard = next(path for path in (tmp_path / "a.zarr" / DIGEST / "frame").rglob("c/**/*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[10] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)checksum|crc"):
        FrameStore(tmp_path / "a.zarr").rows(DIGEST).read(0, 9)


def test_one_spec_per_store(tmp_path: Path) -> None:
    FrameStore.create(tmp_path / "a.zarr", SPEC)
    with pytest.raises(StoreError, match="holds another spec"):
        FrameStore.create(tmp_path / "a.zarr", {"fps": 5.0})


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a process left that was killed after 30 of 50 rows; a shard has 8 rows."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * 20 * 32 * 3)
    monkeypatch.setattr(module, "SHARD_BYTES", 8 * 20 * 32 * 3)
    path = tmp_path / "a.zarr"
    FrameStore.create(path, SPEC)
    FrameWriter(path, DIGEST, times(50), FrameLayout(), tag="pyav").append(pictures(50)[:30])
    return path


def shards(path: Path) -> dict[str, int]:
    return {file.parents[2].name: file.stat().st_ino for file in path.rglob("frame/c/*/0/0/0")}


def test_a_killed_writer_is_gone_on_from_at_its_next_shard(killed: Path) -> None:
    before = shards(killed)
    assert len(before) == 3
    with FrameWriter(killed, DIGEST, times(50), FrameLayout(), tag="pyav") as writer:
        assert writer.num_rows == 24
        writer.append(pictures(50)[24:])
        writer.commit()
    np.testing.assert_array_equal(FrameStore(killed).rows(DIGEST).read(0, 50), pictures(50))
    after = shards(killed)
    assert {name: after[name] for name in before} == before
    assert not list(killed.glob(".partial-*"))


def test_black_shards_count_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes, and of one that goes on: it would decode all behind them again, and again."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * 20 * 32 * 3)
    monkeypatch.setattr(module, "SHARD_BYTES", 1 << 14)
    FrameStore.create(tmp_path, SPEC)
    shared = SharedFrames(tmp_path, DIGEST, tag="pyav")
    shared.begin(times(24), (20, 32))
    data = pictures(24)
    data[8:16] = 0
    for index in range(3):
        shared.write_shard(index, data[8 * index : 8 * index + 8])
    assert shared.missing_shards() == []
    with FrameWriter(tmp_path, DIGEST, times(24), FrameLayout(), tag="pyav") as writer:
        assert writer.num_rows == 24
        writer.commit()
    np.testing.assert_array_equal(FrameStore(tmp_path).rows(DIGEST).read(0, 24), data)
    killed = FrameWriter(tmp_path, "e" * 32, times(24), FrameLayout(), tag="pyav")
    killed.append(data[:16])
    with FrameWriter(tmp_path, "e" * 32, times(24), FrameLayout(), tag="pyav") as writer:
        assert writer.num_rows == 16


def test_what_a_killed_writer_left_may_turn_out_to_be_cut(killed: Path) -> None:
    with FrameWriter(killed, DIGEST, times(50), FrameLayout(), tag="pyav") as writer:
        writer.append(pictures(50)[24:27])
        writer.commit()
    found = FrameStore(killed).rows(DIGEST)
    assert (found.num_rows, len(found.pts_seconds)) == (27, 27)
    np.testing.assert_array_equal(found.read(0, 27), pictures(50)[:27])


def test_shards_that_are_all_there_need_only_be_published(killed: Path) -> None:
    writer = FrameWriter(killed, DIGEST, times(50), FrameLayout(), tag="pyav")
    writer.append(pictures(50)[24:])
    writer._coder.finish(50)
    with FrameWriter(killed, DIGEST, times(50), FrameLayout(), tag="pyav") as again:
        assert again.num_rows == 50
        again.commit()
    np.testing.assert_array_equal(FrameStore(killed).rows(DIGEST).read(0, 50), pictures(50))


@pytest.mark.parametrize(
    ("rows", "tag", "cut", "kept"),
    [(50, "pyav", 1, 8), (50, "decord", None, 0), (49, "pyav", None, 0)],
    ids=["a shard cut off", "another backend", "other times"],
)
def test_only_what_is_the_same_and_whole_is_gone_on_from(
    killed: Path, rows: int, tag: str, cut: int | None, kept: int
) -> None:
    if cut is not None:
        (shard,) = killed.rglob(f"frame/c/{cut}/0/0/0")
        shard.write_bytes(shard.read_bytes()[:-1])
    with FrameWriter(killed, DIGEST, times(rows), FrameLayout(), tag=tag) as writer:
        assert writer.num_rows == kept
        writer.append(pictures(50)[kept:rows])
        writer.commit()
    np.testing.assert_array_equal(FrameStore(killed).rows(DIGEST).read(0, rows), pictures(50)[:rows])
    assert not list(killed.glob(".partial-*"))


def test_a_full_disk_leaves_the_shards_another_error_does_not(killed: Path) -> None:
    for error, left in ((UnusableStoreError("full"), 24), (ItemError("damaged", "x"), 0)):
        with (
            contextlib.suppress(type(error)),
            FrameWriter(killed, DIGEST, times(50), FrameLayout(), tag="pyav") as writer,
        ):
            assert writer.num_rows == 24
            raise error
        again = FrameWriter(killed, DIGEST, times(50), FrameLayout(), tag="pyav")
        assert again.num_rows == left
