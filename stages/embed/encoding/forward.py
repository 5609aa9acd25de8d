"""The forward pass: uint8 batches in, rows as numpy arrays out; layout, precision and out-of-memory are decided here.

Shape letters: B batch, T frames of a clip, H height, W width.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reelwright.models.encoders.base import DataConfig, Encoder
from reelwright.stages.base.devices import Download, Pending, Upload, free_unused, out_of_memory, rounded_to_tf32
from reelwright.stages.embed.encoding.preprocess import Normalise
from reelwright.stages.embed.encoding.runtimes import EAGER, Runtime, sample_frames
from reelwright.stages.embed.encoding.streams import Started, Streams
from reelwright.storage.errors import ConfigError, StageError

Rows = npt.NDArray[Any]

PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a forward pass is done; nothing here is in a key."""

    device: torch.device
    precision: str = "fp32"
    dtype: str = "float16"  # of the rows that come out
    channels_last: bool = False
    compile: bool = False
    batch_size: int = 32


def current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Makes a GPU the current one: streams, pinned memory and compiled kernels are of that, not of a tensor's own.

    Without it an event of `cuda:1` would be recorded on a stream of `cuda:0`, and wait for nothing.
    """
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Computes in ``precision``: by autocast; tf32 and fp32 alike but for how a GPU rounds factors."""
    dtype = PRECISIONS[precision]
    cast = contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
    with rounded_to_tf32(device, is_wanted=precision == "tf32"), cast:
        yield


class Submitted:
    """A batch of rows on its way, in whatever parts it goes through the encoder."""

    def __init__(self, started: Started[list[Pending]], *, num_views: int | None, since: float | None) -> None:
        """``since`` when the machine is at it alone (performance counter); None: beside others."""
        self._started, self._num_views, self._since = started, num_views, since
        self.seconds = 0.0  # that it took of the machine's time, known with the result

    def cancel(self) -> None:
        """Leave it out where it has not begun; nobody asks for its result."""
        self._started.cancel()

    def result(self) -> dict[str, Rows]:
        """Wait for the rows by output, (B, ...) or (B, V, ...) of V views. Raises as `ForwardPass.submit`."""
        found = [part.result() for part in self._started.result()]
        self.seconds = self._started.seconds if self._since is None else time.perf_counter() - self._since
        rows = found[0]
        if len(found) > 1:
            rows = {name: np.concatenate([part[name] for part in found]) for name in rows}
        if self._num_views is None:
            return rows
        return {name: value.reshape(-1, self._num_views, *value.shape[1:]) for name, value in rows.items()}


