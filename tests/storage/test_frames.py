"""The frame store: what is written comes back, plain zarr-python opens it, and half-written videos are not there."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from reelwright.storage import frames as module
from reelwright.storage.errors import StoreError
from reelwright.storage.frames import FrameLayout, FrameStore, FrameWriter, RowTimes

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
