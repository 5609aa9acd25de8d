"""Damage in the middle of a video: it is told wherever it may be seen in a row, and only there."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.readers import installed, open_reader
from reelwright.stages.decode.readers.damage import Damage
from reelwright.stages.decode.readers.pyav import PyavReader
from reelwright.stages.decode.rows import VideoRows
from reelwright.stages.decode.timing.packets import index_of
from reelwright.storage.errors import ItemError

GROUP, NUM_FRAMES, FPS = 12, 48, 10
DAMAGED = 16  # of the second group, 12 to 23


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: videos, whole and damaged in a picture; which frames an MPEG-TS has is known only once it is read."""
    folder = tmp_path_factory.mktemp("damaged")
    found = {}
    for ending in ("mp4", "ts"):
        whole = _write(folder / f"whole.{ending}")
        data = bytearray(whole.read_bytes())
        place, size = _packet(whole, DAMAGED)
        place += size // 2 if ending == "mp4" else 4 * 188 + 20  # behind the header of one of its TS packets
        data[place : place + 100] = bytes(100)  # no picture goes on behind zeros
        found |= {f"whole.{ending}": whole, ending: folder / f"damaged.{ending}"}
        found[ending].write_bytes(bytes(data))
    return found


def _write(path: Path) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"g": str(GROUP), "sc_threshold": "0", "bf": "0", "crf": "10", "x264-params": "scenecut=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(NUM_FRAMES):
            picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


def _packet(path: Path, number: int) -> tuple[int, int]:
    """Where the packet of a frame begins in the file, and how many bytes it has."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return int(packets[number].pos or 0), packets[number].size


def _damage(path: Path, settings: dict[str, Any], backend: str = "pyav") -> str:
    """What is said once all rows were read; "" where nothing is."""
    config = DecodeConfig(**settings)
    reader = open_reader(path, config, backend=backend)
    rows = VideoRows(reader, config)
    try:
        assert sum(len(batch.pictures) for batch in rows.batches(8)) > 0
        rows.check_complete()
    except ItemError as error:
        return f"{error.status}: {error}"
    finally:
        reader.close()
    return ""


ASKED = [  # settings, and whether damage at frame 16 may be seen in the rows
    ({}, True),
    ({"stride": 5}, True),
    ({"times": (0.1, 0.5, 1.1)}, False),
    ({"times": (0.1, 2.0)}, True),
    ({"times": (1.3,)}, False),  # decoding does not come so far
    ({"times": (2.5, 4.0)}, False),
    ({"start": 0.0, "stop": 1.0}, False),
    ({"start": 1.7, "stop": 2.2}, True),
    ({"start": 2.5, "stop": 4.0}, False),
    ({"fps": 2.0, "stop": 1.0}, False),
    ({"fps": 2.0, "stop": 3.0}, True),
]


@pytest.mark.parametrize(("settings", "is_told"), ASKED, ids=str)
@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_damage_is_told_where_it_may_be_seen(
    files: dict[str, Path], settings: dict[str, Any], is_told: bool, ending: str
) -> None:
    assert _damage(files[f"whole.{ending}"], settings) == ""
    found = _damage(files[ending], settings)
    if is_told:
        assert found.startswith("truncated: "), found
        assert "made up by the decoder: 1, the first 16" in found or "cannot be decoded: 1" in found
    else:
        assert found == ""


def test_a_jump_does_not_forget_what_was_met_before_it(tmp_path: Path, files: dict[str, Path]) -> None:
    """A packet that fails is read from the start of the file; frames far behind it are sought after that."""
    path = tmp_path / "a.mkv"
    with av.open(str(files["whole.mp4"])) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None:
                content = b"\xff" * packet.size if number == DAMAGED else bytes(packet)  # there no NAL unit at all
                copy = av.Packet(content)
                copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
                copy.is_keyframe = packet.is_keyframe
                target.mux(copy)
    first = PyavReader(path, index_of(path, digest="", folder=None).doubted())
    assert len(list(first.frames())) == NUM_FRAMES - 1
    assert first.damage.startswith("packets that cannot be decoded: 1, the first after frame 15")
    reader = PyavReader(path, first.index)  # as it is opened another time
    assert [number for number, _ in reader.read([18, 45])] == [18, 45]
    assert reader.damage_met == first.damage
    reader = PyavReader(path, first.index)
    assert [number for number, _ in reader.read([2, 45])] == [2, 45]
    assert reader.damage_met == ""


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_fast_backends_leave_damaged_files_to_pyav(files: dict[str, Path], backend: str) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    assert _damage(files["whole.mp4"], {}, backend) == ""
    found = _damage(files["mp4"], {}, backend)
    assert found.startswith("failed: dropped for this file: what it decodes with says: "), found
    if backend != "decord":  # which decodes ahead of what is asked for, so that it may have met the damage or not
        assert _damage(files["mp4"], {"times": (0.1, 0.5)}, backend) == ""


@pytest.mark.skipif(not installed("torchcodec"), reason="torchcodec is not installed")
def test_fast_backends_listen_to_what_they_decode_with(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader = open_reader(files["mp4"], DecodeConfig(), backend="torchcodec")
    with pytest.raises(ItemError, match="what it decodes with says"):
        deque((os.write(2, b"something else\n") for _ in reader.read(range(DAMAGED + 1))), maxlen=0)
    assert capfd.readouterr().err == "something else\n" * (DAMAGED + 1)  # and nothing of FFmpeg's
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(ItemError, match="without a stderr") as caught:
        next(reader.read([0]))
    assert caught.value.cause == "backend_unsuited"
    reader.close()


def test_groups_that_damage_reaches() -> None:
    keys = [0, 12, 24, 36]
    found = Damage()
    assert (found.text(), found.text_of_asked(keys)) == ("", "")
    found.asked(24)
    found.concealed(13)
    assert found.text().endswith("made up by the decoder: 1, the first 13")
    assert found.text_of_asked(keys) == ""
    found.concealed(36)  # a key frame: those shown before it may be made of it
    assert found.text_of_asked(keys) == found.text()
    late = Damage()
    late.asked(36)
    late.packet(20, num_pictures=19, error="broken")  # its picture is any of those that come out next
    assert late.text() == "packets that cannot be decoded: 1, the first after frame 18: broken"
    assert late.text_of_asked([0, 12, 24, 36]) == ""
    late.packet(21, num_pictures=20, error="broken")
    assert late.text_of_asked([0, 12, 24, 36]) == late.text()
    assert late.text_of_asked([]) == ""  # nothing was asked for from the only start there is
    late.asked(0)
    assert late.text_of_asked([]) == late.text()
