"""Memory that a decoding process and its parent share, for large arrays: filled by the one, read in place by the other.

    memory     | in use? 0 1 1 0 ... | slot 0 | slot 1 | slot 2 | ...
    process      writes a free slot, marks it, sends its number over the socket
    parent       reads it there; when the last view of it is gone, the mark is taken away

It has no name, so that nothing is left over whoever is killed: the kernel frees it with the last of the two processes.
Only pages that were written take memory.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_SLOTS = 8  # chunks on their way: two ready, some being resized or waiting for the forward pass
SLOT_BYTES = 1 << 25  # a frame of 8.3 megapixels and more; what is larger goes over the socket
LEAST_BYTES = 1 << 16  # smaller arrays go over the socket
_WAIT_SECONDS = 0.2  # for a slot; then the array goes over the socket, since the parent may keep what it was given
_POLL_SECONDS = 0.001
_HEAD_BYTES = mmap.PAGESIZE


def create() -> int | None:
    """A file descriptor of new memory for `Slots`; None where the system has none without a name."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("reelwright-frames")
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):  # an old kernel, a sandbox
            return None
        raise
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        os.ftruncate(descriptor, _HEAD_BYTES + NUM_SLOTS * SLOT_BYTES)
        stack.pop_all()
    return descriptor


class Slots:
    """The memory behind ``descriptor``, closed here; `put` is of the decoding process, `take` of its parent."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _HEAD_BYTES + NUM_SLOTS * SLOT_BYTES)
        os.close(descriptor)
        self._is_patient = True

    def put(self, parts: Sequence[NDArray[Any]]) -> int | None:
        """Copy contiguous arrays behind each other into a free slot, and its number.

        None where they are to go over the socket.
        """
        num_bytes = sum(part.nbytes for part in parts)
        if not LEAST_BYTES <= num_bytes <= SLOT_BYTES:
            return None
        slot = self._free_slot()
        if slot is not None:
            room, start = self._bytes(slot, num_bytes), 0
            for part in parts:
                np.copyto(room[start : start + part.nbytes].view(part.dtype).reshape(part.shape), part)
                start += part.nbytes
            self._memory[slot] = 1
        return slot

    def take(self, slot: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The array in ``slot``, without a copy; it is free again once no view of the array is left."""
        values = self._bytes(slot, dtype.itemsize * int(np.prod(shape)))
        weakref.finalize(values, self._release, slot).atexit = False
        return values.view(dtype).reshape(shape)

    def _bytes(self, slot: int, count: int) -> NDArray[np.uint8]:
        return np.frombuffer(self._memory, np.uint8, count, _HEAD_BYTES + slot * SLOT_BYTES)

    def _release(self, slot: int) -> None:
        self._memory[slot] = 0

    def _free_slot(self) -> int | None:
        """The first free one (few pages are touched); once waiting was in vain, it waits again only after a success."""
        stop = time.monotonic() + _WAIT_SECONDS
        while (slot := self._memory[:NUM_SLOTS].find(b"\0")) < 0:
            if not self._is_patient or time.monotonic() > stop:
                self._is_patient = False
                return None
            time.sleep(_POLL_SECONDS)
        self._is_patient = True
        return slot
