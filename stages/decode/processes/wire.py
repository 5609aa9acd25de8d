"""Messages between a decoding process and its parent: a JSON header and raw arrays, nothing pickled.

Large arrays lie in memory that both share (`slots`), the others follow the header over the socket.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelwright.stages.decode.processes.slots import Slots

UNUSABLE = "unusable"  # status of a task that found the store, a source or this machine unusable: no video is to blame
STORE, SOURCE, MACHINE = "store", "source", "machine"  # causes of UNUSABLE
NO_BACKEND = "backend_missing"  # cause of failed: the backend's package or one of its libraries is missing here

Arrays = Sequence[NDArray[Any] | list[NDArray[Any]]]  # a list is sent as one array, its entries on top of each other
_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 1 << 26


def send(connection: socket.socket, header: dict[str, Any], arrays: Arrays = (), *, slots: Slots | None = None) -> None:
    """Send plain data and arrays; blocks while the other side does not read (that bounds the memory)."""
    shapes = [_shape(array) for array in arrays]
    packed = [[np.ascontiguousarray(part) for part in _parts(array)] for array in arrays]
    places = [None if slots is None else slots.put(parts) for parts in packed]
    about = [[parts[0].dtype.str, *each] for parts, *each in zip(packed, shapes, places, strict=True)]
    text = json.dumps({"header": header, "arrays": about}).encode()
    connection.sendall(_LENGTH.pack(len(text)) + text)
    for parts, place in zip(packed, places, strict=True):
        for part in parts if place is None else ():
            if part.size:
                connection.sendall(_bytes(part))


def receive(connection: socket.socket, *, slots: Slots | None = None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The next message. Raises EOFError when the other side is gone, TimeoutError after the socket's time limit."""
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    if length > _MAX_HEADER_BYTES:
        raise EOFError(f"a header of {length} bytes: the other side does not speak this protocol")
    message = json.loads(_read(connection, length))
    arrays = []
    for dtype, shape, place in message["arrays"]:
        if place is not None and slots is not None:
            arrays.append(slots.take(place, np.dtype(dtype), tuple(shape)))
            continue
        array = np.empty(shape, np.dtype(dtype))
        if array.size:
            _read_into(connection, _bytes(array))
        arrays.append(array)
    return message["header"], arrays


def _parts(array: NDArray[Any] | list[NDArray[Any]]) -> list[NDArray[Any]]:
    return array if isinstance(array, list) else [array]


def _shape(array: NDArray[Any] | list[NDArray[Any]]) -> tuple[int, ...]:
    """Raises ValueError where the entries of a list have several, or several dtypes."""
    shapes = {part.shape for part in _parts(array)}
    if len(shapes) > 1 or len({part.dtype for part in _parts(array)}) > 1:
        kinds = sorted({f"{part.dtype} {part.shape}" for part in _parts(array)})
        raise ValueError(f"frames of one video are of several kinds: {', '.join(kinds)}")
    return (len(array), *shapes.pop()) if isinstance(array, list) else shapes.pop()


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(array.data).cast("B")


def _read(connection: socket.socket, length: int) -> bytes:
    buffer = bytearray(length)
    _read_into(connection, memoryview(buffer))
    return bytes(buffer)


def _read_into(connection: socket.socket, view: memoryview) -> None:
    while len(view):
        try:
            count = connection.recv_into(view)
        except ConnectionError as error:
            raise EOFError(str(error)) from None
        if count == 0:
            raise EOFError("the other side is gone")
        view = view[count:]
