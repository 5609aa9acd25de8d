"""Read frames with torchcodec (exact seek mode): fast and maintained, needs FFmpeg's shared libraries.

Like decord it is used only for kinds of files for which tests/decode_matrix has shown it to be right (`proven`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.reader import Frame, runs
from reelwright.stages.decode.timing.index import FrameIndex, Indexed
from reelwright.storage.errors import ItemError, UnusableMachineError

_OF_DEVICE = re.compile(r"cuda|nvidia|gpu|device", re.IGNORECASE)


class TorchcodecReader(Indexed):
    """A `Reader` for plain 8-bit files; other formats depend on the FFmpeg release it finds on the machine."""

    backend = "torchcodec"

    def __init__(self, path: Path, index: FrameIndex, *, num_threads: int = 1) -> None:
        import torch
        from torchcodec.decoders import VideoDecoder

        os.environ["TORCHCODEC_FFMPEG_LOG_LEVEL"] = "ERROR"  # `CheckedReader` listens

        torch.set_num_threads(1)
        self.index = index
        self._is_checked = False
        try:
            self._video: Any = VideoDecoder(
                str(path),
                stream_index=index.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                seek_mode="exact",
                device=self._device(),
            )
            self._check_device()
        except (RuntimeError, ValueError) as error:
            if self._device() != "cpu" and _OF_DEVICE.search(str(error)):
                raise UnusableMachineError(
                    f"backend: torchcodec-cuda cannot be used here: {_line(error)}. Install a torchcodec that is built "
                    "for CUDA, set fewer workers where the GPU is full, or set backend: torchcodec"
                ) from None
            raise ItemError("backend_failed", f"cannot open: {_line(error)}") from None
        self.check_count(len(self._video))

    def read(self, source_frames: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """See `Reader.read`."""
        for number, repeats in runs(source_frames):
            try:
                frame = self._video[number].cpu().numpy()
            except (RuntimeError, IndexError) as error:
                raise ItemError("backend_failed", f"at frame {number}: {_line(error)}") from None
            if not self._is_checked:
                self._check_device()  # some releases know only now
                self._is_checked = True
            for _ in range(repeats):
                yield number, frame

    def _device(self) -> str:
        return "cpu"

    def _check_device(self) -> None:
        """Nothing, on a CPU."""

    def close(self) -> None:
        """See `Reader.close`."""
        self._video = None


class CudaReader(TorchcodecReader):
    """The same on this process's GPU; resize and crop are done on the CPU, as for all backends."""

    backend = "torchcodec-cuda"

    def _device(self) -> str:
        from reelwright.stages.base.devices import local_gpu

        return f"cuda:{local_gpu()}"

    def _check_device(self) -> None:
        """Torchcodec decodes on the CPU, without a word, what the GPU does not: that is left to other backends."""
        fallback = getattr(self._video, "cpu_fallback", None)
        if fallback and "unavailable" in str(fallback):
            raise UnusableMachineError(
                f"backend: torchcodec-cuda cannot be used here: {fallback}. The driver's video library is missing (in "
                "containers: NVIDIA_DRIVER_CAPABILITIES=video,compute), or set backend: torchcodec"
            )
        if fallback:
            raise ItemError("backend_unsuited", f"not used for this file: the GPU does not decode it ({fallback})")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
