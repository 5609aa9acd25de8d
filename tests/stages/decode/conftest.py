"""Small real videos, written with PyAV: frame i is one flat grey, 4 x i, so that a frame is known by its pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from reelwright.stages.decode.processes import child
from tests import forks

HEIGHT, WIDTH = 48, 64


def write_video(path: Path, *, ticks: list[int], time_base: Fraction = Fraction(1, 100), gop: int = 5) -> Path:
    """Write one flat frame per tick, at that presentation time, as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def _own_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding processes start as users have them, for tests of how they start and what they import."""
    monkeypatch.setattr(child, "start_process", forks.start_own_decoder)


@pytest.fixture(scope="session")
def grey_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames at 25 frames/s, key frames every five."""
    return write_video(tmp_path_factory.mktemp("grey") / "grey.mp4", ticks=list(range(0, 160, 4)))


@pytest.fixture(scope="session")
def uneven_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames at 0, 0.1, 0.5, 0.6 and 1 s."""
    return write_video(tmp_path_factory.mktemp("uneven") / "uneven.mp4", ticks=[0, 10, 50, 60, 100])
