"""The frame index: kept by content, learned by decoding, put right where packets were wrong; files that change."""

from __future__ import annotations

import dataclasses
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from reelwright.stages.base.work import VideoItem
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.readers import open_reader
from reelwright.stages.decode.source import Ended, FrameChunk, Opened, stream_frames
from reelwright.stages.decode.timing import index as indexes
from reelwright.stages.decode.timing import packets
from reelwright.stages.decode.timing.index import keep_index, load_index
from reelwright.stages.decode.timing.packets import index_of, read_index
from reelwright.stages.index.audit import INDEX, audit
from reelwright.storage.ledger.digest_cache import Stamp, stamp

GREYS = [6 * number for number in range(40)]


def write(path: Path, *, format: str = "mp4", codec: str = "libx264", aspect: Fraction | None = None) -> Path:  # noqa: A002
    """Forty flat frames, 25 a second, each of its own grey, B-frames between them."""
    with av.open(str(path), "w", format=format) as container:
        quality = {"crf": "1"} if codec == "libx264" else {"b": "20M", "qmin": "1", "qmax": "1"}
        stream = container.add_stream(codec, rate=25, options={**quality, "g": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for grey in GREYS:
            pixels = np.full((48, 64, 3), grey, np.uint8)
            pixels[:8, : 8 + grey // 6] = 255 - grey  # something moves, so that B-frames are used
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def decode(path: Path, *, index: Path | None = None, stamped: Stamp | None = None, **settings: Any) -> tuple[Any, ...]:
    """Greys of the rows, their times, whether only the end told how many there are, and how it ended."""
    item = VideoItem(digest="d", path=str(path), video_id="v", stamp=stamped)
    config = DecodeConfig(**settings)
    events = list(stream_frames([item], decode=config, frames_store=None, geometry=None, workers=1, index=index))
    chunks = [event for event in events if isinstance(event, FrameChunk)]
    opened = [event for event in events if isinstance(event, Opened)]
    ended = events[-1]
    assert isinstance(ended, Ended)
    greys = [round(float(frame[40, 60, 0]) / 6) for chunk in chunks for frame in chunk.frames]
    times = [round(float(time), 3) for chunk in chunks for time in chunk.times.pts_seconds]
    return greys, times, bool(opened and opened[0].is_open), ended


@pytest.mark.parametrize(
    ("name", "format", "codec", "is_open"),
    [
        pytest.param("v.mp4", "mp4", "libx264", False, id="mp4"),
        pytest.param("v.mkv", "matroska", "libx264", False, id="mkv", marks=pytest.mark.slow),
        pytest.param("v.ts", "mpegts", "libx264", True, id="ts"),
        pytest.param("v.avi", "avi", "libx264", True, id="avi", marks=pytest.mark.slow),
        pytest.param("v4.avi", "avi", "mpeg4", True, id="avi-mpeg4", marks=pytest.mark.slow),
        pytest.param("v.mpg", "vob", "mpeg2video", True, id="mpeg-ps", marks=pytest.mark.slow),
    ],
)
def test_rows_are_right_before_and_after_the_index_is_known(
    tmp_path: Path,
    name: str,
    format: str,  # noqa: A002
    codec: str,
    is_open: bool,
) -> None:
    path, folder = write(tmp_path / name, format=format, codec=codec), tmp_path / "index"
    greys, times, was_open, ended = decode(path, index=folder)
    assert (greys, was_open, ended.status) == (list(range(40)), is_open, "ok")
    assert np.allclose(np.diff(times), 0.04, atol=2e-3)
    for settings, rows in (
        ({}, list(range(40))),
        ({"stride": 7}, list(range(0, 40, 7))),
        ({"fps": 5}, list(range(0, 40, 5))),
    ):
        found = decode(path, index=folder, **settings)
        assert (found[0], found[2], found[3].status) == (rows, False, "ok")
        assert found[1] == [times[row] for row in rows]


def test_a_file_is_read_once_for_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.mp4")
    found = index_of(path, digest="abc", folder=tmp_path / "index")
    assert (found.origin, found.num_frames, found.kind) == ("packets", 40, "mp4 h264 yuv420p b-frames")
    monkeypatch.setattr(packets, "read_index", None)
    again = index_of(path, digest="abc", folder=tmp_path / "index")
    assert again.ticks.tolist() == found.ticks.tolist()
    assert dataclasses.replace(again, ticks=found.ticks, key_frames=found.key_frames, key_dts=found.key_dts) == found


@pytest.mark.parametrize("damage", ["cut", "other schema", "no file"])
def test_an_index_that_cannot_be_read_is_made_again(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = write(tmp_path / "v.mp4"), tmp_path / "index"
    keep_index(read_index(path), digest="abc", folder=folder)
    (file,) = folder.rglob("*.npz")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "no file":
        file.unlink()
    else:
        monkeypatch.setattr(indexes, "SCHEMA", indexes.SCHEMA + 1)
    assert load_index("abc", folder=folder) is None
    assert index_of(path, digest="abc", folder=folder).num_frames == 40
    assert load_index("abc", folder=folder) is not None


def test_an_index_that_is_wrong_is_found_out_and_put_right(tmp_path: Path) -> None:
    """As where a packet is no frame: one time too many, in the middle."""
    path, folder = write(tmp_path / "v.mp4"), tmp_path / "index"
    true = read_index(path)
    ticks = np.insert(true.ticks, 20, true.ticks[20] - 1)
    keep_index(dataclasses.replace(true, ticks=ticks, num_packets=41), digest="d", folder=folder)
    greys, _, _, ended = decode(path, index=folder, backend="pyav")
    assert (greys[-40:], ended.status, ended.num_rows) == (list(range(40)), "ok", 40)
    kept = load_index("d", folder=folder)
    assert kept is not None
    assert (kept.origin, kept.ticks.tolist()) == ("decoded", true.ticks.tolist())


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what is read")
def test_a_part_of_a_long_file_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(500):
            pixels = noise.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    folder = tmp_path / "index"
    index_of(path, digest="long", folder=folder)
    before = _bytes_read()
    reader = open_reader(path, DecodeConfig(), backend="pyav", digest="long", index_folder=folder)
    assert len(list(reader.read(range(400, 408)))) == 8
    reader.close()
    assert path.stat().st_size > 4_000_000
    assert _bytes_read() - before < path.stat().st_size / 4


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_file_that_was_replaced_after_its_digest_gives_no_rows(tmp_path: Path) -> None:
    path, other = write(tmp_path / "v.mp4"), write(tmp_path / "w.mkv", format="matroska")
    before = stamp(path)
    shutil.copy(other, path)
    greys, _, _, ended = decode(path, stamped=before)
    assert (greys, ended.status, ended.cause) == ([], "failed", "changed")
    assert "was replaced; run again" in ended.message


def test_a_file_that_was_only_touched_is_read_by_its_content(tmp_path: Path) -> None:
    from reelwright.storage.digests import file_digest

    path = write(tmp_path / "v.mp4")
    before = stamp(path)
    os.utime(path)
    item = VideoItem(digest=file_digest(path), path=str(path), video_id="v", stamp=before)
    events = list(stream_frames([item], decode=DecodeConfig(), frames_store=None, geometry=None, workers=1))
    assert isinstance(events[-1], Ended)
    assert (events[-1].status, events[-1].num_rows) == ("ok", 40)


def test_a_file_that_changes_while_it_is_read_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4")
    item = VideoItem(digest="d", path=str(path), video_id="v")
    events = stream_frames(
        [item], decode=DecodeConfig(), frames_store=None, geometry=None, workers=1, chunk_rows=1
    )  # one row on its way, one ready, the process waits for the third
    while not isinstance(next(events), FrameChunk):
        pass
    os.utime(path)
    ended = list(events)[-1]
    assert isinstance(ended, Ended)
    assert (ended.status, ended.cause) == ("failed", "changed")


@pytest.mark.parametrize(("is_square", "width"), [(False, 64), (True, 96)])
def test_pixels_that_are_not_square(tmp_path: Path, is_square: bool, width: int) -> None:
    path = write(tmp_path / "v.mp4", aspect=Fraction(3, 2))
    assert read_index(path).pixel_aspect == 1.5
    reader = open_reader(path, DecodeConfig(square_pixels=is_square), backend="pyav")
    _, frame = next(iter(reader.read([0])))
    assert frame.shape == (48, width, 3)
    reader.close()


def test_audit_names_who_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "v.ts", format="mpegts")
    found = {compared.backend: compared for compared in audit(path, digest="d", index_folder=tmp_path / "index")}
    assert not found[INDEX].is_wrong
    assert (found["pyav"].is_used, found["pyav"].num_wrong, found["pyav"].refusal) == (True, 0, "")
    if "decord" in found:  # it starts at the second key frame
        assert not found["decord"].is_used
        assert found["decord"].is_wrong or found["decord"].refusal
    wrong = dataclasses.replace(read_index(write(tmp_path / "v.mp4")), ticks=np.arange(40) * 500)
    keep_index(wrong, digest="e", folder=tmp_path / "index")
    (first, *_) = audit(tmp_path / "v.mp4", digest="e", index_folder=tmp_path / "index")
    assert (first.backend, first.num_wrong, first.first_wrong) == (INDEX, 39, 1)