def set_layout(module: nn.Module, *, channels_last: bool) -> None:
    """Lay out weights of convolutions over pictures and over clips in memory; an encoder of clips may have either."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in layouts:
            layout = layouts[parameter.ndim] if channels_last else torch.contiguous_format
            parameter.data = parameter.data.to(memory_format=layout)


def choose_layout(module: nn.Module, channels_last: bool | None, *, device: torch.device) -> None:
    """The layout of what learns from pictures: channels last where that is set, and where it is not (None) on GPUs."""
    if channels_last or (channels_last is None and device.type == "cuda"):
        set_layout(module, channels_last=True)


class ForwardPass:
    """An encoder on its device, fed with uint8 batches. The batch size halves when memory runs out, and stays there."""

    def __init__(
        self,
        encoder: Encoder,
        config: DataConfig,
        execution: Execution,
        *,
        num_views: int | None = None,
        note: Callable[[str], None] | None = None,
        streams: Streams | None = None,
    ) -> None:
        """Rows are frames or clips; with ``num_views`` so many frames each, (B,V,H,W,3). Without ``streams`` one."""
        self.execution = execution
        self.num_views = num_views
        self.batch_size = execution.batch_size
        self._config = config
        self._encoder = encoder.eval().to(execution.device)
        # also where it is not wanted: the encoder may come out of a pass that had it
        set_layout(self._encoder, channels_last=execution.channels_last)
        self.call: Callable[[Tensor], dict[str, Tensor]] = self._encoder  # of normalised rows; see `sample`
        if execution.compile:
            self.call = torch.compile(self._encoder, dynamic=False)  # it sees batches of one size
        self._runtime: Runtime | None = None
        self.streams = streams or Streams()
        self._normalise = self._normaliser(channels_last=execution.channels_last)
        self._upload, self._download = Upload(execution.device), Download(execution.device)
        self._note = note or (lambda _: None)
        self._halving = threading.Lock()

    def _normaliser(self, *, channels_last: bool) -> Normalise:
        is_alone = self.streams.num == 1
        return Normalise(self._config, device=self.execution.device, channels_last=channels_last, limits=is_alone)

    @property
    def rows_at_once(self) -> int:
        """Rows of a batch; the batch size counts frames where a row has several views."""
        return max(1, self.batch_size // (self.num_views or 1))

    @property
    def runtime(self) -> str:
        """What computes the rows: eager, compiled (`compile: true`), or a name of `runtimes`."""
        return self._runtime.name if self._runtime else "compiled" if self.execution.compile else EAGER

    @property
    def runtime_versions(self) -> dict[str, str]:
        """Of libraries that this runtime uses beside torch."""
        return dict(self._runtime.versions) if self._runtime else {}

    @property
    def row_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of each output, where a runtime was built, which knows them."""
        return self._runtime.shapes if self._runtime else {}

    def sample(self) -> Tensor:
        """A full batch of made-up frames as the encoder is fed; `runtimes` builds and measures with it."""
        frames = sample_frames(self._encoder, self._config, batch_size=self.batch_size)
        with torch.inference_mode():
            return self._normalise(torch.from_numpy(frames).to(self.execution.device)).clone()

    def use(self, runtime: Runtime) -> None:
        """From now on compute with ``runtime``, which was built with `sample`."""
        self._runtime = self.call = runtime
        if runtime.wants_plain_layout:
            self._normalise = self._normaliser(channels_last=False)

    def submit(self, rows: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None = None) -> Submitted:
        """Start the forward pass of frames (B,H,W,3), clips (B,T,H,W,3) or views; it goes in parts when memory ran out.

        ``mask`` (B,T) is False at frames of clips that are padding, which encoders that take a mask are told; None: all
        are real. Raises StageError, here or with the result, when memory does not suffice for a single row.
        """
        if self.num_views is not None:
            rows, mask = rows.reshape(-1, *rows.shape[2:]), None
        since = time.perf_counter() if self.streams.num == 1 else None
        started = self.streams.start(partial(self._parts, rows, mask if self._encoder.takes_mask else None))
        return Submitted(started, num_views=self.num_views, since=since)

    def _parts(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None) -> list[Pending]:
        parts: list[Pending] = []
        start = 0
        while start < len(frames):
            size, problem = self.batch_size, ""
            part = frames[start : start + size]
            try:
                parts.append(self._run(part, None if mask is None else mask[start : start + size], size))
            except RuntimeError as error:
                problem = out_of_memory(error)
                if not problem:
                    raise
            if problem:  # here, where no error holds the tensors of the pass any more
                self._halve(len(part), problem)
            else:
                start += len(part)
        return parts

    def _halve(self, used: int, problem: str) -> None:
        device = self.execution.device
        if used <= 1:
            raise StageError(
                f"memory of {device} does not suffice for one row at a time ({problem}). "
                "Use another device, precision: bf16, or a smaller preprocess.size."
            )
        with self._halving:
            if used <= self.batch_size:  # else a pass beside this one has halved it
                self.batch_size = max(1, used // 2)
                self._note(f"out of memory on {device}: batch size is now {self.batch_size}")
        free_unused(device)

    def _run(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None, size: int) -> Pending:
        num_rows, execution = len(frames), self.execution
        is_one_size = mask is None and (self._runtime is not None or execution.compile)  # of batches that `call` knows
        if is_one_size and num_rows < size:
            frames = np.concatenate([frames, frames[-1:].repeat(size - num_rows, axis=0)])
        host = torch.from_numpy(np.ascontiguousarray(frames))
        with current(execution.device):
            x = self._normalise(self._upload(host))
            with autocast(execution.device, execution.precision):
                outputs = self.call(x) if mask is None else self._encoder(x, self._upload(torch.from_numpy(mask)))
            return self._download(
                {name: tensor[:num_rows].to(DTYPES[execution.dtype]) for name, tensor in outputs.items()}
            )


def row_shapes(encoder: Encoder, config: DataConfig, *, where: str) -> dict[str, tuple[int, ...]]:
    """Shape of one row of each output, from one forward pass on zeros of the size that ``config`` gives.

    Raises ConfigError when the encoder does not take frames of that size or clips of that length.
    """
    clip = (config.clip_length,) if encoder.kind == "video" else ()
    device = next(encoder.parameters()).device
    zeros = torch.zeros(1, 3, *clip, *config.size, device=device)
    try:
        with torch.inference_mode():
            found = encoder.eval()(zeros)
    except (AssertionError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise StageError(f"{where}: memory of {device} does not suffice for one row ({error})") from error
        raise ConfigError(
            f"{where}: the encoder does not take rows of shape {tuple(zeros.shape[1:])} ({error}). "
            "Remove preprocess.size and clip.length, or give model_args the size too (img_size of transformers)."
        ) from error
    return {name: tuple(tensor.shape[1:]) for name, tensor in found.items()}
