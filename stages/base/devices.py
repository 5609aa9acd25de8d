"""The device that a setting names: which one, how numbers are rounded on it, how data come and go, when it is full.

Sums of floating-point numbers depend on how many threads add them up, on the kernel that a measurement chose, and on
what else is in a batch. The last is for the stages to see to; the others end here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.storage.errors import ConfigError

RING = 4  # pinned buffers of a direction: so many copies are on their way before one is waited for
_FULL = (  # of messages that are no torch.OutOfMemoryError: libraries that found no room for themselves
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",  # that is what cuDNN says of a workspace that does not fit, too
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "FIND was unable to find an engine to execute this computation",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def pick_device(name: str, *, num_processes: int = 1) -> torch.device:
    """Auto is a GPU where there is one, else the CPU. Raises ConfigError for one not there, or not for each process.

    Of several GPUs, ``auto`` and ``cuda`` are the one that is this process's by its place on the machine (`local_gpu`).
    """
    found = torch.cuda.device_count()
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"device: {name!r} is not known; allowed: auto, cpu, cuda, cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"device: {name!r}, but this machine has {found} GPU(s). Use auto or cpu.")
    if device.type == "cuda" and num_processes > 1 and (device.index is not None or num_processes > found):
        raise ConfigError(
            f"processes: {num_processes} on device: {name!r}, but each takes a GPU of its own and {found} are here. "
            "Use device: auto with as many processes as GPUs, or device: cpu."
        )
    return torch.device("cuda", local_gpu()) if device.type == "cuda" and device.index is None else device


def local_gpu() -> int:
    """The GPU of this process among those it sees (CUDA_VISIBLE_DEVICES): by LOCAL_RANK, or its number among a job's.

    Processes that see one GPU each, as some schedulers arrange it, all have their first.
    """
    place = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return int(place) % max(1, torch.cuda.device_count()) if place.isdecimal() else 0


@contextlib.contextmanager
def rounded_to_tf32(device: torch.device, *, is_wanted: bool) -> Iterator[None]:
    """While the block runs on a GPU: whether factors of fp32 products may be rounded to TF32's 10 bits.

    torch itself rounds those of convolutions and not those of matrices; here fp32 is fp32 unless TF32 is asked for.
    """
    if device.type != "cuda":
        yield
        return
    of_matrices, of_convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = of_matrices.allow_tf32, of_convolutions.allow_tf32
    of_matrices.allow_tf32 = of_convolutions.allow_tf32 = is_wanted
    try:
        yield
    finally:
        of_matrices.allow_tf32, of_convolutions.allow_tf32 = before


def out_of_memory(error: BaseException) -> str:
    """The first line of an error that says that memory does not suffice; "" for any other."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and not any(kind in text for kind in _FULL):
        return ""
    return (text.splitlines() or [""])[0] or type(error).__name__


def free_unused(device: torch.device) -> None:
    """Give memory that no tensor needs back to the GPU. Not inside `except`: an error holds the tensors of its call."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Cuda:
    """What the copies below ask of torch.cuda; tests have another one, whose copies happen as late as they may."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def stream(self) -> Any:
        """A new stream of the device."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def kernels(self) -> Any:
        """The stream in which the kernels run."""
        return torch.cuda.current_stream(self.device)

    def event(self) -> Any:
        """A new event."""
        return torch.cuda.Event()  # type: ignore[no-untyped-call]

    def room(self, num_bytes: int) -> Tensor:
        """So many bytes of the host that the device can read by itself."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def copied(self, source: Tensor, stream: Any) -> Tensor:
        """A copy on the device, made in ``stream``; `kept_for` says who else uses it."""
        with torch.cuda.stream(stream):
            return source.to(self.device, non_blocking=True)

    def copy(self, target: Tensor, source: Tensor, stream: Any) -> None:
        """Fill ``target``, on the host, in ``stream``."""
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)

    def kept_for(self, tensor: Tensor, stream: Any) -> None:
        """Its memory is not given to others before what ``stream`` has to do by now is done."""
        tensor.record_stream(stream)


