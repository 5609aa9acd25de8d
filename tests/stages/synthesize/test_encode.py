"""Pictures of all shapes can be encoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from reelwright.stages.synthesize.encode import CODECS, write_video


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(16, 16), (40, 40), (34, 36), (100, 44)], ids=str)
def test_narrow_pictures(tmp_path: Path, codec: str, size: tuple[int, int]) -> None:
    """The encoders' fast code may write past its buffers here; that aborts the process."""
    frames = np.random.default_rng(0).integers(0, 255, (5, *size, 3)).astype(np.uint8)
    for _ in range(3):
        write_video(tmp_path / "x.mp4", frames, size=size, fps=10, codec=codec)
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)] == [(*size, 3)] * 5
