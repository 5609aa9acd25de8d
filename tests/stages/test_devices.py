"""Devices: which one, what it rounds, what its errors mean, and copies in streams of a device that is never early.

There is no GPU where tests run. `SlowCuda` stands for torch.cuda: what is given to one of its streams happens when
somebody waits for it, and not before, so that a wait that is missing shows as wrong numbers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reelwright.stages.base.devices import (
    RING,
    Cuda,
    Download,
    Upload,
    local_gpu,
    out_of_memory,
    pick_device,
    rounded_to_tf32,
)
from reelwright.storage.errors import ConfigError

CPU = torch.device("cpu")


class _Stream:
    def __init__(self):
        self.todo = []

    def wait_event(self, event):
        self.todo.append(event.synchronize)

    def wait_stream(self, stream):
        self.wait_event(stream.event())

    def event(self):
        event = _Event()
        event.record(self)
        return event

    def run(self, until):
        while until and until in self.todo:
            self.todo.pop(0)()


class _Event:
    def __init__(self):
        self._stream, self._mark = None, None

    def record(self, stream):
        self._stream, self._mark = stream, _Mark()
        stream.todo.append(self._mark)

    def synchronize(self):
        if self._stream is not None:
            self._stream.run(self._mark)


class _Mark:
    def __call__(self):
        """Where an event is in a stream: nothing to do."""


class SlowCuda(Cuda):
    """Kernels are what a test puts into `kernels_`."""

    def __init__(self):
        super().__init__(CPU)
        self.kernels_ = _Stream()
        self.kept = []

    def stream(self):
        return _Stream()

    def kernels(self):
        return self.kernels_

    def event(self):
        return _Event()

    def room(self, num_bytes):
        return torch.full((num_bytes,), 251, dtype=torch.uint8)

    def copied(self, source, stream):
        target = torch.full_like(source, 13)
        self.copy(target, source, stream)
        return target

    def copy(self, target, source, stream):
        stream.todo.append(lambda: target.copy_(source))

    def kept_for(self, tensor, stream):
        self.kept.append((tensor.data_ptr(), stream))


def test_what_is_uploaded_is_there_for_the_kernels_and_no_buffer_is_filled_too_early():
    cuda = SlowCuda()
    upload = Upload(CPU, cuda=cuda)
    hosts = [torch.full((size, 3), number, dtype=torch.uint8) for number, size in enumerate((4, 2, 9, 1, 7, 7, 3, 8))]
    seen, found = [], []
    for host in hosts:
        target = upload(host)
        found.append(target)
        cuda.kernels_.todo.append(lambda target=target: seen.append(target.clone()))
        host.zero_()  # the caller may use it for something else at once
    cuda.kernels_.event().synchronize()
    assert [int(value.unique()) for value in seen] == list(range(8))
    assert [tuple(value.shape) for value in seen] == [(size, 3) for size in (4, 2, 9, 1, 7, 7, 3, 8)]
    assert cuda.kept == [(target.data_ptr(), cuda.kernels_) for target in found]


def test_rows_come_as_the_kernels_made_them_whenever_they_are_read():
    cuda = SlowCuda()
    download = Download(CPU, cuda=cuda)
    pending = []
    for number in range(2 * RING + 1):
        rows = torch.zeros(number + 1, 2)
        mask = torch.zeros(number + 1, dtype=torch.bool)
        cuda.kernels_.todo.append(lambda rows=rows, number=number: rows.fill_(number))
        cuda.kernels_.todo.append(lambda mask=mask: mask.fill_(True))
        pending.append(download({"rows": rows, "mask": mask}))
    for number, each in reversed(list(enumerate(pending))):
        found = each.result()
        assert found["rows"].shape == (number + 1, 2)
        assert set(found["rows"].ravel().tolist()) == {number}
        assert found["mask"].all()
        assert each.result() is found


def test_the_device_of_the_tests_shows_a_wait_that_is_missing():
    cuda = SlowCuda()
    rows = torch.zeros(2)
    cuda.kernels_.todo.append(lambda: rows.fill_(5))
    assert rows.sum() == 0
    assert cuda.copied(rows, cuda.stream()).tolist() == [13, 13]


def test_on_a_cpu_nothing_is_copied():
    host = torch.arange(6).reshape(2, 3)
    assert Upload(CPU)(host) is host
    (rows,) = Download(CPU)({"rows": host}).result().values()
    assert np.shares_memory(rows, host.numpy())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), "CUDA out of memory. Tried"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "CUDA error: CUB"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuDNN error"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if"), "cuDNN error"),
        (RuntimeError("GET was unable\nFIND was unable to find an engine to execute this computation"), "GET was"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
         "[enforce fail"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), ""),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ""),
        (ValueError("no"), ""),
    ],
)  # fmt: skip
def test_what_says_that_memory_does_not_suffice(error, said):
    found = out_of_memory(error)
    assert found.startswith(said)
    assert bool(found) == bool(said)
    assert "\n" not in found


@pytest.mark.parametrize(
    ("environment", "number", "wanted"),
    [
        ({}, 4, 0),
        ({"LOCAL_RANK": "2"}, 4, 2),
        ({"LOCAL_RANK": "2"}, 1, 0),  # each process sees the one that is its own
        ({"LOCAL_RANK": "5"}, 4, 1),
        ({"SLURM_LOCALID": "3"}, 4, 3),
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 4, 1),
    ],
)
def test_a_process_has_the_gpu_of_its_place(monkeypatch, environment, number, wanted):
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local_gpu() == wanted
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", wanted)
    assert pick_device("cuda:0") == torch.device("cuda", 0)
    assert pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match=rf"this machine has {number} GPU"):
        pick_device(f"cuda:{number}")


def test_tf32_is_what_is_asked_for_and_as_it_was_afterwards():
    of_matrices, of_convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = of_matrices.allow_tf32, of_convolutions.allow_tf32
    for wanted in (True, False):
        with rounded_to_tf32(torch.device("cuda", 0), is_wanted=wanted):
            assert (of_matrices.allow_tf32, of_convolutions.allow_tf32) == (wanted, wanted)
        assert (of_matrices.allow_tf32, of_convolutions.allow_tf32) == before
    with rounded_to_tf32(CPU, is_wanted=True):
        assert (of_matrices.allow_tf32, of_convolutions.allow_tf32) == before