class _Buffer:
    """Pinned memory that grows with what is put into it, and the event behind the last copy."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self._bytes = cuda, cuda.room(0)
        self.event = cuda.event()
        self.is_used = False
        self.pending: Pending | None = None  # who has not read yet what came

    def like(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Room for tensors of these shapes and dtypes, one behind the other."""
        sizes = [-(-value.numel() * value.element_size() // 64) * 64 for value in tensors.values()]
        if sum(sizes) > len(self._bytes):
            self._bytes = self._cuda.room(sum(sizes))
        found, start = {}, 0
        for (name, value), size in zip(tensors.items(), sizes, strict=True):
            own = self._bytes[start : start + value.numel() * value.element_size()]
            found[name] = own.view(value.dtype).view(value.shape)
            start += size
        return found


class Upload:
    """Copies to a device in a stream of their own, beside the kernels, through pinned buffers that take turns.

    host --memcpy--> pinned buffer --stream of copies--> device; the kernels' stream waits for that copy alone. On a CPU
    tensors are given back as they are.
    """

    def __init__(self, device: torch.device, *, cuda: Cuda | None = None) -> None:
        self.device = device
        self._cuda = cuda or (Cuda(device) if device.type == "cuda" else None)
        self._ring = [] if self._cuda is None else [_Buffer(self._cuda) for _ in range(RING)]
        self._stream = None if self._cuda is None else self._cuda.stream()
        self._turn = 0

    def __call__(self, host: Tensor) -> Tensor:
        """``host`` on the device, for what is given to its kernels from now on; ``host`` may change at once."""
        if self._cuda is None:
            return host
        buffer = self._ring[self._turn]
        self._turn = (self._turn + 1) % RING
        if buffer.is_used:
            buffer.event.synchronize()  # what it held has been read
        pinned = buffer.like({"": host})[""]
        pinned.copy_(host)
        found = self._cuda.copied(pinned, self._stream)
        buffer.event.record(self._stream)
        buffer.is_used = True
        kernels = self._cuda.kernels()
        kernels.wait_event(buffer.event)
        self._cuda.kept_for(found, kernels)
        return found


class Pending:
    """Arrays on their way from a device; `result` waits for them."""

    def __init__(self, tensors: Mapping[str, Tensor], event: Any = None) -> None:
        self._tensors, self._event = dict(tensors), event
        self._found: dict[str, npt.NDArray[Any]] | None = None

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        if self._found is None:
            if self._event is not None:
                self._event.synchronize()
            # Out of the pinned buffer, which the next copies take.
            found = {name: value.numpy() for name, value in self._tensors.items()}
            self._found = found if self._event is None else {name: value.copy() for name, value in found.items()}
            self._tensors = {}
        return self._found


class Download:
    """Copies from a device in a stream of their own, so that the kernels of the next batch do not wait for them.

    The stream waits for the kernels given so far; a buffer whose arrays nobody has read is read before it is used
    again, so any number may be on their way.
    """

    def __init__(self, device: torch.device, *, cuda: Cuda | None = None) -> None:
        self._cuda = cuda or (Cuda(device) if device.type == "cuda" else None)
        self._ring = [] if self._cuda is None else [_Buffer(self._cuda) for _ in range(RING)]
        self._stream: Any = None if self._cuda is None else self._cuda.stream()
        self._turn = 0

    def __call__(self, tensors: Mapping[str, Tensor]) -> Pending:
        """Start the copies of ``tensors``."""
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        if self._cuda is None:
            return Pending(tensors)
        buffer = self._ring[self._turn]
        self._turn = (self._turn + 1) % RING
        if buffer.pending is not None:
            buffer.pending.result()
        targets = buffer.like(tensors)
        self._stream.wait_stream(self._cuda.kernels())
        for name, value in tensors.items():
            self._cuda.copy(targets[name], value, self._stream)
            self._cuda.kept_for(value, self._stream)
        buffer.event.record(self._stream)
        buffer.pending = Pending(targets, buffer.event)
        return buffer.pending


@contextlib.contextmanager
def deterministic_results(is_wanted: bool) -> Iterator[None]:
    """While the block runs: one thread on the CPU, and on a GPU kernels that repeat themselves (where there are such).

    Machines of another kind (instruction set, GPU, version of torch) still give other last bits.
    """
    if not is_wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    threads, is_picked = torch.get_num_threads(), torch.backends.cudnn.benchmark
    is_strict = torch.are_deterministic_algorithms_enabled()
    is_lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(is_strict, warn_only=is_lenient)
        torch.backends.cudnn.benchmark = is_picked
