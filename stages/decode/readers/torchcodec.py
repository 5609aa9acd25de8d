"""Read frames with torchcodec (exact seek mode, CPU): fast and maintained, needs FFmpeg's shared libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.readers.base import Frame, runs
from reelwright.stages.decode.readers.decord import refuse_unsuited
from reelwright.stages.decode.readers.scan import Scan
from reelwright.storage.errors import ItemError


class TorchcodecReader:
    """A `Reader` for plain 8-bit files; other formats depend on the FFmpeg release it finds on the machine."""

    backend = "torchcodec"

    def __init__(self, path: Path, scan: Scan, *, num_threads: int = 1) -> None:
        refuse_unsuited(scan)
        import torch
        from torchcodec.decoders import VideoDecoder

        torch.set_num_threads(1)
        self.pts_seconds = scan.pts_seconds
        self.end_seconds = scan.end_seconds
        self.promised_frames = scan.promised_frames
        try:
            self._video: Any = VideoDecoder(
                str(path),
                stream_index=scan.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise ItemError("backend_failed", f"cannot open: {_line(error)}") from None
        if len(self._video) != len(self.pts_seconds):
            message = f"counts {len(self._video)} frames, the file has {len(self.pts_seconds)}"
            raise ItemError("backend_unsuited", message)

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        for number, repeats in runs(source_frames):
            try:
                frame = self._video[number].numpy()
            except (RuntimeError, IndexError) as error:
                raise ItemError("backend_failed", f"at frame {number}: {_line(error)}") from None
            for _ in range(repeats):
                yield number, frame

    def close(self) -> None:
        """See `Reader.close`."""
        self._video = None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
