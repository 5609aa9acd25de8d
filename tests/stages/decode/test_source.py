"""Streams of frames: order, resuming, second backends, and videos that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reelwright.stages.base.work import SilentReporter, VideoItem, Work
from reelwright.stages.datasets.sampling.clips import ClipSampling
from reelwright.stages.datasets.sampling.needed import Needed
from reelwright.stages.datasets.sampling.windows import WindowShape
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.decode.readers import installed
from reelwright.stages.decode.source import Ended, FrameChunk, Opened, Restarted, stream_frames
from reelwright.stages.decode.work import run_items
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.store import Store


def item(path: Path, digest: str | None = None) -> VideoItem:
    return VideoItem(digest=digest or path.stem, path=str(path), video_id=path.stem, duration_seconds=2.0)


def collect(events) -> tuple[dict[str, list[FrameChunk]], dict[str, Ended], list]:
    chunks: dict[str, list[FrameChunk]] = {}
    ends, others = {}, []
    for event in events:
        match event:
            case FrameChunk():
                chunks.setdefault(event.digest, []).append(event)
            case Restarted():
                chunks[event.digest] = []
                others.append(event)
            case Ended():
                ends[event.digest] = event
            case _:
                others.append(event)
    return chunks, ends, others


def greys(chunks: list[FrameChunk]) -> list[int]:
    return [round(frame.mean() / 4) for chunk in chunks for frame in chunk.frames]


@pytest.fixture
def config() -> DecodeConfig:
    return DecodeConfig(fps=12.5, workers=2)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_only_needed_rows_come_with_the_times_of_all(grey_video: Path, backend: str) -> None:
    """Two views of three segments of 40 rows: tick 13.3, at 1/4 and 3/4; key frames lie between them."""
    if not installed(backend):
        pytest.skip(f"{backend} has no wheel for this platform")
    needed = Needed(clips=ClipSampling(kind="segments", shape=WindowShape(length=3)), num_views=2)
    events = stream_frames(
        [item(grey_video)], decode=DecodeConfig(backend=backend), frames_store=None, geometry=None, workers=1,
        chunk_rows=4, needed=needed,
    )  # fmt: skip
    chunks, ends, (opened,) = collect(events)
    wanted = [3, 10, 16, 23, 30, 36]
    assert greys(chunks["grey"]) == wanted
    assert [chunk.start_row for chunk in chunks["grey"]] == [0, 4]
    assert np.concatenate([chunk.times.source_frame for chunk in chunks["grey"]]).tolist() == wanted
    assert opened.num_rows == 40
    assert opened.times.source_frame.tolist() == list(range(40))
    np.testing.assert_allclose(opened.times.pts_seconds, np.arange(40) / 25)
    assert (ends["grey"].status, ends["grey"].backend) == ("ok", backend)


def test_chunks_of_a_video_come_in_order(grey_video: Path, uneven_video: Path, config: DecodeConfig) -> None:
    events = stream_frames(
        [item(grey_video), item(uneven_video)], decode=config, frames_store=None, geometry=None, workers=2, chunk_rows=8
    )
    chunks, ends, opened = collect(events)
    assert greys(chunks["grey"]) == list(range(0, 40, 2))
    assert [chunk.start_row for chunk in chunks["grey"]] == [0, 8, 16]
    assert {type(event) for event in opened} == {Opened}
    assert {event.digest: event.num_rows for event in opened} == {"grey": 20, "uneven": len(greys(chunks["uneven"]))}
    assert {name: (end.status, end.num_rows) for name, end in ends.items()}["grey"] == ("ok", 20)
    first = chunks["grey"][0].times
    np.testing.assert_allclose(first.pts_seconds, np.arange(8) * 0.08)
    np.testing.assert_allclose(first.stop_seconds - first.pts_seconds, 0.04)  # until the next source frame
    assert first.source_frame.tolist() == list(range(0, 16, 2))


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 7, 19])
def test_a_long_video_goes_on_at_a_row(grey_video: Path, config: DecodeConfig, start: int) -> None:
    events = stream_frames(
        [item(grey_video)],
        decode=config, frames_store=None, geometry=None, workers=1, chunk_rows=5, start_rows={"grey": start},
    )  # fmt: skip
    chunks, ends, opened = collect(events)
    assert opened[0].start_row == chunks["grey"][0].start_row == start
    assert greys(chunks["grey"]) == list(range(0, 40, 2))[start:]
    assert ends["grey"].num_rows == 20


def test_rows_before_a_stop_come_from_who_does_not_decode_on_after_it(grey_video: Path, config: DecodeConfig) -> None:
    events = stream_frames(
        [item(grey_video)], decode=config, frames_store=None, geometry=None, workers=1, chunk_rows=5,
        start_rows={"grey": 7}, stop_rows={"grey": 16},
    )  # fmt: skip
    chunks, ends, (opened,) = collect(events)
    assert greys(chunks["grey"]) == list(range(14, 32, 2))
    assert (opened.backend, opened.num_rows, opened.start_row) == ("pyav", 20, 7)
    assert (ends["grey"].status, ends["grey"].num_rows) == ("ok", 16)


def test_geometries_come_one_after_the_other(grey_video: Path) -> None:
    decode = DecodeConfig(stride=10, short_side=24)
    events = stream_frames(
        [item(grey_video)], decode=decode, frames_store=None, geometry=Geometry(size=(16, 20)), workers=1
    )
    chunks, _, _ = collect(events)
    assert chunks["grey"][0].frames.shape == (4, 16, 20, 3)


@pytest.mark.parametrize("resize_with", ["pillow", "torch"])
def test_frames_that_cannot_be_resized_stop_nobody(tmp_path: Path, grey_video: Path, resize_with: str) -> None:
    strip = tmp_path / "strip"
    strip.mkdir()
    for number in range(2):
        Image.fromarray(np.zeros((1, 70, 3), np.uint8)).save(strip / f"{number}.png")
    geometry = Geometry(resize=(32, 32), size=(32, 32), crop="border", resize_with=resize_with)
    events = stream_frames(
        [item(strip), item(grey_video)], decode=DecodeConfig(), frames_store=None, geometry=geometry, workers=1
    )
    chunks, ends, _ = collect(events)
    assert (ends["strip"].status, ends["strip"].cause) == ("failed", "geometry")
    assert "1 x 70 (height x width) would become (0, 32)" in ends["strip"].message
    assert ends[grey_video.stem].status == "ok"
    assert chunks[grey_video.stem][0].frames.shape[1:] == (32, 32, 3)


def bad_files(folder: Path) -> list[VideoItem]:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "images").mkdir()
    return [item(folder / name) for name in ("empty.mp4", "text.mp4", "gone.mp4", "images")]


CAUSES = {"empty": "empty_file", "text": "not_a_video", "gone": "missing_file", "images": "no_frames"}


def test_bad_videos_stop_nobody(tmp_path: Path, grey_video: Path, config: DecodeConfig) -> None:
    items = [*bad_files(tmp_path), item(grey_video)]
    _, ends, _ = collect(stream_frames(items, decode=config, frames_store=None, geometry=None, workers=2))
    assert {name: ends[name].cause for name in CAUSES} == CAUSES
    assert {ends[name].status for name in CAUSES} == {"failed"}
    assert ends["grey"].status == "ok"


def test_too_slow_is_tried_with_every_backend(grey_video: Path) -> None:
    decode = DecodeConfig(backend="auto", timeout_seconds=1e-6)
    _, ends, _ = collect(stream_frames([item(grey_video)], decode=decode, frames_store=None, geometry=None, workers=1))
    assert (ends["grey"].status, ends["grey"].attempts) == ("timeout", 2)
    assert "decord: no end after" in ends["grey"].message
    assert "pyav: no end after" in ends["grey"].message


def test_closing_early_leaves_no_process(grey_video: Path) -> None:
    events = stream_frames([item(grey_video)] * 3, decode=DecodeConfig(), frames_store=None, geometry=None, workers=2)
    next(events)
    events.close()


def work(store: Path, items: list[VideoItem], config: DecodeConfig) -> Work:
    return Work(
        node="frames",
        stage="decode",
        key="k" * 32,
        config=config.model_dump(mode="json"),
        spec=config.spec(),
        store=str(store),
        inputs={},
        items=tuple(items),
    )


class Progress(SilentReporter):
    """Adds up what is reported."""

    done = planned = 0

    def advance(self, amount: int) -> None:
        self.done += amount

    def total(self, amount: int, unit: str, done: int = 0) -> None:
        assert unit == "frames"
        self.planned = amount


@pytest.mark.slow
def test_stored_frames_equal_streamed_ones(tmp_path: Path, grey_video: Path, uneven_video: Path) -> None:
    config, reporter = DecodeConfig(fps=10, short_side=24, workers=2), Progress()
    items = [item(grey_video), item(uneven_video)]
    run_items(work(tmp_path, items, config), reporter)
    store = Store.at(tmp_path)
    frames = FrameStore(store.frames("k" * 32))
    assert frames.digests() == ["grey", "uneven"]
    assert frames.spec == config.spec()
    direct, _, _ = collect(stream_frames(items, decode=config, frames_store=None, geometry=None, workers=1))
    stored, ends, _ = collect(stream_frames(items, decode=config, frames_store=frames.path, geometry=None, workers=1))
    for name in ("grey", "uneven"):
        one, other = (np.concatenate([chunk.frames for chunk in found[name]]) for found in (direct, stored))
        np.testing.assert_array_equal(one, other)
        ours, theirs = (vars(RowTimes.join([chunk.times for chunk in found[name]])) for found in (direct, stored))
        for field, values in ours.items():
            np.testing.assert_array_equal(values, theirs[field])
    assert ends["grey"].backend == "store"
    assert reporter.done == reporter.planned == sum(row.rows for row in reporter.rows) > 0
    assert ItemLedger(store.node("k" * 32)).load() == {row.digest: row for row in reporter.rows}
    assert all(row.bytes > 0 and row.seconds > 0 for row in reporter.rows)


def test_bad_videos_are_rows_of_the_ledger(tmp_path: Path, grey_video: Path) -> None:
    (tmp_path / "bad").mkdir()
    items = [*bad_files(tmp_path / "bad"), item(grey_video)]
    run_items(work(tmp_path, items, DecodeConfig(workers=2)), SilentReporter())
    rows = ItemLedger(Store.at(tmp_path).node("k" * 32)).load()
    assert {name: rows[name].cause for name in CAUSES} == CAUSES
    assert (rows["grey"].status, rows["grey"].rows) == ("ok", 40)
    assert FrameStore(Store.at(tmp_path).frames("k" * 32)).digests() == ["grey"]
