"""The contract of readers, on every backend that is installed."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from reelwright.pipeline.run.checks import _device
from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.readers import BACKENDS, backend_order, installed, open_reader
from reelwright.stages.decode.readers.pictures import orient
from reelwright.stages.decode.readers.proven import _to_check
from reelwright.stages.decode.readers.pyav import PyavReader
from reelwright.stages.decode.timing.index import FrameIndex
from reelwright.stages.decode.timing.packets import index_of
from reelwright.storage.errors import ConfigError, ItemError, UnusableMachineError


class ReaderContract:
    """What every reader does; subclasses name the backend."""

    backend: str

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        if not installed(self.backend):
            pytest.skip(f"{self.backend} is not installed")

    def read(self, path: Path, frames: list[int]) -> list[tuple[int, int]]:
        reader = open_reader(path, DecodeConfig(), backend=self.backend)
        try:
            return [(number, round(frame.mean() / 4)) for number, frame in reader.read(frames)]
        finally:
            reader.close()
            reader.close()

    @pytest.mark.parametrize(
        "frames",
        [
            pytest.param(list(range(40)), id="all"),
            pytest.param([0, 0, 1, 7, 7, 7, 8, 39], id="repeats-and-gaps"),
            pytest.param([23], id="one-in-the-middle"),
            pytest.param([39], id="last"),
            pytest.param([3, 30, 31], id="far-apart"),
            pytest.param([], id="none"),
        ],
    )
    def test_frames_are_those_asked_for(self, grey_video: Path, frames: list[int]) -> None:
        assert self.read(grey_video, frames) == [(number, number) for number in frames]

    def test_times_are_those_of_the_container(self, uneven_video: Path) -> None:
        reader = open_reader(uneven_video, DecodeConfig(), backend=self.backend)
        assert reader.times is not None
        np.testing.assert_allclose(reader.times.pts_seconds, [0, 0.1, 0.5, 0.6, 1.0], atol=1e-9)
        assert reader.times.end_seconds > 1.0
        reader.close()

    def test_frames_are_upright_rgb_bytes(self, grey_video: Path) -> None:
        reader = open_reader(grey_video, DecodeConfig(), backend=self.backend)
        _, frame = next(iter(reader.read([5])))
        assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)
        reader.close()


class TestPyav(ReaderContract):
    backend = "pyav"


class TestDecord(ReaderContract):
    backend = "decord"


class TestTorchcodec(ReaderContract):
    backend = "torchcodec"


class TestTorchcodecOnTheGpu(ReaderContract):
    """What reads on a GPU, on the CPU: the device alone is another one."""

    backend = "torchcodec-cuda"

    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = pytest.importorskip("reelwright.stages.decode.readers.torchcodec")
        monkeypatch.setattr(module.CudaReader, "_device", lambda _self: "cpu")

    def test_what_the_gpu_does_not_decode_is_left_to_others(
        self, grey_video: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torchcodec.decoders import VideoDecoder

        said = "Fallback status: Falling back due to: Video not supported"
        monkeypatch.setattr(VideoDecoder, "cpu_fallback", property(lambda _: said))
        with pytest.raises(ItemError, match="the GPU does not decode it") as caught:
            open_reader(grey_video, DecodeConfig(), backend=self.backend)
        assert caught.value.cause == "backend_unsuited"
        said = "Fallback status: Falling back due to: NVcuvid unavailable"
        with pytest.raises(UnusableMachineError, match="NVIDIA_DRIVER_CAPABILITIES"):
            open_reader(grey_video, DecodeConfig(), backend=self.backend)

    def test_what_is_known_only_after_a_frame_is_asked_then(
        self, grey_video: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torchcodec.decoders import VideoDecoder

        said = ""
        monkeypatch.setattr(VideoDecoder, "cpu_fallback", property(lambda _: said))
        reader = open_reader(grey_video, DecodeConfig(), backend=self.backend)
        said = "Fallback status: Falling back due to: Unknown reason"
        with pytest.raises(ItemError, match="the GPU does not decode it") as caught:
            next(reader.read([0, 1]))
        assert caught.value.cause == "backend_unsuited"
        reader.close()

    @pytest.mark.parametrize(("shift", "is_refused"), [(3, False), (5, True)])
    def test_colours_may_differ_a_little_and_frames_may_not(
        self, grey_video: Path, monkeypatch: pytest.MonkeyPatch, shift: int, is_refused: bool
    ) -> None:
        module = import_module("reelwright.stages.decode.readers.torchcodec")
        read = module.TorchcodecReader.read

        def shifted(self, numbers):
            for number, frame in read(self, numbers):
                yield number, frame + np.uint8(shift)

        monkeypatch.setattr(module.CudaReader, "read", shifted)
        reader = open_reader(grey_video, DecodeConfig(), backend=self.backend)
        with pytest.raises(ItemError, match="not the one") if is_refused else contextlib.nullcontext():
            assert len(list(reader.read([0, 1, 2]))) == 3
        reader.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is of machines without a GPU")
@pytest.mark.skipif(not installed("torchcodec"), reason="torchcodec is not installed")
def test_without_a_gpu_decoding_on_one_is_refused(grey_video: Path) -> None:
    with pytest.raises(ConfigError, match=r"decodes on a GPU, but torch finds none here\. Set backend"):
        backend_order("torchcodec-cuda")
    with pytest.raises(UnusableMachineError, match="torchcodec-cuda cannot be used here"):
        open_reader(grey_video, DecodeConfig(), backend="torchcodec-cuda")
    node: Any = SimpleNamespace(config=DecodeConfig(backend="torchcodec-cuda"))
    assert [text for text in _device(node) if "this machine has no GPU" in text]
    assert DecodeConfig(backend="torchcodec-cuda").spec() != DecodeConfig(backend="torchcodec").spec()
    assert set(DecodeConfig(backend="torchcodec-cuda").packages(())) == {"torchcodec"}


def cut_off(path: Path, grey_video: Path) -> Path:
    """The first half of the bytes of an MPEG-4 file whose index lies in front."""
    import av

    whole = path.with_name("whole.mp4")
    with av.open(str(grey_video)) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = whole.read_bytes()
    start = data.index(b"mdat")
    path.write_bytes(data[: start + (len(data) - start) // 2])
    return path


@pytest.mark.parametrize(
    ("content", "cause", "match"),
    [
        pytest.param(None, "missing_file", "is not there", id="missing"),
        pytest.param(b"", "empty_file", "0 bytes", id="empty"),
        pytest.param(b"hello world\n" * 20, "not_a_video", "no video that FFmpeg knows", id="text"),
    ],
)
@pytest.mark.parametrize("backend", list(BACKENDS))
def test_what_is_no_video(tmp_path: Path, content: bytes | None, cause: str, match: str, backend: str) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ItemError, match=match) as caught:
        open_reader(path, DecodeConfig(), backend=backend)
    assert caught.value.cause == cause


def test_of_several_video_streams_it_is_told_which_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, width in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for stream in streams:
            picture = av.VideoFrame.from_ndarray(np.full((48, stream.width, 3), 90, np.uint8))
            container.mux([*stream.encode(picture), *stream.encode(None)])
    reader = open_reader(path, DecodeConfig(), backend="pyav")
    ((_, frame),) = reader.read([0])
    place = {64: 0, 128: 1}[frame.shape[1]]
    assert reader.notes[0] == f"the file has 2 video streams; read is stream {place} ({frame.shape[1]} x 48)"
    reader.close()


def test_frames_that_become_smaller_are_as_large_as_the_first(tmp_path: Path) -> None:
    """Wherever reading begins."""
    path, parts = tmp_path / "a.mkv", []
    for width in (64, 32):
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, 48, "yuv420p", Fraction(1, 10)
        encoder.options = {"bf": "0"}
        pictures = [av.VideoFrame.from_ndarray(np.full((48, width, 3), grey, np.uint8)) for grey in range(0, 200, 20)]
        for number, picture in enumerate(pictures):
            picture.pts = number + 10 * len(parts)
        parts.append([packet for picture in [*pictures, None] for packet in encoder.encode(picture)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for packet in (packet for part in parts for packet in part):
            packet.stream = stream
            container.mux(packet)
    for wanted in ([3, 15], [15], list(range(20))):
        reader = open_reader(path, DecodeConfig(), backend="pyav")
        found = list(reader.read(wanted))
        assert [number for number, _ in found] == wanted
        assert {frame.shape for _, frame in found} == {(48, 64, 3)}
        assert [abs(frame.mean() - 20 * (number % 10)) < 3 for number, frame in found] == [True] * len(found)
        note = "frames change their size, from 64 x 48 to 32 x 48 (width x height); all are scaled to that of the first"
        assert reader.notes[-1] == note
        reader.close()
    for backend in ("decord", "torchcodec"):
        for wanted in ([3, 15], [15], [8, 19]):
            with pytest.raises(ItemError, match=r"change their size|is not the one that FFmpeg decodes"):
                list(open_reader(path, DecodeConfig(), backend=backend).read(wanted))
        assert len(list(open_reader(path, DecodeConfig(), backend=backend).read([3, 8]))) == 2


def test_sound_alone_is_no_video_stream(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes(bytes(8000))
    with pytest.raises(ItemError, match="no video stream") as caught:
        open_reader(path, DecodeConfig(), backend="pyav")
    assert caught.value.cause == "no_video_stream"


def test_cut_off_file_keeps_what_is_there(tmp_path: Path, grey_video: Path) -> None:
    reader = open_reader(cut_off(tmp_path / "cut.mp4", grey_video), DecodeConfig(), backend="pyav")
    assert reader.times is None  # the last packet is half a packet: only decoding tells
    present = [shown.number for shown in reader.frames()]
    assert 0 < len(present) < 40
    assert present == list(range(len(present)))
    assert reader.times is not None
    assert len(reader.times.pts_seconds) == len(present)
    assert "its box 'mdat' ends at byte" in reader.damage
    reader.close()
    for backend in ("decord", "torchcodec"):
        with pytest.raises(ItemError, match="not used for this file") as caught:
            open_reader(tmp_path / "cut.mp4", DecodeConfig(), backend=backend)
        assert caught.value.cause == "backend_unsuited"


@pytest.mark.skipif(not installed("decord"), reason="decord is not installed")
def test_narrow_frames_are_left_to_another_backend(tmp_path: Path) -> None:
    # 48 pixels are rows of 144 bytes padded to 192, which decord takes for 4 channels
    path = tmp_path / "narrow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 48, "yuv420p"
        for grey in (20, 200, 100, 50, 150, 70, 30, 40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 48, 3), grey, np.uint8))))
        container.mux(stream.encode(None))
    reader = open_reader(path, DecodeConfig(), backend="decord")
    with pytest.raises(ItemError, match=r"gives frames of shape \(48, 48, 4\)") as caught:
        next(iter(reader.read([0])))
    assert caught.value.cause == "backend_unsuited"
    reader.close()


def test_a_seek_decodes_no_group_before_the_one_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "24", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(72):
            image = np.full((48, 64, 3), 3 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    reader = PyavReader(path, index_of(path, digest="", folder=None))
    decode, decoded = reader._decode, []
    monkeypatch.setattr(
        reader, "_decode", lambda *args, **how: (decoded.append(found) or found for found in decode(*args, **how))
    )
    assert reader.index.key_frames.tolist() == [0, 24, 48]
    ((number, frame),) = reader.read([50])
    reader.close()
    assert (number, len(decoded)) == (50, 3)
    assert abs(int(frame.mean()) - 150) <= 2


def test_what_is_checked_of_a_fast_backend_costs_a_share_of_the_reading(tmp_path: Path) -> None:
    keys = np.array([0, 100])
    index = FrameIndex(key_frames=keys)
    assert _to_check(index, np.arange(160)) == {0, 104}
    assert _to_check(index, np.arange(0, 160, 50)) == {0, 100}
    assert _to_check(index, np.array([7])) == {7}
    assert _to_check(index, np.array([], np.int64)) == set()


def test_backend_order() -> None:
    assert backend_order("pyav")[0] == "pyav"
    assert backend_order("auto")[0] == "pyav"
    assert backend_order("torchcodec")[:2] == ["torchcodec", "pyav"]
    assert "torchcodec" not in backend_order("auto")
    assert backend_order("auto", is_range=True) == ["pyav"]
    assert backend_order("decord", is_range=True)[0] == "decord"


def test_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reelwright.stages.decode.readers.find_spec", lambda name: None if name == "decord" else name)
    assert backend_order("auto") == ["pyav"]
    with pytest.raises(ConfigError, match="backend 'decord' is not installed: pip install decord"):
        backend_order("decord")


# A 2 x 3 frame of numbers, and what it looks like under each matrix (a, b, c, d), by hand.
PICTURE = [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "expected"),
    [
        pytest.param(1, 0, 0, 1, [[1, 2, 3], [4, 5, 6]], id="as-is"),
        pytest.param(0, 1, -1, 0, [[4, 1], [5, 2], [6, 3]], id="quarter-clockwise"),
        pytest.param(-1, 0, 0, -1, [[6, 5, 4], [3, 2, 1]], id="half"),
        pytest.param(0, -1, 1, 0, [[3, 6], [2, 5], [1, 4]], id="quarter-counterclockwise"),
        pytest.param(-1, 0, 0, 1, [[3, 2, 1], [6, 5, 4]], id="mirrored-left-right"),
        pytest.param(1, 0, 0, -1, [[4, 5, 6], [1, 2, 3]], id="mirrored-top-bottom"),
        pytest.param(0, 1, 1, 0, [[1, 4], [2, 5], [3, 6]], id="transposed"),
    ],
)
def test_orient(a: int, b: int, c: int, d: int, expected: list[list[int]]) -> None:
    frame = np.repeat(np.asarray(PICTURE, np.uint8)[:, :, None], 3, axis=2)
    assert orient(frame, (a, b, 0, c, d, 0, 0, 0, 1))[:, :, 0].tolist() == expected
