"""Pictures of all shapes can be encoded; the same pictures give the same bytes, whatever the run, memory and CPU."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from reelwright.stages.base.video_writer import CODECS, H265, VideoWriter

# Narrow ones, single coding tree units of 32 and 64 pixels, and sides that are no multiple of a macroblock.
SIZES = [(32, 32), (34, 36), (48, 48), (64, 64), (100, 44), (96, 32), (48, 128)]
NUM_RUNS = 20
NUM_PICTURES = {"h264": 20, H265: 6}

# Encodes the pictures of `pictures` and prints their digests. With "plain" no vector instruction is used: FFmpeg's are
# switched off in the library that PyAV has loaded, the encoders' with their own option.
SCRIPT = """
import ctypes, json, pathlib, sys
import av
from reelwright.stages.base import video_writer
sys.path.insert(0, sys.argv[1])
from test_video_writer import SIZES, digests
if sys.argv[2] == "plain":
    maps = pathlib.Path("/proc/self/maps").read_text().split()
    ctypes.CDLL(next(name for name in maps if "libavutil" in name)).av_force_cpu_flags(0)
    for encoder, options, _ in video_writer.CODECS.values():
        options[f"{encoder[3:]}-params"] += ":asm=0"
print(json.dumps(digests(pathlib.Path(sys.argv[3]))))
"""


@cache
def pictures(size: tuple[int, int], number: int) -> list[npt.NDArray[np.uint8]]:
    """Coloured squares that move faster and faster, with noise; (H, W, 3) each."""
    rng = np.random.default_rng(0)
    height, width = size
    ground = rng.integers(0, 200, (height // 4 + 50, width // 4 + 50, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    noise = rng.integers(0, 20, (number, height, width, 1), np.uint8)
    return [ground[i * i // 2 : i * i // 2 + height, 2 * i : 2 * i + width] + noise[i] for i in range(number)]


def write(path: Path, size: tuple[int, int], codec: str) -> str:
    """The SHA-256 of the file that is written."""
    with VideoWriter(path, size=size, fps=10, codec=codec) as writer:
        for picture in pictures(size, NUM_PICTURES[codec]):
            writer.add(picture)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Of every codec and size."""
    return {f"{codec} {size}": write(folder / "x.mp4", size, codec) for codec in CODECS for size in SIZES}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(18, 18), (40, 40), *SIZES], ids=str)
def test_equal_pictures_give_equal_bytes(tmp_path: Path, codec: str, size: tuple[int, int]) -> None:
    """The encoders' fast code may read and write past its buffers here: other bytes each time, or an abort."""
    path = tmp_path / "x.mp4"
    assert len({write(path, size, codec) for _ in range(NUM_RUNS)}) == 1
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    given = pictures(size, NUM_PICTURES[codec])
    assert [picture.shape for picture in shown] == [picture.shape for picture in given]
    assert max(float(np.abs(a.astype(float) - b).mean()) for a, b in zip(shown, given, strict=True)) < 30


def test_bytes_hang_neither_on_what_memory_held_nor_on_the_instructions_of_the_cpu(tmp_path: Path) -> None:
    def elsewhere(instructions: str, fill: int) -> subprocess.Popen[str]:
        folder = tmp_path / instructions
        folder.mkdir()
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), instructions, str(folder)],
            env={**os.environ, "MALLOC_PERTURB_": str(fill)},  # glibc fills new memory with this byte
            stdout=subprocess.PIPE,
            text=True,
        )

    others = [elsewhere("all", 85), elsewhere("plain", 255)]
    here = digests(tmp_path)
    for other in others:
        said, _ = other.communicate()
        assert json.loads(said) == here


@pytest.mark.parametrize(
    ("codec", "size", "message"),
    [
        ("h264", (48, 33), "h264 of 48 x 33 pixels: both sides have to be even, from 2 up"),
        (H265, (16, 48), "h265 of 16 x 48 pixels: both sides have to be even, from 18 up"),
    ],
)
def test_sizes_that_cannot_be_written(tmp_path: Path, codec: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoWriter(tmp_path / "x.mp4", size=size, fps=10, codec=codec)
    assert not list(tmp_path.iterdir())
